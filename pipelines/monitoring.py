"""The monitoring pipeline: one look at the request log, and behind its trigger whatever retrains; here the whole training round, nested."""

from collections.abc import Callable
from typing import Any

from kfp import dsl

from kfloop.components.monitor.component import monitor, stand_by
from kfloop.components.notify.component import notify
from kfloop.pipelines.training import training_round


def monitoring_with(retrain: Callable[..., None], otherwise: Callable[..., None], description: str) -> Any:
    """The pipeline ``monitoring``.

    Args:
        retrain: Makes the tasks of the branch that retrains, from ``workspace``, ``notify_config`` and the training round's sections, each by its name.
        otherwise: Makes the task of the branch that does not, from ``workspace`` and ``trigger``.
        description: What the pipeline does, for people.
    """

    @dsl.pipeline(name="monitoring", description=description)
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
        """One monitoring round; each argument after ``workspace`` is the JSON of a section."""
        message = notify(workspace=workspace, config_json=notify_config).set_caching_options(enable_caching=False)
        with dsl.ExitHandler(message):
            look = monitor(workspace=workspace, config_json=monitor_config).set_caching_options(enable_caching=False)
            with dsl.If(look.outputs["Output"] == "retrain", name="retrain"):
                retrain(
                    workspace=workspace,
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
                )
            with dsl.Else(name="no-retrain"):
                otherwise(workspace=workspace, trigger=look.outputs["Output"])

    return monitoring


def _nested(*, notify_config: Any, **sections: Any) -> None:
    """The whole training round within the run, whose own message tells how it ended."""
    del notify_config
    training_round(**sections)


def _stand_by(**told: Any) -> None:
    stand_by(**told).set_caching_options(enable_caching=False)


monitoring = monitoring_with(_nested, _stand_by, "Monitor; on the trigger 'retrain' run a training round.")
