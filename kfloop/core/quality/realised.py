"""Realised quality from late and chosen labels, in the order in which they came, and bets that it has fallen.

What is promised. The bets are against "quality is at least what was measured on the reference, less `realised_drop`, less one standard error of that measurement",
where quality is the mean expectation of the traffic before the request plus the weighted residuals of the labels (`weighing`). With rows labelled at random, false alarms
are on average at most the watch's share of what the user allows, in whatever time. With labels chosen by confidence or review flag this holds as
far as the expectations are right, or the weights are: one of the two is enough. With labels chosen by whether the answer is wrong nothing holds.

A stretch of labels refutes a fall: bets that quality is above the measured reference less the drop, begun anew with every 56 days or 5000
labels (two overlap, the older one counts). For each stretch the chance that it ever refutes a fall that is there is at most 5 %.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.quality.delays import counted
from kfloop.core.quality.estimated import CREDIT_NS, thinned
from kfloop.core.quality.evidence import YEAR_NS, Evidence, Stretch
from kfloop.core.quality.expected import UNIT
from kfloop.core.quality.gauge import SHARES, STRATA, Gauge, Z
from kfloop.core.quality.hours import HOUR_NS, Hours, Mix
from kfloop.core.quality.weighing import Weighed, highest, weigh, weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

BLOCK = 10
"""Labels that are bet on together."""
FORGET = 0.98
"""What a block leaves of the counts of labels by stratum: about the latest 500 count."""
RECENT = 2000
"""Latest labels that figures and the second opinion are about."""
EVERY = 100
HALF_LABELS, HALF_NS = 2500, 28 * 86400 * 10**9
REFUTED = math.log(20.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """Answers whose truth came, in the order in which it came; one row each.

    Attributes:
        strata: Stratum of each, [n].
        expected: Expectation in millionths, [n].
        found: Quality in millionths, [n].
        ts_ns: Time of the request, [n].
        at_ns: Time at which the truth was known, [n].
        delays: Seconds from request to truth; NaN where the truth is older than its request, [n].
    """

    strata: NDArray[np.int64]
    expected: NDArray[np.int64]
    found: NDArray[np.int64]
    ts_ns: NDArray[np.int64]
    at_ns: NDArray[np.int64]
    delays: Array

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.ts_ns)

    def records(self) -> list[tuple[int, ...]]:
        """Stratum, expectation, quality, time of request and of truth of each row."""
        return list(
            zip(
                *(part.tolist() for part in (self.strata, self.expected, self.found, self.ts_ns, self.at_ns)),
                strict=True,
            )
        )


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Realised quality after some labels: `value` weighted, `plain` not."""

    ts_ns: int
    labels: int
    value: float
    low: float
    high: float
    plain: float


@dataclass(frozen=True, kw_only=True)
class Realised:
    """What is remembered of the labels so far; its size does not depend on their number.

    Attributes:
        labels: Labels counted.
        backwards: Of these, truths that are older than their request; they have no delay.
        pending: Records that do not fill a block yet, see `Labels.records`.
        recent: Stratum, expectation, quality (thousandths) and hour of the request of the latest labels.
        labelled: Labels by stratum, older ones forgotten, [2 * STRATA].
        evidence: Evidence of a fall.
        stretches: The older and the newer stretch of bets that there is none.
        newest_ns: Time of the newest labelled request; false alarms were spent up to it.
        since_label: Label at which a fall was declared, None if it never was.
        since_ns: Time at which its truth was known.
        drop: The drop that the evidence is about.
        bins: Histogram of delays.
        history: A point for every 100 labels, older ones thinned out.
    """

    labels: int = 0
    backwards: int = 0
    pending: tuple[tuple[int, ...], ...] = ()
    recent: tuple[tuple[int, ...], ...] = ()
    labelled: tuple[float, ...] = (0.0,) * (2 * STRATA)
    evidence: Evidence = field(default_factory=Evidence)
    stretches: tuple[Stretch, Stretch] = (Stretch(), Stretch())
    newest_ns: int = 0
    since_label: int | None = None
    since_ns: int = 0
    drop: float | None = None
    bins: tuple[int, ...] = ()
    history: tuple[Seen, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, payload: dict[str, Any]) -> Realised:
        """Read what `to_dict` wrote."""
        logs = payload["evidence"]["logs"]
        older, newer = (Stretch(**{**one, "logs": tuple(one["logs"])}) for one in payload["stretches"])
        return cls(
            **{
                **payload,
                "pending": tuple(map(tuple, payload["pending"])),
                "recent": tuple(map(tuple, payload["recent"])),
                "labelled": tuple(payload["labelled"]),
                "evidence": Evidence(logs=None if logs is None else tuple(logs)),
                "stretches": (older, newer),
                "bins": tuple(payload["bins"]),
                "history": tuple(Seen(**point) for point in payload["history"]),
            }
        )

    def advance(self, gauge: Gauge, hours: Hours, new: Labels) -> Realised:
        """The state after more labels.

        Args:
            gauge: The reference.
            hours: The traffic.
            new: Labels in the order in which they came.
        """
        state = self
        if self.drop != gauge.realised_drop:  # evidence about another drop says nothing about this one
            fresh = Realised()
            state = replace(
                state,
                drop=gauge.realised_drop,
                evidence=fresh.evidence,
                stretches=fresh.stretches,
                since_label=None,
                since_ns=0,
            )
        state = replace(
            state,
            bins=counted(state.bins, new.delays),
            backwards=state.backwards + int(np.isnan(new.delays).sum()),
        )
        queue, state = [*state.pending, *new.records()], replace(state, pending=())
        mixes: dict[int, Mix] = {}
        while len(queue) >= BLOCK:
            block, queue = queue[:BLOCK], queue[BLOCK:]
            state = state._block(gauge, hours, mixes, block)  # noqa: SLF001 - our own
        return replace(state, pending=tuple(queue))

    def _block(self, gauge: Gauge, hours: Hours, mixes: dict[int, Mix], block: list[tuple[int, ...]]) -> Realised:
        strata, expected, found, ts_ns, at_ns = np.array(block, np.int64).T
        for hour in set((ts_ns // HOUR_NS).tolist()) - mixes.keys():
            mixes[hour] = hours.mix(gauge, hour)
        theirs = [mixes[hour] for hour in (ts_ns // HOUR_NS).tolist()]
        newest = max(self.newest_ns, int(ts_ns.max()))
        residuals = (found - expected) / UNIT
        state = self if self.drop is None else self._bet(gauge, self.drop, theirs, strata, residuals, newest)
        labels = self.labels + len(block)
        if state.since_label is None and state.evidence.log >= -math.log(SHARES["realised"]):
            state = replace(state, since_label=labels, since_ns=int(at_ns.max()))
        counts = np.array(self.labelled) * FORGET + np.bincount(strata, minlength=2 * STRATA)
        records = zip(
            strata.tolist(), (expected // 1000).tolist(), (found // 1000).tolist(), ts_ns.tolist(), strict=True
        )
        recent = [*self.recent, *((s, f, q, at // HOUR_NS) for s, f, q, at in records)]
        state = replace(
            state,
            labels=labels,
            labelled=tuple(counts.tolist()),
            recent=tuple(recent[-RECENT:]),
            newest_ns=newest,
        )
        if labels % EVERY:
            return state
        told = state.figures(gauge, hours)
        value, plain = told.value, told.unweighted.value
        point = Seen(ts_ns=newest, labels=labels, value=value.value, low=value.low, high=value.high, plain=plain)
        return replace(state, history=thinned((*state.history, point))) if value.known else state

    def _bet(
        self,
        gauge: Gauge,
        drop: float,
        theirs: list[Mix],
        strata: NDArray[np.int64],
        residuals: Array,
        newest: int,
    ) -> Realised:
        labelled = np.array(self.labelled)
        weight = {id(mix): weights(mix.shares, labelled) for mix in theirs}
        own = np.array([weight[id(mix)][stratum] for mix, stratum in zip(theirs, strata.tolist(), strict=True)])
        mean, error = np.array([mix.mean for mix in theirs]), np.array([mix.error for mix in theirs])
        quality = own * residuals + mean
        allowed = Z * np.sqrt(gauge.quality_error**2 + error**2)
        most = max(highest(gauge, weight[id(mix)]) + mix.mean for mix in theirs) + float(allowed.max())
        bound = gauge.quality - drop
        years = (max(newest - self.newest_ns, 0) if self.newest_ns else CREDIT_NS) / YEAR_NS
        evidence = self.evidence.advance(
            quality + allowed, bound=bound, most=most, weight=gauge.false_alarms_per_year * years
        )
        sure = quality - Z * error
        least = float(min(-max(weight[id(mix)].max() for mix in theirs) + mean.min() - Z * error.max(), bound - 0.1))
        older, newer = (one.advance(sure, bound=bound, least=least) for one in self._begun(newest))
        if newer.n >= HALF_LABELS or newest - newer.start_ns >= HALF_NS:
            older, newer = newer, Stretch(start_ns=newest)
        return replace(self, evidence=evidence, stretches=(older, newer))

    def _begun(self, newest: int) -> tuple[Stretch, Stretch]:
        return tuple(one if one.n else replace(one, start_ns=newest) for one in self.stretches)  # type: ignore[return-value]

    def refutes(self, newest_row_ns: int) -> bool:
        """Whether the older stretch shows that quality has not fallen by the drop, with labels of about the latest traffic.

        Args:
            newest_row_ns: Time of the newest request.
        """
        recent = newest_row_ns - self.newest_ns <= HALF_NS
        return self.drop is not None and self.since_label is None and recent and self.stretches[0].log >= REFUTED

    def figures(self, gauge: Gauge, hours: Hours) -> Weighed:
        """Realised quality by the latest labels, those that wait for their block included, for the traffic up to the newest of them."""
        waiting = [(s, f // 1000, q // 1000, ts // HOUR_NS) for s, f, q, ts, _ in self.pending]
        rows = np.array([*self.recent, *waiting][-RECENT:], np.int64).reshape(-1, 4)
        last = int(rows[:, 3].max()) if len(rows) else 0
        return weigh(gauge, hours.mix(gauge, last + 1), rows[:, 0], rows[:, 1] / 1000, rows[:, 2] / 1000)
