"""Quality estimated without labels: figures of windows of rows, and bets that it has fallen.

What is promised. The bets are against "the expected quality of the traffic to come is on average at least the reference's, less `estimated_drop`, less a margin".
While that is so, false alarms are on average at most the watch's share of what the user allows, in whatever time. The margin is one standard
error of the difference that the reference leaves open: its rows' sampling, and the coefficients of the expectation where the traffic lies elsewhere. Rows that hang
together break the promise, as they break every bet; the drop is what stands against that.
It is blind to a change of what the labels mean: see BLIND_SPOT in `kfloop.core.statistics.effects`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.quality.evidence import YEAR_NS, Evidence
from kfloop.core.quality.expected import CLASSES, LABELS, UNIT
from kfloop.core.quality.gauge import SHARES, Gauge, Z
from kfloop.core.statistics.estimate import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

WINDOW = 500
"""Rows of a window, a point of the history."""
BLOCK = 50
"""Rows that are bet on together; divides `WINDOW`."""
RECENT = 4
"""Windows behind the figures of now, with the rows since."""
POINTS = 500
CREDIT_NS = 86400 * 10**9
"""A watch begins with the false alarms of one day."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """The estimated quality of one window: time of its last row in nanoseconds since 1970, rows so far, and the estimate."""

    ts_ns: int
    rows: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """What is remembered of the rows so far; its size does not depend on their number.

    Attributes:
        rows: Rows so far.
        window: Sums of the columns over the window that is filling.
        recent: Sums over the latest full windows.
        pending: Expectations, in millionths, of rows that do not fill a block yet.
        evidence: Evidence of a fall.
        margin: What the reference's error adds to the drop; None before the first window is full.
        last_ns: Time up to which false alarms were spent.
        since_row: Row at which a fall was declared, None if it never was.
        since_ns: Time of that row.
        drop: The drop that the evidence is about.
        history: One point for each window, older ones thinned out.
    """

    rows: int = 0
    window: tuple[int, ...] = ()
    recent: tuple[tuple[int, ...], ...] = ()
    pending: tuple[int, ...] = ()
    evidence: Evidence = field(default_factory=Evidence)
    margin: float | None = None
    last_ns: int = 0
    since_row: int | None = None
    since_ns: int = 0
    drop: float | None = None
    history: tuple[Point, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, payload: dict[str, Any]) -> Estimated:
        """Read what `to_dict` wrote."""
        logs = payload["evidence"]["logs"]
        return cls(
            **{
                **payload,
                "window": tuple(payload["window"]),
                "recent": tuple(tuple(sums) for sums in payload["recent"]),
                "pending": tuple(payload["pending"]),
                "evidence": Evidence(logs=None if logs is None else tuple(logs)),
                "history": tuple(Point(**point) for point in payload["history"]),
            }
        )

    def advance(self, gauge: Gauge, table: NDArray[np.int64], ts_ns: NDArray[np.int64]) -> Estimated:
        """The state after more rows, in order.

        Args:
            gauge: The reference.
            table: `Gauge.columns` of the rows, [n, c].
            ts_ns: Their times, ascending, [n].
        """
        state = self
        if self.drop != gauge.estimated_drop:  # evidence about another drop says nothing about this one
            state = replace(state, drop=gauge.estimated_drop, evidence=Evidence(), since_row=None, since_ns=0)
        start = 0
        while start < len(table):
            room = WINDOW - state.rows % WINDOW
            stop = min(start + room, len(table))
            state = state._within(gauge, table[start:stop], ts_ns[start:stop])  # noqa: SLF001 - our own
            start = stop
        return state

    def _within(self, gauge: Gauge, table: NDArray[np.int64], ts_ns: NDArray[np.int64]) -> Estimated:
        """Rows that do not go beyond the end of a window."""
        queue = np.concatenate([np.array(self.pending, np.int64), table[:, 1]])
        ends = np.concatenate([np.zeros(len(self.pending), np.int64), ts_ns])
        full = len(queue) // BLOCK * BLOCK
        state = replace(self, pending=tuple(queue[full:].tolist()))
        if full and self.drop is not None:
            at_ns = ends[BLOCK - 1 : full : BLOCK]
            state = state._bet(gauge, self.drop, queue[:full].reshape(-1, BLOCK) / UNIT, at_ns)  # noqa: SLF001
        sums = table.sum(axis=0) + (np.array(self.window, np.int64) if self.window else 0)
        state = replace(state, rows=self.rows + len(table), window=tuple(sums.tolist()))
        if state.rows % WINDOW:
            return state
        recent = (*state.recent, state.window)[-RECENT:]
        found = quality(gauge, state.window)
        point = Point(ts_ns=int(ts_ns[-1]), rows=state.rows, value=found.value, low=found.low, high=found.high)
        margin = Z * _difference_error(gauge, recent, sampling=False)
        return replace(state, window=(), recent=recent, margin=margin, history=thinned((*state.history, point)))

    def _bet(self, gauge: Gauge, drop: float, blocks: Array, at_ns: NDArray[np.int64]) -> Estimated:
        """Bet on blocks, [b, BLOCK], whose last rows have these times, [b]."""
        first = self.last_ns or int(at_ns[0] - CREDIT_NS)
        spent = np.maximum.accumulate(np.concatenate([[first], at_ns]))
        # Before the first window nobody knows where the traffic lies: all that the reference leaves open is allowed for.
        margin = _first_margin(gauge) if self.margin is None else self.margin
        evidence, logs = self.evidence.follow(
            blocks,
            bound=float(gauge.sums[1] / UNIT) - drop - margin,
            most=1.0,
            weights=gauge.false_alarms_per_year * np.diff(spent) / YEAR_NS,
        )
        state = replace(self, evidence=evidence, last_ns=int(spent[-1]))
        crossed = np.flatnonzero(logs >= -math.log(SHARES["estimated"]))
        if state.since_row is not None or not len(crossed):
            return state
        row = self.rows - self.rows % BLOCK + (int(crossed[0]) + 1) * BLOCK
        return replace(state, since_row=row, since_ns=int(at_ns[crossed[0]]))

    def now(self, gauge: Gauge) -> tuple[int, ...]:
        """Sums over the latest windows and the rows since."""
        parts = [*self.recent, *([self.window] if self.window else [])]
        return tuple(np.sum(parts, axis=0).tolist()) if parts else (0,) * len(gauge.sums)


def quality(gauge: Gauge, sums: Sequence[int], level: float = 0.95) -> Estimate:
    """Mean expected quality of rows, with an interval for the quality of traffic such as they are.

    Args:
        gauge: The reference.
        sums: Sums of the columns.
        level: Confidence level.
    """
    n = int(sums[0])
    if n < 2:  # noqa: PLR2004 - a variance needs two rows
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=n, level=level)
    mean = float(sums[1] / n / UNIT)
    return _interval(mean, math.sqrt(float(_variance(sums)) / n + _open(gauge, _gradient(gauge, sums))), n, level)


def fall(gauge: Gauge, sums: Sequence[int], level: float = 0.95) -> Estimate:
    """How far the expected quality is below the reference's; below 0 when it rose."""
    n = int(sums[0])
    if n < 2:  # noqa: PLR2004
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=n, level=level)
    value = float(gauge.sums[1] / UNIT - sums[1] / n / UNIT)
    half = _z(level) * _difference_error(gauge, [tuple(sums)], sampling=True)
    return Estimate(value=value, low=value - half, high=value + half, n=n, level=level)


def f1(gauge: Gauge, sums: Sequence[int], level: float = 0.95) -> Estimate | None:
    """Expected F1 of the second of two classes: 2 E[true positives] / (E[positives] + predicted ones); None where there are not two classes."""
    if gauge.objective != CLASSES or len(sums) <= 3 + len(gauge.expected.coefficients):
        return None
    n, p = int(sums[0]), len(gauge.expected.coefficients)
    hits, either, hits2, both, either2 = (float(value) for value in sums[3 + p : 8 + p])
    if n < 2 or either <= 0:  # noqa: PLR2004
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=n, level=level)
    value = 2 * hits / either
    scale = UNIT * n / either
    slope = np.array(sums[8 + p :], float).reshape(2, p) / (UNIT * n) * scale
    spread = (4 * hits2 - 4 * value * both + value**2 * either2) / 1e6 / n * scale**2
    gradient = 2 * slope[0] - value * slope[1]
    return _interval(value, math.sqrt(max(spread, 0.0) / n + _open(gauge, gradient)), n, level)


def by_label(gauge: Gauge, sums: Sequence[int]) -> dict[str, float]:
    """Expected share of right decisions of each label; empty but for sets of labels."""
    if gauge.objective != LABELS or not sums[0]:
        return {}
    start = 3 + len(gauge.expected.coefficients)
    return {name: value / sums[0] / UNIT for name, value in zip(gauge.labels, sums[start:], strict=False)}


def thinned(points: tuple[Any, ...], most: int = POINTS) -> tuple[Any, ...]:
    """Drop every second point of the older half once there are too many; the latest stay dense."""
    half = most // 2
    return points if len(points) <= most else points[:half:2] + points[half:]


def _gradient(gauge: Gauge, sums: Sequence[float]) -> Array:
    p = len(gauge.expected.coefficients)
    return np.array(sums[3 : 3 + p], float) / (sums[0] * UNIT)


def _open(gauge: Gauge, gradient: Array) -> float:
    """Variance that the coefficients leave to a figure with this gradient."""
    return max(float(gradient @ gauge.expected.covariance @ gradient), 0.0)


def _variance(sums: Sequence[float]) -> float:
    """Variance of the expectation over the rows."""
    mean = sums[1] / sums[0] / UNIT
    return max(float(sums[2] / sums[0] / 1e6 - mean**2), 0.0)


def _difference_error(gauge: Gauge, windows: Sequence[Sequence[int]], *, sampling: bool) -> float:
    """Standard error of reference mean minus traffic mean; the rows' own sampling is left out where bets cover it."""
    sums = np.sum(windows, axis=0).tolist()
    moved = _gradient(gauge, sums) - _gradient(gauge, [1.0, *gauge.sums[1:].tolist()])
    rows = _variance(sums) / sums[0] if sampling else 0.0
    return math.sqrt(gauge.spread**2 / gauge.rows + _open(gauge, moved) + rows)


def _first_margin(gauge: Gauge) -> float:
    return Z * math.sqrt(gauge.spread**2 / gauge.rows + _open(gauge, _gradient(gauge, [1.0, *gauge.sums[1:].tolist()])))


def _interval(value: float, error: float, n: int, level: float) -> Estimate:
    half = _z(level) * error
    return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half), n=n, level=level)


def _z(level: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + level / 2)
