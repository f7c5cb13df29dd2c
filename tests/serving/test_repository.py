"""The model repository without a server: complete or absent, checked, never overwritten."""

from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from kfloop.errors import ServingError, StateError
from kfloop.serving.repository import (
    Signature,
    add_version,
    config_text,
    read_signature,
    served,
    served_signature,
    set_versions,
)

Package = Callable[..., Path]


def test_a_version_appears_complete_and_repeating_it_changes_nothing(tmp_path: Path, package: Package) -> None:
    place = add_version(tmp_path, "m", 1, package(1))
    assert {path.name for path in place.iterdir()} == {"model.onnx", "signature.json", "golden.npz", "model.py"}
    before = (place / "model.onnx").stat().st_mtime_ns
    assert add_version(tmp_path, "m", 1, package(1)) == place
    assert (place / "model.onnx").stat().st_mtime_ns == before


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


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"inputs": [], "outputs": [], "labels": [], "max_batch_size": 1}'])
def test_a_malformed_signature_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "signature.json").write_text(text)
    with pytest.raises(ServingError, match="signature"):
        read_signature(tmp_path)


@pytest.mark.parametrize(
    "signature",
    [
        Signature(image_shape=(0, 8, 1), labels=("a",), embedding=4, max_batch_size=8),
        Signature(image_shape=(8, 8, 1), labels=(), embedding=4, max_batch_size=8),
        Signature(image_shape=(8, 8, 1), labels=("a",), embedding=0, max_batch_size=8),
        Signature(image_shape=(8, 8, 1), labels=("a",), embedding=4, max_batch_size=0),
    ],
)
def test_a_model_that_cannot_be_served_is_refused(signature: Signature) -> None:
    with pytest.raises(ServingError, match="cannot be served"):
        config_text("m", signature, [1])
