"""Corruptions of texts, tables and vectors: each takes the test rows, the amount, random numbers and the version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.corruptions.altered import vectors_of, with_column, with_lists
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Numbers = np.random.Generator

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def typos(table: pa.Table, amount: float, random: Numbers, version: DatasetVersion) -> pa.Table:
    """Letters that are missing, doubled, changed for another one or for their neighbour, a share ``amount`` of them."""
    del version
    return _texts(table, lambda text: _mistyped(text, amount, random))


def _mistyped(text: str, amount: float, random: Numbers) -> str:
    signs = list(text)
    chosen = np.flatnonzero((random.random(len(signs)) < amount) & np.array([sign.isalpha() for sign in signs], bool))
    for place, way in zip(chosen.tolist(), random.integers(0, 4, len(chosen)).tolist(), strict=True):
        sign = text[place]
        if way == 0:
            signs[place] = ""
        elif way == 1:
            signs[place] = sign * 2
        elif way == 2 or place + 1 == len(signs):  # noqa: PLR2004  # the third of four ways
            signs[place] = LETTERS[int(random.integers(0, len(LETTERS)))]
        else:
            signs[place], signs[place + 1] = text[place + 1], sign
    return "".join(signs)


def dropped_words(table: pa.Table, amount: float, random: Numbers, version: DatasetVersion) -> pa.Table:
    """Texts without a share ``amount`` of their words; one word always stays."""
    del version

    def fewer(text: str) -> str:
        words = text.split()
        kept = random.random(len(words)) >= amount
        if len(words) and not kept.any():
            kept[random.integers(0, len(words))] = True
        return " ".join(word for word, stays in zip(words, kept, strict=True) if stays)

    return _texts(table, fewer)


def _texts(table: pa.Table, change: Callable[[str], str]) -> pa.Table:
    import pyarrow as pa

    return with_column(
        table, "text", pa.array([change(text or "") for text in table["text"].to_pylist()], type=pa.string())
    )


def noisy_numbers(table: pa.Table, amount: float, random: Numbers, version: DatasetVersion) -> pa.Table:
    """Noise on every column of numbers, in standard deviations of its training rows.

    Raises:
        InputError: No column holds numbers.
    """
    import pyarrow as pa

    names = [name for name in version.inputs if _is_number(table.schema.field(name).type)]
    if not names:
        raise InputError("no column holds numbers", hint="nothing to do")
    for name in names:
        std = float(np.nan_to_num(np.nanstd(_floats(version.table("train", [name])[name]))))
        values = _floats(table[name]) + amount * std * random.standard_normal(table.num_rows)
        table = with_column(table, name, pa.array(values, from_pandas=True))
    return table


def without_values(table: pa.Table, amount: float, random: Numbers, version: DatasetVersion) -> pa.Table:
    """Every column without a share ``amount`` of its values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in version.inputs:
        column = table[name].combine_chunks()
        gone = pa.array(random.random(table.num_rows) < amount)
        table = with_column(table, name, pc.if_else(gone, pa.scalar(None, type=column.type), column))
    return table


def swapped_words(table: pa.Table, amount: float, random: Numbers, version: DatasetVersion) -> pa.Table:
    """A share ``amount`` of the categories, and of what is true or false, exchanged for another one of the training rows.

    Raises:
        InputError: No column holds categories.
    """
    import pyarrow as pa

    changed = False
    for name in version.inputs:
        kind = table.schema.field(name).type
        if not (pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            continue
        known = sorted(
            {value for value in version.table("train", [name])[name].unique().to_pylist() if value is not None}
        )
        if len(known) < 2:  # noqa: PLR2004  # another one
            continue
        values = table[name].to_pylist()
        for row in np.flatnonzero(random.random(len(values)) < amount).tolist():
            others = [value for value in known if value != values[row]]
            values[row] = others[int(random.integers(0, len(others)))]
        table, changed = with_column(table, name, pa.array(values, type=kind)), True
    if not changed:
        raise InputError("no column holds categories", hint="nothing to do")
    return table


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    import pyarrow as pa

    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)


def noisy_vectors(table: pa.Table, amount: float, random: Numbers, version: DatasetVersion) -> pa.Table:
    """Noise on vectors, in standard deviations of the training rows."""
    values = vectors_of(table)
    std = np.nanstd(vectors_of(version.table("train", ["vector"])).astype(np.float64), axis=0)
    return with_lists(table, "vector", values + amount * np.nan_to_num(std) * random.standard_normal(values.shape))


def gaps_in_vectors(table: pa.Table, amount: float, random: Numbers, version: DatasetVersion) -> pa.Table:
    """Vectors without a share ``amount`` of their numbers."""
    del version
    values = vectors_of(table)
    return with_lists(table, "vector", np.where(random.random(values.shape) < amount, np.nan, values))
