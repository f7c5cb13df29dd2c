"""From a table as it came to rows of numbers: standardised values, and what is wrong with them.

Fitted on the learning half of the reference. A row becomes [values | shares]:

    values   one per numeric column, (x - mean) / sd of the reference, at most 6 either way; one per level of a categorical column
             (the 12 most frequent ones), its standardised indicator; 0 where the cell is missing
    shares   0 or 1 each: for every column "the cell is missing", for categorical and constant columns "the value was never seen", and one for
             "the row has a column that the reference does not have"

A cell is missing if it is None, NaN, infinite, or no number in a numeric column, or if its whole column is absent. Only simple arithmetic is used, so
that a row gives the same numbers in whatever company it comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Mask = NDArray[np.bool_]
    Single = NDArray[np.float32]

NUMERIC, CATEGORICAL = "numeric", "categorical"
CLIP = 6.0
MOST_LEVELS = 12
Table = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the reference.

    Attributes:
        name: Its name.
        kind: ``numeric`` or ``categorical``.
        centre: Mean of a numeric column.
        spread: Its standard deviation; 0 if it is constant or empty, which gives it no values.
        levels: Every level seen, most frequent first; of a constant numeric column its value.
        shares: Share of each of the first 12 levels.
    """

    name: str
    kind: str
    centre: float = 0.0
    spread: float = 0.0
    levels: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """How many values the column gives."""
        return int(self.spread > 0) if self.kind == NUMERIC else len(self.shares)

    @property
    def guarded(self) -> bool:
        """Whether values that were never seen are counted."""
        return self.width == 0 or self.kind == CATEGORICAL


@dataclass(frozen=True, kw_only=True)
class Columns:
    """All columns of the reference, in order."""

    items: tuple[Column, ...]

    @cached_property
    def value_names(self) -> tuple[str, ...]:
        """A name for every value."""
        names: list[str] = []
        for item in self.items:
            numeric = [item.name] * item.width
            names += (
                numeric if item.kind == NUMERIC else [f"{item.name}={level}" for level in item.levels[: item.width]]
            )
        return tuple(names)

    @cached_property
    def owners(self) -> NDArray[np.intp]:
        """For every value the column it came from, which is also the place of that column's "missing" share."""
        return np.repeat(np.arange(len(self.items)), [item.width for item in self.items])

    @cached_property
    def numeric(self) -> NDArray[np.bool_]:
        """Which values are of numeric columns."""
        return np.array([self.items[owner].kind == NUMERIC for owner in self.owners], dtype=bool)

    @cached_property
    def share_names(self) -> tuple[str, ...]:
        """A name for every share."""
        unseen = [f"{item.name}: value never seen" for item in self.items if item.guarded]
        return (*(f"{item.name}: missing" for item in self.items), *unseen, "a new column")

    def encode(self, table: Table) -> Single:
        """Return the rows, [n, values + shares]; in memory one value stands after the other.

        Args:
            table: Columns by name, each with n cells.

        Raises:
            InputError: Columns have different lengths.
        """
        lengths = {name: len(cells) for name, cells in table.items()}
        if len(set(lengths.values())) > 1:
            message = f"columns have different lengths: {lengths}"
            raise InputError(message, hint="Every column needs one cell a row.")
        n = next(iter(lengths.values()), 0)
        found = np.zeros((self.size, n), dtype=np.float32)
        if not n:
            return found.T
        at, strange_at = 0, len(self.owners) + len(self.items)
        for i, item in enumerate(self.items):
            values, gone, strange = _encoded(item, table.get(item.name), n)
            for cells in values:
                found[at] = cells
                at += 1
            if gone is not None:
                found[len(self.owners) + i] = gone
            if item.guarded:
                if strange is not None:
                    found[strange_at] = strange
                strange_at += 1
        known = {item.name for item in self.items}
        found[-1] = any(name not in known for name in table)
        return found.T

    @cached_property
    def size(self) -> int:
        """Numbers a row becomes."""
        return len(self.owners) + len(self.share_names)


def fit_columns(table: Table, kinds: Mapping[str, str]) -> Columns:
    """Describe the columns of the learning half.

    Args:
        table: Columns by name.
        kinds: Which of them are watched, each ``numeric`` or ``categorical``.

    Raises:
        InputError: A kind is neither of the two, or a column is not there.
    """
    if wrong := {name: kind for name, kind in kinds.items() if kind not in {NUMERIC, CATEGORICAL} or name not in table}:
        message = f"these columns cannot be watched: {wrong}; the table has {sorted(table)[:20]}"
        raise InputError(message, hint="Give names of existing columns, each as numeric or categorical.")
    return Columns(items=tuple(_described(name, kind, table[name]) for name, kind in kinds.items()))


def _described(name: str, kind: str, cells: Any) -> Column:
    if kind == CATEGORICAL:
        texts, gone = _texts(cells)
        levels, counts = np.unique(texts[~gone], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        kept = order[:MOST_LEVELS] if len(order) > 1 else order[:0]
        shares = tuple(float(counts[i]) / len(texts) for i in kept)
        return Column(name=name, kind=kind, levels=tuple(str(levels[i]) for i in order), shares=shares)
    x = _floats(cells)
    x = x[np.isfinite(x)]
    if not len(x) or x.min() == x.max():
        return Column(name=name, kind=kind, levels=(repr(float(x[0])),) if len(x) else ())
    inner = np.clip(x, *np.quantile(x, [0.001, 0.999]))  # a few huge values must not hide a shift of all others
    x = inner if inner.min() < inner.max() else np.clip(x, -1e150, 1e150)
    scale = float(np.abs(x).max())
    return Column(
        name=name, kind=kind, centre=float((x / scale).mean()) * scale, spread=float((x / scale).std()) * scale
    )


def _encoded(item: Column, cells: Any, n: int) -> tuple[list[Array], Mask | None, Mask | None]:
    """Return a column's values, its missing cells, and its cells with a value that was never seen; None where there are none."""
    if cells is None:
        return [np.zeros(n)] * item.width, np.ones(n, dtype=bool), None
    if item.kind == NUMERIC:
        x = _floats(cells)
        finite = np.isfinite(x)
        gone = None if finite.all() else ~finite
        if not item.width:
            known = float(item.levels[0]) if item.levels else None
            return [], gone, finite if known is None else finite & (x != known)
        low, high = item.centre - CLIP * item.spread, item.centre + CLIP * item.spread
        inside = np.clip(x if gone is None else np.where(gone, item.centre, x), low, high)
        inside -= item.centre
        inside /= item.spread
        return [inside], gone, None
    texts, gone = _texts(cells)
    found, place = np.unique(texts, return_inverse=True)
    strange = ~np.isin(found, np.array(item.levels, dtype=str))[place] & ~gone
    values = []
    for level, share in zip(item.levels, item.shares, strict=False):
        sd = max((share * (1 - share)) ** 0.5, 1e-3)
        values.append(np.where(gone, 0.0, np.clip(((texts == level) - share) / sd, -CLIP, CLIP)))
    return values, gone, strange


def _floats(cells: Any) -> Array:
    try:
        return np.asarray(cells, dtype=float)
    except (TypeError, ValueError):
        return np.array([_float(cell) for cell in cells], dtype=float)


def _float(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return float("nan")


def _texts(cells: Any) -> tuple[NDArray[np.str_], NDArray[np.bool_]]:
    """Return cells as texts, and which are missing."""
    array = np.asarray(cells)
    if array.dtype.kind in "US":
        return array.astype(str), np.zeros(len(array), dtype=bool)
    gone = np.array([cell is None or cell != cell for cell in array.tolist()], dtype=bool)  # noqa: PLR0124 - NaN
    return np.array(["" if g else _text(c) for c, g in zip(array.tolist(), gone, strict=True)], dtype=str), gone


def _text(cell: Any) -> str:
    """A cell as text; whole numbers look alike as integers and as floats, into which a missing neighbour turns them."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
