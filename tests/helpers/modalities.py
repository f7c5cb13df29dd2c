"""Small dataset versions of every modality, written by hand as the contract of versions says, with the reports of their checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kfloop.core.artifacts import write_report

SIZES = {"train": 40, "validation": 10, "test": 14}
CLASSES = ["north", "east", "south"]
Columns = dict[str, Any]


def estimate(value: float, half: float = 0.02, n: int = 64) -> dict[str, float]:
    return {"value": value, "low": max(0.0, value - half), "high": value + half, "n": n, "level": 0.95}


def _images(n: int, dice: np.random.Generator) -> Columns:
    pixels = dice.integers(0, 256, (n, 12 * 12 * 3), dtype=np.uint8)
    return {
        "image": pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), 12 * 12 * 3),
        "sharpness": dice.random(n),
    }


def _audio(n: int, dice: np.random.Generator) -> Columns:
    times = np.arange(8000) / 8000
    sounds = [
        (12_000 * np.sin(2 * np.pi * pitch * times) * np.exp(-3 * times)).astype(np.int16)
        for pitch in dice.integers(150, 900, n)
    ]
    return {"audio": pa.array(list(sounds), pa.list_(pa.int16())), "seconds": np.full(n, 1.0)}


def _text(n: int, dice: np.random.Generator) -> Columns:
    words = ["wind", "from", "the", "<b>north</b>", "rain", "later", "&", "mild"]
    lines = [" ".join(dice.choice(words, size)) for size in dice.integers(3, 60, n)]
    return {"text": lines, "characters": [len(line) for line in lines]}


def _table(n: int, dice: np.random.Generator) -> Columns:
    names = {f"feature_{place}_with_a_long_name": dice.normal(size=n) for place in range(18)}
    return {
        "age": dice.integers(18, 90, n),
        "income": dice.normal(5e4, 1e4, n),
        "town": dice.choice(["Ulm", "Bonn"], n),
        **names,
    }


def _vector(n: int, dice: np.random.Generator) -> Columns:
    flat = np.cumsum(dice.normal(size=(n, 50)), axis=1).astype(np.float32)
    flat[0, 3:6] = np.nan
    return {"vector": pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), 50)}


def _series(n: int, dice: np.random.Generator) -> Columns:
    load = np.cumsum(dice.normal(size=n))
    return {"load": load, "temperature": 15 + 8 * np.sin(np.arange(n) / 9) + dice.normal(size=n)}


def _nodes(n: int, dice: np.random.Generator) -> Columns:
    return _vector(n, dice) | {"node": np.arange(n), "degree": dice.geometric(0.3, n), "isolated": np.zeros(n, bool)}


def _graphs(n: int, dice: np.random.Generator) -> Columns:
    sizes = dice.integers(4, 26, n)
    edges = [dice.integers(0, size, 4 * size) for size in sizes]
    return {
        "nodes": pa.array([np.ones(2 * size, np.float32) for size in sizes], pa.list_(pa.float32())),
        "edges": pa.array(edges, pa.list_(pa.int64())),
        "n_nodes": sizes,
        "n_edges": [len(found) // 2 for found in edges],
    }


MAKERS: dict[str, tuple[Callable[[int, np.random.Generator], Columns], int, dict[str, Any]]] = {
    # modality: maker of columns, how many of them are inputs, schema
    "image": (_images, 1, {"image_shape": [12, 12, 3]}),
    "audio": (_audio, 1, {"sample_rate": 8000}),
    "text": (_text, 1, {}),
    "table": (_table, 21, {"columns": {"age": "int64", "income": "float64", "town": "string"}}),
    "vector": (_vector, 1, {"vector_shape": [50]}),
    "series": (
        _series,
        2,
        {"series": {"context": 96, "horizon": 24, "stride": 1, "channels": ["load", "temperature"]}},
    ),
    "nodes": (
        _nodes,
        2,
        {"graph": {"nodes": 64, "edges": 301, "dangling": 2, "self_loops": 1, "duplicate_edges": 0, "directed": False}},
    ),
    "graphs": (_graphs, 2, {"node_features": 2}),
}


def write_modality(folder: Path, modality: str, task: str = "multiclass") -> dict[str, list[str]]:
    """A version in ``folder``; gives the ids of its rows by split."""
    dice = np.random.default_rng(5)
    make, n_inputs, schema = MAKERS[modality]
    factor = 8 if modality == "series" else 1
    columns = make(factor * sum(SIZES.values()), dice)
    names = list(columns)
    total, start = len(columns[names[0]]), 0
    given: Columns = {}
    if task == "regression":
        given = {"label": dice.normal(size=total)}
    elif task == "multilabel":
        given = {
            "label": pa.array(
                [sorted({int(a), int(b)})[: int(a)] for a, b in dice.integers(0, 3, (total, 2))], pa.list_(pa.int64())
            )
        }
    elif task == "multiclass":
        given = {"label": np.arange(total) % len(CLASSES)}
    whole = pa.table(
        {
            "id": [f"{modality}/{row:04d}" for row in range(total)],
            **columns,
            **given,
            "origin": ["base"] * total,
            "content": [f"{row:032x}" for row in range(total)],
            **(
                {"time": pa.array(1_700_000_000_000_000 + 3_600_000_000 * np.arange(total), pa.timestamp("us"))}
                if modality == "series"
                else {}
            ),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    ids = {}
    for split, size in SIZES.items():
        part = whole.slice(start, factor * size)
        start += factor * size
        ids[split] = part["id"].to_pylist()
        with pa.ipc.new_stream(str(folder / f"{split}.arrow"), part.schema) as sink:
            sink.write_table(part)
    labels = CLASSES if task in {"multiclass", "multilabel"} else []
    card = {
        "format": 2,
        "digest": "0123456789abcdef" * 2,
        "name": modality,
        "modality": modality,
        "task": task,
        "labels": labels,
        "schema": schema,
        "inputs": names[:n_inputs],
        "facts": names[n_inputs:],
        "n_rows": total,
        "splits": {split: len(found) for split, found in ids.items()},
        "per_class": {split: {label: len(found) // 3 for label in labels} for split, found in ids.items()},
        "origins": {"base": total},
        "corrected": 3,
        "quarantined": 0,
        "extras": [],
        "split": {"method": "time", "times": [1.7e9, 1.71e9]} if modality == "series" else {"method": "random"},
        "previous": None,
        "sources": [{"kind": modality, "uri": f"data/{modality}", "digest": "feed" * 8, "commit": "abcd" * 10}],
        "lineage": {},
    }
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    (folder / "quarantine.jsonl").write_text("", encoding="utf-8")
    write_report(folder, {"digest": card["digest"], "labels": labels, "warnings": ["column 'label' was guessed"]})
    return ids


def validation_report(*, failed: bool = False) -> dict[str, Any]:
    """A validation with every kind of result, skew and profile."""
    line = {
        "expectation": "expect_column_values_to_be_between",
        "column": "age",
        "severity": "critical",
        "passed": True,
        "word": "pass",
        "observed": {"minimum": 18, "maximum": 89},
        "detail": "",
    }
    results = [line | {"column": f"feature_{place}", "observed": 0.25 * place} for place in range(16)]
    results.append(
        line
        | {
            "passed": False,
            "word": "fail",
            "severity": "warning",
            "column": "income",
            "observed": 3,
            "detail": "unexpected: [-1, -7]",
        }
    )
    if failed:
        results.append(line | {"passed": False, "word": "fail", "observed": -4, "detail": "unexpected: [-4]"})
        results.append(
            line
            | {
                "passed": False,
                "word": "error",
                "observed": None,
                "detail": "there is no column 'agee'; did you mean 'age'?",
            }
        )
    pairs = [
        {
            "pair": pair,
            "column": column,
            "test": test,
            "statistic": effect,
            "p": 0.0001,
            "p_adjusted": 0.0002,
            "effect": effect,
            "skewed": effect > 0.1,
            "n_reference": 40,
            "n_current": 14,
        }
        for pair in ("train/test", "previous/current")
        for column, test, effect in (("age", "ks", 0.31), ("town", "chi2", 0.02), ("income", "ks", 0.07))
    ]
    profile = {"type": "number", "missing": 2, "distinct": 41, "minimum": 18, "maximum": 89, "mean": 44.2, "std": 12.5}
    return {
        "outcome_word": "fail" if failed else "pass",
        "n_rows": 64,
        "engine": "polars",
        "results": results,
        "suite_digest": "aa" * 16,
        "suite_source": "suite.json",
        "skew": pairs,
        "profile": [
            profile | {"column": "age", "top": []},
            profile | {"column": "town", "mean": None, "minimum": "Bonn", "top": [{"value": "Ulm", "share": 0.6}]},
        ],
    }


def label_report(ids: dict[str, list[str]], task: str = "multiclass") -> dict[str, Any]:
    """A label check with every part that the contract knows, in the labels of the task."""
    given: list[Any] = {"regression": [1.25, -0.5], "multilabel": [["north", "east"], []]}.get(task, ["north", "south"])
    first, second = given
    train, test = ids["train"], ids["test"]
    classes = [] if task == "regression" else CLASSES
    return {
        "n": 64,
        "n_flagged": 9,
        "task": task,
        "noise": estimate(0.14, 0.07),
        "method": "stand-in: logistic regression on an embedding, 5 folds",
        "policy": "relabel_queue",
        "queued": 9,
        "per_class": [
            {"label": name, "n": 21, "flagged": 3, "noise": estimate(0.1 + 0.05 * k, 0.06)}
            for k, name in enumerate(classes)
        ],
        "ranked": [
            {"id": name, "given": first, "suggested": second, "margin": -0.9 + 0.05 * k, "split": "train"}
            for k, name in enumerate(train[:12])
        ],
        "noise_matrix": {
            "labels": classes,
            "given_true": [[estimate(0.86 if row == column else 0.07) for column in range(3)] for row in range(2)]
            + [[None] * 3],
        }
        if classes
        else None,
        "duplicates": {
            "exact": 3,
            "near": 5,
            "conflicting": 2,
            "leaking": 4,
            "pairs": [
                {
                    "a": train[k],
                    "b": test[k],
                    "kind": "near" if k % 2 else "exact",
                    "distance": 3.0 * (k % 2),
                    "split_a": "train",
                    "split_b": "test",
                    "label_a": first,
                    "label_b": second if k < 2 else first,
                    "conflict": k < 2,
                    "leak": True,
                }
                for k in range(4)
            ],
        },
        "leakage": estimate(0.166, 0.1, 24),
        "outliers": {
            "n": 4,
            "ranked": [{"id": name, "score": 3.5 - k, "split": "test"} for k, name in enumerate(test[4:8])],
        },
        "imbalance": {
            "largest": {"label": "north", "n": 30},
            "smallest": {"label": "south", "n": 13},
            "ratio": 2.3,
            "entropy": 0.97,
        }
        if classes
        else None,
        "groups": [
            {"column": "town", "value": "Ulm", "n": 30, "noise": estimate(0.3), "p_adjusted": 0.001},
            {"column": "town", "value": "Bonn", "n": 34, "noise": estimate(0.02), "p_adjusted": 1.0},
        ],
        "annotators": {
            "n_annotators": 3,
            "n_votes": 150,
            "alpha": estimate(0.61, 0.08),
            "agreement_by_class": [{"label": name, "n": 50, "agreement": estimate(0.7)} for name in classes],
            "quality": [{"annotator": name, "n": 50, "accuracy": estimate(0.8)} for name in ("ann", "bo", "cy")],
            "disputed": [{"id": train[20], "given": first, "consensus": second, "confidence": 0.93}],
        }
        if classes
        else None,
    }


def write_run(root: Path, modality: str, task: str, *, failed: bool = False) -> dict[str, Path]:
    """Folders of ingest and both checks; no label check where the validation failed or there are no labels."""
    ids = write_modality(root / "ingest", modality, task)
    reports: dict[str, dict[str, Any]] = {"validate_data": validation_report(failed=failed)}
    if not failed and task != "forecasting":
        reports["check_labels"] = label_report(ids, task)
    for step, report in reports.items():
        (root / step).mkdir()
        write_report(root / step, report)
    return {step: root / step for step in ("ingest", *reports)}
