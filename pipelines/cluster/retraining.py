"""Retraining on a cluster: the trigger starts ``training`` as a run of its own, so that monitoring goes on while it trains.

One such training run of a loop is at work at a time. Whoever asks again meanwhile, a second monitoring run or one that was cut short before
it heard the server's answer, is told of that run, and so is whoever asks while a scheduled or a submitted training is at work; that starts nothing and counts
as no attempt. A schedule asks nobody: KFP starts its training also beside a triggered one. A training that was cancelled or deleted cannot say that it is over:
a round that waits for it asks the server, so that the next round may retrain.
"""

from typing import Any

from kfp import dsl

from kfloop.core.cluster import ClusterConfig
from kfloop.core.image import IMAGE
from kfloop.pipelines.cluster.platform import cluster_for_pods
from kfloop.pipelines.monitoring import monitoring_with


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def submit_training(
    workspace: str,
    cluster_config: str,
    data: str,
    validation: str,
    labels: str,
    train_config: str,
    package_config: str,
    evaluate_config: str,
    bless_config: str,
    gate_config: str,
    deploy_config: str,
    notify_config: str,
) -> str:
    """Start a training round as a run of its own, or stand back from the one at work, and give its id; each argument is JSON, all but the first of a section."""
    import json
    import time

    from kfloop.core.execution import recorded
    from kfloop.core.workspace import Workspace
    from kfloop.pipelines.cluster.starting import start_training, tell

    places = Workspace.from_json(workspace)
    sections = {
        "data": data,
        "validation": validation,
        "labels": labels,
        "train_config": train_config,
        "package_config": package_config,
        "evaluate_config": evaluate_config,
        "bless_config": bless_config,
        "gate_config": gate_config,
        "deploy_config": deploy_config,
        "notify_config": notify_config,
    }
    with recorded("submit_training", places) as facts:
        started = start_training(places, cluster_config, sections)
        # The monitor reads it: a training is under way until its record stands in state, and not longer than it may take.
        facts.update(tell(places, started, time.time() + json.loads(cluster_config)["deadline_hours"] * 3600))
        return started.run_id


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def stand_by(workspace: str, trigger: str, cluster_config: str) -> str:
    """Stand in the branch that does not retrain; where the monitor waits for a training, see whether that is over and say so in state."""
    import logging

    from kfloop.components.monitor.standing import record
    from kfloop.core.workspace import Workspace
    from kfloop.errors import KfloopError
    from kfloop.pipelines.cluster.starting import close_ended

    if trigger == "in_flight":
        try:
            close_ended(Workspace.from_json(workspace), cluster_config)
        except KfloopError as error:  # the next round asks again
            logging.getLogger("kfloop").warning("whether the training is over is not known: %s", error)
    return record(trigger, workspace)


def monitoring_for(config: ClusterConfig) -> Any:
    """The pipeline ``monitoring`` whose trigger submits; its parameters are those of the nested form."""
    cluster = cluster_for_pods(config)

    def submitted(**sections: Any) -> None:
        submit_training(cluster_config=cluster, **sections).set_caching_options(enable_caching=False)

    def otherwise(**told: Any) -> None:
        stand_by(cluster_config=cluster, **told).set_caching_options(enable_caching=False)

    return monitoring_with(
        submitted, otherwise, "Monitor; on the trigger 'retrain' start a training round as a run of its own."
    )
