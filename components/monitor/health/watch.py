"""Whether the service is well: volume, latency, failures, what is lost, what it costs, and whether requests hold what the training rows held.

Nothing here starts a retraining: a broken sensor is not mended by learning from it. It is told, in sentences and as one cause of kind ``data_quality``.

Counts are kept by hour of the request: of the newest 168 hours how many rows, of the newest 24 also latency, expectations and the server's counters. "Now" is the newest of these
hours that together have 500 rows. What the first 24 hours of the champion were like is kept to compare with.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kfloop.components.monitor.health import findings
from kfloop.components.monitor.health.findings import COUNTERS, View
from kfloop.components.monitor.health.hours import (
    DAY_HOURS,
    HOUR_NS,
    HOUR_SECONDS,
    WEEK_HOURS,
    Hour,
    counts,
    iso,
    kept,
    newest,
)
from kfloop.components.monitor.health.latency import bins, merged
from kfloop.components.monitor.health.requirements import Requirements
from kfloop.core.artifacts import canonical_json, sha256_text
from kfloop.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kfloop.components.monitor.policy.causes import Cause
    from kfloop.core.sections import MonitorConfig

FORMAT = 1
ENOUGH = 500
"""Rows that "now" reaches back for: enough for a 95th percentile."""


class Rows(Protocol):
    """What of a chunk of traffic is looked at: times [n], latency [n] and the columns of the requests."""

    @property
    def ts_ns(self) -> NDArray[np.int64]:
        """Time of each request, nanoseconds since 1970."""

    @property
    def latency_us(self) -> NDArray[np.int64]:
        """How long each answer took, microseconds."""

    @property
    def inputs(self) -> Mapping[str, NDArray[Any]]:
        """Columns by name; empty where the log leaves inputs out."""


@dataclass(frozen=True, kw_only=True)
class HealthWatch:
    """The health of one champion's service; immutable.

    Attributes:
        requirements: What the training rows had to meet; no part of the state.
        first_ns: Time of the first row that came.
        latest_ns: Latest time of any row.
        rows: Rows so far.
        backwards: Rows whose time lies an hour or more before that of an earlier row, or before the first.
        volume: Rows by hour since 1970, of the newest 168 hours that have any.
        first: The first 24 hours as one.
        hours: Details of the newest 24 hours that have any.
        counters: The server's counters when they were read last.
    """

    requirements: Requirements = field(default_factory=Requirements)
    first_ns: int | None = None
    latest_ns: int = 0
    rows: int = 0
    backwards: int = 0
    volume: dict[int, int] = field(default_factory=dict)
    first: Hour = field(default_factory=Hour)
    hours: dict[int, Hour] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The state as plain JSON values; a few kilobytes, whatever came."""
        return {
            "format": FORMAT,
            "suite": _digest(self.requirements),
            "first_ns": self.first_ns,
            "latest_ns": self.latest_ns,
            "rows": self.rows,
            "backwards": self.backwards,
            "volume": {str(hour): count for hour, count in self.volume.items()},
            "first": self.first.to_dict(),
            "hours": {str(hour): found.to_dict() for hour, found in self.hours.items()},
            "counters": self.counters,
        }

    @classmethod
    def from_dict(cls, payload: Mapping[str, Any] | None, *, requirements: Requirements | None = None) -> HealthWatch:
        """The watch that ``to_dict`` wrote; None is a new one.

        Counts of another suite of expectations are left behind, the rest stays.

        Raises:
            StateError: The payload is of another format, or damaged.
        """
        asked = requirements or Requirements()
        if payload is None:
            return cls(requirements=asked)
        hint = "It was written by another version of kfloop, or changed; use that one, or restore a backup."
        if payload.get("format") != FORMAT:
            raise StateError(f"the state of health has format {payload.get('format')!r}, expected {FORMAT}", hint=hint)
        try:
            first = Hour.from_dict(payload["first"])
            hours = {int(hour): Hour.from_dict(found) for hour, found in payload["hours"].items()}
            watch = cls(
                requirements=asked,
                first_ns=payload["first_ns"],
                latest_ns=payload["latest_ns"],
                rows=payload["rows"],
                backwards=payload["backwards"],
                volume={int(hour): count for hour, count in payload["volume"].items()},
                first=first,
                hours=hours,
                counters=dict(payload["counters"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise StateError(f"the state of health is damaged: {error!r}", hint=hint) from error
        if payload.get("suite") == _digest(asked):
            return watch
        return replace(watch, hours={hour: replace(found, expected={}) for hour, found in watch.hours.items()})

    def advance(self, chunk: Rows) -> HealthWatch:
        """The watch after some rows, in the order in which they came; two halves give what the whole gives.

        Args:
            chunk: Rows that were not counted before.
        """
        times = np.asarray(chunk.ts_ns, dtype=np.int64)
        if not len(times):
            return self
        first_ns = int(times[0]) if self.first_ns is None else self.first_ns
        latest = np.maximum.accumulate(np.concatenate([[max(self.latest_ns, first_ns)], times]))
        back = (times <= latest[:-1] - HOUR_NS) | (times < first_ns)
        by_hour = times // HOUR_NS
        names = np.unique(by_hour).tolist()
        early = (times >= first_ns) & (times < first_ns + DAY_HOURS * HOUR_NS)
        sizes = bins(chunk.latency_us)
        hours = dict(self.hours)
        for hour in newest({*hours, *names}, DAY_HOURS) & set(names):
            hours[hour] = hours.get(hour, Hour()) + self._looked_at(chunk.inputs, sizes, by_hour == hour)
        first = self.first + Hour(rows=int(early.sum()), latency=counts(sizes[early])) if early.any() else self.first
        return replace(
            self,
            first_ns=first_ns,
            latest_ns=int(latest[-1]),
            rows=self.rows + len(times),
            backwards=self.backwards + int(back.sum()),
            volume=kept(merged((self.volume, counts(by_hour))), WEEK_HOURS),
            first=first,
            hours=kept(hours, DAY_HOURS),
        )

    def counted(self, counters: Mapping[str, int], now: float) -> HealthWatch:
        """The watch after a look at the server's counters (``service.read_counters``); one that went back began anew.

        The first look only notes where they stand: what they counted before may be another champion's.

        Args:
            counters: Totals by name, of ``COUNTERS``.
            now: Seconds since 1970.
        """
        grown = {}
        for name in COUNTERS:
            total, before = counters.get(name), self.counters.get(name)
            if total is not None and before is not None:
                grown[name] = total - before if total >= before else total
        hour = int(now // HOUR_SECONDS)
        added = {hour: self.hours.get(hour, Hour()) + Hour(counters=grown)} if grown else {}
        return replace(
            self,
            counters=self.counters | {name: int(counters[name]) for name in COUNTERS if name in counters},
            hours=kept(self.hours | added, DAY_HOURS),
        )

    def view(self, now: float | None = None) -> View:
        """The newest traffic: hours that together have enough rows; none that are older than a day or lie ahead.

        Args:
            now: Seconds since 1970; the clock when None.
        """
        now = time.time() if now is None else now
        last = int(now // HOUR_SECONDS)
        today = {hour: found for hour, found in self.hours.items() if last - DAY_HOURS < hour <= last}
        recent, reached = Hour(), last + 1
        for hour in sorted(today, reverse=True):
            if recent.rows < ENOUGH:
                recent, reached = recent + today[hour], hour
        over = self.first_ns is not None and now >= self.first_ns / 1e9 + DAY_HOURS * HOUR_SECONDS
        return View(
            recent=recent,
            span=last + 1 - reached,
            first=self.first if over else None,
            hours=today,
            counters=merged(found.counters for found in today.values()),
            requirements=self.requirements,
            backwards=self.backwards,
        )

    def causes(self, config: MonitorConfig, now: float | None = None) -> tuple[Cause, ...]:
        """One cause where the training suite can be asked of the requests.

        Unlike others it ends when the rows are well again, and it never matters for a retraining.
        """
        found = findings.cause(self.view(now), config)
        return () if found is None else (found,)

    def report(
        self,
        config: MonitorConfig,
        *,
        now: float | None = None,
        price_per_1000: float | None = None,
        blessed_ms_p95: float | None = None,
    ) -> dict[str, Any]:
        """What the report of a round says about health.

        Args:
            config: Limits.
            now: Seconds since 1970; the clock when None.
            price_per_1000: What 1000 answers cost, as the evaluation measured it; ``monitor.price_per_1000`` comes first.
            blessed_ms_p95: What the blessing measured before the champion was promoted.
        """
        told = findings.facts(self.view(now), config, price_per_1000, blessed_ms_p95)
        return told | {"rows": self.rows, "volume": [[iso(hour), self.volume[hour]] for hour in sorted(self.volume)]}

    def _looked_at(
        self, columns: Mapping[str, NDArray[Any]], sizes: NDArray[np.int64], chosen: NDArray[np.bool_]
    ) -> Hour:
        rows = {name: np.asarray(values)[chosen] for name, values in columns.items() if len(values) == len(chosen)}
        return Hour(rows=int(chosen.sum()), latency=counts(sizes[chosen]), expected=self.requirements.count(rows))


def _digest(requirements: Requirements) -> str:
    return sha256_text(canonical_json(list(requirements.suite)))
