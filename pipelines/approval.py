"""The approval pipeline: what a person approved, by its evidence digest, to deploy; on a cluster what ``kfloop approve`` is on a laptop."""

from kfp import dsl

from kfloop.components.deploy.component import approve
from kfloop.components.notify.component import notify


@dsl.pipeline(name="approval", description="Promote the challenger of a decision that is on hold.")
def approval(
    workspace: str, evidence: str, actor: str, reason: str, deploy_config: str, gate_config: str, notify_config: str
) -> None:
    """Continue exactly the held evidence to deploy; each argument after ``reason`` is the JSON of a section."""
    message = notify(workspace=workspace, config_json=notify_config).set_caching_options(enable_caching=False)
    with dsl.ExitHandler(message):
        approve(
            workspace=workspace,
            config_json=deploy_config,
            gate_json=gate_config,
            evidence=evidence,
            actor=actor,
            reason=reason,
        ).set_caching_options(enable_caching=False)
