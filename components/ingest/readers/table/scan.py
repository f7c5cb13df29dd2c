"""The one pass over a table before its rows are given: classes, ids that repeat, official splits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.files.items import SPLITS_BY_NAME
from kfloop.components.ingest.labels.plan import LabelScan, plain_labels
from kfloop.components.ingest.readers.table.ids import IdCheck
from kfloop.components.ingest.readers.table.kinds import normalise
from kfloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from kfloop.components.ingest.readers.table.feed import Feed
    from kfloop.components.ingest.readers.table.roles import Roles

SPLIT_COLUMNS = frozenset({"split", "subset", "partition", "set"})


def scan(feed: Feed, roles: Roles, task: str) -> tuple[LabelScan, bool, list[str]]:
    """Read the label, id and split columns once.

    Returns:
        The counted labels, whether the ids are unique (true without an id column), and what is wrong with the rows that do not fit.

    Raises:
        InputError: An id repeats (when the configuration names the column), or a split is none.
    """
    labels, ids = LabelScan(task), IdCheck()
    unfit: list[str] = []
    columns = [name for name in dict.fromkeys((roles.label, roles.id, roles.split)) if name is not None]
    for rows in feed.read(columns):
        unfit += rows.bad.values()
        labels.add(label_column(rows.table[roles.label], roles.label, task), rows.numbers)
        if roles.id is not None:
            ids.add(rows.table[roles.id], rows.numbers)
        if roles.split is not None:
            official(rows.table[roles.split], rows.numbers, roles.split, feed)
    twice = ids.first_duplicate()
    if twice is None or roles.id is None:
        return labels, True, unfit
    first, again = (_value_at(feed, roles.id, number) for number in twice)
    if first == again and not roles.id_guessed:
        raise InputError(
            f"{feed.where}: id '{again}' in column '{roles.id}' stands in {feed.place(twice[0])} and in {feed.place(twice[1])}",
            hint="give each row an id of its own; if rows with one id belong together, name the column in data.group",
            column=roles.id,
        )
    return labels, first != again, unfit


def label_column(column: Any, name: str, task: str) -> pa.Array:
    """A label column as it is counted and encoded."""
    import pyarrow as pa

    array = normalise(name, column)
    if pa.types.is_timestamp(array.type):
        raise InputError(
            f"label column '{name}' holds times: expected classes or numbers", hint="name another in data.label"
        )
    return plain_labels(array, split=task == "multilabel")


def official(column: Any, numbers: np.ndarray, name: str, feed: Feed) -> pa.Array:
    """Names of splits as kfloop spells them; null stays null.

    Raises:
        InputError: Another value.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    encoded = pc.utf8_trim_whitespace(as_text(normalise(name, column))).dictionary_encode()
    known = encoded.dictionary.to_pylist()
    codes = encoded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
    for code, value in enumerate(known):
        if value.lower() not in SPLITS_BY_NAME:
            row = int(numbers[np.flatnonzero(codes == code)[0]])
            raise InputError(
                f"{feed.where} {feed.place(row)}, column '{name}': '{value}' is no split",
                hint="expected train, validation (or val, dev) or test",
                column=name,
            )
    return pa.array([*(SPLITS_BY_NAME[value.lower()] for value in known), None], type=pa.string()).take(pa.array(codes))


def splits_named(roles: Roles, sample: pa.Table | None) -> str | None:
    """The one column that is called like a split and holds nothing but names of splits, train and test among them."""
    import pyarrow as pa

    found = []
    if sample is None or roles.split is not None:
        return None
    for name in roles.others:
        if name.lower() in SPLIT_COLUMNS and name in sample.column_names and pa.types.is_string(sample[name].type):
            values = {SPLITS_BY_NAME.get(str(value).strip().lower()) for value in sample[name].unique().to_pylist()}
            found += [name] if None not in values and {"train", "test"} <= values else []
    return found[0] if len(found) == 1 else None


def as_text(array: pa.Array) -> pa.Array:
    """A column of names as texts."""
    import pyarrow as pa

    return array if pa.types.is_string(array.type) else array.cast(pa.string())


def _value_at(feed: Feed, column: str, number: int) -> str:
    for rows in feed.read([column]):
        at = np.flatnonzero(rows.numbers == number)
        if len(at):
            return str(rows.table[column][int(at[0])].as_py())
    return ""
