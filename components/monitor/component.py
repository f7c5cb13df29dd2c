"""The KFP shells of ``monitor`` and of ``stand_by``."""

from kfp import dsl

from kfloop.core.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def monitor(workspace: str, config_json: str, evidence: dsl.Output[dsl.Artifact]) -> str:
    """Watch the champion's traffic for one round.

    Args:
        workspace: Places of the loop, as JSON.
        config_json: Section ``monitor`` of the loop file.
        evidence: Report of the round, and samples of the latest requests.

    Returns:
        The trigger.
    """
    from kfloop.components.monitor.monitoring import run
    from kfloop.core.execution import execute

    return execute("monitor", run, workspace, config_json, evidence)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def stand_by(workspace: str, trigger: str) -> str:
    """Stand in the branch that does not retrain, so that it can be seen to have been taken.

    Args:
        workspace: Places of the loop, as JSON.
        trigger: What the monitor concluded.

    Returns:
        The trigger.
    """
    from kfloop.components.monitor.standing import record

    return record(trigger, workspace)
