"""Routing inside a real Triton: splits, stickiness, fallback, shadows, and a policy that changes under load."""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import raw_models
from kfloop.core.workspace import Workspace
from kfloop.errors import KfloopError
from kfloop.serving import supervisor
from kfloop.serving.client import infer, predict
from kfloop.serving.control import Control
from kfloop.serving.endpoint import Endpoint
from kfloop.serving.evidence import read_evidence
from kfloop.serving.receiving import flush
from kfloop.serving.repository import add_version, policy, policy_path, set_policy

pytestmark = pytest.mark.triton
MODEL = "tiny"
IMAGES = np.random.default_rng(5).integers(0, 256, (1, 8, 8, 1)).astype(np.uint8)
Package = Callable[..., Path]
Route = Callable[..., None]
FOLLOWED = 1.0  # seconds in which every process has looked at a policy, 50 times on a machine with nothing else to do


@pytest.fixture(scope="module")
def endpoint(workspace: Workspace, package: Package) -> Iterator[Endpoint]:
    """A supervised server that holds versions 1 (default), 2, and 3, which fails on dark images."""
    running = supervisor.start_background(workspace, tied_to_parent=True)
    try:
        for version, folder in ((1, package(1)), (2, package(2)), (3, _failing(package(2)))):
            add_version(workspace.repository, MODEL, version, folder)
        control = Control(running)
        control.swap(workspace.repository, MODEL, [1, 2, 3], 1)
        for version in (1, 2, 3):
            control.wait_ready(MODEL, version, 30)
        yield running
    finally:
        supervisor.stop(workspace)


def _failing(good: Path) -> Path:
    """The same package with a graph that cannot be computed where the first pixel is 0: 64 pixels make no rows of 63."""
    import shutil

    import onnx
    from onnx import TensorProto, helper

    folder = good.with_name("failing")
    shutil.copytree(good, folder)
    model = onnx.load(folder / "model.onnx")
    nodes = [
        helper.make_node("Slice", ["pixels", "zeros4", "ones4"], ["corner"]),
        helper.make_node("ReduceMax", ["corner"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Clip", ["whole", "zero", "one"], ["flag"]),
        helper.make_node("Add", ["flag", "n63"], ["wide"]),
        helper.make_node("Unsqueeze", ["wide", "zeros1"], ["size"]),
        helper.make_node("Concat", ["minus1", "size"], ["shape"], axis=0),
        helper.make_node("Reshape", ["pixels", "shape"], ["rows"]),
    ]
    numbers = {"zero": 0, "one": 1, "n63": 63}
    lists = {"zeros4": [0] * 4, "ones4": [1] * 4, "zeros1": [0], "minus1": [-1]}
    tensors = [helper.make_tensor(name, TensorProto.INT64, [], [value]) for name, value in numbers.items()]
    tensors += [helper.make_tensor(name, TensorProto.INT64, [len(v)], v) for name, v in lists.items()]
    graph = model.graph
    place = next(number for number, node in enumerate(graph.node) if node.op_type == "Flatten")
    every = [*graph.node]
    del graph.node[:]
    graph.node.extend([*every[:place], *nodes, *every[place + 1 :]])
    graph.initializer.extend(tensors)
    onnx.save(model, folder / "model.onnx")
    return folder


@pytest.fixture
def route(endpoint: Endpoint, workspace: Workspace) -> Iterator[Route]:
    """Writes a policy and waits until an unpinned request of a fresh key sees it; the end goes back to version 1 alone."""

    def write(default: int, salt: str = "", **rollout: Any) -> None:
        told = {"salt": salt, "look_seconds": 3600, **rollout} if rollout else None
        set_policy(workspace.repository, MODEL, policy([1, 2, 3], default, told))
        time.sleep(FOLLOWED)

    yield write
    write(1)


def evidence(workspace: Workspace, salt: str, n: int) -> list[dict[str, Any]]:
    """At least ``n`` rows, once they are written."""
    deadline = time.monotonic() + 15
    rows: list[dict[str, Any]] = []
    while len(rows) < n and time.monotonic() < deadline:
        flush(workspace)
        rows = read_evidence(workspace.request_log, MODEL, salt)
        time.sleep(0.05)
    return rows


def plain(endpoint: Endpoint, *, headers: dict[str, str] | None = None, version: str = "", **options: Any) -> Any:
    """An answer to somebody who has tritonclient and never heard of kfloop."""
    from tritonclient import http

    client = http.InferenceServerClient(endpoint.http)
    try:
        tensor = http.InferInput("image", list(IMAGES.shape), "UINT8")
        tensor.set_data_from_numpy(IMAGES)
        return client.infer(MODEL, [tensor], model_version=version, headers=headers, **options)
    finally:
        client.close()


def test_a_client_that_names_no_version_gets_the_champion_whatever_is_loaded_beside_it(
    endpoint: Endpoint, package: Package
) -> None:
    mine = plain(endpoint)
    assert mine.as_numpy("served_version").tolist() == [[1]]
    for protocol in ("http", "grpc"):
        assert predict(endpoint, MODEL, IMAGES, protocol=protocol).version == 1
        for version in (1, 2, 3):
            assert predict(endpoint, MODEL, IMAGES, version=version, protocol=protocol).version == version
    pinned = predict(endpoint, MODEL, IMAGES, version=1)
    np.testing.assert_array_equal(mine.as_numpy("probabilities"), pinned.outputs["probabilities"])
    other = predict(endpoint, MODEL, IMAGES, version=2)
    assert not np.allclose(other.outputs["probabilities"], pinned.outputs["probabilities"])
    assert plain(endpoint, parameters={"pinned": True}, version="2").as_numpy("served_version").tolist() == [[2]]
    assert Control(endpoint).golden(MODEL, 2, package(2) / "golden.npz", tolerance=1e-4).passed


def test_a_canary_gets_its_share_sticks_to_keys_and_leaves_paired_evidence(
    endpoint: Endpoint, workspace: Workspace, route: Route
) -> None:
    route(1, "5a17", mode="canary", challenger=2, share=0.3)
    first = [infer(endpoint, MODEL, IMAGES, key=f"user{number}")["version"] for number in range(300)]
    assert 55 <= first.count(2) <= 125  # 90 expected; the split is a fixed hash, so this is no matter of chance
    assert set(first) == {1, 2}
    assert [infer(endpoint, MODEL, IMAGES, key=f"user{number}")["version"] for number in range(60)] == first[:60]
    asked = [plain(endpoint, headers={"x-route-key": f"user{number}"}) for number in range(60)]
    assert [int(answer.as_numpy("served_version")[0, 0]) for answer in asked] == first[:60]
    rows = evidence(workspace, "5a17", first.count(2) + 2 * first[:60].count(2))
    assert len(rows) == first.count(2) + 2 * first[:60].count(2)
    assert {(row["champion_version"], row["challenger_version"]) for row in rows} == {(1, 2)}
    assert not any(row["champion_error"] or row["challenger_error"] for row in rows)
    assert min(row["champion_us"] for row in rows) > 0
    route(1, "5a17", mode="canary", challenger=2, share=0.6)
    more = [infer(endpoint, MODEL, IMAGES, key=f"user{number}")["version"] for number in range(60)]
    assert all(later == 2 for before, later in zip(first, more, strict=False) if before == 2)


def test_to_a_challenger_with_another_encoder_only_raw_rows_go(
    endpoint: Endpoint, workspace: Workspace, tmp_path: Path
) -> None:
    words = ["wind", "rain", "thaw", "hail", "fog"]  # other codes for the same words
    folders = {
        1: raw_models.package(tmp_path / "one", "text"),
        2: raw_models.package(tmp_path / "two", "text", words=words),
    }
    for version, folder in folders.items():
        add_version(workspace.repository, "words", version, folder)
    control = Control(endpoint)
    control.swap(workspace.repository, "words", [1, 2], 1)
    control.wait_ready("words", 2, 30)
    told = {"mode": "canary", "challenger": 2, "share": 1.0, "salt": "raw0", "look_seconds": 3600}
    set_policy(workspace.repository, "words", policy([1, 2], 1, told))
    time.sleep(FOLLOWED)
    texts = np.array([[b"rain and wind"], [b"wind"]], dtype=np.object_)
    raw = predict(endpoint, "words", {"text": texts})
    assert raw.version == 2
    own = predict(endpoint, "words", {"text": texts}, version=2)
    np.testing.assert_array_equal(raw.outputs["probabilities"], own.outputs["probabilities"])
    length = raw_models.TEXT["length"]
    encoded = {"tokens": np.full((1, length), 2, np.int64), "pieces": np.zeros((1, length, 16), np.int64)}
    assert predict(endpoint, "words", encoded).version == 1
    deadline, rows = time.monotonic() + 15, []
    while len(rows) < 1 and time.monotonic() < deadline:
        flush(workspace)
        rows = read_evidence(workspace.request_log, "words", "raw0")
    assert [(row["rows"], row["challenger_error"]) for row in rows] == [(2, False)]


def test_answers_of_a_canary_are_those_of_the_version_they_name(
    endpoint: Endpoint, route: Route, some_images: np.ndarray
) -> None:
    right = {version: predict(endpoint, MODEL, some_images, version=version).outputs for version in (1, 2)}
    route(1, "ab", mode="canary", challenger=2, share=0.5)
    seen, failures = set(), []

    def ask(start: int) -> None:
        for number in range(start, start + 60):
            row = number % len(some_images)
            try:
                answer = infer(endpoint, MODEL, some_images[row : row + 1], request_id=f"r{number}", protocol="grpc")
            except KfloopError as error:
                failures.append(repr(error))
                continue
            version = answer["version"]
            seen.add(version)
            if not np.allclose(answer["probabilities"][0], right[version]["probabilities"][row], atol=1e-6):
                failures.append(f"wrong answer of version {version}")

    threads = [threading.Thread(target=ask, args=(1000 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert seen == {1, 2}


def test_a_challenger_that_fails_is_replaced_by_the_champion_and_counted(
    endpoint: Endpoint, workspace: Workspace, route: Route
) -> None:
    route(1, "fa11", mode="canary", challenger=3, share=1.0)
    dark = np.zeros((1, 8, 8, 1), np.uint8)
    for _ in range(5):
        assert infer(endpoint, MODEL, dark)["version"] == 1
    light = np.full((1, 8, 8, 1), 9, np.uint8)
    assert infer(endpoint, MODEL, light)["version"] == 3
    rows = evidence(workspace, "fa11", 6)
    assert [row["challenger_error"] for row in rows] == [True] * 5 + [False]
    assert not any(row["champion_error"] for row in rows)
    with pytest.raises(KfloopError):
        infer(endpoint, MODEL, np.zeros((1, 8, 7, 1), np.uint8))
    assert len(evidence(workspace, "fa11", 6)) == 6  # a bad request is nobody's failure


def test_a_shadow_is_compared_and_never_returned(endpoint: Endpoint, workspace: Workspace, route: Route) -> None:
    route(1, "5ade", mode="shadow", challenger=3, share=1.0)
    images = [np.zeros((1, 8, 8, 1), np.uint8), np.full((1, 8, 8, 1), 9, np.uint8)]
    for number in range(20):
        assert infer(endpoint, MODEL, images[number % 2])["version"] == 1
    rows = evidence(workspace, "5ade", 20)
    assert len(rows) == 20
    assert sum(row["challenger_error"] for row in rows) == 10
    assert all(len(row["difference"]) == 1 for row in rows if not row["challenger_error"])


def test_a_policy_that_cannot_be_followed_leaves_the_last_one_standing(
    endpoint: Endpoint, workspace: Workspace, route: Route, package: Package
) -> None:
    route(2)
    assert plain(endpoint).as_numpy("served_version").tolist() == [[2]]
    place = add_version(workspace.repository, MODEL, 8, package(8))
    (place / "model.onnx").write_bytes(b"changed on the disk")
    for told in (policy([1, 9], 9), policy([1, 8], 8), policy([1], 1) | {"rollout": {"mode": "canary"}}, "no policy"):
        text = told if isinstance(told, str) else json.dumps(told)
        staging = workspace.repository / MODEL / ".other.tmp"
        staging.write_text(text)
        staging.replace(policy_path(workspace.repository, MODEL))
        time.sleep(0.2)
        assert plain(endpoint).as_numpy("served_version").tolist() == [[2]]
    route(1)
    assert plain(endpoint).as_numpy("served_version").tolist() == [[1]]


def test_an_encoder_of_its_own_gets_no_tensors_that_were_encoded_for_the_champion(
    endpoint: Endpoint, workspace: Workspace, package: Package, route: Route
) -> None:
    import shutil

    encoder = json.loads((package(2) / "encoder.json").read_text())
    # What the training rows were like is inside the graph: it changes with every dataset version, and no tensor is made with it.
    for version, changed, answered in ((4, {"shape": [9, 9, 1]}, 1), (5, {"mean": [0.25], "std": [3.0]}, 5)):
        folder = package(2).with_name(f"other-encoder-{version}")
        shutil.copytree(package(2), folder)
        (folder / "encoder.json").write_text(json.dumps(encoder | changed))
        add_version(workspace.repository, MODEL, version, folder)
        told = {"mode": "canary", "challenger": version, "share": 1.0, "salt": f"e{version}", "look_seconds": 3600}
        set_policy(workspace.repository, MODEL, policy([1, 2, 3, version], 1, told))
        time.sleep(FOLLOWED)
        deadline = time.monotonic() + 15  # each process opens the new version first
        while infer(endpoint, MODEL, IMAGES)["version"] != answered and time.monotonic() < deadline:
            pass
        assert {infer(endpoint, MODEL, IMAGES)["version"] for _ in range(10)} == {answered}


def test_a_damaged_version_that_nobody_asks_stands_in_nobodys_way(
    endpoint: Endpoint, workspace: Workspace, package: Package, route: Route
) -> None:
    place = add_version(workspace.repository, MODEL, 7, package(8))
    (place / "model.onnx").write_bytes(b"changed on the disk")
    set_policy(workspace.repository, MODEL, policy([1, 2, 7], 2))
    time.sleep(FOLLOWED)
    assert plain(endpoint).as_numpy("served_version").tolist() == [[2]]


def test_policies_change_under_load_without_a_failure_or_a_wrong_answer(
    endpoint: Endpoint, workspace: Workspace, some_images: np.ndarray, route: Route
) -> None:
    right = {version: predict(endpoint, MODEL, some_images, version=version).outputs for version in (1, 2)}
    stop, failures, counts = threading.Event(), [], {1: 0, 2: 0}

    def ask(protocol: str) -> None:
        while not stop.is_set():
            row = int(time.monotonic_ns()) % len(some_images)
            try:
                answer = infer(endpoint, MODEL, some_images[row : row + 1], protocol=protocol)
            except KfloopError as error:
                failures.append(repr(error))
                continue
            counts[answer["version"]] += 1
            if not np.allclose(answer["probabilities"][0], right[answer["version"]]["probabilities"][row], atol=1e-6):
                failures.append("wrong answer")

    threads = [threading.Thread(target=ask, args=(protocol,)) for protocol in ("http", "grpc")]
    for thread in threads:
        thread.start()
    try:
        for number in range(20):
            told = {"mode": "canary", "challenger": 2, "share": 0.5, "salt": f"u{number}", "look_seconds": 3600}
            set_policy(
                workspace.repository, MODEL, policy([1, 2, 3], 1 + number % 2, told if number % 4 == 0 else None)
            )
            time.sleep(0.1)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert min(counts.values()) > 0


def test_the_split_is_even_whatever_the_keys_look_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(supervisor.__file__).parent / "model"))
    routing = importlib.import_module("routing")
    places = np.array([routing.fraction("salt", f"user{number}") for number in range(20000)])
    assert abs((places < 0.1).mean() - 0.1) < 0.01
    assert abs((places < 0.5).mean() - 0.5) < 0.015
    others = np.array([routing.fraction("other", f"user{number}") for number in range(20000)])
    assert abs(np.corrcoef(places, others)[0, 1]) < 0.03
