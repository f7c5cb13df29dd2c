"""Small real packages: an ONNX model whose answers depend on a number, with golden answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

SHAPE = (8, 8, 1)


def make_package(store: Path, digest: str, scale: float = 1.0, *, golden_error: float = 0.0) -> Path:
    """A package in the store: probabilities are softmax(scale * (mean, 1 - mean)), the embedding is (mean, mean)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder = store / "models" / digest
    folder.mkdir(parents=True)
    weights = np.zeros((64, 2), np.float32)
    weights[:] = np.array([1, -1], np.float32) / (64 * 255)
    flat = numpy_helper.from_array(np.array([-1, 64], np.int64), "flat")
    tensors = [flat, numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.float32(scale), "scale")]
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["pixels", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["embedding"]),
        helper.make_node("Mul", ["embedding", "scale"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *SHAPE])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2])
            for name in ("probabilities", "embedding")
        ],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    images = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), dtype=np.uint8)
    embedding = images.reshape(4, 64).astype(np.float32) @ weights
    exponent = np.exp(scale * embedding)
    probabilities = exponent / exponent.sum(axis=1, keepdims=True) + golden_error
    np.savez(
        folder / "golden.npz",
        images=images,
        probabilities=probabilities.astype(np.float32),
        embedding=embedding.astype(np.float32),
    )
    signature = {
        "inputs": [{"name": "image", "dtype": "uint8", "shape": [-1, *SHAPE]}],
        "outputs": [
            {"name": "probabilities", "dtype": "float32", "shape": [-1, 2]},
            {"name": "embedding", "dtype": "float32", "shape": [-1, 2]},
        ],
        "labels": ["dark", "light"],
        "max_batch_size": 16,
    }
    (folder / "signature.json").write_text(json.dumps(signature))
    (folder / "report.json").write_text(json.dumps({"digest": digest}))
    return folder
