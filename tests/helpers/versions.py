"""Dataset versions of tables whose columns a test gives itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import numpy as np


def write_table(
    folder: Path,
    columns: Mapping[str, Any],
    label: np.ndarray,
    *,
    labels: list[str] | None = None,
    facts: tuple[str, ...] = (),
    modality: str = "table",
    schema: dict[str, Any] | None = None,
    inputs: list[str] | None = None,
    origin: Any = None,
) -> Path:
    """A version of these rows: 50 % train, 20 % validation, 30 % test, in their order.

    Args:
        folder: Where.
        columns: What pyarrow can make columns of, by name; those not in ``facts`` are inputs.
        label: Classes or numbers.
        labels: Class names; null for regression.
        facts: Names of the fact columns.
        modality: What a row is.
        schema: The version's schema.
        inputs: Names of the inputs, where columns are stored that are neither.
        origin: ``base`` or ``fresh`` for each row; null for all base.
    """
    n = len(label)
    whole = pa.table(
        {
            "id": [f"row/{row}" for row in range(n)],
            **columns,
            "label": label,
            "origin": ["base"] * n if origin is None else list(origin),
            "content": [f"{row:032x}" for row in range(n)],
        }
    )
    folder.mkdir(parents=True)
    edges = {"train": (0, n // 2), "validation": (n // 2, n * 7 // 10), "test": (n * 7 // 10, n)}
    for split, (start, stop) in edges.items():
        part = whole.slice(start, stop - start)
        with pa.ipc.new_stream(str(folder / f"{split}.arrow"), part.schema) as sink:
            sink.write_table(part)
    card = {
        "digest": "0123456789abcdef" * 2,
        "name": "t",
        "modality": modality,
        "task": "multiclass" if labels else "regression",
        "labels": labels or [],
        "schema": schema or {"columns": {}},
        "inputs": inputs if inputs is not None else [name for name in columns if name not in facts],
        "facts": list(facts),
        "n_rows": n,
        "splits": {split: stop - start for split, (start, stop) in edges.items()},
        "origins": {"base": n},
        "extras": [],
    }
    (folder / "card.json").write_text(json.dumps(card))
    return folder
