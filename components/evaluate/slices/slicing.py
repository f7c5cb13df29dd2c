"""Slices of the test rows by the values of a column: the most frequent categories, and quarters of the training rows for numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.slices.columns import (
    MISSING,
    OTHER,
    Column,
    column_names,
    read_column,
    read_columns,
    spelled,
)
from kfloop.components.evaluate.slices.ranges import quartile_edges, worded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Rows = NDArray[np.bool_]

MOST_COLUMNS = 8  # that are chosen unasked
MOST_SLICES = 40  # of them: each one widens the intervals of all (Bonferroni)
MOST_VALUES = 12  # of a column; a number with no more values is told apart by value
FEWEST_ROWS = 30  # of a slice
FEWEST_ODD = 5  # rows of each kind in a slice, for anomalies
FEWEST_PARTS = 2  # of a column that is chosen unasked: one part has nothing beside it
MOST_GROUPS = 20  # of a column of people, the most frequent ones among the test rows
MOST_TRAINING = 100_000  # training rows from which values and ranges are taken


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Some of the test rows.

    Attributes:
        name: Its name, such as ``column:age=[28, 36)``.
        text: Which rows these are, in words.
        rows: Which they are, bool [N].
    """

    name: str
    text: str
    rows: Rows

    @property
    def kind(self) -> str:
        """``column``, ``group`` or ``segment``."""
        return self.name.partition(":")[0]

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.rows.sum())


@dataclass(frozen=True, kw_only=True)
class Sliced:
    """One column and its slices.

    Attributes:
        name: Its name as slices have it.
        parts: The slices.
        left_out: Test rows that are in none of them.
    """

    name: str
    parts: tuple[Slice, ...]
    left_out: int


def column_slices(
    version: DatasetVersion, wanted: Sequence[str] | None, ids: NDArray[np.str_], odd: Rows | None = None
) -> tuple[Sliced, ...]:
    """Slices of the test rows by ``evaluate.slices``.

    Unasked, the columns are taken in the order of the dataset (inputs of a table, then facts): those of which at least two parts have enough
    test rows, until there are 8 columns or 40 slices. A later round with the same columns takes the same ones.

    Args:
        version: Dataset version.
        wanted: Columns; null means chosen here.
        ids: The test rows.
        odd: For anomalies, which rows are odd: a slice has at least 5 of each kind.

    Returns:
        One for each column that was looked at, also where it has no slice because too few rows are alike. Columns that are left out because
        there would be too many are not among them.

    Raises:
        ConfigError: There is no such column, or it holds no single values.
    """
    found: list[Sliced] = []
    for name in column_names(version, wanted, "evaluate.slices"):
        train = read_column(version, name, MOST_TRAINING)
        if wanted is None and _is_hopeless(train):
            continue
        (test,) = read_columns(version, "test", [name], ids)
        parts = _large_parts(train, test, odd)
        if wanted is None:
            taken = [one for one in found if one.parts]
            if len(taken) == MOST_COLUMNS:
                break
            if len(parts) < FEWEST_PARTS:
                parts = ()
            elif sum(len(one.parts) for one in taken) + len(parts) > MOST_SLICES:
                continue
        found.append(Sliced(name=spelled(name), parts=parts, left_out=len(ids) - sum(part.n for part in parts)))
    return tuple(found)


def group_parts(train: Column, test: Column) -> tuple[Slice, ...]:
    """Test rows by group: every row is in one, also where no training row has its value.

    Args:
        train: Values of the training rows, which decide where the ranges of a number end.
        test: Values of the test rows.
    """
    parts = list(_parts("group", train, test, _test_values(train, test)))
    rest = _rest("group", test, parts, test.missing)
    return (*(part for part in parts if part.n), *([rest] if rest.n else []))


def _large_parts(train: Column, test: Column, odd: Rows | None) -> tuple[Slice, ...]:
    """Parts of a column with enough rows; the rows of all others, but for missing values, together."""
    parts = [part for part in _parts("column", train, test, _train_values(train)) if _is_enough(part.rows, odd)]
    rest = _rest("column", test, parts, test.missing)
    return (*parts, *([rest] if _is_enough(rest.rows, odd) else []))


def _parts(kind: str, train: Column, test: Column, values: Sequence[Any] | None) -> Iterator[Slice]:
    """Test rows of each value, or for null of each range of the training rows; and those without a value."""
    name = spelled(train.name)
    parts = _ranges(train, test) if values is None else _values(values, train, test)
    for value, text, rows in (*parts, (MISSING, f"{name} is missing", test.missing)):
        yield Slice(name=f"{kind}:{name}={value}", text=text, rows=rows)


def _rest(kind: str, test: Column, parts: Sequence[Slice], missing: Rows) -> Slice:
    """Rows of no part."""
    name = spelled(test.name)
    rows = ~missing
    for part in parts:
        rows = rows & ~part.rows
    n = sum(not part.name.endswith(f"={MISSING}") for part in parts)
    text = f"{name} with none of the {n} values or ranges that are a {'group' if kind == 'group' else 'slice'}"
    return Slice(name=f"{kind}:{name}={OTHER}", text=text, rows=rows)


def _train_values(train: Column) -> list[Any] | None:
    """Values that are told apart by what the training rows hold, so that names stay: the most frequent categories; null for ranges."""
    if train.kind == "category":
        return _most_frequent(train.values, MOST_VALUES)
    known = np.unique(train.values[np.isfinite(train.values)])
    return known.tolist() if len(known) <= MOST_VALUES else None


def _test_values(train: Column, test: Column) -> list[Any] | None:
    """The same by what the test rows hold: a group that nobody trained on is one too."""
    if train.kind == "category":
        return _most_frequent(test.values, MOST_GROUPS)
    if _train_values(train) is None:
        return None
    return _most_frequent(test.values[~test.missing], MOST_GROUPS)


def _most_frequent(values: NDArray[Any], most: int) -> list[Any]:
    counts = Counter(value for value in values.tolist() if value is not None)
    # The most frequent first, and by name where several are alike: the same every time.
    return [value for value, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]]


def _values(known: Sequence[Any], train: Column, test: Column) -> Iterator[tuple[str, str, Rows]]:
    for value in known:
        word = spelled(value) if isinstance(value, str) else worded(value, train)
        yield word, f"{spelled(train.name)} = {word}", np.asarray(test.values == value)


def _ranges(train: Column, test: Column) -> Iterator[tuple[str, str, Rows]]:
    """The outer ranges have no outer end, so that every value lies in one of them."""
    name, edges = spelled(train.name), quartile_edges(train)
    words = [worded(edge, train) for edge in edges]
    if not edges:
        return
    values = test.values
    yield f"below {words[0]}", f"{name} below {words[0]}", values < edges[0]
    for low, high, first, last in zip(edges, edges[1:], words, words[1:], strict=False):
        yield f"[{first}, {last})", f"{name} from {first} to below {last}", (values >= low) & (values < high)
    yield f"{words[-1]} or more", f"{name} {words[-1]} or more", values >= edges[-1]


def _is_enough(rows: Rows, odd: Rows | None) -> bool:
    if int(rows.sum()) < FEWEST_ROWS:
        return False
    return odd is None or min(int((rows & odd).sum()), int((rows & ~odd).sum())) >= FEWEST_ODD


def _is_hopeless(train: Column) -> bool:
    """Whether no value of a text column is frequent: names and sentences."""
    if train.kind != "category":
        return False
    counts = Counter(train.values.tolist())
    return len(counts) > 1 and sum(count > 1 for count in counts.values()) < FEWEST_PARTS
