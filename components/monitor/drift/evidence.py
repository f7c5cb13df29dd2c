"""Evidence of drift: advanced chunk by chunk, remembered between rounds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kfloop.components.monitor.drift.reference import seasons_of
from kfloop.components.monitor.drift.table import usable_rows
from kfloop.components.monitor.policy.causes import DATA_QUALITY, Cause
from kfloop.core.drift.state import State

if TYPE_CHECKING:
    from kfloop.components.monitor.drift.fitting import Watched
    from kfloop.components.monitor.log.traffic import Traffic

HISTORY_POINTS = 500
_MOVED = 8


@dataclass(frozen=True, kw_only=True)
class Point:
    """The evidence after one block.

    Attributes:
        ts: Time of the block's last request, ISO 8601, UTC.
        rows: Rows seen.
        log_e: Natural logarithm of the evidence, as a share of what declares drift.
    """

    ts: str
    rows: int
    log_e: float


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is remembered of one champion's drift.

    Attributes:
        state: State of the watch; None before the first row.
        inputs: Whether inputs were in the log when the watch began.
        embedding: Whether embeddings were.
        before: Rows that were seen before the watch began anew with other settings.
        unusable: Rows that held an answer or an embedding that cannot be.
        history: Evidence over time, at most 500 points; older ones are thinned out.
        declared: Row and time at which drift was declared; it stays so until the champion changes.
        wrong: The same of what is wrong with the rows.
        rehearsal: What a simulation on the reference said.
        restarts: How often the watch began anew.
    """

    state: State | None = None
    inputs: bool = True
    embedding: bool = True
    before: int = 0
    unusable: int = 0
    history: tuple[Point, ...] = ()
    declared: tuple[int, str] | None = None
    wrong: tuple[int, str] | None = None
    rehearsal: str = ""
    restarts: int = 0

    @property
    def rows(self) -> int:
        """Rows seen."""
        return self.before + (self.state.rows if self.state else 0)

    def on(self, watched: Watched) -> Evidence:
        """The evidence for this watch: begun anew when it is another one, for its settings changed. What was declared stays declared."""
        if self.state is not None and self.state.reference == watched.watch.fingerprint:
            return self
        again = self.state is not None
        return replace(
            self,
            state=watched.watch.start(),
            before=self.rows,
            rehearsal=watched.rehearsed(),
            restarts=self.restarts + int(again),
        )

    def advance(self, chunk: Traffic, watched: Watched) -> Evidence:
        """Bet on rows that were not counted yet.

        Args:
            chunk: The rows.
            watched: The fitted watch, the same as of `on`.
        """
        known = self.on(watched)
        state, points = known.state, list(known.history)
        declared, wrong = known.declared, known.wrong
        watch = watched.watch
        columns = watched.table.columns(chunk.inputs, chunk.embedding, chunk.answers)
        seconds = chunk.ts_ns / 1e9
        for after in watch.steps(state or watch.start(), columns, seasons_of(seconds, watched.season), seconds):
            if state is None or after.blocks > state.blocks:
                ts, row = _iso(float(after.ends[1])), known.before + after.rows
                log_e = max(-700.0, after.log_drift - watch.budget.log_needed("drift"))
                points = _thinned([*points, Point(ts=ts, rows=row, log_e=log_e)])
                declared = (row, ts) if declared is None and after.drift_row is not None else declared
                wrong = (row, ts) if wrong is None and after.quality_row is not None else wrong
            state = after
        embedding = chunk.embedding if known.embedding else chunk.embedding[:, :0]
        bad = ~usable_rows(embedding, chunk.answers, watched.table.objective)
        return replace(
            known,
            state=state,
            history=tuple(points),
            declared=declared,
            wrong=wrong,
            unusable=known.unusable + int(bad.sum()),
        )

    def share(self, watched: Watched) -> float:
        """The evidence as a share of what declares drift, at most 1e300."""
        if self.state is None or not self.state.blocks:
            return 0.0
        return math.exp(min(self.state.log_drift - watched.watch.budget.log_needed("drift"), 690.0))

    def quality_cause(self, watched: Watched) -> Cause:
        """What is wrong with the rows; it is told, and retrains only where `monitor.causes` names it."""
        streams = self._streams(watched, "quality")
        reason = "no more cells are missing, and no more values are new, than in the reference"
        if self.wrong is not None:
            reason = f"since row {self.wrong[0]}: {', '.join(streams) or 'cells are missing or values are new'}"
        return Cause(
            kind=DATA_QUALITY,
            declared=self.wrong is not None,
            matters=False,
            since=self.wrong[1] if self.wrong else "",
            key=str(self.wrong[0]) if self.wrong else "",
            moved=streams if self.wrong else (),
            reason=reason,
        )

    def streams(self, watched: Watched) -> dict[str, float]:
        """Logarithm of the evidence of every stream of drift that has any, the strongest first."""
        if self.state is None or not self.state.blocks:
            return {}
        found = watched.watch.streams(self.state)
        quality = set(watched.watch.columns.share_names)
        kept = ((name, value) for name, value in found.items() if name not in quality and math.isfinite(value))
        return dict(sorted(kept, key=lambda pair: -pair[1])[: 3 * _MOVED])

    def _streams(self, watched: Watched, family: str) -> tuple[str, ...]:
        """Names of the streams of a family that earned most, the strongest first."""
        if self.state is None or not self.state.blocks:
            return ()
        found = watched.watch.streams(self.state)
        quality = set(watched.watch.columns.share_names)
        mine = [(value, name) for name, value in found.items() if (name in quality) == (family == "quality")]
        top = max((value for value, _ in mine), default=-math.inf)
        return tuple(name for value, name in sorted(mine, reverse=True)[:_MOVED] if value > max(0.0, top - 5.0))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            **{name: value for name, value in asdict(replace(self, state=None)).items() if name != "state"},
            "state": None if self.state is None else self.state.to_dict(),
        }

    @classmethod
    def from_dict(cls, payload: dict[str, Any] | None) -> Evidence:
        """Read what `to_dict` wrote; None is new.

        Raises:
            StateError: The state of the watch has another format, or was changed or cut since.
            KeyError: A key is missing.
            TypeError: A value is of another kind.
            ValueError: A value makes no sense.
        """
        if payload is None:
            return cls()
        pairs = {
            name: None if payload[name] is None else (int(payload[name][0]), str(payload[name][1]))
            for name in ("declared", "wrong")
        }
        return cls(
            state=None if payload["state"] is None else State.from_dict(payload["state"]),
            inputs=bool(payload["inputs"]),
            embedding=bool(payload["embedding"]),
            before=int(payload["before"]),
            unusable=int(payload["unusable"]),
            history=tuple(Point(**point) for point in payload["history"]),
            rehearsal=str(payload["rehearsal"]),
            restarts=int(payload["restarts"]),
            **pairs,
        )


def _thinned(points: list[Point]) -> list[Point]:
    """Drop every second point of the older half once there are too many; the latest stay dense."""
    if len(points) <= HISTORY_POINTS:
        return points
    half = HISTORY_POINTS // 2
    return points[:half:2] + points[half:]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="milliseconds")
