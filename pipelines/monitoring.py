"""The monitoring pipeline: one look at the request log, and the whole training round behind its trigger."""

from kfp import dsl

from kfloop.components.monitor.component import monitor, stand_by
from kfloop.components.notify.component import notify
from kfloop.pipelines.training import training_round


@dsl.pipeline(name="monitoring", description="Monitor; on the trigger 'retrain' run a training round.")
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
            training_round(
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
            )
        with dsl.Else(name="no-retrain"):
            stand_by(workspace=workspace, trigger=look.outputs["Output"]).set_caching_options(enable_caching=False)
