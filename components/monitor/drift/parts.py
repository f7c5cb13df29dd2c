"""Where requests moved to: of each column the part whose share of the rows grew most against the reference.

Of a number that is the interval on which the empirical distributions gain most on each other, so its gain is the statistic of Kuiper's two-sample test (Proc. Kon. Ned.
Akad. Wet. A 63, 1960): no bins are chosen, and a shift, a wider spread and a single value that becomes frequent are all found. Of a category it is the values that
gained, those that the champion has no code for among them; of both, the missing cells. What chance alone would show is left out.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.drifted import MOST_PARTS, Part
from kfloop.core.encoding.table import ANOTHER
from kfloop.core.number_words import between

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LEAST = 0.05  # of the requests: a part that gained less is no slice worth a verdict
KUIPER = 2.0  # times the root of the rows: what equal distributions exceed in 1 % of samples
SURE = 4.0  # standard errors of a share
_ALIKE = 0.5  # of the largest gain: values of a category that gained as much belong to the same part
_NEARLY = 0.9  # of the gain: an end that takes less away is chance in the tail, and is left open
_STEPS = 4.0  # edges are rounded to the power of ten below this part of the spread
_DAY, _MINUTE, _MANY = 86_400.0, 60.0, 8


@dataclass(frozen=True, kw_only=True)
class _Gain:
    """A part as it is found: whether chance would do as much is not asked yet."""

    part: Part
    sure: bool


def grown_parts(
    columns: Sequence[Mapping[str, Any]], then: Mapping[str, NDArray[Any]], now: Mapping[str, NDArray[Any]]
) -> tuple[Part, ...]:
    """At most three parts of the requests that grew, of as many columns, the one that grew most first.

    Args:
        columns: Columns of the champion's encoder: ``name``, ``kind``, and for categories the ``names`` that have a code.
        then: Cells of the reference by column, as ``Layout.unpacked`` gives them.
        now: Cells of the latest requests likewise.
    """
    found = []
    for column in columns:
        name = str(column["name"])
        if name in then and name in now and len(then[name]) and len(now[name]):
            gains = [gain.part for gain in _gains(column, then[name], now[name]) if gain.sure]
            found += sorted(gains, key=lambda part: -part.grown)[:1]
    return tuple(sorted((part for part in found if part.grown >= LEAST), key=lambda part: -part.grown)[:MOST_PARTS])


def _gains(column: Mapping[str, Any], then: NDArray[Any], now: NDArray[Any]) -> Iterator[_Gain]:
    name, kind = str(column["name"]), str(column["kind"])
    category = kind == "category"
    gone = [_missing(cells, category=category) for cells in (then, now)]
    yield _share(gone[0], gone[1], column=name, kind="missing")
    if not category and kind != "flag":
        found = _interval(then[~gone[0]], now[~gone[1]], time=kind == "time")
        if found is not None:
            low, high = found
            inside = [_inside(cells, low, high) for cells in (then, now)]
            kept = [(~lost).sum() for lost in gone]
            part = _part(inside[0], inside[1], column=name, kind=kind, low=low, high=high)
            yield _Gain(part=part, sure=part.grown * _root(*kept) >= KUIPER)
        return
    if kind == "flag":  # 0 and 1 in the log, a truth value in the dataset
        then, now = (np.array([_flag(cell) for cell in cells.tolist()], dtype=object) for cells in (then, now))
    known = [str(value) for value in column.get("names", ("false", "true"))]
    if category and known:  # without a known value all of them are unknown, then as now
        yield _share(then == ANOTHER, now == ANOTHER, column=name, kind="unknown", values=tuple(known))
    before, after = Counter(then.tolist()), Counter(now.tolist())
    gains = {value: after[value] / len(now) - before[value] / len(then) for value in known}
    most = max(gains.values(), default=0.0)
    grew = tuple(value for value, gain in gains.items() if gain > 0 and gain >= _ALIKE * most)
    if grew:
        yield _share(np.isin(then, grew), np.isin(now, grew), column=name, kind="category", values=grew)


def _interval(then: Array, now: Array, *, time: bool) -> tuple[float | None, float | None] | None:
    """Ends of the interval whose share grew most; None where no value is known."""
    if not len(then) or not len(now):
        return None
    values = np.unique(np.concatenate([then, now]))
    gained = [np.searchsorted(np.sort(cells), values, side="right") / len(cells) for cells in (now, then)]
    course = np.concatenate([[0.0], gained[0] - gained[1]])  # before the first value, and behind each
    lowest = np.minimum.accumulate(course)
    last = int(np.argmax(course - lowest))
    first = int(np.argmin(course[: last + 1]))
    gain = float(course[last] - course[first])
    if not gain > 0:
        return None
    if -float(course[first]) >= _NEARLY * gain:
        last = len(values)
    elif float(course[last]) >= _NEARLY * gain:
        first = 0
    spread = float(np.quantile(then, 0.84) - np.quantile(then, 0.16)) / 2 or float(values[-1] - values[0])
    return _rounded(values, first, last, spread, time=time)


def _rounded(
    values: Array, first: int, last: int, spread: float, *, time: bool
) -> tuple[float | None, float | None] | None:
    """Round ends for the values from ``first`` on and before ``last``; where the round ones would lose the part, ends between its values and the next ones."""
    step = 10.0 ** math.floor(math.log10(spread / _STEPS)) if spread > 0 else 0.0
    if time:
        step = next((unit for unit in (_DAY, _MINUTE) if spread >= _MANY * unit), 1.0)
    # Not at a value: those of the log have fewer digits than those of the dataset.
    exact = [
        None if place in {0, len(values)} else _between(float(values[place - 1]), float(values[place]))
        for place in (first, last)
    ]
    low, high = (None if end is None else float(f"{round(end / step) * step:.12g}") if step else end for end in exact)
    if low is not None and high is not None and not high - low >= step:
        low, high = exact
    return None if low is None and high is None else (low, high)


def _between(low: float, high: float) -> float:
    return between(low, low + (high - low) / 2)


def _share(then: NDArray[np.bool_], now: NDArray[np.bool_], **told: Any) -> _Gain:
    part = _part(then, now, **told)
    both = (then.sum() + now.sum()) / (len(then) + len(now))
    error = math.sqrt(max(float(both * (1 - both)), 1e-12)) / _root(len(then), len(now))
    return _Gain(part=part, sure=part.grown >= SURE * error)


def _part(then: NDArray[np.bool_], now: NDArray[np.bool_], **told: Any) -> Part:
    return Part(reference=float(np.mean(then)), current=float(np.mean(now)), **told)


def _root(n: float, m: float) -> float:
    """Root of the rows that two samples of so many are worth in a comparison."""
    return math.sqrt(n * m / (n + m)) if n + m else 0.0


def _inside(cells: Array, low: float | None, high: float | None) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray(
            (cells >= (-math.inf if low is None else low)) & (cells < (math.inf if high is None else high))
        )


def _missing(cells: NDArray[Any], *, category: bool) -> NDArray[np.bool_]:
    return np.array([cell is None for cell in cells.tolist()]) if category else ~np.isfinite(cells)


def _flag(cell: float) -> str | None:
    return None if not math.isfinite(cell) else "true" if cell else "false"
