"""Inputs from which a table can hardly learn as they are, told before a training is spent on them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kfloop.components.ingest.readers.text.facts import is_free_text

if TYPE_CHECKING:
    import pyarrow as pa

FEWEST = 50  # rows below which different values in each say nothing
MOSTLY = 0.95
NAMED = 8  # columns in a sentence
_ID_NAME = re.compile(r"(^|[ _.-])(?i:id|uuid|guid|key)$|[a-z](Id|ID|Key)$")
_COMMA = r"^\s*[+-]?\d+,\d+\s*$"  # told already
_DATE = r"^\s*\d{1,2}[./-]\d{1,2}[./-]\d{2,4}(\s.*)?$"


def doubtful_inputs(columns: Sequence[str], sample: pa.Table | None) -> list[str]:
    """Notes on inputs that are texts, dates in another order or names of rows.

    Args:
        columns: The inputs.
        sample: First rows of them.
    """
    found: dict[str, list[str]] = {"text": [], "date": [], "name": []}
    known = () if sample is None else sample.column_names
    for column in columns:
        kind = _kind(column, sample[column].combine_chunks()) if sample is not None and column in known else None
        if kind is not None:
            found[kind].append(column)
    notes = []
    if found["text"]:
        notes.append(
            f"{_listed(found['text'])}: texts of several words, but in a table each different one is a category of its own; "
            f"to learn from the text, name its column in data.text (kfloop init: --text '{found['text'][0]}')"
        )
    if found["date"]:
        notes.append(
            f"{_listed(found['date'])}: text, though its values look like dates; write them as 2024-05-01 for them to be times"
        )
    if found["name"]:
        notes.append(
            f"{_listed(found['name'])}: another value in nearly every row, from which nothing can be learned; "
            f"if it names the rows, name it in data.id (kfloop init: --id '{found['name'][0]}'), else leave it out"
        )
    return notes


def _kind(column: str, values: Any) -> str | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    present = values.drop_null()
    texts = pa.types.is_string(present.type)
    if len(present) < FEWEST:
        return None
    if not texts and not (pa.types.is_integer(present.type) and (_ID_NAME.search(column) or _counts_rows(present))):
        return None
    if texts and is_free_text(present):
        return "text"
    if texts and pc.sum(pc.match_substring_regex(present, _DATE)).as_py() >= MOSTLY * len(present):
        return "date"
    if texts and pc.sum(pc.match_substring_regex(present, _COMMA)).as_py() >= MOSTLY * len(present):
        return None
    return "name" if pc.count_distinct(present).as_py() > MOSTLY * len(present) else None


def _counts_rows(numbers: Any) -> bool:
    """Whether nearly each number is the one before it and one more: a running number, whatever its column is called."""
    import numpy as np

    return bool((np.diff(numbers.to_numpy(zero_copy_only=False)) == 1).mean() >= MOSTLY)


def _listed(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - NAMED} more" if len(columns) > NAMED else ""
    return f"column{'s' if len(columns) > 1 else ''} " + ", ".join(f"'{name}'" for name in columns[:NAMED]) + more
