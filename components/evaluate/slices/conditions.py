"""Conditions on columns, such as ``age below 28``: what a tree asks, in words, and which rows meet it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kfloop.components.evaluate.slices.columns import spelled
from kfloop.components.evaluate.slices.ranges import between_times, worded
from kfloop.core.number_words import between

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from kfloop.components.evaluate.slices.columns import Column

    Rows = NDArray[np.bool_]

MOST_CATEGORIES = 12  # of a column, the most frequent ones


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition on one column.

    Attributes:
        column: Place of the column.
        value: A number, a category, or None for a missing category.
        above: For numbers: at least ``value`` instead of below it; for categories and missing values: this one instead of any other.
        missing: For numbers: a missing value meets it too.
    """

    column: int
    value: float | str | None
    above: bool
    missing: bool = False

    def meets(self, columns: Sequence[Column]) -> Rows:
        """Rows that meet it, bool [N]."""
        column = columns[self.column]
        if not isinstance(self.value, float):
            same = column.missing if self.value is None else np.asarray(column.values == self.value)
            return same if self.above else ~same
        with np.errstate(invalid="ignore"):
            found = column.values >= self.value if self.above else column.values < self.value
        return np.asarray(found | (column.missing & self.missing))

    def text(self, columns: Sequence[Column]) -> str:
        """In words."""
        column = columns[self.column]
        name = spelled(column.name)
        if self.value is None:
            return f"{name} {'is' if self.above else 'is not'} missing"
        if isinstance(self.value, str):
            return f"{name} {'=' if self.above else 'other than'} {spelled(self.value)}"
        words = f"{name} {'at least' if self.above else 'below'} {worded(self.value, column)}"
        return f"{words} or missing" if self.missing else words


@dataclass(frozen=True, kw_only=True)
class Question:
    """One feature of a tree: the rank of a number, or whether a category is this one.

    Attributes:
        column: Place of the column.
        codes: What the tree sees, float32 [N]; NaN for a missing number.
        known: The different values of a number, rising; empty for a category.
        category: The category; None is a missing one.
    """

    column: int
    codes: NDArray[np.float32]
    known: NDArray[np.float64]
    category: str | None = None

    def condition(self, columns: Sequence[Column], threshold: float, *, above: bool, missing: bool) -> Condition:
        """What ``codes`` above or not above a threshold means, as shortly as can be said."""
        if not len(self.known) or not np.isfinite(
            threshold
        ):  # an infinite threshold parts missing numbers from all others
            return Condition(column=self.column, value=self.category, above=above)
        place = int(np.floor(threshold))
        low, high = float(self.known[place]), float(self.known[place + 1])
        cut = between_times if columns[self.column].kind == "time" else between
        has_gaps = bool(np.isnan(self.codes).any())
        return Condition(column=self.column, value=cut(low, high), above=above, missing=missing and has_gaps)


def questions(columns: Sequence[Column]) -> Iterator[Question]:
    """What can be asked about some rows: ranks, so that neither units nor outliers matter, and one question for each frequent category."""
    for place, column in enumerate(columns):
        if column.kind == "category":
            counts = Counter(column.values.tolist())
            ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0] is not None, item[0] or ""))
            for category, count in ordered[:MOST_CATEGORIES]:
                if count < len(column.values):
                    same = column.missing if category is None else column.values == category
                    nothing = np.empty(0)
                    yield Question(
                        column=place, codes=np.asarray(same, dtype=np.float32), known=nothing, category=category
                    )
            continue
        gaps = column.missing
        known, ranks = np.unique(column.values[~gaps], return_inverse=True)
        if len(known) > 1 or (len(known) and gaps.any()):
            codes = np.full(len(gaps), np.nan, dtype=np.float32)
            codes[~gaps] = ranks
            yield Question(column=place, codes=codes, known=known)


def shortened(found: Sequence[Condition]) -> tuple[Condition, ...]:
    """Without conditions that others on the same column make needless; in the order in which they were asked."""
    kept: list[Condition] = []
    for condition in found:
        if isinstance(condition.value, float):  # a later question on the same side is the narrower one
            side = (condition.column, condition.above)
            kept = [
                other for other in kept if (other.column, other.above) != side or not isinstance(other.value, float)
            ]
        kept.append(condition)
    # A missing number has to meet all conditions on its column; a category that is this one is no other.
    refused = {item.column for item in found if isinstance(item.value, float) and not item.missing}
    certain = {item.column for item in kept if item.above and not isinstance(item.value, float)}
    return tuple(
        replace(item, missing=item.missing and item.column not in refused)
        for item in kept
        if isinstance(item.value, float) or item.above or item.column not in certain
    )
