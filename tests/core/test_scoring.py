"""Opening and running a package: what it takes and what it refuses."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from kfloop.core.scoring import PackagedModel, invalid_rows
from kfloop.errors import StateError, TerminalError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose probabilities are the softmax of the pixels, and whose embedding is the pixels."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["embedding"]),
        helper.make_node("Softmax", ["embedding"], ["probabilities"], axis=-1),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("probabilities", "embedding")
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 2, 2, 1])
    model = helper.make_model(
        helper.make_graph(nodes, "pixels", [image], outputs), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    onnx.save(model, tmp_path / "model.onnx")
    signature = {"inputs": [{"name": "image", "dtype": "uint8", "shape": [-1, 2, 2, 1]}], "labels": list("abcd")}
    (tmp_path / "signature.json").write_text(json.dumps(signature))
    (tmp_path / "train_content.txt").write_text("aa\nbb\n")
    return tmp_path


@pytest.mark.parametrize("count", [0, 1, 256, 300])
def test_any_number_of_images_comes_back_in_order(folder: Path, count: int) -> None:
    images = np.random.default_rng(0).integers(0, 4, (count, 2, 2, 1), dtype=np.uint8)
    scores = PackagedModel(folder).score(images)
    np.testing.assert_array_equal(scores.embedding, images.reshape(count, 4))
    np.testing.assert_allclose(scores.probabilities.sum(1), np.ones(count), rtol=1e-6)
    assert PackagedModel(folder).train_content() == {"aa", "bb"}


def test_other_images_are_refused_with_both_shapes(folder: Path) -> None:
    model = PackagedModel(folder)
    with pytest.raises(TerminalError, match=r"uint8 images \[2, 2, 1\].*uint8 \[3, 2, 1\]"):
        model.score(np.zeros((1, 3, 2, 1), dtype=np.uint8))
    with pytest.raises(TerminalError, match="float32"):
        model.score(np.zeros((1, 2, 2, 1), dtype=np.float32))


@pytest.mark.parametrize("name", ["model.onnx", "signature.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(StateError, match=f"has no {name}"):
        PackagedModel(folder)


@pytest.mark.parametrize("name", ["model.onnx", "signature.json"])
@pytest.mark.parametrize("content", [b"", b"\x00garbage", b"{}"])
def test_a_damaged_file_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(StateError, match=name):
        PackagedModel(folder)


def test_invalid_rows() -> None:
    rows = np.array([[0.5, 0.5], [np.nan, 0.5], [np.inf, 0], [-0.1, 1.1], [0.5, 0.4], [1.0, 0.0]])
    assert invalid_rows(rows).tolist() == [False, True, True, True, True, False]
