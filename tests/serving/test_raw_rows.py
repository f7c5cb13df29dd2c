"""A real Triton that takes what a client has (texts, rows of columns) beside the tensors, and tells labels, confidence and review."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format
from tritonclient import grpc, http
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

import raw_models
from kfloop.components.bless.oddities import far_requests, odd_requests, refused, survived
from kfloop.core.encoding import restore_encoder
from kfloop.core.scoring import open_session, run_session
from kfloop.core.signature import read_signature
from kfloop.errors import ServingError, StateError
from kfloop.serving.client import predict
from kfloop.serving.collector import Collector
from kfloop.serving.control import Control
from kfloop.serving.endpoint import Endpoint
from kfloop.serving.model_config import config_text
from kfloop.serving.repository import add_version, set_versions
from kfloop.serving.server import start_server

EXTRAS = ("label", "confidence", "review")
ROW: dict[str, Any] = {
    "age": [0.2, np.nan, -3.0],
    "far away": [1e9, 1e9 + 5, np.inf],
    "member": [1.0, np.nan, 0.0],
    "since": ["2026-03-01T12:30:00", "", "2026-03-01T12:30:00+02:00"],
    "column.number": ["köln", "", "nowhere"],
    "Ort": ["a", "", "b"],
}
SAME = pa.table(
    {
        "age": pa.array([0.2, None, -3.0], pa.float64()),
        "far away": pa.array([1e9, 1e9 + 5, None], pa.float64()),
        "member": pa.array([True, None, False], pa.bool_()),
        "since": pa.array(["2026-03-01T12:30:00", None, "2026-03-01T10:30:00"], pa.string()).cast(pa.timestamp("us")),
        "number": pa.array(["köln", None, "nowhere"], pa.string()),
        "Ort": pa.array(["a", "", "b"], pa.string()),
    }
)
WRITTEN = ["wind and RAIN", "", "東京 über 12 x"]


def tensor(kind: Any, name: str, values: Any) -> Any:
    """One input of a request: bytes for words, float64 for numbers."""
    if isinstance(values, np.ndarray):
        array, told = values, {"int64": "INT64", "float32": "FP32"}[str(values.dtype)]
    elif values and isinstance(values[0], str | bytes):
        sent = [value.encode() if isinstance(value, str) else value for value in values]
        array, told = np.array(sent, dtype=object)[:, None], "BYTES"
    else:
        array, told = np.array(values, dtype=np.float64)[:, None], "FP64"
    made = kind.InferInput(name, list(array.shape), told)
    made.set_data_from_numpy(array)
    return made


def ask(
    endpoint: Endpoint, model: str, inputs: dict[str, Any], outputs: tuple[str, ...] = (), **options: Any
) -> dict[str, Any]:
    protocol = options.pop("protocol", "grpc")
    kind, address = (grpc, endpoint.grpc) if protocol == "grpc" else (http, endpoint.http)
    with kind.InferenceServerClient(address) as client:
        wanted = [kind.InferRequestedOutput(name) for name in outputs] or None
        sent = [tensor(kind, name, values) for name, values in inputs.items()]
        answer = client.infer(model, sent, outputs=wanted, **options)
        response = answer.get_response()
        told = response["outputs"] if protocol == "http" else response.outputs
        names = [one["name"] if protocol == "http" else one.name for one in told]
        return {name: answer.as_numpy(name) for name in names}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("packages")
    found = {kind: raw_models.package(home / kind, kind) for kind in ("table", "text")}
    return found | {"flagging": raw_models.package(home / "flagging", "text", [0.99, 0.3, None])}


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Collector, Path]]:
    folder = tmp_path_factory.mktemp("log")
    found = Collector(folder)
    found.start()
    yield found, folder
    found.stop()


@pytest.fixture(scope="module")
def endpoint(
    tmp_path_factory: pytest.TempPathFactory, packages: dict[str, Path], collector: tuple[Collector, Path]
) -> Iterator[Endpoint]:
    root = tmp_path_factory.mktemp("server")
    with start_server(root / "repository", root / "log.txt", log_socket=collector[0].address) as server:
        control = Control(server.endpoint)
        for kind, package in packages.items():
            add_version(root / "repository", kind, 1, package)
            control.swap(root / "repository", kind, [1], 1)
            control.wait_ready(kind, 1, 60)
        yield server.endpoint


def right(package: Path, table: pa.Table) -> dict[str, np.ndarray]:
    encoder = restore_encoder(json.loads((package / "encoder.json").read_text()))
    return run_session(open_session(package / "model.onnx"), read_signature(package), encoder.encode(table))


@pytest.mark.triton
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_rows_of_columns_are_answered_like_their_tensors(
    endpoint: Endpoint, packages: dict[str, Path], protocol: str
) -> None:
    expected = right(packages["table"], SAME)
    found = ask(endpoint, "table", ROW, ("probabilities", "embedding"), protocol=protocol)
    assert set(found) == {"probabilities", "embedding"}
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])
    encoder = restore_encoder(raw_models.TABLE)
    tensors = dict(zip(("number", "category"), encoder.encode(SAME), strict=True))
    np.testing.assert_array_equal(
        predict(endpoint, "table", tensors).outputs["probabilities"], expected["probabilities"]
    )


@pytest.mark.triton
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_texts_are_answered_with_label_and_confidence(
    endpoint: Endpoint, packages: dict[str, Path], protocol: str
) -> None:
    expected = right(packages["text"], pa.table({"text": WRITTEN}))["probabilities"]
    found = ask(endpoint, "text", {"text": WRITTEN}, EXTRAS, protocol=protocol)
    assert set(found) == set(EXTRAS)
    assert [value.decode() for value in found["label"][:, 0]] == [raw_models.LABELS[k] for k in expected.argmax(axis=1)]
    assert found["label"].shape == found["confidence"].shape == found["review"].shape == (3, 1)
    np.testing.assert_array_equal(found["confidence"][:, 0], expected.max(axis=1))
    assert not found["review"].any()  # no review.json: nothing is flagged
    every = ask(endpoint, "text", {"text": WRITTEN}, protocol=protocol)
    assert set(every) == {"probabilities", "embedding", "served_version", *EXTRAS}


@pytest.mark.triton
def test_thresholds_flag_by_predicted_class_and_the_log_tells_it(
    endpoint: Endpoint, packages: dict[str, Path], collector: tuple[Collector, Path]
) -> None:
    written = ["", *(" ".join(["wind"] * n + ["zebra"] * m) for n, m in ((1, 0), (3, 2), (6, 6), (0, 12)))]
    expected = right(packages["flagging"], pa.table({"text": written}))["probabilities"]
    wanted = ask(endpoint, "flagging", {"text": written}, ("review", "label"), request_id="flags")
    classes, confidence = expected.argmax(axis=1), expected.max(axis=1)
    lowest = np.array([0.99, 0.3, np.inf], dtype=np.float32)[classes]
    assert len(set(classes)) > 1
    assert wanted["review"][:, 0].tolist() == (confidence < lowest).tolist()
    served, folder = collector
    logged = raw_models.logged(served, folder / "flagging", {f"flags#{row}" for row in range(len(written))})
    assert [logged[f"flags#{row}"]["review"] for row in range(len(written))] == wanted["review"][:, 0].tolist()
    np.testing.assert_array_equal(logged["flags#2"]["output.probabilities"], expected[2])
    assert len(logged["flags#2"]["input.tokens"]) == raw_models.TEXT["length"]  # the tensors, whatever form came
    assert all("review" not in pq.read_schema(path).names for path in (folder / "text").rglob("*.parquet"))


@pytest.mark.triton
@pytest.mark.parametrize(
    ("model", "changed", "message"),
    [
        ("table", {"age": None}, "column 'age' is missing"),
        ("table", {"member": [0.5, 1.0, 0.0]}, "column 'member' is true or false"),
        ("table", {"since": ["now", "", ""]}, "column 'since': 'now' is no time"),
        ("table", {"Ort": [b"\xff", b"", b""]}, "column 'Ort'.*UTF-8"),
        ("table", {"age": ["1", "2", "3"]}, r"age.*(FP64|BYTES)"),
        ("table", {"category": np.zeros((3, 2), np.int64)}, "form|number is missing"),
        ("table", {"age": [1.0]}, "rows|batch"),
        ("text", {"text": None, "tokens": np.zeros((1, 12), np.int64)}, "pieces is missing"),
        (
            "text",
            {"tokens": np.zeros((3, 12), np.int64), "pieces": np.zeros((3, 12, 16), np.int64)},
            "one of the two forms",
        ),
    ],
)
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_what_is_no_whole_form_is_refused_by_name(
    endpoint: Endpoint, model: str, changed: dict[str, Any], message: str, protocol: str
) -> None:
    inputs = {**(ROW if model == "table" else {"text": WRITTEN}), **changed}
    with pytest.raises(InferenceServerException, match=message) as caught:
        ask(endpoint, model, {name: values for name, values in inputs.items() if values is not None}, protocol=protocol)
    assert caught.value.status() in {"400", "StatusCode.INVALID_ARGUMENT"}


@pytest.mark.triton
@pytest.mark.parametrize("kind", ["table", "text"])
def test_nonsense_is_refused_where_inputs_are_optional(
    endpoint: Endpoint, packages: dict[str, Path], kind: str
) -> None:
    told = read_signature(packages[kind])
    odd, far = odd_requests(told), far_requests(told)
    assert {name: refused(endpoint, kind, body, 20) for name, body in odd.items()} == dict.fromkeys(odd, "")
    assert {name: survived(endpoint, kind, body, 20) for name, body in far.items()} == dict.fromkeys(far, "")
    assert Control(endpoint).golden(kind, 1, packages[kind] / "golden.npz", tolerance=1e-5).passed


@pytest.mark.triton
def test_raw_rows_and_tensors_share_a_server_under_load(endpoint: Endpoint, packages: dict[str, Path]) -> None:
    expected = right(packages["text"], pa.table({"text": WRITTEN}))["probabilities"]
    encoder = restore_encoder(raw_models.TEXT)
    tensors = dict(zip(("tokens", "pieces"), encoder.encode(pa.table({"text": WRITTEN})), strict=True))

    def one(number: int) -> bool:
        row = number % 3
        if number % 7 == 0:
            try:
                ask(endpoint, "text", {"text": [b"\xff"]}, EXTRAS)
            except InferenceServerException as error:
                return "UTF-8" in str(error)
            return False
        inputs = {"text": WRITTEN[row : row + 1]} if number % 2 else {n: a[row : row + 1] for n, a in tensors.items()}
        found = ask(endpoint, "text", inputs, ("probabilities", "confidence") if number % 5 else ("probabilities",))
        return np.array_equal(found["probabilities"][0], expected[row])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(200)))


def test_the_configuration_declares_both_forms_as_optional(packages: dict[str, Path], tmp_path: Path) -> None:
    add_version(tmp_path, "table", 1, packages["table"])
    set_versions(tmp_path, "table", [1], 1)
    config = text_format.Parse((tmp_path / "table" / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    told = {port.name: (model_config_pb2.DataType.Name(port.data_type), port.optional) for port in config.input}
    assert told == {
        "number": ("TYPE_FP32", True),
        "category": ("TYPE_INT64", True),
        **dict.fromkeys(("age", "far away", "member"), ("TYPE_FP64", True)),
        **dict.fromkeys(("since", "column.number", "Ort"), ("TYPE_STRING", True)),
    }
    assert [port.name for port in config.output] == ["probabilities", "embedding", *EXTRAS, "served_version"]
    # A version from before takes its tensors alone, and so does every version beside it.
    add_version(tmp_path, "table", 2, packages["table"])
    (tmp_path / "table" / "2" / "raw.py").unlink()
    set_versions(tmp_path, "table", [1, 2], 1)
    old = text_format.Parse((tmp_path / "table" / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert [(port.name, port.optional) for port in old.input] == [("number", False), ("category", False)]
    assert [port.name for port in old.output] == ["probabilities", "embedding", "served_version"]


def test_a_column_that_changed_its_kind_is_no_version_of_the_same_model(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    columns = [
        column | {"kind": "number", "offset": 0.0} if column["name"] == "since" else column
        for column in raw_models.TABLE["columns"]
    ]
    add_version(tmp_path, "m", 1, packages["table"])
    add_version(tmp_path, "m", 2, raw_models.package(tmp_path / "other", "table", columns=columns))
    with pytest.raises(ServingError, match="column 'since' is text in one version and a number in another"):
        set_versions(tmp_path, "m", [1, 2], 1)


def test_a_damaged_encoder_is_named_before_the_server_hears_of_it(packages: dict[str, Path], tmp_path: Path) -> None:
    place = add_version(tmp_path, "m", 1, packages["table"])
    (place / "encoder.json").write_text('{"modality": "table"}')
    with pytest.raises(StateError, match=r"encoder\.json' is damaged"):
        set_versions(tmp_path, "m", [1], 1)


def test_review_json_belongs_to_a_versions_content(tmp_path: Path) -> None:
    first = raw_models.package(tmp_path / "a", "text", [0.9, 0.8, None])
    place = add_version(tmp_path, "m", 1, first)
    assert "review.json" in json.loads((place / "files.json").read_text())
    assert add_version(tmp_path, "m", 1, first) == place
    for thresholds in ([0.9, 0.7, None], None):
        with pytest.raises(StateError, match="other content"):
            add_version(tmp_path, "m", 1, raw_models.package(tmp_path / f"b{thresholds}", "text", thresholds))


def test_what_the_schema_does_not_see_is_seen(packages: dict[str, Path]) -> None:
    told = read_signature(packages["text"])
    assert config_text("m", {1: told})
    for changed, message in (
        ({"inputs": (told.inputs[0], told.inputs[0])}, "input 'tokens' is there 2 times"),
        ({"inputs": (replace(told.inputs[0], shape=(-2,)),)}, "dims"),
        ({"inputs": (replace(told.inputs[0], name=""),)}, "has no name"),
    ):
        with pytest.raises(ServingError, match=message):
            config_text("m", {1: replace(told, **changed)})
    with pytest.raises(ServingError, match=r"versions \[0\]"):
        config_text("m", {0: told})
    with pytest.raises(ServingError, match="it has no name"):
        config_text("", {1: told})
