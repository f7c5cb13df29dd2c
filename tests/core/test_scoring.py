"""Opening and running a package: what it takes and what it refuses."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from kfloop.core.encoding import Examples
from kfloop.core.scoring import PackagedModel, difference, invalid_rows, unit_of
from kfloop.core.signature import Port, Signature, write_signature
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
    outputs = tuple(Port(name=name, dtype="float32", shape=(4,)) for name in ("probabilities", "embedding"))
    signature = Signature(
        objective="classification",
        modality="image",
        family="cnn",
        inputs=(Port(name="image", dtype="uint8", shape=(2, 2, 1)),),
        outputs=outputs,
        labels=tuple("abcd"),
        max_batch_size=8,
    )
    write_signature(tmp_path, signature)
    encoder = {"modality": "image", "shape": [2, 2, 1], "mean": [0.0], "std": [1.0]}
    (tmp_path / "encoder.json").write_text(json.dumps(encoder))
    (tmp_path / "train_content.txt").write_text("aa\nbb\n")
    return tmp_path


@pytest.mark.parametrize("count", [0, 1, 256, 300])
def test_any_number_of_images_comes_back_in_order(folder: Path, count: int) -> None:
    images = np.random.default_rng(0).integers(0, 4, (count, 2, 2, 1), dtype=np.uint8)
    scores = PackagedModel(folder).run([images])
    np.testing.assert_array_equal(scores["embedding"], images.reshape(count, 4))
    np.testing.assert_allclose(scores["probabilities"].sum(1), np.ones(count), rtol=1e-6)
    assert PackagedModel(folder).train_content() == {"aa", "bb"}


@pytest.mark.parametrize("count", [0, 3, 300])
def test_examples_are_answered_one_by_one(folder: Path, count: int) -> None:
    images = np.random.default_rng(0).integers(0, 4, (count, 2, 2, 1), dtype=np.uint8)
    names = np.array([f"r{row}" for row in range(count)], dtype=str)
    examples = Examples(
        inputs=(images,),
        target=np.zeros(count, np.int64),
        weights=np.ones(count, np.float32),
        ids=names,
        content=names,
        origin=names,
    )
    np.testing.assert_array_equal(PackagedModel(folder).score(examples)["embedding"], images.reshape(count, 4))


def test_other_images_are_refused_with_both_shapes(folder: Path) -> None:
    model = PackagedModel(folder)
    with pytest.raises(TerminalError, match=r"'image' as uint8 \[2, 2, 1\].*uint8 \[3, 2, 1\]"):
        model.run([np.zeros((1, 3, 2, 1), dtype=np.uint8)])
    with pytest.raises(TerminalError, match="float32"):
        model.run([np.zeros((1, 2, 2, 1), dtype=np.float32)])
    with pytest.raises(TerminalError, match="in all"):
        model.run([np.zeros((2, 2, 1), dtype=np.uint8)])
    with pytest.raises(TerminalError, match="takes 1 tensor"):
        model.run([])


@pytest.mark.parametrize("name", ["model.onnx", "signature.json", "encoder.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(StateError, match=f"has no {name}"):
        PackagedModel(folder)


@pytest.mark.parametrize("name", ["model.onnx", "signature.json", "encoder.json"])
@pytest.mark.parametrize("content", [b"", b"\x00garbage", b"{}", b'{"modality": "smell"}'])
def test_a_damaged_file_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(StateError, match=name):
        PackagedModel(folder)


def test_a_package_of_the_old_format_says_what_to_do(folder: Path) -> None:
    (folder / "signature.json").write_text('{"inputs": [{"name": "image", "shape": [-1, 2, 2, 1]}], "format": 1}')
    with pytest.raises(StateError, match="format 1") as caught:
        PackagedModel(folder)
    assert "packaged again by: kfloop run" in caught.value.hint


def test_a_signature_of_another_graph_is_noticed(folder: Path) -> None:
    text = (folder / "signature.json").read_text().replace('"image",', '"picture",', 1)
    (folder / "signature.json").write_text(text)
    with pytest.raises(StateError, match="its signature says"):
        PackagedModel(folder)


def test_differences_are_measured_in_the_unit_of_the_output() -> None:
    prices = np.array([2e5, -3e5])
    assert difference(prices, prices + 3, unit_of("prediction", prices)) == pytest.approx(1e-5)
    assert unit_of("probabilities", prices) == 1.0
    assert unit_of("embedding", np.array([0.1])) == 1.0
    assert unit_of("score", np.array([1e-3])) == 1e-3
    assert unit_of("score", np.zeros(2)) == 1.0
    for found in (np.array([1.0]), np.array([np.nan, 1.0]), np.array([np.inf, 1.0])):
        assert difference(prices, found) == np.inf
    assert difference(np.empty(0), np.empty(0)) == np.inf


def test_invalid_rows() -> None:
    rows = np.array([[0.5, 0.5], [np.nan, 0.5], [np.inf, 0], [-0.1, 1.1], [0.5, 0.4], [1.0, 0.0]])
    assert invalid_rows(rows).tolist() == [False, True, True, True, True, False]
