"""Packages of classifiers on texts and on tables: real encoders, small graphs by hand, so that raw rows are tested without training."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from kfloop.core.encoding import restore_encoder
from kfloop.core.scoring import open_session, run_session
from kfloop.core.signature import Port, Signature, write_signature

if TYPE_CHECKING:
    from kfloop.serving.collector import Collector

LABELS = ("north", "oriental", "süd")
DAY = 86_400.0
TABLE = {
    "modality": "table",
    "columns": [
        {"name": "age", "kind": "number", "offset": 0.0},
        {"name": "far away", "kind": "number", "offset": 1.0e9},
        {"name": "member", "kind": "flag", "offset": 0.0},
        {"name": "since", "kind": "time", "offset": 1.7e9, "periods": [DAY, 7 * DAY, 365.2425 * DAY]},
        {"name": "number", "kind": "category", "names": ["ulm", "köln", "São Paulo", "東京"]},
        {"name": "Ort", "kind": "category", "names": ["", "a"]},
    ],
    "facts": {},
}
TEXT = {
    "modality": "text",
    "words": ["rain", "wind", "über", "東京", "0000"],
    "length": 12,
    "buckets": 1024,
    "parts": 16,
}
HEAD = '<ir_version: 9, opset_import: ["" : 18]> agraph '
GRAPHS = {
    "table": """(float[N,{a}] number, int64[N,{b}] category) => (float[N,3] probabilities, float[N,3] embedding)
        <float[3] factors = {{0.5, 1.0, -1.0}}, int64[1] axis = {{1}}> {{
        gaps = IsNaN(number) some = Cast<to=1>(gaps) zero = Sub(some, some)
        known = Where(gaps, zero, number) capped = Tanh(known) sums = ReduceSum<keepdims=1>(capped, axis)
        codes = Cast<to=1>(category) others = ReduceSum<keepdims=1>(codes, axis) both = Add(sums, others)
        embedding = Mul(both, factors) probabilities = Softmax<axis=1>(embedding) }}""",
    "text": """(int64[N,{a}] tokens, int64[N,{a},{b}] pieces) => (float[N,3] probabilities, float[N,3] embedding)
        <float[3] factors = {{0.1, 0.3, -0.2}}, int64[1] axis = {{1}}, int64[2] axes = {{1, 2}}, float small = {{0.0001}}> {{
        words = Cast<to=1>(tokens) sums = ReduceSum<keepdims=1>(words, axis) parts = Cast<to=1>(pieces)
        most = ReduceSum<keepdims=0>(parts, axes) line = Unsqueeze(most, axis) less = Mul(line, small)
        both = Add(sums, less) embedding = Mul(both, factors) probabilities = Softmax<axis=1>(embedding) }}""",
}


def package(folder: Path, kind: str, thresholds: list[float | None] | None = None, **changed: Any) -> Path:
    """A package of one of ``GRAPHS``, with golden answers."""
    import onnx.parser

    folder.mkdir(parents=True)
    plain = {"table": TABLE, "text": TEXT}[kind] | changed
    encoder = restore_encoder(plain)
    ports = encoder.ports
    sizes = {"a": ports[0].shape[0], "b": ports[1].shape[-1]}
    graph = onnx.parser.parse_model(HEAD + GRAPHS[kind].format(**sizes))
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    (folder / "encoder.json").write_text(json.dumps(plain))
    signature = Signature(
        objective="classification",
        modality=kind,
        family="test",
        inputs=ports,
        outputs=tuple(Port(name=name, dtype="float32", shape=(3,)) for name in ("probabilities", "embedding")),
        labels=LABELS,
        max_batch_size=16,
    )
    write_signature(folder, signature)
    dice = np.random.default_rng(0)
    inputs = {port.name: dice.integers(0, 4, (5, *port.shape)).astype(port.dtype) for port in ports}
    outputs = run_session(open_session(folder / "model.onnx"), signature, list(inputs.values()))
    arrays = {f"input.{name}": array for name, array in inputs.items()}
    np.savez(folder / "golden.npz", **arrays, **{f"output.{name}": array for name, array in outputs.items()})
    if thresholds:
        rows = [{"label": label, "threshold": found} for label, found in zip(LABELS, thresholds, strict=True)]
        (folder / "review.json").write_text(json.dumps({"format": 1, "precision": 0.9, "level": 0.95, "classes": rows}))
    return folder


def logged(collector: Collector, folder: Path, ids: set[str]) -> dict[str, dict[str, Any]]:
    """The logged rows by request id, once ``ids`` are there: a packet may still be on its way when its answer is here."""
    deadline = time.monotonic() + 20
    while True:
        collector.write()
        rows = [row for path in folder.rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
        found = {row["request_id"]: row for row in rows}
        if ids <= found.keys() or time.monotonic() > deadline:
            return found
        time.sleep(0.05)
