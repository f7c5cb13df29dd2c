"""The server of ``kfloop serve``: a new version is loaded there beside the champion, which keeps answering.

Without a running server a private one is started over the same repository and stopped again.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from kfloop.components.deploy.targets.protocol import Verification, differs
from kfloop.errors import KfloopError, ServingError, StateError
from kfloop.serving.endpoint import attach
from kfloop.serving.repository import add_version, policy, policy_path, read_policy, set_policy, set_versions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kfloop.core.sections import DeployConfig
    from kfloop.core.workspace import Workspace
    from kfloop.serving.control import Control

PROTOCOLS = ("http", "grpc")


def policy_now(workspace: Workspace) -> dict[str, Any] | None:
    """What ``served.json`` says; null where there is none, or one that cannot be read: it is written anew from the ledger."""
    try:
        return read_policy(workspace.repository, workspace.loop)
    except StateError:
        return None


class Embedded:
    """kfloop's own server, running or private.

    Args:
        workspace: Places of the loop.
        config: Tolerance and patience.
    """

    def __init__(self, workspace: Workspace, config: DeployConfig) -> None:
        self._workspace, self._config = workspace, config

    def told(self) -> dict[str, Any] | None:
        """What ``served.json`` says: every process of the model follows it."""
        return policy_now(self._workspace)

    def verify(self, version: int, package: Path) -> Verification:
        """Load a version beside the one that answers, and compare its golden answers.

        Raises:
            ServingError: It does not load, or answers wrongly.
            ServerUnavailable: The server went away.
            NoEmbeddedServer: No server is running and none can be started here.
        """
        repository, model = self._workspace.repository, self._workspace.loop
        add_version(repository, model, version, package)
        before = read_policy(repository, model)
        told = before or policy([version], version)
        try:
            beside = None if version in told["versions"] else version
            set_versions(repository, model, told["versions"], told["default"], rollout=told["rollout"], beside=beside)
            with self._server() as (control, where):
                return self._golden(control, version, package, where)
        except BaseException:
            self._restore(before)
            raise

    def serve(self, told: dict[str, Any]) -> None:
        """Write a policy; a running server holds exactly the versions it names."""
        from kfloop.serving.control import Control

        workspace, patience = self._workspace, self._config.timeout_seconds
        default = int(told["default"])
        set_versions(workspace.repository, workspace.loop, told["versions"], default, rollout=told["rollout"])
        endpoint = attach(workspace)
        if endpoint is not None:
            control = Control(endpoint, timeout=patience)
            control.load(workspace.loop)
            control.wait_ready(workspace.loop, default, patience)

    def holds(self, version: int) -> bool:
        """Whether a running server has it loaded."""
        held = read_policy(self._workspace.repository, self._workspace.loop) or {"versions": []}
        return version in held["versions"] and attach(self._workspace) is not None

    def ready(self, version: int) -> bool | None:
        """Whether the policy names the version; a server that starts follows it."""
        return (policy_now(self._workspace) or {}).get("default") == version

    def switch(self, version: int, package: Path) -> bool:
        """Change the policy alone, so that the version answers within milliseconds."""
        from kfloop.serving.control import Control

        workspace, config = self._workspace, self._config
        endpoint = attach(workspace)
        before = read_policy(workspace.repository, workspace.loop)
        if endpoint is None or before is None or version not in before["versions"]:
            return False
        try:
            control = Control(endpoint, timeout=config.timeout_seconds)
            golden = package / "golden.npz"
            if not control.golden(workspace.loop, version, golden, tolerance=config.tolerance).passed:
                return False
        except KfloopError:
            return False  # the ordinary way says what is wrong
        set_policy(workspace.repository, workspace.loop, policy(before["versions"], version))
        return True

    def _restore(self, before: dict[str, Any] | None) -> None:
        """Serve what was served before."""
        if before is not None:
            self.serve(before)
            return
        workspace = self._workspace
        policy_path(workspace.repository, workspace.loop).unlink(missing_ok=True)
        endpoint = attach(workspace)
        if endpoint is not None:
            from kfloop.serving.control import Control

            with contextlib.suppress(KfloopError):  # a server that went away serves nothing either
                Control(endpoint, timeout=self._config.timeout_seconds).unload(workspace.loop)

    @contextlib.contextmanager
    def _server(self) -> Iterator[tuple[Control, str]]:
        from kfloop.serving.control import Control
        from kfloop.serving.server import start_server

        workspace, patience = self._workspace, self._config.timeout_seconds
        endpoint = attach(workspace)
        if endpoint is not None:
            yield Control(endpoint, timeout=patience), "running server"
            return
        log = workspace.kfloop_dir / "triton" / "private.log"
        with start_server(workspace.repository, log, timeout=patience) as server:
            yield Control(server.endpoint, timeout=patience), "private server"

    def _golden(self, control: Control, version: int, package: Path, where: str) -> Verification:
        model, config = self._workspace.loop, self._config
        control.load(model)
        control.wait_ready(model, version, config.timeout_seconds)
        results = [
            control.golden(model, version, package / "golden.npz", tolerance=config.tolerance, protocol=protocol)
            for protocol in PROTOCOLS
        ]
        worst = max(results, key=lambda result: result.max_abs_diff)
        if not all(result.passed for result in results):
            raise ServingError(
                differs(model, version, where, worst.max_abs_diff, worst.tolerance),
                hint="the champion keeps serving; see .kfloop/triton for the server's log",
                version=version,
            )
        return Verification(
            version=version, where=where, n=worst.n, max_abs_diff=worst.max_abs_diff, tolerance=worst.tolerance
        )
