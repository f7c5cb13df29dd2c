"""The supervisor: owns the server of one loop, keeps it in its last good state, and takes it along when it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.errors import KfloopError, ServerUnavailable, ServingError
from kfloop.serving.collector import Collector
from kfloop.serving.control import Control
from kfloop.serving.endpoint import Endpoint, attach, publish, withdraw
from kfloop.serving.repository import served
from kfloop.serving.server import Ports, Server, log_tail, start_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kfloop.core.workspace import Workspace

LOOK_SECONDS = 0.5
HEALTH_SECONDS = 3.0
LOAD_SECONDS = 60.0
GOLDEN_TOLERANCE = 1e-3
STOP_SECONDS = 30.0
START_SECONDS = 120.0
OWNER_VARIABLE = "KFLOOP_SUPERVISOR_OWNER"


def serve(
    workspace: Workspace,
    *,
    http_port: int | None = None,
    grpc_port: int | None = None,
    ready: Callable[[Endpoint], None] | None = None,
) -> None:
    """Serve the loop's champion until SIGTERM or SIGINT.

    Args:
        workspace: The loop's places.
        http_port: Port for HTTP; a free one when null.
        grpc_port: Port for gRPC; a free one when null.
        ready: Called once, when the champion's golden answers came back right (or there is no champion yet).

    Raises:
        ServingError: Another supervisor serves this loop, a port is in use, or the champion does not come up.
        NoEmbeddedServer: The embedded server cannot run here.
    """
    running = attach(workspace)
    if running is not None:
        raise ServingError(
            f"loop '{workspace.loop}' is served already by process {running.pid} at {running.http}",
            hint="stop it with: kfloop serve --stop",
        )
    with _alone(workspace):
        _serve(workspace, Ports(http=http_port, grpc=grpc_port), ready)


@contextlib.contextmanager
def _alone(workspace: Workspace) -> Iterator[None]:
    """Hold the loop's supervisor lock: of two that start at the same moment one is refused."""
    folder = workspace.kfloop_dir / "triton"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "supervisor.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServingError(
                f"another process is starting to serve loop '{workspace.loop}'", hint="see: kfloop status"
            ) from None
        yield


def _serve(workspace: Workspace, ports: Ports, ready: Callable[[Endpoint], None] | None) -> None:
    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    _follow_owner(stop)
    collector = Collector(workspace.request_log)
    collector.start()
    keeper = _Keeper(workspace, collector.address, ports)
    try:
        endpoint = keeper.start()
        publish(workspace, endpoint)
        if ready is not None:
            ready(endpoint)
        while not stop.wait(LOOK_SECONDS):
            keeper.look()
    finally:
        withdraw(workspace, os.getpid())
        keeper.stop()
        collector.stop()


class _Keeper:
    """Keeps one server in the state that ``served.json`` describes."""

    def __init__(self, workspace: Workspace, log_socket: str, ports: Ports) -> None:
        self._workspace = workspace
        self._log_socket = log_socket
        self._ports = ports
        self._log = workspace.kfloop_dir / "triton" / "server.log"
        self._server: Server | None = None
        self._looked = 0.0
        self._failures = 0

    def start(self) -> Endpoint:
        """Start the server and load what was served last."""
        repository = self._workspace.repository
        server = start_server(repository, self._log, ports=self._ports, log_socket=self._log_socket)
        self._server = server
        http, grpc, metrics = (
            int(address.rsplit(":", 1)[1])
            for address in (server.endpoint.http, server.endpoint.grpc, server.endpoint.metrics)
        )
        self._ports = Ports(http=http, grpc=grpc, metrics=metrics)  # a restarted server is found where it was
        default, _ = served(repository, self._workspace.loop)
        if default is not None:
            self._load(default)
        return server.endpoint

    def look(self) -> None:
        """Bring a dead server, or one whose backend died, back; health endpoints stay green when a backend dies."""
        if self._server is None or not self._server.alive():
            self._restart()
            return
        if time.monotonic() - self._looked < HEALTH_SECONDS:
            return
        self._looked = time.monotonic()
        default, _ = served(self._workspace.repository, self._workspace.loop)
        if default is None or self._golden_passes(default):
            self._failures = 0
            return
        if served(self._workspace.repository, self._workspace.loop)[0] != default:
            return  # a deployment changed the version while we asked
        self._failures += 1
        if self._failures == 1:
            self._reload(default)
        else:
            self._restart()

    def stop(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.stop()

    def _restart(self) -> None:
        self.stop()
        time.sleep(
            min(2.0 ** min(self._failures, 5) * 0.1, 3.0)
        )  # back off: a server that dies at once is not hammered
        self._failures += 1
        try:
            publish(self._workspace, self.start())
        except KfloopError as error:
            sys.stderr.write(f"the server could not be restarted: {error.message}\n")

    def _reload(self, version: int) -> None:
        """Load a version whose backend died again: the server loads only what changed, so the file's time is moved."""
        (self._workspace.repository / self._workspace.loop / str(version) / "model.py").touch()
        try:
            self._load(version)
        except KfloopError as error:
            sys.stderr.write(f"version {version} could not be loaded again: {error.message}\n")

    def _load(self, version: int) -> None:
        if self._server is None:
            raise ServerUnavailable("the server is not running")
        control = Control(self._server.endpoint, timeout=LOAD_SECONDS)
        control.load(self._workspace.loop)
        control.wait_ready(self._workspace.loop, version, LOAD_SECONDS)
        result = control.golden(self._workspace.loop, version, self._golden_file(version), tolerance=GOLDEN_TOLERANCE)
        if not result.passed:
            raise ServingError(
                f"version {version} answers wrongly: golden answers differ by {result.max_abs_diff:.3g}",
                hint="bring another version back with: kfloop rollback",
            )

    def _golden_passes(self, version: int) -> bool:
        if self._server is None:
            return False
        control = Control(self._server.endpoint, timeout=10.0)
        try:
            return control.golden(
                self._workspace.loop, version, self._golden_file(version), tolerance=GOLDEN_TOLERANCE
            ).passed
        except KfloopError:
            return False

    def _golden_file(self, version: int) -> Path:
        return self._workspace.repository / self._workspace.loop / str(version) / "golden.npz"


def stop(workspace: Workspace) -> bool:
    """Stop the loop's supervisor and its server.

    Returns:
        Whether one was running.

    Raises:
        ServingError: It does not end.
    """
    endpoint = attach(workspace)
    if endpoint is None:
        return False
    descriptor = os.pidfd_open(endpoint.pid)
    try:
        os.kill(endpoint.pid, signal.SIGTERM)
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        if not poller.poll(STOP_SECONDS * 1000):
            raise ServingError(f"process {endpoint.pid} does not end", hint=f"look at it, then: kill -9 {endpoint.pid}")
    finally:
        os.close(descriptor)
    return True


def start_background(
    workspace: Workspace,
    *,
    http_port: int | None = None,
    grpc_port: int | None = None,
    tied_to_parent: bool = False,
) -> Endpoint:
    """Start a supervisor in a process of its own, and wait until it serves.

    Args:
        workspace: The loop's places.
        http_port: Port for HTTP; a free one when null.
        grpc_port: Port for gRPC; a free one when null.
        tied_to_parent: End it when this process ends, however that ends.

    Raises:
        ServingError: It did not come up; its own words are in the message.
    """
    if attach(workspace) is not None:
        raise ServingError(f"loop '{workspace.loop}' is served already", hint="stop it with: kfloop serve --stop")
    log = workspace.kfloop_dir / "triton" / "supervisor.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KFLOOP_RUN_")}
    if tied_to_parent:
        environment[OWNER_VARIABLE] = str(os.getpid())
    ports = [str(port or 0) for port in (http_port, grpc_port)]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "kfloop.serving", "supervise", workspace.to_json(), *ports],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        endpoint = attach(workspace)
        if endpoint is not None and endpoint.pid == process.pid:
            return endpoint
        if process.poll() is not None:
            said = " ".join(log_tail(log, 3)).removeprefix("error: ")
            raise ServingError(f"the server did not start: {said}", hint=f"see {log}")
        time.sleep(0.05)
    process.terminate()
    raise ServingError(f"the server was not ready after {START_SECONDS:.0f} s", hint=f"see {log}")


def _follow_owner(stop: threading.Event) -> None:
    """End when the owner named in the environment ends."""
    owner = os.environ.get(OWNER_VARIABLE)
    if not owner:
        return
    descriptor = os.pidfd_open(int(owner))

    def watch() -> None:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        poller.poll()
        stop.set()

    threading.Thread(target=watch, name="kfloop-owner", daemon=True).start()
