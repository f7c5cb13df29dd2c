"""Starting and stopping one real tritonserver on free loopback ports, with restricted control APIs and a fresh key."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from kfloop.errors import ServingError
from kfloop.serving.endpoint import KEY_HEADER, Endpoint, process_started
from kfloop.serving.runtime import locate

if TYPE_CHECKING:
    from types import TracebackType

    from kfloop.serving.runtime import Runtime

HOST = "127.0.0.1"
RESTRICTED = "model-repository,model-config,shared-memory,trace,logging,statistics"
FORWARDED = "(x-route-key|traceparent)"  # headers that reach the model: whose request it is, and its trace
HTTP_THREADS = 8
GRACE_SECONDS = 8.0
START_SECONDS = 60.0
POLL_SECONDS = 0.05
ATTEMPTS = 3
LOG_SOCKET_VARIABLE = "KFLOOP_LOG_SOCKET"
TOKENS = "MODEL_TOKEN"  # variables of such names hold tokens of external models (train.external.token_env)
NETWORK = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Ports of one server; null means a free one."""

    http: int | None = None
    grpc: int | None = None
    metrics: int | None = None


class Server:
    """A running server, owned by this process through its guard."""

    def __init__(self, guard: subprocess.Popen[bytes], endpoint: Endpoint, folder: Path) -> None:
        self._guard = guard
        self._folder = folder
        self.endpoint = endpoint

    @property
    def pid(self) -> int:
        """Process id of the guard, below which the server and its backends run."""
        return self._guard.pid

    def alive(self) -> bool:
        """Whether the server process is there (not whether it answers)."""
        return self._guard.poll() is None

    def stop(self) -> None:
        """Stop the server and everything it started; safe to call twice."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                self._guard.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.wait(GRACE_SECONDS + 4)
        if self.alive():
            self._guard.kill()  # the kernel then ends the server, and its backends end themselves
            self._guard.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def log_tail(self, lines: int = 30) -> list[str]:
        """The last lines of the server's log."""
        return log_tail(Path(self.endpoint.log), lines)

    def __enter__(self) -> Self:
        """The server itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()


def start_server(
    repository: Path, log: Path, *, ports: Ports | None = None, log_socket: str = "", timeout: float = START_SECONDS
) -> Server:
    """Start a server over ``repository``; models are loaded through its control API afterwards.

    Args:
        repository: Model repository; may be empty.
        log: File the server's log is appended to.
        ports: Wanted ports; free ones where null.
        log_socket: Socket of the request log's collector; empty logs nothing.
        timeout: Longest wait until it is live, in seconds.

    Raises:
        NoEmbeddedServer: The runtime cannot run here or is not installed.
        ServingError: A wanted port is in use, or the server did not come up.
    """
    runtime = locate()
    wanted = ports or Ports()
    for name, port in (("http", wanted.http), ("grpc", wanted.grpc), ("metrics", wanted.metrics)):
        if port is not None and not _is_free(port):
            raise ServingError(
                f"{name} port {port} is in use on {HOST}",
                hint=f"stop the program that holds it (see: ss -ltnp 'sport = :{port}'), or choose another port",
                port=port,
            )
    repository.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    problem = ""
    for _ in range(ATTEMPTS):  # a free port may be taken between the look and the bind
        server = _launch(runtime, repository, log, wanted, log_socket)
        problem = _await_live(server, timeout)
        if not problem:
            return server
        server.stop()
        if not any(word in problem for word in ("in use", "bind", "same address")):
            break
    raise ServingError(f"tritonserver did not come up: {problem}", hint=f"its log is {log}")


def _launch(runtime: Runtime, repository: Path, log: Path, wanted: Ports, log_socket: str) -> Server:
    free = iter(_free_ports(3))
    http, grpc, metrics = (port or next(free) for port in (wanted.http, wanted.grpc, wanted.metrics))
    key = secrets.token_urlsafe(24)
    prefix = f"kfloop_{os.getpid()}_{http}_"
    folder = Path(tempfile.mkdtemp(prefix="kfloop-triton-"))
    command = [
        str(runtime.executable),
        f"--model-repository={repository}",
        f"--backend-directory={runtime.backends}",
        f"--cache-directory={runtime.caches}",
        f"--http-address={HOST}",
        f"--grpc-address={HOST}",
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        f"--metrics-port={metrics}",
        # Event loops for half of the cores, the other half computes: with Triton's eight on two cores a request of a small model takes a third longer.
        f"--http-thread-count={max(1, min(HTTP_THREADS, len(os.sched_getaffinity(0)) // 2))}",
        "--allow-gpu-metrics=false",
        "--model-control-mode=explicit",
        "--exit-on-error=false",
        "--strict-readiness=true",
        "--exit-timeout-secs=5",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        "--backend-config=python,stub-timeout-seconds=30",
        f"--http-header-forward-pattern={FORWARDED}",
        f"--grpc-header-forward-pattern={FORWARDED}",
        f"--http-restricted-api={RESTRICTED}:{KEY_HEADER}={key}",
        f"--grpc-restricted-protocol={RESTRICTED}:{KEY_HEADER}={key}",
    ]
    spec = {
        "owner": os.getpid(),
        "command": command,
        "environment": runtime.environment() | {LOG_SOCKET_VARIABLE: log_socket},
        # By name alone: the guard has the values in its own environment, and a token is never written into a file.
        "inherited": [name for name in os.environ if name.startswith(TOKENS) or name in NETWORK],
        "log": str(log),
        "grace": GRACE_SECONDS,
        "shm_prefix": prefix,
        "folder": str(folder),
        "owners_folder": str(Path(log_socket).parent) if log_socket else "",
    }
    spec_file = folder / "spec.json"
    spec_file.write_text(json.dumps(spec), encoding="utf-8")
    spec_file.chmod(0o600)
    guard = subprocess.Popen(
        [sys.executable, "-S", str(Path(__file__).parent / "guard.py"), str(spec_file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    endpoint = Endpoint(
        http=f"{HOST}:{http}",
        grpc=f"{HOST}:{grpc}",
        metrics=f"{HOST}:{metrics}",
        key=key,
        pid=os.getpid(),
        started=process_started(os.getpid()) or 0.0,
        log=str(log),
        log_socket=log_socket,
        repository=str(repository),
    )
    return Server(guard, endpoint, folder)


def _await_live(server: Server, timeout: float) -> str:
    """Wait until the server answers.

    Returns:
        What went wrong; empty when it is live.
    """
    deadline = time.monotonic() + timeout
    url = f"http://{server.endpoint.http}/v2/health/live"
    while time.monotonic() < deadline:
        if not server.alive():
            return "; ".join(server.log_tail(5)) or "it ended at once"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            if answer.status == 200:  # noqa: PLR2004 - HTTP's own word for fine
                return ""
        time.sleep(POLL_SECONDS)
    return f"it was not live after {timeout:.0f} s"


def log_tail(log: Path, lines: int) -> list[str]:
    """The last lines of a log; none when there is no log."""
    if not log.is_file():
        return []
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_ports(count: int) -> list[int]:
    """Different ones: a port that was looked at and let go of may be given again at once."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
