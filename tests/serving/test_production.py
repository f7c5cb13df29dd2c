"""The production repository: parsed, wired, and run as an ensemble on the embedded Triton with the graph in the python backend's hands,
which has no onnxruntime backend.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from tritonclient import grpc
from tritonclient.grpc import model_config_pb2 as schema
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

import raw_models
from kfloop.cli.export import export_command
from kfloop.core.encoding import restore_encoder
from kfloop.core.scoring import open_session, run_session
from kfloop.core.signature import read_signature
from kfloop.errors import ConfigError, ServingError, StateError
from kfloop.serving.collector import Collector
from kfloop.serving.control import Control, read_golden
from kfloop.serving.endpoint import Endpoint
from kfloop.serving.ensemble_check import check_ensemble
from kfloop.serving.production import write_production
from kfloop.serving.production_configs import Production
from kfloop.serving.repository import add_version, set_versions
from kfloop.serving.server import start_server
from loading import load

ANY, TINY = load(Path(__file__).parent / "test_any_model.py"), load(Path(__file__).parent / "conftest.py")
WRITTEN = ["wind and RAIN", "", "東京 über 12 x"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("packages")
    return {
        "image": TINY.make_package(home / "image", 1),
        "text": raw_models.package(home / "text", "text", [0.99, 0.3, None]),
        "table": raw_models.package(home / "table", "table"),
        "price": ANY.write_package(home / "price", "table"),  # a number without axes, and no raw form
        "nodes": ANY.write_package(home / "nodes", "nodes"),
    }


def parsed(text: str) -> Any:
    return text_format.Parse(text, schema.ModelConfig())


@pytest.mark.parametrize("kind", ["image", "text", "table", "price", "nodes"])
@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_every_configuration_reads_back_and_fits_the_others(
    packages: dict[str, Path], kind: str, target: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    texts = write_production(
        packages[kind], out, kind, Production(target=target, gpus=2, instances=3, tensorrt=target == "gpu")
    )
    steps = {"image": ["", "_model", "_post"], "nodes": ["", "_model"], "price": ["", "_model", "_post"]}
    assert set(texts) == {f"{kind}{step}" for step in steps.get(kind, ["", "_model", "_post", "_pre"])}
    configs = {name: parsed((out / name / "config.pbtxt").read_text()) for name in texts}
    graph = configs[f"{kind}_model"]
    assert graph.backend == "onnxruntime"
    assert (out / f"{kind}_model" / "1" / "model.onnx").read_bytes() == (packages[kind] / "model.onnx").read_bytes()
    for sample in graph.model_warmup:
        for name, value in sample.inputs.items():
            content = (out / f"{kind}_model" / "warmup" / value.input_data_file).read_bytes()
            port = next(one for one in read_signature(packages[kind]).inputs if one.name == name)
            assert len(content) == np.prod(list(value.dims)) * np.dtype(port.dtype).itemsize
    if target == "gpu":
        assert [(list(group.gpus), group.count) for group in graph.instance_group] == [([0], 3), ([1], 3)]
        (accelerator,) = graph.optimization.execution_accelerators.gpu_execution_accelerator
        assert accelerator.name == "tensorrt"
        if kind == "image":
            assert list(graph.dynamic_batching.preferred_batch_size) == [4, 8, 16]
            assert accelerator.parameters["trt_profile_max_shapes"] == "image:16x8x8x1"
            assert graph.dynamic_batching.max_queue_delay_microseconds == 2000
    else:
        assert not graph.optimization.execution_accelerators.gpu_execution_accelerator
        assert graph.dynamic_batching.max_queue_delay_microseconds == 0
    readme = (out / "README.md").read_text()
    assert "tritonserver:26.07-py3" in readme
    assert ("--gpus all" in readme) == (target == "gpu")
    assert ("kfloop collect" in readme) == (kind != "nodes")
    assert (out / kind / "1").is_dir()


def test_what_cannot_be_is_refused(packages: dict[str, Path], tmp_path: Path) -> None:
    for options, message in (
        (Production(target="tpu"), "target 'tpu'"),
        (Production(tensorrt=True), "TensorRT runs on GPUs"),
        (Production(backend="torch"), "backend 'torch'"),
        (Production(backend="python", target="gpu"), "in python on the CPU alone"),
        (Production(instances=0), "instances 0"),
        (Production(delay_us=-1), "numbers from 1 on"),
    ):
        with pytest.raises(ConfigError, match=message):
            write_production(packages["text"], tmp_path / "out", "m", options)
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        write_production(packages["text"], tmp_path / "full", "m", Production())
    asked = tmp_path / "asked"
    asked.mkdir()
    (asked / "external.json").write_text("{}")
    with pytest.raises(ServingError, match="behind an API"):
        write_production(asked, tmp_path / "out", "m", Production())
    with pytest.raises(StateError, match=r"signature\.json"):
        write_production(tmp_path / "nothing", tmp_path / "out", "m", Production())


def test_an_ensemble_that_is_wired_wrongly_is_named(packages: dict[str, Path], tmp_path: Path) -> None:
    texts = write_production(packages["text"], tmp_path / "out", "t", Production())
    right = {name: parsed(text) for name, text in texts.items()}
    models = {name: config for name, config in right.items() if name != "t"}
    check_ensemble(right["t"], models)

    def broken(change: Any) -> Any:
        config = parsed(texts["t"])
        change(config, config.ensemble_scheduling.step)
        return config

    for change, message in (
        (lambda _, steps: steps[1].input_map.update({"tokens": "nobody"}), "reads 'nobody' before"),
        (lambda _, steps: steps[1].input_map.update({"tokens": "pre:pieces"}), "another type or shape"),
        (lambda _, steps: steps[0].input_map.clear(), "leaves its input 'text' open"),
        (lambda _, steps: steps[2].output_map.update({"label": "confidence"}), "a second time"),
        (lambda _, steps: steps[2].output_map.update({"colour": "x"}), "has no output 'colour'"),
        (
            lambda config, _: config.output.add(name="extra", data_type="TYPE_BOOL", dims=[1]),
            "'extra' is written by no step",
        ),
        (lambda _, steps: setattr(steps[0], "model_name", "gone"), "'gone' is no model"),
        (lambda config, _: setattr(config, "max_batch_size", 99), "takes fewer rows"),
    ):
        with pytest.raises(ServingError, match=message):
            check_ensemble(broken(change), models)


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Collector, Path]]:
    folder = tmp_path_factory.mktemp("log")
    found = Collector(folder)
    found.start()
    yield found, folder
    found.stop()


def put_ensemble(repository: Path, root: Path, kind: str, package: Path) -> None:
    """The ensemble of a package as the embedded server can run it."""
    write_production(package, root / kind, kind, Production(backend="python"))
    (root / kind / "README.md").unlink()
    for part in (root / kind).iterdir():
        part.rename(repository / part.name)


@pytest.fixture(scope="module")
def endpoint(
    tmp_path_factory: pytest.TempPathFactory, packages: dict[str, Path], collector: tuple[Collector, Path]
) -> Iterator[Endpoint]:
    """All five ensembles on the embedded server."""
    root = tmp_path_factory.mktemp("server")
    repository = root / "repository"
    repository.mkdir()
    for kind, package in packages.items():
        put_ensemble(repository, root, kind, package)
    with start_server(repository, root / "log.txt", log_socket=collector[0].address) as server:
        for kind in packages:
            Control(server.endpoint).load(kind)
        yield server.endpoint


def ask(
    endpoint: Endpoint, model: str, inputs: dict[str, np.ndarray], outputs: tuple[str, ...], **options: Any
) -> dict[str, Any]:
    sent = []
    for name, array in inputs.items():
        tensor = grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
        sent.append(tensor)
    with grpc.InferenceServerClient(endpoint.grpc) as client:
        answer = client.infer(model, sent, outputs=[grpc.InferRequestedOutput(name) for name in outputs], **options)
    return {name: answer.as_numpy(name) for name in outputs}


@pytest.mark.triton
@pytest.mark.parametrize("kind", ["image", "text", "table", "price", "nodes"])
def test_golden_answers_come_out_of_the_ensemble(endpoint: Endpoint, packages: dict[str, Path], kind: str) -> None:
    inputs, expected = read_golden(packages[kind] / "golden.npz")
    found = ask(endpoint, kind, inputs, tuple(expected))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].reshape(values.shape), values, atol=1e-5)


@pytest.mark.triton
def test_texts_go_in_and_labels_come_out_and_are_logged(
    endpoint: Endpoint, packages: dict[str, Path], collector: tuple[Collector, Path]
) -> None:
    encoder = restore_encoder(raw_models.TEXT)
    tensors = encoder.encode(pa.table({"text": WRITTEN}))
    expected = run_session(open_session(packages["text"] / "model.onnx"), read_signature(packages["text"]), tensors)
    texts = np.array([text.encode() for text in WRITTEN], dtype=object)[:, None]
    found = ask(endpoint, "text", {"text": texts}, ("probabilities", "label", "confidence", "review"), request_id="one")
    np.testing.assert_array_equal(found["probabilities"], expected["probabilities"])
    classes = expected["probabilities"].argmax(axis=1)
    assert [label.decode() for label in found["label"][:, 0]] == [raw_models.LABELS[place] for place in classes]
    lowest = np.array([0.99, 0.3, np.inf], dtype=np.float32)[classes]
    flags = (expected["probabilities"].max(axis=1) < lowest).tolist()
    assert found["review"][:, 0].tolist() == flags
    ask(endpoint, "text", {"text": texts[:1]}, ("embedding",), request_id="two")  # logged whatever it asks for
    logged = raw_models.logged(collector[0], collector[1] / "text", {"one#0", "one#1", "one#2", "two"})
    assert [logged[f"one#{row}"]["review"] for row in range(3)] == flags
    assert logged["one#2"]["input.tokens"] == tensors[0][2].tolist()
    np.testing.assert_array_equal(logged["two"]["output.probabilities"], expected["probabilities"][0])


@pytest.mark.triton
def test_rows_of_columns_go_in(endpoint: Endpoint, packages: dict[str, Path]) -> None:
    row = {
        "age": 0.2,
        "far away": 1e9,
        "member": 1.0,
        "since": b"2026-03-01T12:30:00",
        "column.number": b"ulm",
        "Ort": b"",
    }
    sent = {
        name: np.array([[value]], dtype=object if isinstance(value, bytes) else np.float64)
        for name, value in row.items()
    }
    table = pa.table(
        {
            "age": [0.2],
            "far away": [1e9],
            "member": [True],
            "number": ["ulm"],
            "Ort": [""],
            "since": pa.array(["2026-03-01T12:30:00"]).cast(pa.timestamp("us")),
        }
    )
    tensors = restore_encoder(raw_models.TABLE).encode(table)
    expected = run_session(open_session(packages["table"] / "model.onnx"), read_signature(packages["table"]), tensors)
    found = ask(endpoint, "table", sent, ("probabilities", "review"))
    np.testing.assert_array_equal(found["probabilities"], expected["probabilities"])
    assert not found["review"].any()
    with pytest.raises(InferenceServerException, match="column 'since'"):
        ask(endpoint, "table", sent | {"since": np.array([[b"soon"]], dtype=object)}, ("label",))
    inputs, _ = read_golden(packages["table"] / "golden.npz")
    one = {name: array[:1] for name, array in inputs.items()}
    for mixed in (sent | one, {"category": one["category"]}):
        with pytest.raises(
            InferenceServerException, match="send a raw row, or the tensors number, category and nothing"
        ):
            ask(endpoint, "table", mixed, ("label",))


def test_the_options_are_plain(packages: dict[str, Path], tmp_path: Path) -> None:
    options = replace(Production(target="gpu"), delay_us=50, version=7)
    texts = write_production(packages["image"], tmp_path / "out", "m", options)
    assert parsed(texts["m_model"]).dynamic_batching.max_queue_delay_microseconds == 50
    assert json.loads((tmp_path / "out" / "m_post" / "7" / "signature.json").read_text())["labels"] == ["a", "b", "c"]


def test_the_command_exports_the_champion_or_a_package(packages: dict[str, Path], tmp_path: Path) -> None:
    loop = tmp_path / "loop.yaml"
    loop.write_text("name: m\ndata: {source: digits}\n")

    def run(*words: str) -> Any:
        return CliRunner().invoke(export_command, [*words, "-c", str(loop), "--json"], standalone_mode=False)

    assert isinstance(run(str(tmp_path / "a")).exception, ServingError)
    done = run(str(tmp_path / "a"), "--package", str(packages["image"]), "--target", "gpu", "--tensorrt")
    assert done.exception is None
    assert (tmp_path / "a" / "m_model" / "1" / "model.onnx").is_file()
    repository = tmp_path / ".kfloop" / "triton" / "repository"
    add_version(repository, "m", 4, packages["text"])
    set_versions(repository, "m", [4], 4)
    assert run(str(tmp_path / "b")).exception is None
    assert (tmp_path / "b" / "m_post" / "4" / "review.json").is_file()
    assert isinstance(run(str(tmp_path / "b")).exception, ConfigError)
    assert isinstance(run(str(tmp_path / "c"), "--tensorrt").exception, ConfigError)
    assert run(str(tmp_path / "d"), "--backend", "python").exception is None
    assert parsed((tmp_path / "d" / "m_model" / "config.pbtxt").read_text()).backend == "python"
