"""Verifying: a version counts as served only when a real server gave its golden answers, compared by value.

With a running server of the loop the version is loaded there beside the champion, which keeps answering. Without one a
private server is started over the same repository and stopped again.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kfloop.errors import ServingError
from kfloop.serving.endpoint import attach
from kfloop.serving.repository import add_version, served, set_versions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kfloop.core.sections import DeployConfig
    from kfloop.core.workspace import Workspace
    from kfloop.serving.control import Control

PROTOCOLS = ("http", "grpc")


@dataclass(frozen=True, kw_only=True)
class Verification:
    """A version that answered rightly.

    Attributes:
        version: The version.
        where: ``running server`` or ``private server``.
        n: Number of golden images.
        max_abs_diff: Largest absolute difference over both protocols.
        tolerance: Largest difference allowed.
    """

    version: int
    where: str
    n: int
    max_abs_diff: float
    tolerance: float


def verify_version(workspace: Workspace, config: DeployConfig, version: int, package: Path) -> Verification:
    """Load a version beside the one that answers, and compare its golden answers.

    On failure the repository and the running server hold what they held before.

    Args:
        workspace: Places of the loop.
        config: Tolerance and patience.
        version: Version to verify; added to the repository when it is not there.
        package: Its package.

    Raises:
        ServingError: It does not load, or answers wrongly.
        ServerUnavailable: The server went away.
        NoEmbeddedServer: No server is running and none can be started here.
    """
    repository, model = workspace.repository, workspace.loop
    add_version(repository, model, version, package)
    default, held = served(repository, model)
    try:
        set_versions(repository, model, sorted({*held, version}), version if default is None else default)
        with _server(workspace, config) as (control, where):
            return _golden(control, config, model, version, package, where)
    except BaseException:
        restore(workspace, config, default, held)
        raise


def restore(workspace: Workspace, config: DeployConfig, default: int | None, held: list[int]) -> None:
    """Serve what was served before."""
    if default is None:
        (workspace.repository / workspace.loop / "served.json").unlink(missing_ok=True)
        return
    serve(workspace, config, default, held)


def serve(workspace: Workspace, config: DeployConfig, default: int, held: list[int]) -> None:
    """Make ``default`` the version that answers; a running server holds exactly ``held``."""
    from kfloop.serving.control import Control

    set_versions(workspace.repository, workspace.loop, held, default)
    endpoint = attach(workspace)
    if endpoint is not None:
        control = Control(endpoint, timeout=config.timeout_seconds)
        control.load(workspace.loop)
        control.wait_ready(workspace.loop, default, config.timeout_seconds)


@contextlib.contextmanager
def _server(workspace: Workspace, config: DeployConfig) -> Iterator[tuple[Control, str]]:
    from kfloop.serving.control import Control
    from kfloop.serving.server import start_server

    endpoint = attach(workspace)
    if endpoint is not None:
        yield Control(endpoint, timeout=config.timeout_seconds), "running server"
        return
    log = workspace.kfloop_dir / "triton" / "private.log"
    with start_server(workspace.repository, log, timeout=config.timeout_seconds) as server:
        yield Control(server.endpoint, timeout=config.timeout_seconds), "private server"


def _golden(
    control: Control, config: DeployConfig, model: str, version: int, package: Path, where: str
) -> Verification:
    control.load(model)
    control.wait_ready(model, version, config.timeout_seconds)
    results = [
        control.golden(model, version, package / "golden.npz", tolerance=config.tolerance, protocol=protocol)
        for protocol in PROTOCOLS
    ]
    worst = max(results, key=lambda result: result.max_abs_diff)
    if not all(result.passed for result in results):
        raise ServingError(
            f"version {version} of model '{model}' answers {worst.max_abs_diff:g} away from its golden answers on the {where}, "
            f"allowed are {worst.tolerance:g}",
            hint="the champion keeps serving; see .kfloop/triton for the server's log",
            version=version,
        )
    return Verification(
        version=version, where=where, n=worst.n, max_abs_diff=worst.max_abs_diff, tolerance=worst.tolerance
    )
