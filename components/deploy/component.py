"""The KFP shells of ``deploy`` and ``keep``, the two branches of a decision."""

from kfp import dsl

from kfloop.core.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def deploy(
    workspace: str,
    config_json: str,
    model_digest: str,
    model: dsl.Input[dsl.Model],
    decision: dsl.Input[dsl.Artifact],
    deployment: dsl.Output[dsl.Artifact],
) -> str:
    """Make the challenger champion. Changes state: switch caching off for this task.

    Args:
        workspace: Places of the loop, as JSON.
        config_json: Section ``deploy`` of the loop file.
        model_digest: Digest of the package.
        model: The challenger's package.
        decision: The gate's decision.
        deployment: What was done.

    Returns:
        ``promoted`` or ``unchanged``.
    """
    from kfloop.components.deploy.deployment import run
    from kfloop.core.execution import execute

    return execute("deploy", run, workspace, config_json, deployment, model=model, decision=decision)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def keep(
    workspace: str,
    config_json: str,
    model_digest: str,
    model: dsl.Input[dsl.Model],
    decision: dsl.Input[dsl.Artifact],
    keeping: dsl.Output[dsl.Artifact],
) -> str:
    """Record that the champion stays. Reads state: switch caching off for this task.

    Args:
        workspace: Places of the loop, as JSON.
        config_json: Section ``deploy`` of the loop file.
        model_digest: Digest of the package.
        model: The challenger's package.
        decision: The gate's decision.
        keeping: What was kept, and why.

    Returns:
        ``rejected`` or ``held``.
    """
    from kfloop.components.deploy.keeping import run
    from kfloop.core.execution import execute

    return execute("keep", run, workspace, config_json, keeping, model=model, decision=decision)
