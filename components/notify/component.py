"""The KFP shell of ``notify``, an exit handler."""

from kfp import dsl

from kfloop.core.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def notify(workspace: str, config_json: str, status: dsl.PipelineTaskFinalStatus) -> str:
    """Say how the run ended.

    Args:
        workspace: Places of the loop, as JSON.
        config_json: Section ``notify`` of the loop file.
        status: Final status, filled in by KFP.

    Returns:
        ``failed``, a decision, a trigger, or ``succeeded``.
    """
    from kfloop.components.notify.notification import run
    from kfloop.core.config import parse_section
    from kfloop.core.execution import recorded
    from kfloop.core.workspace import Workspace

    places = Workspace.from_json(workspace)
    with recorded("notify", places):
        error = status.error_message or ""
        return run(parse_section("notify", config_json), workspace=places, status=status.state, error=error).status
