"""The supervisor: owns the server of one loop (kept in its last good state by ``keeping.py``), its log and its edge, and takes them along when it ends."""

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
from typing import TYPE_CHECKING

from kfloop.errors import KfloopError, ServingError
from kfloop.serving.advancer import Advancer
from kfloop.serving.edge.process import Edge
from kfloop.serving.endpoint import Endpoint, attach, publish, withdraw
from kfloop.serving.keeping import Keeper
from kfloop.serving.options import ServeOptions, open_collector
from kfloop.serving.owning import sole_owner
from kfloop.serving.server import Ports, log_tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kfloop.core.workspace import Workspace

LOOK_SECONDS = 0.5
STOP_SECONDS = 30.0
START_SECONDS = 120.0
OWNER_VARIABLE = "KFLOOP_SUPERVISOR_OWNER"


def serve(
    workspace: Workspace,
    *,
    http_port: int | None = None,
    grpc_port: int | None = None,
    options: ServeOptions | None = None,
    ready: Callable[[Endpoint], None] | None = None,
) -> None:
    """Serve the loop's champion until SIGTERM or SIGINT.

    Args:
        workspace: The loop's places.
        http_port: Port for HTTP; a free one when null.
        grpc_port: Port for gRPC; a free one when null.
        options: What is logged, and whether there is an edge.
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
    with _alone(workspace), sole_owner(workspace.collected):
        _serve(workspace, Ports(http=http_port, grpc=grpc_port), options or ServeOptions(), ready)


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


def _serve(workspace: Workspace, ports: Ports, options: ServeOptions, ready: Callable[[Endpoint], None] | None) -> None:
    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    _follow_owner(stop)
    collector = open_collector(workspace, options.serve.log)
    collector.start()
    edge = Edge(workspace, options)
    keeper = Keeper(workspace, collector.address, ports)
    advancer = Advancer(workspace)
    try:
        endpoint = keeper.start()
        edge.start(endpoint)
        publish(workspace, endpoint)
        if ready is not None:
            ready(endpoint)
        said = ""
        while not stop.wait(LOOK_SECONDS):
            for part in (keeper, advancer, edge):
                try:
                    part.look()
                except (
                    KfloopError,
                    OSError,
                    ValueError,
                ) as error:  # a damaged file must not end the server that answers
                    if str(error) != said:
                        said = str(error)
                        sys.stderr.write(f"the supervisor goes on: {said}\n")
    finally:
        edge.stop()
        withdraw(workspace, os.getpid())
        advancer.stop()
        keeper.stop()
        collector.stop()


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
    options: ServeOptions | None = None,
    tied_to_parent: bool = False,
) -> Endpoint:
    """Start a supervisor in a process of its own, and wait until it serves.

    Args:
        workspace: The loop's places.
        http_port: Port for HTTP; a free one when null.
        grpc_port: Port for gRPC; a free one when null.
        options: What is logged, and whether there is an edge.
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
    told = (options or ServeOptions()).to_json()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "kfloop.serving", "supervise", workspace.to_json(), *ports, told],
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
