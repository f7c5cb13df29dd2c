"""Where the running server is: ``.kfloop/serve.json``, written by the supervisor, readable by the owner only."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from kfloop.errors import ServerUnavailable

if TYPE_CHECKING:
    from kfloop.core.workspace import Workspace

KEY_HEADER = "kfloop-key"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A running server.

    Attributes:
        http: ``host:port`` of the HTTP endpoint.
        grpc: ``host:port`` of the gRPC endpoint.
        metrics: ``host:port`` of the Prometheus endpoint.
        key: Secret that opens the control APIs; fresh at each start.
        pid: Process that owns the server.
        started: When that process started: a pid alone may belong to somebody else by now.
        log: Path of the server's log.
        log_socket: Socket of the request log's collector; empty when requests are not logged.
        repository: Model repository the server reads.
    """

    http: str
    grpc: str
    metrics: str
    key: str
    pid: int
    started: float
    log: str
    log_socket: str
    repository: str


def attach(workspace: Workspace) -> Endpoint | None:
    """The loop's running server; null when there is none.

    A file whose process is gone, or whose pid belongs to another process by now, is removed.
    """
    try:
        endpoint = Endpoint(**json.loads(workspace.serve_file.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if process_started(endpoint.pid) != endpoint.started:
        workspace.serve_file.unlink(missing_ok=True)
        return None
    return endpoint


def process_started(pid: int) -> float | None:
    """When a process started, in unix seconds; null when there is no such process."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def require(workspace: Workspace) -> Endpoint:
    """The loop's running server.

    Raises:
        ServerUnavailable: None is running.
    """
    endpoint = attach(workspace)
    if endpoint is None:
        raise ServerUnavailable(f"no server of loop '{workspace.loop}' is running", hint="start one with: kfloop serve")
    return endpoint


def publish(workspace: Workspace, endpoint: Endpoint) -> None:
    """Write the file atomically, mode 0600."""
    staging = workspace.serve_file.with_name(".serve.json.tmp")
    staging.unlink(missing_ok=True)
    descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(asdict(endpoint), stream)
    staging.replace(workspace.serve_file)


def withdraw(workspace: Workspace, pid: int) -> None:
    """Remove the file if it is this process's."""
    endpoint = attach(workspace)
    if endpoint is not None and endpoint.pid == pid:
        workspace.serve_file.unlink(missing_ok=True)
