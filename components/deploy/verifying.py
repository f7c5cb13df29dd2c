"""Verifying: a version counts as served only when a real server gave its golden answers, compared by value.

Which server that is says ``deploy.target``; everything else (ledger, aliases, holds, rollback, recovery) is the same for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfloop.components.deploy.targets.embedded import Embedded
from kfloop.components.deploy.targets.protocol import Target, Verification

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.sections import DeployConfig
    from kfloop.core.workspace import Workspace

__all__ = ["Verification", "serve", "target_of", "verify_version"]


def target_of(workspace: Workspace, config: DeployConfig) -> Target:
    """Where the champion is served.

    Raises:
        ConfigError: Nothing here can write to its repository.
    """
    if config.target.kind == "triton":
        from kfloop.components.deploy.targets.triton import ExternalTriton

        return ExternalTriton(workspace, config)
    if config.target.kind == "kserve":
        from kfloop.components.deploy.targets.kserve import KServe

        return KServe(workspace, config)
    return Embedded(workspace, config)


def verify_version(workspace: Workspace, config: DeployConfig, version: int, package: Path) -> Verification:
    """Compare a version's golden answers on the target, beside the one that answers there. On failure everything is as it was before.

    Args:
        workspace: Places of the loop.
        config: Target, tolerance and patience.
        version: Version to verify; added to the loop's own repository when it is not there.
        package: Its package.

    Raises:
        ServingError: It does not load, or answers wrongly.
        ServerUnavailable: The server went away.
        NoEmbeddedServer: No server is running and none can be started here.
    """
    return target_of(workspace, config).verify(version, package)


def serve(workspace: Workspace, config: DeployConfig, told: dict[str, Any]) -> None:
    """Let the target serve what a policy says (see ``serving.repository.policy``)."""
    target_of(workspace, config).serve(told)
