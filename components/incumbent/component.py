"""The KFP shell of ``incumbent``."""

from kfp import dsl

from kfloop.core.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def incumbent(
    workspace: str,
    config_json: str,
    model_digest: str,
    model: dsl.Input[dsl.Model],
    incumbent: dsl.Output[dsl.Artifact],
) -> str:
    """Name the champion. Its answer depends on state: switch caching off for this task.

    Args:
        workspace: Places of the loop, as JSON.
        config_json: Section ``deploy`` of the loop file.
        model_digest: Digest of the challenger's package.
        model: The challenger's package.
        incumbent: Who is champion, and what the monitor asked for this training for.

    Returns:
        Digest of the champion's package, or ``none``, and what tells the cause of this training from another.
    """
    from kfloop.components.incumbent.incumbency import run
    from kfloop.core.execution import execute

    return execute("incumbent", run, workspace, config_json, incumbent, model=model)
