"""Requests a second and latency of kfloop's embedded Triton against its peers, and how soon a rollback answers.

The same graph (probabilities and an embedding), the same client (wrk), one row in a request, its probabilities in the answer, interleaved
rounds, medians:

* kfloop: supervisor, server and request log, as ``kfloop serve`` starts them; and the same without the log.
* FastAPI in uvicorn (uvloop, httptools) with onnxruntime in the event loop, raw bytes, doing the same work: checks, request ids, inputs and
  outputs to Parquet in the background.
* ``mlflow models serve`` (onnx flavor, one worker); it takes no binary tensors, so it gets JSON.
* onnxruntime in a process without a network, as many threads as clients.

    python benchmarks/serving.py             five repeats, about eight minutes
    python benchmarks/serving.py --quick     one short repeat: does it run?

The peers come from ``--peers PYTHON``, or from an environment of their own that is made once in the user's cache. All sides share the machine with
the client, so the ratios count.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from kfloop.components.deploy.verifying import serve, verify_version
from kfloop.components.package.exporting import export_network
from kfloop.components.package.packaging import save_arrays
from kfloop.components.package.proving import eager
from kfloop.core.families.heads import Served
from kfloop.core.scoring import ENCODER, GOLDEN, MODEL
from kfloop.core.sections import DeployConfig
from kfloop.core.signature import Port, Signature, write_signature
from kfloop.core.workspace import Workspace
from kfloop.serving import supervisor
from kfloop.serving.client import predict
from kfloop.serving.control import Control
from kfloop.serving.repository import add_version, policy, set_policy, set_versions
from kfloop.serving.runtime import TRITON_VERSION, default_root
from kfloop.serving.server import start_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kfloop.serving.endpoint import Endpoint

PEERS = Path(__file__).with_name("serving_peers.py")
PEER_PACKAGES = (
    "fastapi==0.165.0",
    "uvicorn[standard]==0.54.0",
    "mlflow==3.17.2",
    "onnxruntime==1.31.1",
    "onnx==1.23.2",
    "pyarrow==25.0.1",
)
CONCURRENCY = (1, 8, 32)
ROLLBACKS = 10
PATIENCE = 120.0
KFLOOP, SILENT, FASTAPI, MLFLOW, SESSION = "kfloop", "kfloop, no log", "FastAPI", "mlflow", "onnxruntime"
TARGETS = [  # model, clients, side, other, least ratio of requests a second
    ("mlp", 32, KFLOOP, FASTAPI, 2.2),
    ("mlp", 32, KFLOOP, MLFLOW, 8.0),
    ("resnet", 8, KFLOOP, SESSION, 0.5),
    ("mlp", 32, KFLOOP, SILENT, 0.95),
    ("resnet", 8, KFLOOP, SILENT, 0.95),
]
ROLLBACK_SECONDS = 0.1
LUA = """\
local file = io.open("{body}", "rb")
wrk.method, wrk.body = "POST", file:read("*all")
file:close()
{headers}
done = function(summary, latency, requests)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format('RESULT {{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d}}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed))
end
"""


class Mlp(nn.Module):
    """20-64-64-3."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, 3)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and embedding."""
        embedding = self.body(rows)
        return self.head(embedding), embedding


class Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside))
        self.second = nn.Sequential(nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside))
        self.around = nn.Identity() if inside == outside else nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """The sum of both ways."""
        return torch.relu(self.second(torch.relu(self.first(image))) + self.around(image))


class ResNet(nn.Module):
    """Eight layers on 3x32x32, 77 thousand parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
        self.head = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and embedding."""
        embedding = self.body(self.stem(image)).mean((2, 3))
        return self.head(embedding), embedding


class Pixels(ResNet):
    """The same, asked for an image as a client has it and as ``kfloop package`` serves it: uint8 [32, 32, 3], scaled in the graph."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and embedding."""
        return super().forward(image.permute(0, 3, 1, 2).float() / 255)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and what it takes."""

    name: str
    network: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int
    dtype: str = "float32"

    def rows(self, n: int, seed: int) -> np.ndarray:
        """Inputs [n, *shape]."""
        rng = np.random.default_rng(seed)
        if self.dtype == "uint8":
            return rng.integers(0, 256, (n, *self.shape), dtype=np.uint8)
        return rng.standard_normal((n, *self.shape)).astype(np.float32)


CASES = (
    Case(name="mlp", network=Mlp, shape=(20,), classes=3),
    Case(name="resnet", network=Pixels, shape=(32, 32, 3), classes=10, dtype="uint8"),
    Case(name="resnet-floats", network=ResNet, shape=(3, 32, 32), classes=10),
)


def package(case: Case, folder: Path, seed: int) -> Path:
    """What ``kfloop package`` would leave, of a network that has learned nothing."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    served = Served(case.network(), "classification").eval()
    rows = case.rows(16, 0)
    answers = eager(served, "classification", (rows,))
    signature = Signature(
        objective="classification",
        modality="array",
        family="mlp",
        inputs=(Port(name="x", dtype=case.dtype, shape=case.shape),),
        outputs=tuple(Port(name=name, dtype="float32", shape=answer.shape[1:]) for name, answer in answers.items()),
        labels=tuple(map(str, range(case.classes))),
        max_batch_size=64,
    )
    export_network(served, signature, (rows[:3],), folder / MODEL)
    write_signature(folder, signature)
    (folder / ENCODER).write_text("{}", encoding="utf-8")
    save_arrays(folder / GOLDEN, {"input.x": rows} | {f"output.{name}": value for name, value in answers.items()})
    (folder / "model.json").write_text(
        json.dumps({"name": "x", "shape": case.shape, "dtype": case.dtype}), encoding="utf-8"
    )
    return folder


@dataclass(kw_only=True)
class Side:
    """Something that answers, and how it is asked.

    Attributes:
        name: As in the table.
        ask: Clients and seconds in, figures out.
        rounds: Figures so far, by number of clients.
    """

    name: str
    ask: Callable[[int, float], dict[str, float]]
    rounds: dict[int, list[dict[str, float]]] = field(default_factory=dict)

    def median(self, clients: int, what: str) -> float:
        """The median over the rounds."""
        return statistics.median(found[what] for found in self.rounds[clients])


def wrk(
    folder: Path, name: str, url: str, body: bytes, headers: dict[str, str]
) -> Callable[[int, float], dict[str, float]]:
    """A way to ask over HTTP, the same for all."""
    (folder / f"{name}.body").write_bytes(body)
    lines = "\n".join(f'wrk.headers["{key}"] = "{value}"' for key, value in headers.items())
    script = folder / f"{name}.lua"
    script.write_text(LUA.format(body=folder / f"{name}.body", headers=lines), encoding="utf-8")

    def ask(clients: int, seconds: float) -> dict[str, float]:
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--timeout", "10s", "-s", str(script), url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return dict(json.loads(said.split("RESULT ", 1)[1].splitlines()[0]))

    return ask


def triton_body(row: np.ndarray) -> tuple[bytes, dict[str, str]]:
    """A request of the V2 protocol with binary tensors both ways."""
    data = np.ascontiguousarray(row).tobytes()
    kind = "UINT8" if row.dtype == np.uint8 else "FP32"
    tensor = {"name": "x", "datatype": kind, "shape": list(row.shape), "parameters": {"binary_data_size": len(data)}}
    wanted = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    return head + data, {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }


@contextlib.contextmanager
def supervised(workspace: Workspace, place: Path) -> Iterator[Endpoint]:
    """What ``kfloop serve`` starts: supervisor, server, request log."""
    endpoint = supervisor.start_background(workspace, tied_to_parent=True)
    try:
        verify_version(workspace, DeployConfig(), 1, place)
        serve(workspace, DeployConfig(), policy([1], 1))
        yield endpoint
    finally:
        supervisor.stop(workspace)


@contextlib.contextmanager
def unlogged(folder: Path, case: Case, place: Path) -> Iterator[Endpoint]:
    """The server without the log."""
    with start_server(folder / "repository", folder / "server.log") as server:
        add_version(folder / "repository", case.name, 1, place)
        set_versions(folder / "repository", case.name, [1], 1)
        control = Control(server.endpoint)
        control.load(case.name)
        control.wait_ready(case.name, 1, PATIENCE)
        yield server.endpoint


@contextlib.contextmanager
def peer(python: str, kind: str, place: Path, health: str) -> Iterator[int]:
    """A peer that serves on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = (place / f"{kind}.log").open("wb")
    process = subprocess.Popen(
        [python, str(PEERS), kind, str(place), str(port)],
        stdout=log,
        stderr=subprocess.STDOUT,
        env=_clean_environment(),
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{health}", timeout=2):
                break
            time.sleep(0.2)
        else:
            raise SystemExit(f"{kind} did not come up:\n{(place / f'{kind}.log').read_text()[-2000:]}")
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


@contextlib.contextmanager
def session(python: str, place: Path) -> Iterator[Callable[[int, float], dict[str, float]]]:
    """The graph in a process without a network."""
    process = subprocess.Popen(
        [python, str(PEERS), "session", str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_clean_environment(),
    )
    asked, answers = process.stdin, process.stdout
    if asked is None or answers is None:
        raise SystemExit("no pipes to the process of onnxruntime")

    def ask(clients: int, seconds: float) -> dict[str, float]:
        asked.write(f"{clients} {seconds}\n")
        asked.flush()
        return dict(json.loads(answers.readline()))

    try:
        yield ask
    finally:
        asked.close()
        process.wait()


def _clean_environment() -> dict[str, str]:
    """Peers do not see our packages."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return kept | {"OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": "", "PYTHONWARNINGS": "ignore"}


@contextlib.contextmanager
def sides_of(case: Case, home: Path, python: str) -> Iterator[tuple[list[Side], Workspace]]:
    """Everything that answers, running."""
    place = package(case, home / "package", 1)
    workspace = Workspace(loop=case.name, root=home / "loop", state="", store="", mlflow="")
    row = case.rows(1, 1)
    body, headers = triton_body(row)
    text = json.dumps({"inputs": {"x": row.tolist()}}).encode()
    with contextlib.ExitStack() as stack:
        logged = stack.enter_context(supervised(workspace, place))
        silent = stack.enter_context(unlogged(home / "silent", case, place))
        raw = stack.enter_context(peer(python, "fastapi", place, "/openapi.json"))
        invocations = stack.enter_context(peer(python, "mlflow", place, "/ping"))
        alone = stack.enter_context(session(python, place))
        path = f"/v2/models/{case.name}/infer"
        asked = {
            KFLOOP: wrk(home, "kfloop", f"http://{logged.http}{path}", body, headers),
            SILENT: wrk(home, "silent", f"http://{silent.http}{path}", body, headers),
            FASTAPI: wrk(home, "fastapi", f"http://127.0.0.1:{raw}/infer", row.tobytes(), {}),
            MLFLOW: wrk(
                home,
                "mlflow",
                f"http://127.0.0.1:{invocations}/invocations",
                text,
                {"Content-Type": "application/json"},
            ),
            SESSION: alone,
        }
        yield [Side(name=name, ask=ask) for name, ask in asked.items()], workspace


def measure(sides: list[Side], repeats: int, seconds: float) -> None:
    """Rounds in which every side has its turn, each round beginning with another one."""
    for side in sides:
        side.ask(8, min(1.0, seconds))
    for repeat in range(repeats):
        for clients in CONCURRENCY:
            for number in range(len(sides)):
                side = sides[(repeat + number) % len(sides)]
                found = side.ask(clients, seconds)
                if found["errors"]:
                    raise SystemExit(f"{side.name}: {found['errors']:.0f} of {found['requests']:.0f} requests failed")
                rate = {"rps": found["requests"] / found["seconds"]}
                side.rounds.setdefault(clients, []).append(found | rate)


def logged_share(workspace: Workspace, sides: list[Side], place: Path) -> dict[str, float]:
    """Share of the measured requests (and those of the warm-up) that are in the logs, in %."""
    import pyarrow.parquet as pq

    time.sleep(3)
    found = {}
    for name, folder in ((KFLOOP, workspace.request_log), (FASTAPI, place / "fastapi-log")):
        (side,) = (side for side in sides if side.name == name)
        sent = sum(row["requests"] for rows in side.rounds.values() for row in rows)
        rows = sum(pq.read_metadata(path).num_rows for path in Path(folder).rglob("*.parquet"))
        found[name] = 100 * rows / sent
    return found


def rollback_seconds(case: Case, home: Path, repeats: int) -> list[float]:
    """From the policy write of a rollback to the first answer of the old version, asked by kfloop's client without a pause."""
    old, new = (package(case, home / name, seed) for name, seed in (("old", 1), ("new", 2)))
    workspace = Workspace(loop=case.name, root=home / "rollback", state="", store="", mlflow="")
    config, row, found = DeployConfig(), np.zeros((1, *case.shape), np.float32), []
    with supervised(workspace, old) as endpoint:
        for _ in range(repeats):
            verify_version(workspace, config, 2, new)
            serve(workspace, config, policy([1, 2], 2))
            answers: list[tuple[float, int]] = []
            over = threading.Event()

            def ask(answers: list[tuple[float, int]] = answers, over: threading.Event = over) -> None:
                while not over.is_set():
                    answers.append((0.0, predict(endpoint, case.name, row).version))
                    answers[-1] = (time.monotonic(), answers[-1][1])

            client = threading.Thread(target=ask)
            client.start()
            time.sleep(0.5)
            before = time.monotonic()
            set_policy(
                workspace.repository, workspace.loop, policy([1, 2], 1)
            )  # what a rollback to a held version writes
            time.sleep(0.5)
            over.set()
            client.join()
            found.append(next(when for when, version in answers if version == 1 and when > before) - before)
    return found


def table(case: Case, sides: list[Side]) -> str:
    """Medians as markdown."""
    heads = [f"{clients} clients: req/s (p50 / p99 ms)" for clients in CONCURRENCY]
    lines = [f"| {case.name} | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for side in sides:
        cells = [
            f"{side.median(clients, 'rps'):,.0f} ({side.median(clients, 'p50_ms'):.2f} / {side.median(clients, 'p99_ms'):.1f})"
            for clients in CONCURRENCY
        ]
        lines.append(f"| {side.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ratio(one: Side, other: Side, clients: int) -> float:
    """Median over the rounds of the ratio within a round: what slows a whole round slows both."""
    pairs = zip(one.rounds[clients], other.rounds[clients], strict=True)
    return statistics.median(left["rps"] / right["rps"] for left, right in pairs)


def judged(case: Case, sides: list[Side]) -> list[str]:
    """The targets that concern this model, with what was found."""
    named = {side.name: side for side in sides}
    lines = []
    for model, clients, one, other, least in TARGETS:
        if model == case.name:
            found = ratio(named[one], named[other], clients)
            word = "met" if found >= least else "MISSED"
            lines.append(f"| {model}, {clients} clients: {one} / {other} | {found:.2f} | at least {least:g} | {word} |")
    return lines


def peers_python(given: str | None) -> str:
    """The Python of the peers' environment, which is made when it is not there."""
    if given:
        return given
    root = default_root().with_name("bench-serving")
    python = root / "bin" / "python"
    if not (root / "finished").is_file():
        shutil.rmtree(root, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(root)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PEER_PACKAGES], check=True)
        (root / "finished").touch()
    return str(python)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each cell (wrk: whole seconds)")
    parser.add_argument("--peers", help="python that has the peers")
    parser.add_argument("--only", choices=[case.name for case in CASES])
    told = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("the client is wrk, and it is not on PATH: apt-get install wrk")
    repeats, seconds = (1, 1.0) if told.quick else (told.repeats, told.seconds)
    python = peers_python(told.peers)
    versions = json.loads(
        subprocess.run([python, str(PEERS), "versions"], capture_output=True, text=True, check=True).stdout
    )
    targets, shares = [], []
    with tempfile.TemporaryDirectory(prefix="kfloop-bench-") as folder:
        for case in CASES:
            if told.only in {None, case.name}:
                home = Path(folder) / case.name
                with sides_of(case, home, python) as (sides, workspace):
                    measure(sides, repeats, seconds)
                    shares.append((case.name, logged_share(workspace, sides, home / "package")))
                print(f"\n{table(case, sides)}", flush=True)
                targets += judged(case, sides)
        found = rollback_seconds(CASES[0], Path(folder) / "back", 2 if told.quick else ROLLBACKS)
    print("\n| target | found | wanted | |\n|---|---|---|---|")
    print("\n".join(targets))
    word = "met" if max(found) <= ROLLBACK_SECONDS else "MISSED"
    worst = f"{statistics.median(found):.3f} s, worst {max(found):.3f} s"
    print(
        f"| first answer of the old version after a rollback's policy write | {worst} | {ROLLBACK_SECONDS} s | {word} |"
    )
    for name, share in shares:
        print(f"\n{name}: in the log are " + ", ".join(f"{value:.1f} % ({side})" for side, value in share.items()))
    machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"
    print(
        f"\n{machine}; tritonserver {TRITON_VERSION}, "
        + ", ".join(f"{name} {value}" for name, value in versions.items())
    )


if __name__ == "__main__":
    main()
