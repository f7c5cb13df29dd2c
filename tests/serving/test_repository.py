"""The model repository without a server: complete or absent, checked, never overwritten."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from kfloop import serving
from kfloop.core.signature import Port, Signature
from kfloop.errors import ServingError, StateError
from kfloop.serving.model_config import config_text
from kfloop.serving.repository import add_version, served, served_signature, set_versions

Package = Callable[..., Path]


def test_a_version_appears_complete_and_repeating_it_changes_nothing(tmp_path: Path, package: Package) -> None:
    place = add_version(tmp_path, "m", 1, package(1))
    code = {path.name for path in Path(serving.__file__).parent.glob("model/[!_]*.py")}
    packaged = {"bare", "encoder.json", "files.json", "golden.npz", "model.onnx", "signature.json"}
    assert {path.name for path in place.iterdir() if path.name != "__pycache__"} == packaged | code
    before = (place / "model.onnx").stat().st_mtime_ns
    assert add_version(tmp_path, "m", 1, package(1)) == place
    assert (place / "model.onnx").stat().st_mtime_ns == before


def test_a_version_of_an_older_kfloop_gets_the_code_of_this_one(tmp_path: Path, package: Package) -> None:
    place = add_version(tmp_path, "m", 1, package(1))
    (place / "files.json").unlink()
    (place / "model.py").write_text("# of before")
    before = (place / "model.onnx").read_bytes()
    assert add_version(tmp_path, "m", 1, package(1)) == place
    assert (place / "files.json").is_file()
    assert "of before" not in (place / "model.py").read_text()
    assert (place / "model.onnx").read_bytes() == before
    assert [path.name for path in place.parent.iterdir()] == ["1"]


def test_other_content_under_the_same_number_is_refused(tmp_path: Path, package: Package) -> None:
    add_version(tmp_path, "m", 1, package(1))
    with pytest.raises(StateError, match="version 1"):
        add_version(tmp_path, "m", 1, package(2))


def test_what_a_killed_copy_left_is_cleaned(tmp_path: Path, package: Package) -> None:
    leftover = tmp_path / "m" / ".tmp-1-abc"
    leftover.mkdir(parents=True)
    (leftover / "model.onnx").write_text("half")
    add_version(tmp_path, "m", 1, package(1))
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["1"]


def test_the_configuration_follows_tritons_own_schema(tmp_path: Path, package: Package) -> None:
    add_version(tmp_path, "m", 1, package(1))
    add_version(tmp_path, "m", 2, package(2))
    set_versions(tmp_path, "m", [2, 1], 1)
    config = text_format.Parse((tmp_path / "m" / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert list(config.version_policy.specific.versions) == [1, 2]
    assert list(config.input[0].dims) == [8, 8, 1]
    assert config.max_batch_size == 16
    assert served(tmp_path, "m") == (1, [1, 2])
    assert served_signature(tmp_path, "m").labels == ("a", "b", "c")


@pytest.mark.parametrize(("held", "default"), [([3], 3), ([1], 2), ([], 1)])
def test_a_version_that_is_not_there_is_never_announced(
    tmp_path: Path, package: Package, held: list[int], default: int
) -> None:
    add_version(tmp_path, "m", 1, package(1))
    with pytest.raises(ServingError):
        set_versions(tmp_path, "m", held, default)
    assert served(tmp_path, "m") == (None, [])


def test_nothing_is_served_before_the_first_promotion(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="no served version"):
        served_signature(tmp_path, "m")


@pytest.mark.parametrize("name", ["signature.json", "encoder.json", "golden.npz"])
def test_an_incomplete_package_is_not_taken_in(tmp_path: Path, package: Package, name: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(package(1), broken)
    (broken / name).unlink()
    with pytest.raises(StateError, match=f"has no {name}"):
        add_version(tmp_path / "repository", "m", 1, broken)
    assert not (tmp_path / "repository" / "m" / "1").exists()


def test_a_package_of_the_old_format_says_what_to_do(tmp_path: Path, package: Package) -> None:
    old = tmp_path / "old"
    shutil.copytree(package(1), old)
    (old / "signature.json").write_text('{"inputs": [], "outputs": [], "labels": [], "max_batch_size": 1, "format": 1}')
    add_version(tmp_path / "repository", "m", 1, old)
    with pytest.raises(StateError, match="format 1"):
        set_versions(tmp_path / "repository", "m", [1], 1)


def parsed(*signatures: Signature) -> Any:
    text = config_text("m", dict(enumerate(signatures, 1)))
    return text_format.Parse(text, model_config_pb2.ModelConfig())


TABLE = Signature(
    objective="regression",
    modality="table",
    family="mlp",
    inputs=(Port(name="number", dtype="float32", shape=(4,)), Port(name="category", dtype="int64", shape=(2,))),
    outputs=(Port(name="prediction", dtype="float32", shape=()), Port(name="embedding", dtype="float32", shape=(8,))),
    labels=(),
    max_batch_size=64,
)
NODES = Signature(
    objective="classification",
    modality="nodes",
    family="gnn",
    inputs=(Port(name="node", dtype="float32", shape=(-1, 5)), Port(name="edges", dtype="int64", shape=(2, -1))),
    outputs=(
        Port(name="probabilities", dtype="float32", shape=(-1, 3)),
        Port(name="embedding", dtype="float32", shape=(-1, 8)),
    ),
    labels=("a", "b", "c"),
    max_batch_size=0,
)


def test_any_tensors_can_be_configured_and_a_number_is_an_axis_of_length_1() -> None:
    config = parsed(TABLE)
    assert [(port.name, port.data_type, list(port.dims)) for port in config.input] == [
        ("number", model_config_pb2.TYPE_FP32, [4]),
        ("category", model_config_pb2.TYPE_INT64, [2]),
    ]
    assert list(config.output[0].dims) == [1]
    assert config.output[0].HasField("reshape")
    assert not config.output[1].HasField("reshape")
    assert config.HasField("dynamic_batching")


def test_graphs_have_all_their_axes_and_no_batches() -> None:
    config = parsed(NODES)
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert [list(port.dims) for port in config.input] == [[-1, 5], [2, -1]]


def test_versions_whose_axes_differ_share_a_configuration() -> None:
    """A text encoder's length is fitted: two versions need not agree in it."""
    wider = replace(TABLE, inputs=(replace(TABLE.inputs[0], shape=(6,)), TABLE.inputs[1]), max_batch_size=32)
    config = parsed(TABLE, wider)
    assert [list(port.dims) for port in config.input] == [[-1], [2]]
    assert config.max_batch_size == 64


@pytest.mark.parametrize(
    "other",
    [
        NODES,
        replace(TABLE, inputs=TABLE.inputs[:1]),
        replace(TABLE, inputs=(replace(TABLE.inputs[0], dtype="int16"), TABLE.inputs[1])),
        replace(TABLE, inputs=(TABLE.inputs[1], TABLE.inputs[0])),
        replace(TABLE, outputs=(replace(TABLE.outputs[0], name="forecast"), TABLE.outputs[1])),
    ],
)
def test_versions_that_take_or_give_something_else_are_not_served_together(other: Signature) -> None:
    with pytest.raises(ServingError, match=r"side by side.*version 1 takes.*version 2 takes"):
        parsed(TABLE, other)


@pytest.mark.parametrize("port", [{"dtype": "complex64"}, {"shape": (0,)}])
def test_tensors_that_triton_has_not_are_refused(port: dict[str, Any]) -> None:
    with pytest.raises(ServingError, match="cannot be served"):
        parsed(replace(TABLE, inputs=(replace(TABLE.inputs[0], **port), TABLE.inputs[1])))
