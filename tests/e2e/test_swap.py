"""Versions are swapped, broken and killed under traffic: 16 clients compare every answer with the version that it claims."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import psutil
import pytest

from kfloop.components.deploy.verifying import serve, verify_version
from kfloop.core.sections import DeployConfig
from kfloop.core.workspace import Workspace
from kfloop.errors import KfloopError, ServingError
from kfloop.serving import keeping, supervisor
from kfloop.serving.control import Control
from kfloop.serving.endpoint import Endpoint, attach
from kfloop.serving.repository import add_version, policy, served, set_versions
from loading import load

pytestmark = [pytest.mark.triton, pytest.mark.slow]
MODEL = "tiny"
CLIENT = Path(__file__).parent / "swap_client.py"
# ``plain`` is tritonclient without kfloop, and names no version: Triton itself would give its requests to the highest version it holds.
KINDS = [("kfloop", "http"), ("kfloop", "grpc"), ("plain", "http"), ("plain", "grpc")]
SECONDS = 60.0
PLAN = [
    (2, "good"),
    (3, "good"),
    (4, "broken"),
    (5, "good"),
    (6, "lying"),
    (7, "good"),
    (8, "good"),
]
GOOD = [1, *(version for version, kind in PLAN if kind == "good")]
CONFIG = DeployConfig()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    home = tmp_path_factory.mktemp("packages")
    make = load(Path(__file__).parents[1] / "serving" / "conftest.py").make_package
    kinds = {1: "good"} | dict(PLAN)
    return {
        version: make(home / str(version), version, broken=kind == "broken", lying=kind == "lying")
        for version, kind in kinds.items()
    }


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory, packages: dict[int, Path]) -> Path:
    """What each version answers, by onnxruntime in this process; the broken one answers nothing."""
    import onnxruntime

    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 1)).astype(np.uint8)
    found = {"images": images}
    for version, package in packages.items():
        if dict(PLAN).get(version) == "broken":
            continue
        session = onnxruntime.InferenceSession(package / "model.onnx", providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        answers = session.run(names, {"image": images})
        found |= {f"{version}.{name}": answer for name, answer in zip(names, answers, strict=True)}
    embeddings = [value for name, value in found.items() if name.endswith("embedding")]
    for number, value in enumerate(embeddings):  # no answer of one version may pass for another's, in any row
        assert all(np.abs(value - other).max(axis=1).min() > 0.1 for other in embeddings[:number])
    path = tmp_path_factory.mktemp("references") / "references.npz"
    np.savez(path, **found)
    return path


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(loop=MODEL, root=tmp_path_factory.mktemp("loop"), state="", store="", mlflow="")


@pytest.fixture(scope="module")
def endpoint(workspace: Workspace, packages: dict[int, Path]) -> Iterator[Endpoint]:
    """A supervised server that answers with version 1."""
    running = supervisor.start_background(workspace, tied_to_parent=True)
    try:
        verify_version(workspace, CONFIG, 1, packages[1])
        serve(workspace, CONFIG, policy([1], 1))
        yield running
    finally:
        supervisor.stop(workspace)


@dataclass
class Traffic:
    """Clients of every kind in processes of their own, while the ``with`` block lasts; then what they saw."""

    workspace: Workspace
    references: Path
    folder: Path
    threads: int
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> Self:
        for kind, protocol in KINDS:
            spec = self.folder / f"{kind}-{protocol}.json"
            told = {
                "serve_file": str(self.workspace.serve_file),
                "references": str(self.references),
                "model": MODEL,
                "kind": kind,
                "protocol": protocol,
                "threads": self.threads,
                "out": str(spec.with_suffix(".npz")),
            }
            spec.write_text(json.dumps(told))
            self._running.append(subprocess.Popen([sys.executable, str(CLIENT), str(spec)], stdin=subprocess.PIPE))
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for process in self._running:
            assert process.stdin is not None
            process.stdin.close()
        for process, (client, protocol) in zip(self._running, KINDS, strict=True):
            try:
                process.wait(60)
            finally:
                process.kill()
            if kind is None:
                with np.load(self.folder / f"{client}-{protocol}.npz") as arrays:
                    self.parts.append(dict(arrays))

    def all(self, name: str) -> np.ndarray:
        """One column over all clients."""
        return np.concatenate([part[name] for part in self.parts])

    @property
    def said(self) -> list[str]:
        """What the first failures said."""
        return sorted({str(said) for part in self.parts for said in part["said"]} - {""})


def test_sixteen_clients_lose_nothing_while_five_versions_are_swapped_in_and_two_are_refused(
    endpoint: Endpoint, workspace: Workspace, packages: dict[int, Path], references: Path, tmp_path: Path
) -> None:
    verified, refused = {1: 0.0}, {}
    with Traffic(workspace, references, tmp_path, threads=4) as traffic:
        started, champion = time.monotonic(), 1
        for number, (version, _) in enumerate(PLAN):
            time.sleep(max(0.0, started + (number + 0.5) * SECONDS / len(PLAN) - time.monotonic()))
            try:
                verify_version(workspace, CONFIG, version, packages[version])
            except ServingError as error:
                refused[version] = error.message
                assert served(workspace.repository, MODEL)[0] == champion
                continue
            verified[version] = time.monotonic()
            serve(workspace, CONFIG, policy([champion, version], version))
            champion = version
        time.sleep(max(0.0, started + SECONDS - time.monotonic()))
    version, ended = traffic.all("version"), traffic.all("ended")
    assert traffic.said == []
    assert (version > 0).all()
    assert traffic.all("right").all()
    assert set(version.tolist()) == set(GOOD)  # each was answered with, and none of the refused ones ever
    early = {number: when - ended[version == number].min() for number, when in verified.items()}
    assert max(early.values()) < 0  # no answer of a version before it was verified
    assert sorted(refused) == [number for number, kind in PLAN if kind != "good"]
    assert "load" in refused[4]
    assert "away from its golden answers" in refused[6]
    assert all(len(part["version"]) > 100 for part in traffic.parts)
    p50, p99, longest = np.percentile(1e3 * (ended - traffic.all("started")), (50, 99, 100))
    tell(
        f"{len(version)} answers, none failed or wrong; p50 {p50:.0f}, p99 {p99:.0f}, longest {longest:.0f} ms; refused: {sorted(refused)}"
    )


def tell(figures: str) -> None:
    """Figures for who runs this with ``-s``; nothing is asserted about speed."""
    print(f"\n{figures}")  # noqa: T201


def killed(
    workspace: Workspace, references: Path, folder: Path, kill: Callable[[], None], patience: float = 40.0
) -> tuple[Traffic, float]:
    """Traffic while something is killed, until all kinds of clients have right answers again; and when it was killed."""
    with Traffic(workspace, references, folder, threads=1) as traffic:
        time.sleep(4)
        kill()
        when = time.monotonic()
        time.sleep(1.5)
        deadline = when + patience
        while not answers(workspace) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(3)
    return traffic, when


def answers(workspace: Workspace) -> bool:
    """Whether the version in force gives its golden answers now."""
    running, (default, _) = attach(workspace), served(workspace.repository, MODEL)
    if running is None or default is None:
        return False
    try:
        golden = workspace.repository / MODEL / str(default) / "golden.npz"
        return Control(running, timeout=5).golden(MODEL, default, golden, tolerance=1e-3).passed
    except KfloopError:
        return False


def check_recovery(traffic: Traffic, when: float, what: str) -> None:
    """Failures are counted and over, no answer is wrong, and every kind of client is answered again."""
    version, right, started, ended = (traffic.all(name) for name in ("version", "right", "started", "ended"))
    assert right[version > 0].all()
    failed = ended[version == 0]
    assert len(failed) > 0
    assert failed.min() > when - 0.1
    assert all((part["started"][part["right"]] > failed.max()).any() for part in traffic.parts)
    first = ended[right & (started > failed.min())].min() - when
    last = failed.max() - when
    tell(f"{what}: {len(failed)} failed; first right answer after {first:.1f} s, last failure after {last:.1f} s")


def family(workspace: Workspace, name: str) -> list[psutil.Process]:
    """The supervisor's living processes of that name; the server leaves dead backends unburied."""
    running = attach(workspace)
    assert running is not None
    below = psutil.Process(running.pid).children(recursive=True)
    return [child for child in below if child.name().startswith(name) and child.status() != psutil.STATUS_ZOMBIE]


def test_a_killed_python_backend_comes_back_by_itself(
    endpoint: Endpoint, workspace: Workspace, references: Path, tmp_path: Path
) -> None:
    def kill() -> None:
        for stub in family(workspace, "triton_python"):
            stub.kill()

    traffic, when = killed(workspace, references, tmp_path, kill)
    check_recovery(traffic, when, "kill -9 of the python backends")


def test_the_backend_of_a_version_that_is_only_held_comes_back_too(
    endpoint: Endpoint, workspace: Workspace, packages: dict[int, Path]
) -> None:
    """A rollback goes to it: it must answer before anybody asks."""
    default, _ = served(workspace.repository, MODEL)
    assert default is not None
    other = 1 if default != 1 else 2
    verify_version(workspace, CONFIG, other, packages[other])
    serve(workspace, CONFIG, policy([default, other], default))
    time.sleep(keeping.HEALTH_SECONDS + 1)  # it has been seen well
    (stub,) = [stub for stub in family(workspace, "triton_python") if f"/{MODEL}/{other}/" in " ".join(stub.cmdline())]
    stub.kill()
    golden, deadline = packages[other] / "golden.npz", time.monotonic() + 40
    while time.monotonic() < deadline:
        try:
            if Control(endpoint, timeout=5).golden(MODEL, other, golden, tolerance=1e-3).passed:
                break
        except KfloopError:
            time.sleep(0.1)
    else:
        pytest.fail("the held version did not come back")
    assert answers(workspace)


def test_a_killed_server_comes_back_into_the_last_good_state(
    endpoint: Endpoint, workspace: Workspace, references: Path, tmp_path: Path
) -> None:
    before, state = family(workspace, "tritonserver")[0].pid, served(workspace.repository, MODEL)
    traffic, when = killed(workspace, references, tmp_path, lambda: os.kill(before, signal.SIGKILL))
    check_recovery(traffic, when, "kill -9 of the server")
    assert family(workspace, "tritonserver")[0].pid != before
    assert served(workspace.repository, MODEL) == state


def test_a_server_killed_while_a_broken_version_is_verified_comes_back_and_can_be_controlled(
    endpoint: Endpoint, workspace: Workspace, packages: dict[int, Path]
) -> None:
    """A run that was killed in the middle leaves the broken version in the server's configuration."""
    default, _ = served(workspace.repository, MODEL)
    assert default is not None
    add_version(workspace.repository, MODEL, 4, packages[4])
    set_versions(workspace.repository, MODEL, [default], default, beside=4)
    family(workspace, "tritonserver")[0].kill()
    time.sleep(1)
    deadline = time.monotonic() + 40
    while not answers(workspace) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert answers(workspace)
    serve(workspace, CONFIG, policy([default], default))  # the key that was published opens the server that runs
    verify_version(workspace, CONFIG, 2, packages[2])


def test_nothing_outlives_a_killed_supervisor(endpoint: Endpoint, workspace: Workspace) -> None:
    running = attach(workspace)
    assert running is not None
    owner = psutil.Process(running.pid)
    everyone = [owner, *owner.children(recursive=True)]
    assert {"tritonserver"} < {process.name() for process in everyone}
    os.kill(running.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(everyone, timeout=25)
    assert [process.name() for process in alive] == []
    assert attach(workspace) is None
    assert not list(Path("/dev/shm").glob(f"kfloop_{running.pid}_*"))  # noqa: S108 - that is where Triton keeps them
    assert not Path(running.log_socket).parent.exists()
