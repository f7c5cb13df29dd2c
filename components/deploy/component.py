"""The KFP shells of ``deploy`` and ``keep``, the two branches of a decision, and of ``approve``, which continues a held one."""

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
        ``promoted``, ``rolling_out`` or ``unchanged``.
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


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def approve(workspace: str, config_json: str, gate_json: str, evidence: str, actor: str, reason: str) -> str:
    """Promote the challenger of a decision on hold. Changes state: switch caching off for this task.

    Args:
        workspace: Places of the loop, as JSON.
        config_json: Section ``deploy`` of the loop file.
        gate_json: Section ``gate`` of the loop file, for how long a hold can be approved.
        evidence: Evidence digest of the decision.
        actor: Who approves.
        reason: Why.

    Returns:
        ``promoted``, ``rolling_out`` or ``unchanged``.
    """
    from kfloop.components.deploy.approval import approve as core
    from kfloop.core.config import parse_section
    from kfloop.core.execution import recorded
    from kfloop.core.workspace import Workspace

    places = Workspace.from_json(workspace)
    with recorded("approve", places) as facts:
        config, gate = parse_section("approve", config_json), parse_section("gate", gate_json)
        done = core(places, evidence, actor=actor, reason=reason, config=config, gate=gate)
        facts |= {"outcome": done.outcome, "reason": done.sentence}
    return done.outcome
