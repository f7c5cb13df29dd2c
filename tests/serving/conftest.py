"""Tiny real packages (an ONNX graph made by hand), so that serving is tested without training anything."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kfloop.core.signature import Port, Signature, write_signature
from kfloop.core.workspace import Workspace

MODEL = "tiny"


def make_package(folder: Path, seed: int, *, lying: bool = False, broken: bool = False) -> Path:
    """A package of a random linear classifier on 8x8 grey images; ``lying`` golden answers belong to another model."""
    import onnx
    from onnx import TensorProto, helper

    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    weights = (rng.normal(size=(64, 3)) / 100).astype(np.float32)
    projection = (rng.normal(size=(64, 4)) / 100).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["rows"], axis=1),
        helper.make_node("MatMul", ["rows", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("MatMul", ["rows", "projection"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 8, 8, 1])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 4]),
        ],
        [
            helper.make_tensor("weights", TensorProto.FLOAT, [64, 3], weights.ravel()),
            helper.make_tensor("projection", TensorProto.FLOAT, [64, 4], projection.ravel()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.save(model, folder / "model.onnx")
    if broken:
        (folder / "model.onnx").write_bytes(b"this is no model")
    images = rng.integers(0, 256, (8, 8, 8, 1)).astype(np.uint8)
    probabilities, embedding = answers(images, weights, projection)
    if lying:
        probabilities = probabilities[::-1]
    golden = {"input.image": images, "output.probabilities": probabilities, "output.embedding": embedding}
    np.savez(folder / "golden.npz", **golden)
    write_signature(folder, signature())
    encoder = {"modality": "image", "shape": [8, 8, 1], "mean": [127.0], "std": [64.0]}
    (folder / "encoder.json").write_text(json.dumps(encoder))
    return folder


def signature(**changed: Any) -> Signature:
    """What the packages take and give."""
    told: dict[str, Any] = {
        "objective": "classification",
        "modality": "image",
        "family": "cnn",
        "inputs": (Port(name="image", dtype="uint8", shape=(8, 8, 1)),),
        "outputs": (
            Port(name="probabilities", dtype="float32", shape=(3,)),
            Port(name="embedding", dtype="float32", shape=(4,)),
        ),
        "labels": ("a", "b", "c"),
        "max_batch_size": 16,
    }
    return Signature(**(told | changed))


def answers(images: np.ndarray, weights: np.ndarray, projection: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = images.reshape(len(images), -1).astype(np.float32)
    powers = np.exp(rows @ weights - (rows @ weights).max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32), rows @ projection


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    home = tmp_path_factory.mktemp("packages")
    made: dict[tuple[object, ...], Path] = {}

    def get(seed: int, **kind: bool) -> Path:
        key = (seed, *sorted(kind.items()))
        if key not in made:
            made[key] = make_package(home / f"package-{len(made)}", seed, **kind)
        return made[key]

    return get


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(loop=MODEL, root=tmp_path_factory.mktemp("loop"), state="", store="", mlflow="")


@pytest.fixture
def some_images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1)).astype(np.uint8)
