"""Labels: which column holds them, what is to be learned, the names and the order of the classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.labels.columns import guess_label
from kfloop.components.ingest.labels.names import class_names, in_order, is_joined, lookalikes, number_of
from kfloop.components.ingest.readers.table.kinds import MOSTLY, is_list, lists_of
from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST_CLASS_SET = 100_000
MOST_FRACTIONS = 20
MOST_INTEGERS = 50
SEPARATORS = r"\s*[|;]\s*"
RARE = 12  # rows of a class, of which a quarter is three test rows: what the default rule about each class asks for
MANY = 200  # rows; in small data every class is small, and `kfloop init` writes other rules
SHOWN = 5

Place = Callable[[int], str]

__all__ = ["LabelPlan", "LabelScan", "Place", "guess_label", "in_order", "plain_labels", "settle"]


def plain_labels(array: pa.Array, *, split: bool = False) -> pa.Array:
    """Labels as they are counted: texts stripped, the empty text and NaN null.

    Args:
        array: Normalised column of labels, or of lists of them.
        split: Whether a text holds several labels, separated by ``|`` or ``;``.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if is_list(array.type):
        lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        return lists_of(plain_labels(array.flatten()), lengths, array.is_null().to_numpy(zero_copy_only=False))
    if pa.types.is_string(array.type):
        array = pc.utf8_trim_whitespace(array)
        array = pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)
        return pc.split_pattern_regex(array, SEPARATORS) if split else array
    if pa.types.is_floating(array.type):
        return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    return array


class LabelScan:
    """Counts the labels of a column while its batches go by; stops counting when they can only be a quantity.

    Args:
        task: ``data.task``.
    """

    def __init__(self, task: str) -> None:
        self.task = task
        self.counts: dict[Any, int] = {}
        self.first: dict[Any, int] = {}
        self.total = 0
        self.missing = 0
        self.fractional = False
        self.multi = False
        self.regression = False
        self.stopped = False

    def add(self, labels: pa.Array, rows: np.ndarray) -> None:
        """One batch of ``plain_labels`` and the numbers of its rows, int64 [N]."""
        if self.stopped:
            return
        self.missing += labels.null_count
        if is_list(labels.type):
            self.multi = True
            rows = np.repeat(rows, labels.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
            labels = labels.flatten()
        encoded = labels.dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        rows, codes = rows[codes >= 0], codes[codes >= 0]
        self.total += len(codes)
        values = encoded.dictionary.to_pylist()
        fresh = [value not in self.counts for value in values]
        if any(fresh):
            _, firsts = np.unique(codes, return_index=True)
            for value, is_new, at in zip(values, fresh, firsts, strict=True):
                if is_new:
                    self.first[value] = int(rows[at])
                    self.fractional = self.fractional or (isinstance(value, float) and not value.is_integer())
        for value, count in zip(values, np.bincount(codes, minlength=len(values)).tolist(), strict=True):
            self.counts[value] = self.counts.get(value, 0) + count
        self._stop(values)

    def _stop(self, values: list[Any]) -> None:
        """Numbers that can only be a quantity need no counting; texts without end are no classes, or numbers written as texts."""
        if len(self.counts) > LARGEST_CLASS_SET:
            numeric = sum(number_of(value) is not None for value in self.counts) >= MOSTLY * len(self.counts)
            self.regression = numeric and not self.multi and self.task in {"auto", "regression"}
            self.stopped = True
            return
        numbers = bool(values) and isinstance(values[0], float | int) and not isinstance(values[0], bool)
        if numbers and self.task == "regression":
            self.regression = True
        elif numbers and self.task == "auto" and not self.multi:
            self.regression = (self.fractional and len(self.counts) > MOST_FRACTIONS) or (
                isinstance(values[0], int) and len(self.counts) > MOST_INTEGERS
            )
        self.stopped = self.regression


@dataclass(frozen=True, kw_only=True)
class LabelPlan:
    """How the labels of a column become numbers.

    Attributes:
        column: The column.
        task: ``multiclass``, ``multilabel`` or ``regression``.
        names: Class names in the order of their indices; empty for regression.
        values: The distinct labels as they stand in the source.
        codes: Class index of each of ``values``, int64.
        notes: What a person should know.
    """

    column: str
    task: str
    names: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()
    codes: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def settle(
    scan: LabelScan, column: str, where: str, place: Place, known: Sequence[str] | None, task: str = "auto"
) -> LabelPlan:
    """What the counted labels are.

    Args:
        scan: After the last batch.
        column: The label column.
        where: The file, for messages.
        place: Names a row, by its number, for messages.
        known: Class names of the base source, for freshly labelled rows.
        task: ``data.task``, or the base source's task.

    Raises:
        InputError: No labels, one class only, as many classes as rows, a label the base source does not have, or labels that do
            not fit the task.
    """
    if scan.total == 0 and not scan.regression:
        raise InputError(
            f"{where}: no row has a label in column '{column}'", hint="fill it, or name another in data.label"
        )
    notes: list[str] = []
    if _is_quantity(scan, column, where, place, task, notes):
        return LabelPlan(column=column, task="regression", notes=tuple(notes))
    if len(scan.counts) > LARGEST_CLASS_SET:
        raise InputError(
            f"{where}: column '{column}' has more than {LARGEST_CLASS_SET:,} different labels",
            hint="name another column in data.label, or set data.task: regression",
        )
    named = class_names(scan.counts, known)
    if known is None:
        names = in_order(named.values())
        _check_classes(scan, named, names, column, where, place, notes)
    else:
        names = tuple(known)
        _check_known(scan, named, names, column, where, place)
    index = {name: code for code, name in enumerate(names)}
    return LabelPlan(
        column=column,
        task="multilabel" if scan.multi else "multiclass",
        names=names,
        values=tuple(named),
        codes=tuple(index[name] for name in named.values()),
        notes=tuple(notes),
    )


def _is_quantity(scan: LabelScan, column: str, where: str, place: Place, task: str, notes: list[str]) -> bool:
    """Whether the labels are numbers to be predicted as such."""
    if scan.multi and task not in {"auto", "multilabel"}:
        raise InputError(
            f"{where}: column '{column}' holds lists of labels, but data.task is '{task}'",
            hint="set data.task: multilabel",
        )
    if scan.multi or task in {"multiclass", "multilabel"}:
        return False
    numbers = {value: found for value in scan.counts if (found := number_of(value)) is not None}
    mostly = scan.regression or sum(scan.counts[value] for value in numbers) >= MOSTLY * scan.total
    if task == "regression":
        if not mostly:
            odd = next(value for value in scan.counts if value not in numbers)
            raise InputError(
                f"{where} {place(scan.first[odd])}, column '{column}': {odd!r} is not a number, but data.task is 'regression'",
                hint="set data.task: multiclass, or name another column in data.label",
            )
        return True
    if not mostly or not all(found.is_integer() for found in numbers.values()):
        return mostly and len(numbers) > MOST_FRACTIONS
    if len(numbers) > MOST_INTEGERS:
        notes.append(
            f"column '{column}' holds more than {MOST_INTEGERS} different whole numbers: taken as a quantity (regression); "
            "if they are classes, set data.task: multiclass"
        )
    return len(numbers) > MOST_INTEGERS


def _check_classes(
    scan: LabelScan,
    named: dict[Any, str],
    names: tuple[str, ...],
    column: str,
    where: str,
    place: Place,
    notes: list[str],
) -> None:
    if len(names) == 1:
        without = f", and {scan.missing:,} rows without a label" if scan.missing else ""
        empty = "; in CSV, NA, NaN, null and None stand for a missing label too" if scan.missing else ""
        raise InputError(
            f"{where}: column '{column}' has one class only ('{names[0]}', {scan.total:,} rows{without}): expected two or more",
            hint=f"name another column in data.label{empty}",
            labels=list(names),
        )
    if len(names) == scan.total and not scan.multi:
        raise InputError(
            f"{where}: every one of the {scan.total:,} labels in column '{column}' is different, such as '{names[0]}' and "
            f"'{names[1]}': these are no classes",
            hint="name another column in data.label; for numbers to be predicted set data.task: regression",
        )
    counts: dict[str, int] = {}
    for value, name in named.items():
        counts[name] = counts.get(name, 0) + scan.counts[value]
    single = [value for value, name in named.items() if counts[name] == 1]
    if single:
        shown = ", ".join(f"'{named[value]}' ({place(scan.first[value])})" for value in single[:SHOWN])
        more = f" and {len(single) - SHOWN} more" if len(single) > SHOWN else ""
        notes.append(f"column '{column}': seen once only: class {shown}{more}; it cannot be both learned and tested")
    rare = [name for name, count in counts.items() if 1 < count < RARE]
    if rare and not scan.multi and scan.total >= MANY:
        shown = ", ".join(f"'{name}' ({counts[name]} rows)" for name in rare[:SHOWN])
        more = f" and {len(rare) - SHOWN} more" if len(rare) > SHOWN else ""
        notes.append(
            f"column '{column}': rare: class {shown}{more}; too few of them fall into the test split for a rule about each class to be "
            "evaluated, and what is not evaluated rejects"
        )
    joined = next((name for name in names if is_joined(name, names)), None)
    if joined is not None and not scan.multi:
        notes.append(f"column '{column}': '{joined}' is one class; if it is several labels, set data.task: multilabel")
    same = lookalikes(names)
    notes += [f"column '{column}': {sentence}" for sentence in same[:SHOWN]]
    notes += [f"column '{column}': {len(same) - SHOWN} more such classes"] if len(same) > SHOWN else []


def _check_known(
    scan: LabelScan, named: dict[Any, str], names: tuple[str, ...], column: str, where: str, place: Place
) -> None:
    for value, name in named.items():
        if name not in names:
            raise InputError(
                f"{where} {place(scan.first[value])}, column '{column}': '{name}' is a class that data.source does not have",
                hint=nearest(name, names) + "; a new class must be added to data.source itself.",
                label=name,
            )
