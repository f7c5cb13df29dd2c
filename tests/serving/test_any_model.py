"""The real Triton with models of every shape: several inputs, ids, windows, whole graphs, noise; by value, on both protocols."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from kfloop.components.bless.oddities import far_requests, odd_requests, refused, survived
from kfloop.components.bless.timing import time_requests
from kfloop.core.scoring import open_session, run_session
from kfloop.core.signature import OUTPUTS, Port, Signature, write_signature
from kfloop.errors import ServingError, StateError
from kfloop.serving.client import infer, predict
from kfloop.serving.collector import Collector
from kfloop.serving.control import Control, read_golden
from kfloop.serving.endpoint import Endpoint
from kfloop.serving.repository import add_version, set_versions
from kfloop.serving.server import start_server

pytestmark = pytest.mark.triton
Tensors = dict[str, np.ndarray]
HEAD = '<ir_version: 9, opset_import: ["" : 18]> agraph '
GRAPHS = {
    "table": """(float[N,4] number, int64[N,2] category) => (float[N] prediction, float[N,4] embedding)
        <int64[1] last = {1}> {
        embedding = Identity(number) sums = ReduceSum<keepdims=0>(number, last) codes = Cast<to=1>(category)
        others = ReduceSum<keepdims=0>(codes, last) prediction = Add(sums, others) }""",
    "text": """(int64[N,6] tokens) => (float[N,3] probabilities, float[N,3] embedding)
        <float[4,3] words = {0.1, 0.2, 0.3, 1.0, 0.0, 0.5, 0.0, 2.0, 0.1, 0.7, 0.7, 3.0}, int64[1] axis = {1}> {
        found = Gather(words, tokens) embedding = ReduceMean<keepdims=0>(found, axis)
        probabilities = Softmax<axis=1>(embedding) }""",
    "series": """(float[N,8,2] window) => (float[N,3,2] forecast, float[N,2] embedding)
        <int64[1] start = {5}, int64[1] stop = {8}, int64[1] axis = {1}> {
        forecast = Slice(window, start, stop, axis) embedding = ReduceMean<keepdims=0>(window, axis) }""",
    "nodes": """(float[V,5] node, int64[2,E] edges) => (float[V,5] probabilities, float[V,5] embedding)
        <int64 first = {0}, int64 second = {1}, int64[1] axis = {1}> {
        from = Gather<axis=0>(edges, first) to = Gather<axis=0>(edges, second)
        sent = Gather<axis=0>(node, from) places = Unsqueeze(to, axis)
        embedding = ScatterND<reduction="add">(node, places, sent) probabilities = Softmax<axis=1>(embedding) }""",
    "generator": """(float[N,4,4,1] noise, int64[N] label) => (float[N,4,4,1] sample)
        <int64[4] whole = {-1, 1, 1, 1}> {
        number = Cast<to=1>(label) shift = Reshape(number, whole) sample = Add(noise, shift) }""",
}
KINDS = {
    # objective, inputs, shapes of outputs, labels, largest batch
    "table": ("regression", {"number": ("float32", (4,)), "category": ("int64", (2,))}, [(), (4,)], 0, 16),
    "text": ("classification", {"tokens": ("int64", (6,))}, [(3,), (3,)], 3, 16),
    "series": ("forecasting", {"window": ("float32", (8, 2))}, [(3, 2), (2,)], 0, 16),
    "nodes": (
        "classification",
        {"node": ("float32", (-1, 5)), "edges": ("int64", (2, -1))},
        [(-1, 5), (-1, 5)],
        5,
        0,
    ),
    "generator": ("generation", {"noise": ("float32", (4, 4, 1)), "label": ("int64", ())}, [(4, 4, 1)], 3, 16),
}


def signature(kind: str) -> Signature:
    objective, inputs, outputs, classes, limit = KINDS[kind]
    return Signature(
        objective=objective,
        modality={"generator": "image"}.get(kind, kind),
        family="test",
        inputs=tuple(Port(name=name, dtype=dtype, shape=shape) for name, (dtype, shape) in inputs.items()),
        outputs=tuple(
            Port(name=name, dtype="float32", shape=shape)
            for name, shape in zip(OUTPUTS[objective], outputs, strict=True)
        ),
        labels=tuple("abcde"[:classes]),
        max_batch_size=limit,
    )


def tensors(kind: str, rows: int, seed: int = 0) -> Tensors:
    """Inputs; small numbers everywhere, so that each is a valid id, class or node."""
    dice = np.random.default_rng(seed)
    found = {}
    for port in signature(kind).inputs:
        shape = [rows if size < 0 else size for size in port.shape]
        whole = shape if kind == "nodes" else [rows, *shape]
        drawn = dice.integers(0, 2, whole) if port.dtype == "int64" else dice.normal(size=whole)
        found[port.name] = drawn.astype(port.dtype)
    return found


def right_answers(package: Path, kind: str, inputs: Tensors) -> Tensors:
    return run_session(open_session(package / "model.onnx"), signature(kind), list(inputs.values()))


def write_package(folder: Path, kind: str) -> Path:
    import onnx.parser

    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(onnx.parser.parse_model(HEAD + GRAPHS[kind]).SerializeToString())
    write_signature(folder, signature(kind))
    (folder / "encoder.json").write_text(json.dumps({"modality": "image", "shape": [4, 4, 1], "mean": [], "std": []}))
    inputs = tensors(kind, 5)
    golden = {f"input.{name}": array for name, array in inputs.items()}
    answers = right_answers(folder, kind, inputs)
    np.savez(folder / "golden.npz", **golden, **{f"output.{name}": array for name, array in answers.items()})
    return folder


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("packages")
    return {kind: write_package(home / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Collector, Path]]:
    folder = tmp_path_factory.mktemp("log")
    collector = Collector(folder)
    collector.start()
    yield collector, folder
    collector.stop()


@pytest.fixture(scope="module")
def endpoint(
    tmp_path_factory: pytest.TempPathFactory, packages: dict[str, Path], collector: tuple[Collector, Path]
) -> Iterator[Endpoint]:
    """One server with all five models."""
    root = tmp_path_factory.mktemp("server")
    with start_server(root / "repository", root / "log.txt", log_socket=collector[0].address) as server:
        control = Control(server.endpoint)
        for kind, package in packages.items():
            add_version(root / "repository", kind, 1, package)
            control.swap(root / "repository", kind, [1], 1)
            control.wait_ready(kind, 1, 60)
        yield server.endpoint


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_golden_answers_come_back_by_value(
    endpoint: Endpoint, packages: dict[str, Path], kind: str, protocol: str
) -> None:
    result = Control(endpoint).golden(kind, 1, packages[kind] / "golden.npz", tolerance=1e-5, protocol=protocol)
    assert result.passed
    assert result.n == 5


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_rows_comes_back_in_order(endpoint: Endpoint, packages: dict[str, Path], kind: str) -> None:
    inputs = tensors(kind, 37, seed=1)
    answer = predict(endpoint, kind, inputs)
    for name, expected in right_answers(packages[kind], kind, inputs).items():
        assert answer.outputs[name].dtype == expected.dtype
        np.testing.assert_allclose(answer.outputs[name], expected, rtol=1e-5, atol=1e-6)
    assert len(answer.ids) == (1 if kind == "nodes" else 37)
    assert answer.version == 1
    again = predict(endpoint, kind, tuple(inputs.values()), protocol="grpc")
    assert all(np.array_equal(again.outputs[name], found) for name, found in answer.outputs.items())


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_is_refused_and_the_server_lives_on(
    endpoint: Endpoint, packages: dict[str, Path], kind: str
) -> None:
    odd = odd_requests(signature(kind))
    assert {"missing input", "wrong type", "wrong input name", "wrong shape"} <= set(odd)
    assert ("no rows" in odd) == (kind != "nodes")
    assert {name: refused(endpoint, kind, body, 20) for name, body in odd.items()} == dict.fromkeys(odd, "")
    far = far_requests(signature(kind))
    assert {name: survived(endpoint, kind, body, 20) for name, body in far.items()} == dict.fromkeys(far, "")
    assert Control(endpoint).golden(kind, 1, packages[kind] / "golden.npz", tolerance=1e-5).passed


def test_the_reason_is_in_the_answer(endpoint: Endpoint) -> None:
    right = tensors("table", 2)
    with pytest.raises(ServingError, match="category"):
        infer(endpoint, "table", right | {"category": right["category"][:, :1]})
    with pytest.raises(ServingError, match="category"):
        infer(endpoint, "table", right | {"category": right["category"].astype(np.int16)})
    with pytest.raises(ServingError, match="expected 2 inputs but got 1"):
        infer(endpoint, "table", {"number": right["number"]})
    with pytest.raises(ServingError, match=r"batch|rows"):
        infer(endpoint, "table", right | {"category": right["category"][:1]})
    with pytest.raises(ServingError, match="cannot compute these values"):
        infer(endpoint, "text", {"tokens": np.full((1, 6), 99)})
    with pytest.raises(ServingError, match="takes 2 tensor"):
        infer(endpoint, "table", right["number"])
    with pytest.raises(ServingError, match="different numbers of rows"):
        predict(endpoint, "table", right | {"category": right["category"][:1]})
    with pytest.raises(ServingError, match="no examples"):
        predict(endpoint, "table", tensors("table", 0))
    with pytest.raises(ServingError, match="no served version"):
        predict(endpoint, "nobody", right)


def test_missing_numbers_are_no_error(endpoint: Endpoint) -> None:
    """NaN stands for a missing number by contract: what becomes of it is up to the network."""
    inputs = tensors("table", 2)
    inputs["number"][0, 0] = np.nan
    assert np.isnan(predict(endpoint, "table", inputs).outputs["prediction"]).tolist() == [True, False]


def test_one_bad_request_in_a_dynamic_batch_fails_alone(endpoint: Endpoint, packages: dict[str, Path]) -> None:
    def ask(number: int) -> bool:
        tokens = np.full((1, 6), 99 if number % 5 == 0 else number % 4)
        try:
            found = infer(endpoint, "text", {"tokens": tokens}, protocol="grpc")
        except ServingError:
            return number % 5 == 0
        expected = right_answers(packages["text"], "text", {"tokens": tokens})["probabilities"]
        return number % 5 != 0 and np.allclose(found["probabilities"], expected)

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(ask, range(120)))


def test_rows_of_several_inputs_are_logged_by_name_and_graphs_are_not(
    endpoint: Endpoint, collector: tuple[Collector, Path]
) -> None:
    inputs = tensors("table", 3, seed=4)
    answer = predict(endpoint, "table", inputs)
    predict(endpoint, "nodes", tensors("nodes", 3))
    listener, folder = collector
    found: dict[str, dict[str, object]] = {}
    for _ in range(100):
        time.sleep(0.05)
        listener.write()
        files = sorted((folder / "table").glob("*/*.parquet")) if (folder / "table").is_dir() else []
        found = {row["request_id"]: row for path in files for row in pq.read_table(path).to_pylist()}
        if set(answer.ids) <= set(found):
            break
    rows = [found[name] for name in answer.ids]
    assert list(rows[0]) == [
        "request_id",
        "ts_ns",
        "model",
        "version",
        "route",
        "input.number",
        "input.category",
        "output.prediction",
        "output.embedding",
        "latency_us",
    ]
    np.testing.assert_array_equal([row["input.number"] for row in rows], inputs["number"])
    np.testing.assert_array_equal([row["input.category"] for row in rows], inputs["category"])
    np.testing.assert_allclose([row["output.prediction"] for row in rows], answer.outputs["prediction"][:, None])
    assert not (folder / "nodes").exists()


@pytest.mark.parametrize("kind", ["generator", "nodes"])
def test_single_examples_are_timed(endpoint: Endpoint, packages: dict[str, Path], kind: str) -> None:
    inputs, _ = read_golden(packages[kind] / "golden.npz")
    timing = time_requests(endpoint, kind, signature(kind), inputs, requests=20, concurrency=2, timeout=20)
    assert timing.n == 20
    assert 0 < timing.p50 <= timing.p99


def test_versions_with_texts_of_different_lengths_are_served_side_by_side(
    endpoint: Endpoint, packages: dict[str, Path], tmp_path: Path
) -> None:
    """The length of texts is fitted on the training rows: a retrained model may have another."""
    import onnx

    repository, longer = Path(endpoint.repository), write_package(tmp_path / "longer", "text")
    told = signature("text")
    write_signature(longer, replace(told, inputs=(replace(told.inputs[0], shape=(9,)),)))
    model = onnx.load(longer / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 9
    onnx.save(model, longer / "model.onnx")
    add_version(repository, "text", 2, longer)
    control = Control(endpoint)
    control.swap(repository, "text", [1, 2], 1)
    control.wait_ready("text", 2, 60)
    assert infer(endpoint, "text", np.zeros((2, 9), np.int64), version=2)["version"] == 2
    assert predict(endpoint, "text", np.zeros((2, 6), np.int64)).version == 1
    for version, width in ((1, 9), (2, 6)):
        with pytest.raises(ServingError, match="tokens must be int64"):
            infer(endpoint, "text", np.zeros((1, width), np.int64), version=version)
    assert control.golden("text", 1, packages["text"] / "golden.npz", tolerance=1e-5).passed
    control.swap(repository, "text", [1], 1)


def test_versions_of_different_kinds_are_refused_before_the_server_hears_of_it(
    endpoint: Endpoint, packages: dict[str, Path]
) -> None:
    repository = Path(endpoint.repository)
    add_version(repository, "series", 2, packages["generator"])
    before = (repository / "series" / "config.pbtxt").read_text()
    with pytest.raises(ServingError, match="side by side"):
        set_versions(repository, "series", [1, 2], 1)
    assert (repository / "series" / "config.pbtxt").read_text() == before


def test_a_version_of_the_old_format_is_named(endpoint: Endpoint, packages: dict[str, Path], tmp_path: Path) -> None:
    old = write_package(tmp_path / "old", "table")
    (old / "signature.json").write_text('{"format": 1}')
    add_version(Path(endpoint.repository), "table", 7, old)
    with pytest.raises(StateError, match="format 1"):
        set_versions(Path(endpoint.repository), "table", [1, 7], 1)
