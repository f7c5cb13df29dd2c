"""Small real packages: one made by hand whose answers depend on a number, and one of any family that has learned nothing."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import modalities
from kfloop.components.deploy import deployment
from kfloop.components.package import packaging
from kfloop.components.package.packaging import save_arrays
from kfloop.core.artifacts import write_report
from kfloop.core.decisions import evidence_digest, reports_digest, write_evidence
from kfloop.core.sections import DeployConfig, PackageConfig, TrainConfig
from kfloop.core.signature import Port, Signature, write_signature
from kfloop.core.store import Store
from kfloop.core.workspace import Workspace

SHAPE = (8, 8, 1)


def make_decision(
    store: Path, challenger: str, champion: str | None, outcome: str = "promote", *, reports: Any = None, **more: Any
) -> Path:
    """A decision as the gate leaves it in the store, with the evidence it rests on."""
    evidence = reports or {"evaluate": {"challenger": {"digest": challenger}, "n_test": 10}}
    report: dict[str, Any] = {
        "outcome": outcome,
        "reason": "a test",
        "challenger_digest": challenger,
        "champion_digest": champion,
        "verdicts": [{"rule": "accuracy >= 0.5", "verdict": "pass", "mode": "enforce", "overridden_by": None}],
        "reports_digest": reports_digest(evidence, []),
        **more,
    }
    report["evidence_digest"] = evidence_digest(report)
    with tempfile.TemporaryDirectory() as folder:
        write_report(Path(folder), report)
        write_evidence(Path(folder), evidence, [])
        return Store(str(store)).publish(Path(folder), "decisions")


def deploy(
    workspace: Workspace, config: DeployConfig, digest: str, champion: str | None
) -> deployment.DeploymentReport:
    """Carry out a decision to promote the package with this digest instead of the champion."""
    out = workspace.root / "out"
    out.mkdir(exist_ok=True)
    decision = make_decision(Path(workspace.store), digest, champion)
    model = Path(workspace.store) / "models" / digest
    return deployment.run(config, model=model, decision=decision, out=out, workspace=workspace)


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
    golden = {"input.image": images, "output.probabilities": probabilities, "output.embedding": embedding}
    save_arrays(
        folder / "golden.npz",
        {name: array if name == "input.image" else array.astype(np.float32) for name, array in golden.items()},
    )
    write_signature(
        folder,
        Signature(
            objective="classification",
            modality="image",
            family="cnn",
            inputs=(Port(name="image", dtype="uint8", shape=SHAPE),),
            outputs=tuple(Port(name=name, dtype="float32", shape=(2,)) for name in ("probabilities", "embedding")),
            labels=("dark", "light"),
            max_batch_size=16,
        ),
    )
    encoder = {"modality": "image", "shape": SHAPE, "mean": [127.0], "std": [64.0]}
    (folder / "encoder.json").write_text(json.dumps(encoder))
    (folder / "report.json").write_text(json.dumps({"digest": digest}))
    return folder


def write_dataset(folder: Path, modality: str, task: str) -> Path:
    """A small dataset version; nodes get edges."""
    import pyarrow as pa

    modalities.write_modality(folder, modality, task)
    if modality == "nodes":
        card = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps(card | {"extras": ["edges"]}))
        ends = np.random.default_rng(0).integers(0, 64, (2, 200))
        edges = pa.table({"source": ends[0], "target": ends[1]})
        with pa.ipc.new_stream(str(folder / "edges.arrow"), edges.schema) as sink:
            sink.write_table(edges)
    return folder


def untrained(root: Path, modality: str, task: str, **train: Any) -> Path:
    """The checkpoint of a network that has learned nothing, and its dataset version, in ``root``."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from kfloop.components.train.preparing import prepare
    from kfloop.core.families import build_network
    from kfloop.core.families.checkpoints import save_checkpoint
    from kfloop.core.versions import read_version

    dataset, labels, folder = root / "dataset", root / "labels", root / "checkpoint"
    for place in (labels, folder):
        place.mkdir(parents=True)
    version = read_version(write_dataset(dataset, modality, task))
    names = [("id", pa.string()), ("weight", pa.float64()), ("quarantined", pa.bool_())]
    pq.write_table(pa.schema(names).empty_table(), labels / "weights.parquet")
    prepared = prepare(TrainConfig(**train), version, labels)
    torch.manual_seed(0)
    save_checkpoint(
        folder / "model.ckpt", prepared.spec, prepared.encoder, build_network(prepared.spec).eval().state_dict()
    )
    (folder / "train_content.txt").write_text("".join(f"{name}\n" for name in sorted(set(prepared.train.content))))
    write_report(folder, {"dataset_digest": version.digest})
    return folder


def make_any(
    root: Path, modality: str, task: str, *, out: Path | None = None, max_batch_size: int = 64, **train: Any
) -> tuple[packaging.PackageReport, Path]:
    """A package of any family; ``train`` is section ``train`` of the loop file."""
    checkpoint = untrained(root, modality, task, **train)
    out = out or root / "package"
    out.mkdir(parents=True)
    workspace = Workspace(loop="t", root=root, state="", store="", mlflow="")
    config = PackageConfig(max_batch_size=max_batch_size)
    return packaging.run(config, dataset=root / "dataset", checkpoint=checkpoint, out=out, workspace=workspace), out
