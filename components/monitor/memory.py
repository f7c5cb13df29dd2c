"""What the monitor remembers about one champion between rounds: evidence and watermark, saved together or not at all."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.statistics.betting import Betting, BettingState
from kfloop.errors import StateError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.components.monitor.traffic import Traffic

FORMAT = 1
HISTORY_POINTS = 500
OVERLAP_NS = 10_000_000_000
"""A request may reach the log after a later one; rows this much older than the newest one are still looked for."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """The evidence after one batch.

    Attributes:
        ts: Time of the batch's last request, ISO 8601, UTC.
        rows: Valid rows seen.
        log_e: Natural logarithm of the evidence.
    """

    ts: str
    rows: int
    log_e: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The monitor's memory of one champion.

    Attributes:
        betting: State of the betting test.
        newest_ns: Time of the newest row that was counted.
        recent: Id and time of the counted rows within the overlap before `newest_ns`.
        history: Evidence over time, at most 500 points; older ones are thinned out.
    """

    betting: BettingState = field(default_factory=BettingState)
    newest_ns: int = 0
    recent: tuple[tuple[str, int], ...] = ()
    history: tuple[Point, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "format": FORMAT,
            "betting": self.betting.to_dict(),
            "newest_ns": self.newest_ns,
            "recent": [list(pair) for pair in self.recent],
            "history": [asdict(point) for point in self.history],
        }

    @classmethod
    def from_dict(cls, payload: dict[str, Any] | None) -> Memory:
        """Read what `to_dict` wrote; None is a new memory.

        Raises:
            StateError: The payload was written in another format.
        """
        if payload is None:
            return cls()
        if payload.get("format") != FORMAT:
            message = f"the monitor state has format {payload.get('format')!r}, expected {FORMAT}"
            raise StateError(message, hint="It was written by another version of kfloop; use that one.")
        return cls(
            betting=BettingState.from_dict(payload["betting"]),
            newest_ns=payload["newest_ns"],
            recent=tuple((name, at) for name, at in payload["recent"]),
            history=tuple(Point(**point) for point in payload["history"]),
        )

    def unseen(self, traffic: Traffic) -> NDArray[np.bool_]:
        """Return which rows were not counted yet."""
        if not self.newest_ns:
            return np.ones(len(traffic), dtype=bool)
        counted = np.isin(traffic.ids, np.array([name for name, _ in self.recent], dtype=str))
        return np.asarray((traffic.ts_ns > self.newest_ns - OVERLAP_NS) & ~counted)

    def advance(self, test: Betting, features: NDArray[np.float64], traffic: Traffic) -> Memory:
        """Bet on the unseen rows and return the memory after them.

        Args:
            test: The betting test.
            features: Features of every row of `traffic`, [n, d].
            traffic: The log.
        """
        unseen = self.unseen(traffic)
        if not unseen.any():
            return self
        rows, ids, times = features[unseen], traffic.ids[unseen].tolist(), traffic.ts_ns[unseen].tolist()
        state, points = self.betting, list(self.history)
        for chunk in _batches(rows, len(state.pending), test.batch):
            before = state.batches
            state = test.advance(state, rows[chunk])
            if state.batches > before and state.log_e is not None:
                points = _thinned([*points, Point(ts=_iso(times[chunk.stop - 1]), rows=state.rows, log_e=state.log_e)])
        newest = max(self.newest_ns, *times)
        recent = [*self.recent, *zip(ids, times, strict=True)]
        kept = tuple((name, at) for name, at in recent if at > newest - OVERLAP_NS)
        return replace(self, betting=state, newest_ns=newest, recent=kept, history=tuple(points))


def _batches(rows: NDArray[np.float64], pending: int, batch: int) -> list[slice]:
    """Cut rows so that every piece but the last ends with the row that fills a batch."""
    valid = np.isfinite(rows).all(axis=1)
    ends = (np.flatnonzero(valid & ((pending + np.cumsum(valid)) % batch == 0)) + 1).tolist()
    edges = sorted({0, *ends, len(rows)})
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _thinned(points: list[Point]) -> list[Point]:
    """Drop every second point of the older half once there are too many; the latest stay dense."""
    if len(points) <= HISTORY_POINTS:
        return points
    half = HISTORY_POINTS // 2
    return points[:half:2] + points[half:]


def _iso(ts_ns: int) -> str:
    return datetime.fromtimestamp(ts_ns / 1e9, tz=UTC).isoformat(timespec="milliseconds")
