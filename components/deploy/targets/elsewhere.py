"""What the targets share whose server is not kfloop's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfloop.core.state import open_state
from kfloop.core.store import Store
from kfloop.errors import StateError
from kfloop.serving.production_configs import Production

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.sections import TargetConfig
    from kfloop.core.workspace import Workspace


def package_of(workspace: Workspace, version: int) -> tuple[str, Path]:
    """Digest and folder of a version's package, by the ledger.

    Raises:
        StateError: It is not in the store.
    """
    history = open_state(workspace.state).ledger.history(workspace.loop)
    digest = next((row.model_digest for row in reversed(history) if row.version == version and row.model_digest), "")
    return digest, Store.of(workspace).require("models", digest)


def digests_of(workspace: Workspace) -> set[str]:
    """Packages that the ledger knows."""
    return {row.model_digest for row in open_state(workspace.state).ledger.history(workspace.loop) if row.model_digest}


def made_for(target: TargetConfig, loop: str, version: int) -> Production:
    """What a version's set of models is made for."""
    return Production(
        target="gpu" if target.gpus else "cpu",
        gpus=target.gpus or 1,
        instances=target.instances,
        version=version,
        backend=target.backend,
        logs_as=loop,
    )


def refuse_rollout(target: TargetConfig, told: dict[str, Any]) -> None:
    """Refuse a policy that only kfloop's own model can follow.

    Raises:
        StateError: A roll-out goes on that began on the embedded server.
    """
    if told["rollout"]:
        raise StateError(
            f"version {told['rollout']['challenger']} is rolled out as a {told['rollout']['mode']} on kfloop's own server, and deploy.target is now {target.kind}",
            hint="end it first: kfloop rollout --withdraw --reason WHY (or --promote)",
        )
