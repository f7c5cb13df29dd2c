"""Retraining on a cluster: the trigger starts ``training`` as a run of its own, so that monitoring goes on while it trains.

One such training run of a loop is at work at a time. Whoever asks again meanwhile, a second monitoring run or one that was cut short before
it heard the server's answer, is told of that run. A training that was cancelled or deleted cannot say that it is over: a round that waits for
it asks the server, so that the next round may retrain. Runs of recurring runs carry no description, so that a scheduled training is not seen.
"""

from typing import Any

from kfp import dsl

from kfloop.components.monitor.component import monitor
from kfloop.components.notify.component import notify
from kfloop.core.cluster import ClusterConfig
from kfloop.core.image import IMAGE
from kfloop.pipelines.cluster.platform import cluster_for_pods


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
    """Start a training round as a run of its own, or find the one at work, and give its id; each argument is JSON, all but the first of a section."""
    import json
    import time

    from kfloop.core.execution import recorded
    from kfloop.core.workspace import Workspace
    from kfloop.pipelines.cluster.starting import start_training

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
        run = start_training(places, cluster_config, sections)
        # The monitor reads both: a training is under way until its record stands in state, and not longer than it may take.
        facts |= {"outcome": run, "until": time.time() + json.loads(cluster_config)["deadline_hours"] * 3600}
        return run


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

    @dsl.pipeline(
        name="monitoring", description="Monitor; on the trigger 'retrain' start a training round as a run of its own."
    )
    def monitoring(
        workspace: str,
        data: str,
        validation: str,
        labels: str,
        train_config: str,
        package_config: str,
        evaluate_config: str,
        bless_config: str,
        gate_config: str,
        deploy_config: str,
        monitor_config: str,
        notify_config: str,
    ) -> None:
        message = notify(workspace=workspace, config_json=notify_config).set_caching_options(enable_caching=False)
        with dsl.ExitHandler(message):
            look = monitor(workspace=workspace, config_json=monitor_config).set_caching_options(enable_caching=False)
            with dsl.If(look.outputs["Output"] == "retrain", name="retrain"):
                submit_training(
                    workspace=workspace,
                    cluster_config=cluster,
                    data=data,
                    validation=validation,
                    labels=labels,
                    train_config=train_config,
                    package_config=package_config,
                    evaluate_config=evaluate_config,
                    bless_config=bless_config,
                    gate_config=gate_config,
                    deploy_config=deploy_config,
                    notify_config=notify_config,
                ).set_caching_options(enable_caching=False)
            with dsl.Else(name="no-retrain"):
                stand_by(
                    workspace=workspace, trigger=look.outputs["Output"], cluster_config=cluster
                ).set_caching_options(enable_caching=False)

    return monitoring
