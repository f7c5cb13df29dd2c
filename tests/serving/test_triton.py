"""The real Triton: by value, by version, by key; and what a supervisor does when parts of it die."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from kfloop.core.workspace import Workspace
from kfloop.errors import KfloopError, ServingError
from kfloop.serving import server, supervisor
from kfloop.serving.client import infer, predict
from kfloop.serving.control import Control
from kfloop.serving.endpoint import KEY_HEADER, Endpoint, attach, publish
from kfloop.serving.receiving import flush
from kfloop.serving.repository import add_version, set_versions
from logged_requests import RequestLog, read_requests

pytestmark = pytest.mark.triton
MODEL = "tiny"
Package = Callable[..., Path]


@pytest.fixture(scope="module")
def endpoint(workspace: Workspace, package: Package) -> Iterator[Endpoint]:
    """A supervised server that answers with version 1."""
    running = supervisor.start_background(workspace, tied_to_parent=True)
    try:
        add_version(workspace.repository, MODEL, 1, package(1))
        control = Control(running)
        control.swap(workspace.repository, MODEL, [1], 1)
        control.wait_ready(MODEL, 1, 30)
        yield running
    finally:
        supervisor.stop(workspace)


def answered_by(endpoint: Endpoint, version: int, seconds: float = 15) -> bool:
    """Whether a request that names no version gets this one: a process that was loaded before follows a policy within a look."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if predict(endpoint, MODEL, np.zeros((1, 8, 8, 1), np.uint8)).version == version:
            return True
    return False


def test_right_answers_pass_on_both_protocols_and_wrong_ones_do_not(endpoint: Endpoint, package: Package) -> None:
    control = Control(endpoint)
    for protocol in ("http", "grpc"):
        right = control.golden(MODEL, 1, package(1) / "golden.npz", tolerance=1e-4, protocol=protocol)
        assert right.passed
        assert right.n == 8
        wrong = control.golden(MODEL, 1, package(1, lying=True) / "golden.npz", tolerance=1e-4, protocol=protocol)
        assert not wrong.passed


@pytest.mark.parametrize("spoil", ["nan", "empty"])
def test_golden_answers_that_prove_nothing_do_not_pass(
    endpoint: Endpoint, package: Package, tmp_path: Path, spoil: str
) -> None:
    with np.load(package(1) / "golden.npz") as arrays:
        golden = dict(arrays)
    golden = {name: value[:0] for name, value in golden.items()} if spoil == "empty" else golden
    if spoil == "nan":
        golden["output.embedding"] = np.full_like(golden["output.embedding"], np.nan)
    np.savez(tmp_path / "golden.npz", **golden)
    control = Control(endpoint)
    if spoil == "empty":
        with pytest.raises(ServingError, match="no golden answers"):
            control.golden(MODEL, 1, tmp_path / "golden.npz", tolerance=1e-4)
    else:
        assert not control.golden(MODEL, 1, tmp_path / "golden.npz", tolerance=1e-4).passed


def test_every_answer_is_logged_once_with_its_id_and_golden_requests_are_not(
    endpoint: Endpoint, workspace: Workspace, some_images: np.ndarray
) -> None:
    flush(workspace)
    before = set(read_requests(workspace.request_log, MODEL).files)

    def later() -> RequestLog:
        names = set(read_requests(workspace.request_log, MODEL).files) - before
        return read_requests(workspace.request_log, MODEL, names)

    answer = predict(endpoint, MODEL, some_images)
    deadline = time.monotonic() + 10  # a row may be on its way to the collector when its answer is here already
    log = later()
    while len(log) < len(answer.ids) and time.monotonic() < deadline:
        flush(workspace)
        log = later()
    assert sorted(log.ids.tolist()) == sorted(answer.ids)
    order = [log.ids.tolist().index(name) for name in answer.ids]
    np.testing.assert_array_equal(log.images[order], some_images.reshape(len(some_images), -1))
    np.testing.assert_array_equal(log.answers[order], answer.outputs["probabilities"])
    assert set(log.versions.tolist()) == {1}


def test_without_the_key_nobody_loads_or_lists_models(endpoint: Endpoint) -> None:
    from tritonclient import grpc, http
    from tritonclient.utils import InferenceServerException

    web = http.InferenceServerClient(endpoint.http)
    for headers in ({}, {KEY_HEADER: "wrong"}):
        with pytest.raises(InferenceServerException, match="restricted"):
            web.load_model(MODEL, headers=headers)
        with pytest.raises(InferenceServerException, match="restricted"):
            web.get_model_repository_index(headers=headers)
    web.close()
    with (
        grpc.InferenceServerClient(endpoint.grpc) as remote,
        pytest.raises(InferenceServerException, match="restricted"),
    ):
        remote.load_model(MODEL)


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 8, 7, 1), np.uint8), np.zeros((17, 8, 8, 1), np.uint8), np.zeros((1, 8, 8), np.uint8)],
    ids=["shape", "batch", "rank"],
)
def test_a_malformed_request_is_refused_and_the_next_one_answered(endpoint: Endpoint, images: np.ndarray) -> None:
    with pytest.raises(ServingError):
        infer(endpoint, MODEL, images)
    assert infer(endpoint, MODEL, np.zeros((1, 8, 8, 1), np.uint8))["version"] == 1


def test_a_version_is_swapped_in_and_back_under_traffic_without_a_failure(
    endpoint: Endpoint, workspace: Workspace, package: Package
) -> None:
    """Every answer must be right for the version that it claims to come from."""
    expected = {}
    for version in (1, 2):
        with np.load(package(version) / "golden.npz") as arrays:
            images_1 = np.load(package(1) / "golden.npz")["input.image"]
            expected[version] = (arrays["input.image"], arrays["output.probabilities"])
    stop, failures, counts = threading.Event(), [], {1: 0, 2: 0}

    def client() -> None:
        while not stop.is_set():
            try:
                answer = infer(endpoint, MODEL, images_1, request_id="traffic")
            except KfloopError as error:
                failures.append(repr(error))
                continue
            version = answer["version"]
            counts[version] += 1
            if version == 1 and not np.allclose(answer["probabilities"], expected[1][1], atol=1e-4):
                failures.append("wrong answer")

    threads = [threading.Thread(target=client) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        add_version(workspace.repository, MODEL, 2, package(2))
        control = Control(endpoint)
        control.swap(workspace.repository, MODEL, [1, 2], 1)
        control.wait_ready(MODEL, 2, 30)
        assert control.golden(MODEL, 2, package(2) / "golden.npz", tolerance=1e-4).passed
        control.swap(workspace.repository, MODEL, [2], 2)
        assert answered_by(endpoint, 2)
        control.swap(workspace.repository, MODEL, [1, 2], 2)
        control.wait_ready(MODEL, 1, 30)
        control.swap(workspace.repository, MODEL, [1], 1)
        assert answered_by(endpoint, 1)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert min(counts.values()) > 0


def test_a_broken_version_is_refused_and_the_old_one_keeps_answering(
    endpoint: Endpoint, workspace: Workspace, package: Package
) -> None:
    add_version(workspace.repository, MODEL, 9, package(9, broken=True))
    control = Control(endpoint)
    with pytest.raises(ServingError):
        control.swap(workspace.repository, MODEL, [1, 9], 1)
    assert control.golden(MODEL, 1, package(1) / "golden.npz", tolerance=1e-4).passed
    set_versions(workspace.repository, MODEL, [1], 1)
    control.load(MODEL)
    assert answered_by(endpoint, 1)


def answers_again(workspace: Workspace, seconds: float) -> float:
    """Seconds until the server answers again."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        running = attach(workspace)
        try:
            if running is not None:
                infer(running, MODEL, np.zeros((1, 8, 8, 1), np.uint8), timeout=2)
                return time.monotonic() - started
        except KfloopError:
            time.sleep(0.1)
    pytest.fail(f"no answer within {seconds} s")


def children(workspace: Workspace, name: str) -> list[psutil.Process]:
    running = attach(workspace)
    assert running is not None
    return [child for child in psutil.Process(running.pid).children(recursive=True) if child.name().startswith(name)]


def test_a_second_supervisor_is_refused(endpoint: Endpoint, workspace: Workspace) -> None:
    with pytest.raises(ServingError, match="served already"):
        supervisor.start_background(workspace)


def test_dead_backends_are_noticed_and_brought_back(endpoint: Endpoint, workspace: Workspace) -> None:
    """Triton's own health stays green when a backend dies: only a golden request tells."""
    for stub in children(workspace, "triton_python"):
        stub.kill()
    with pytest.raises(KfloopError):
        infer(endpoint, MODEL, np.zeros((1, 8, 8, 1), np.uint8))
    assert answers_again(workspace, 40) < 40


def test_a_killed_server_is_brought_back_where_it_was(endpoint: Endpoint, workspace: Workspace) -> None:
    before = endpoint.http
    children(workspace, "tritonserver")[0].kill()
    answers_again(workspace, 40)
    running = attach(workspace)
    assert running is not None
    assert running.http == before
    assert infer(running, MODEL, np.zeros((1, 8, 8, 1), np.uint8))["version"] == 1


def test_a_stale_file_with_somebody_elses_pid_is_no_server(tmp_path: Path, endpoint: Endpoint) -> None:
    other = Workspace(loop=MODEL, root=tmp_path, state="", store="", mlflow="")
    other.serve_file.parent.mkdir(parents=True)
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        publish(other, replace(endpoint, pid=sleeper.pid))
        assert not supervisor.stop(other)
        assert sleeper.poll() is None
        assert not other.serve_file.exists()
    finally:
        sleeper.kill()
        sleeper.wait()


def test_the_ports_of_one_server_differ() -> None:
    assert len(set(server._free_ports(500))) == 500


OWNER = """
import sys, time
from pathlib import Path
from kfloop.serving.server import start_server
server = start_server(Path(sys.argv[1]) / "repository", Path(sys.argv[1]) / "log.txt")
print(server.endpoint.http, flush=True)
time.sleep(120)
"""


def test_a_private_server_dies_with_its_killed_owner(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert owner.stdout is not None
    assert owner.stdout.readline().startswith("127.0.0.1:")
    family = psutil.Process(owner.pid).children(recursive=True)
    assert any(process.name() == "tritonserver" for process in family)
    owner.kill()
    owner.wait()
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not alive
