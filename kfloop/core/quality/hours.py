"""Requests by the hour: how sure the model was of them, and how soon their truth came. The last 35 days are kept.

Sums are whole numbers, so that they do not depend on how rows came in parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.quality.expected import UNIT
from kfloop.core.quality.gauge import STRATA, Gauge
from kfloop.core.statistics.estimate import Estimate, wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

HOUR_NS = 3600 * 10**9
KEPT_HOURS = 35 * 24
DAY, WEEK = 24, 168
ENOUGH_ROWS = 200
WAITS = {"1 h": 3600.0, "1 d": 86400.0, "1 w": 7 * 86400.0, "30 d": 30 * 86400.0}
TRAFFIC = 3 + 2 * STRATA
WIDTH = TRAFFIC + len(WAITS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Mix:
    """The traffic before a request.

    Attributes:
        shares: Share of each stratum, [2 * STRATA].
        mean: Mean expected quality.
        error: Its standard error.
        rows: Rows behind it; 0 means the reference.
    """

    shares: Array
    mean: float
    error: float
    rows: int


@dataclass(frozen=True, kw_only=True)
class Hours:
    """Counts by hour since 1970.

    Attributes:
        table: For each hour rows, sum of expectations (millionths), of their squares (thousandths squared), rows in each stratum, and
            rows whose truth came within each of `WAITS`.
        rows: Rows ever.
    """

    table: dict[int, tuple[int, ...]] = field(default_factory=dict)
    rows: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"table": {str(hour): list(counts) for hour, counts in self.table.items()}, "rows": self.rows}

    @classmethod
    def from_dict(cls, payload: dict[str, Any]) -> Hours:
        """Read what `to_dict` wrote."""
        return cls(table={int(hour): tuple(counts) for hour, counts in payload["table"].items()}, rows=payload["rows"])

    def add_rows(self, columns: NDArray[np.int64], strata: NDArray[np.int64], ts_ns: NDArray[np.int64]) -> Hours:
        """Count rows of traffic; `columns` are those of `Gauge.columns`, [n, c]."""
        if not len(ts_ns):
            return self
        hours, place = np.unique(ts_ns // HOUR_NS, return_inverse=True)
        sums = np.zeros((len(hours), WIDTH), np.int64)
        np.add.at(sums[:, :3], place, columns[:, :3])
        np.add.at(sums, (place, 3 + strata), 1)
        return replace(self._added(hours, sums), rows=self.rows + len(ts_ns))

    def add_truths(self, ts_ns: NDArray[np.int64], delays: Array) -> Hours:
        """Count truths by the time of their request; delays in seconds, NaN where nobody knows, [n]."""
        if not len(ts_ns):
            return self
        within = np.stack([delays <= wait for wait in WAITS.values()], axis=1).astype(np.int64)
        hours, place = np.unique(ts_ns // HOUR_NS, return_inverse=True)
        sums = np.zeros((len(hours), WIDTH), np.int64)
        np.add.at(sums[:, TRAFFIC:], place, within)
        return self._added(hours, sums)

    def _added(self, hours: NDArray[np.int64], sums: NDArray[np.int64]) -> Hours:
        table = dict(self.table)
        for hour, counts in zip(hours.tolist(), sums.tolist(), strict=True):
            before = table.get(hour, (0,) * WIDTH)
            table[hour] = tuple(one + other for one, other in zip(before, counts, strict=True))
        oldest = max(table) - KEPT_HOURS
        return replace(self, table={hour: table[hour] for hour in sorted(table) if hour > oldest})

    def mix(self, gauge: Gauge, hour: int) -> Mix:
        """The traffic of the 24 hours before an hour, or of the week before where that is too little; the reference where that is, too.

        The hour itself is left out: how much of it is known depends on when one asks.
        """
        for span in (DAY, WEEK):
            found = [self.table[at] for at in range(hour - span, hour) if at in self.table]
            sums = np.sum(found, axis=0) if found else np.zeros(WIDTH)
            rows = int(sums[0])
            if rows >= ENOUGH_ROWS:
                mean = float(sums[1]) / rows / UNIT
                variance = max(float(sums[2]) / rows / 1e6 - mean**2, 0.0)
                return Mix(shares=sums[3:TRAFFIC] / rows, mean=mean, error=float(np.sqrt(variance / rows)), rows=rows)
        return Mix(shares=gauge.shares, mean=float(gauge.sums[1]) / UNIT, error=0.0, rows=0)

    def curve(self, now: float) -> dict[str, Estimate]:
        """Share of the requests whose truth is known after each of `WAITS`, of those that are old enough.

        Args:
            now: Seconds since 1970.
        """
        found = {}
        for place, (name, wait) in enumerate(WAITS.items()):
            old = [counts for hour, counts in self.table.items() if (hour + 1) * 3600 + wait <= now]
            rows, known = (sum(counts[column] for counts in old) for column in (0, TRAFFIC + place))
            found[name] = wilson(min(known, rows), rows)
        return found
