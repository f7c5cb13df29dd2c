"""People's answers, applied to the rows they are about: by content, so that they survive renamed files and new versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from kfloop.core.review.answers import Decision


def read_corrections(path: str | None) -> dict[str, Decision]:
    """What people decided, by content; nothing where the file is not there yet.

    Raises:
        InputError: The file has a line that is no answer.
    """
    if path is None or not Path(path).is_file():
        return {}
    from kfloop.core.review.answers import decide

    return decide(Path(path))


def corrected(
    table: pa.Table, content: pa.Array, decisions: Mapping[str, Decision], task: str, labels: Sequence[str]
) -> tuple[pa.Table, np.ndarray, list[dict[str, str]]]:
    """Rows with people's labels in place of the source's.

    Args:
        table: Rows of a batch.
        content: Content of each row.
        decisions: What people decided, by content; not empty.
        task: Task of the source.
        labels: Its class names.

    Returns:
        The rows that stay, with the columns ``label_by`` and ``label_at``; which of the given rows those are, bool [N]; and the rows that a
        person called unusable, for the quarantine.

    Raises:
        InputError: An answer is a class that the source does not have.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    touched = np.flatnonzero(
        pc.is_in(content, pa.array(list(decisions), type=pa.string())).to_numpy(zero_copy_only=False)
    )
    n = table.num_rows
    keep, aside = np.ones(n, dtype=bool), []
    by: list[str | None] = [None] * n
    at: list[str | None] = [None] * n
    values: dict[int, Any] = {}
    for row in touched.tolist():
        decision = decisions[content[row].as_py()]
        if decision.unusable:
            keep[row] = False
            reason = f"{decision.by} called it unusable on {decision.at}"
            aside.append({"id": table["id"][row].as_py(), "reason": reason})
            continue
        by[row], at[row] = decision.by, decision.at
        values[row] = _value(decision.label, task, labels, table["id"][row].as_py())
    if values and "label" in table.column_names:
        given = table["label"].to_pylist()
        for row, value in values.items():
            given[row] = value
        column = pa.array(given, type=table.schema.field("label").type)
        table = table.set_column(table.column_names.index("label"), "label", column)
    table = table.append_column("label_by", pa.array(by, type=pa.string()))
    table = table.append_column("label_at", pa.array(at, type=pa.string()))
    return (table if keep.all() else table.filter(pa.array(keep))), keep, aside


def _value(label: Any, task: str, labels: Sequence[str], row: str) -> Any:
    """An answer as a label column holds it."""
    if task == "regression":
        if isinstance(label, float | int):
            return float(label)
        raise InputError(f"the answer about row '{row}' is '{label}': expected a number", hint="mend corrections.jsonl")
    names = list(label) if isinstance(label, list | tuple) else [str(label)]
    for name in names:
        if name not in labels:
            raise InputError(
                f"the answer about row '{row}' is '{name}', a class that the source does not have",
                hint=nearest(name, labels) + " Mend corrections.jsonl.",
                label=name,
            )
    indices = sorted(list(labels).index(name) for name in names)
    return indices if task == "multilabel" else indices[0]
