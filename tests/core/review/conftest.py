"""A small dataset version of every modality, and what ``check_labels`` would say about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfloop.core.versions import DatasetVersion, read_version

N = 120
CLASSES = ["cat & dog", "<bird>", 'fish "x"', "0"]


def _vectors(width: int) -> pa.Array:
    values = np.random.default_rng(1).normal(size=(N, width)).astype(np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width)


def _image(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    pixels = rng.integers(0, 255, (N, 8, 8, 3), dtype=np.uint8)
    facts = {"width": pa.array([8] * N), "height": pa.array([8] * N), "format": pa.array(["PNG"] * N)}
    column = pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), 8 * 8 * 3)
    return {"image": column}, {"schema": {"image_shape": [8, 8, 3]}, "facts": facts}


def _audio(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    sounds = [(3000 * np.sin(np.arange(800 + row) * 0.3)).astype(np.int16) for row in range(N)]
    return {"audio": pa.array(sounds, pa.list_(pa.int16()))}, {"schema": {"sample_rate": 8000}}


def _text(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"text": pa.array([f"<b>message</b> {row} & more </script>" for row in range(N)])}, {"schema": {}}


def _table(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    inputs = {
        "age": pa.array([None if row == 5 else row for row in range(N)], pa.int64()),
        "city": pa.array([f"town <{row}>" for row in range(N)]),
        "score": pa.array(rng.normal(size=N)),
        "member": pa.array([row % 2 == 0 for row in range(N)]),
    }
    columns = {"age": "int64", "city": "string", "score": "float64", "member": "bool"}
    return inputs, {"schema": {"columns": columns}}


def _vector(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"vector": _vectors(16)}, {"schema": {"vector_shape": [16]}}


def _nodes(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    facts = {"degree": pa.array([2] * N, pa.int64()), "isolated": pa.array([False] * N)}
    return {"vector": _vectors(4), "node": pa.array(np.arange(N))}, {"schema": {"graph": {"nodes": N}}, "facts": facts}


def _series(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    series = {"context": 12, "horizon": 4, "stride": 1, "channels": ["load", "temperature"]}
    inputs = {name: pa.array(rng.normal(size=N).cumsum()) for name in series["channels"]}
    return inputs | {"time": pa.array(np.arange(N))}, {"schema": {"series": series}}


def _graphs(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    sizes = [5 + row % 4 for row in range(N - 1)] + [100]  # the last one is too big to be drawn
    nodes = [rng.normal(size=2 * size).astype(np.float32) for size in sizes]
    edges = [np.stack([np.arange(size), (np.arange(size) + 1) % size], axis=1).reshape(-1) for size in sizes]
    inputs = {"nodes": pa.array(nodes, pa.list_(pa.float32())), "edges": pa.array(edges, pa.list_(pa.int64()))}
    return inputs, {"schema": {"node_features": 2}}


MODALITIES: dict[str, Callable[[np.random.Generator], tuple[dict[str, Any], dict[str, Any]]]] = {
    "image": _image,
    "audio": _audio,
    "text": _text,
    "table": _table,
    "vector": _vector,
    "nodes": _nodes,
    "series": _series,
    "graphs": _graphs,
}


def _labels(task: str, classes: int) -> dict[str, pa.Array]:
    if task == "regression":
        return {"label": pa.array(np.arange(N) / 4)}
    if task == "multilabel":
        return {"label": pa.array([sorted({row % classes, (row // 2) % classes}) for row in range(N)])}
    return {} if task == "forecasting" else {"label": pa.array(np.arange(N) % classes)}


def _write_splits(out: Path, table: pa.Table) -> dict[str, int]:
    """The first 80 rows train, the next 20 validate, the last 20 test."""
    sizes = {"train": 80, "validation": 20, "test": 20}
    start = 0
    for split, size in sizes.items():
        with pa.OSFile(str(out / f"{split}.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table.slice(start, size), max_chunksize=30)
        start += size
    return sizes


Make = Callable[..., DatasetVersion]


@pytest.fixture
def make_version(tmp_path: Path) -> Make:
    """Writes a version of a modality and a task."""

    def make(modality: str, task: str = "multiclass", names: list[str] | None = None) -> DatasetVersion:
        inputs, more = MODALITIES[modality](np.random.default_rng(0))
        names = (names or CLASSES) if task in {"multiclass", "multilabel"} else []
        out = tmp_path / f"{modality}-{task}"
        out.mkdir()
        columns = {"id": pa.array([f"{modality}/{row}" for row in range(N)]), **inputs, **more.get("facts", {})}
        content = pa.array([hashlib.sha256(f"{modality} {row}".encode()).hexdigest() for row in range(N)])
        table = pa.table({**columns, **_labels(task, len(names)), "origin": pa.array(["base"] * N), "content": content})
        sizes = _write_splits(out, table)
        card = {
            "digest": hashlib.sha256(f"{modality} {task} {names}".encode()).hexdigest()[:32],
            "name": modality,
            "modality": modality,
            "task": task,
            "labels": names,
            "schema": more["schema"],
            "inputs": [name for name in inputs if name != "time"],
            "facts": list(more.get("facts", {})),
            "splits": sizes,
            "n_rows": N,
            "extras": [],
        }
        (out / "card.json").write_text(json.dumps(card), encoding="utf-8")
        return read_version(out)

    return make


@pytest.fixture
def check() -> Callable[..., Path]:
    """Writes the ``issues.parquet`` of a version: row k of ``rows`` is flagged as its keywords say."""

    def write(
        version: DatasetVersion, rows: dict[str, dict[str, Any]], *, add: list[dict[str, Any]] | None = None
    ) -> Path:
        lines = []
        for line in version.manifest().select(["id", "content", "split", "label"]).to_pylist():
            plain = {
                "id": line["id"],
                "content": line["content"],
                "split": line["split"],
                "given": line["label"],
                "suggested": line["label"],
                "margin": 0.9,
                "confidence": 0.95,
                "flagged": False,
                "conflict": False,
                "low_confidence": False,
                "outlier": False,
            }
            lines.append(plain | rows.get(line["id"], {}))
        folder = version.folder.with_name(f"{version.folder.name}-labels")
        folder.mkdir()
        pq.write_table(pa.Table.from_pylist(lines + (add or [])), folder / "issues.parquet")
        return folder

    return write
