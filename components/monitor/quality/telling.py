"""What the watch over quality tells: two causes for the policy, and figures for people."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kfloop.components.monitor.policy.causes import ESTIMATED, REALISED, Cause
from kfloop.core.quality.delays import quantile
from kfloop.core.quality.estimated import by_label, f1, fall, quality
from kfloop.core.quality.expected import CLASSES, LABELS
from kfloop.core.quality.gauge import SHARES, Z
from kfloop.core.quality.opinion import ask_adwin
from kfloop.core.statistics.effects import BLIND_SPOT
from kfloop.core.statistics.estimate import Estimate

if TYPE_CHECKING:
    from kfloop.components.monitor.quality.joining import Joined
    from kfloop.core.quality.estimated import Estimated
    from kfloop.core.quality.gauge import Gauge
    from kfloop.core.quality.hours import Hours
    from kfloop.core.quality.realised import Realised
    from kfloop.core.quality.weighing import Weighed
    from kfloop.core.sections import MonitorConfig

NAMES = {CLASSES: "accuracy", LABELS: "share of right labels"}
OF_NUMBERS = "quality (1 - |error| / 4 mean absolute errors of the reference)"
MOST_MOVED = 3
TOLD_SHARE = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """The parts of `QualityWatch` that are told; see there."""

    gauge: Gauge | None
    problem: str
    estimated: Estimated
    realised: Realised
    hours: Hours
    joined: Joined
    newest_ns: int
    unusable: int
    now: float

    @property
    def name(self) -> str:
        """What quality is, in words."""
        return NAMES.get(self.gauge.objective, OF_NUMBERS) if self.gauge is not None else "quality"


def quality_causes(told: Told, config: MonitorConfig) -> tuple[Cause, ...]:
    """The causes `estimated` and `realised`."""
    gauge = told.gauge
    if gauge is None:
        return tuple(
            Cause(kind=kind, declared=False, matters=None, reason=told.problem) for kind in (ESTIMATED, REALISED)
        )
    return _estimated(told, gauge, config.estimated_drop), _realised(told, gauge, config.realised_drop)


def quality_report(told: Told) -> dict[str, Any]:
    """Figures as plain values; NaN where something is not known."""
    gauge = told.gauge
    if gauge is None:
        return {"problem": told.problem, "estimated": None, "realised": None}
    sums, state, real = told.estimated.now(gauge), told.estimated, told.realised
    of_f1 = f1(gauge, sums)
    figures = real.figures(gauge, told.hours)
    counted = real.labels + len(real.pending)
    basis = {"name": told.name, "reference": gauge.quality, "reference_rows": gauge.rows, "measured": gauge.measured}
    estimated = {
        "quality": asdict(quality(gauge, sums)),
        "fall": asdict(fall(gauge, sums)),
        "f1": None if of_f1 is None else asdict(of_f1),
        "by_label": by_label(gauge, sums),
        "rows": state.rows,
        "unusable": told.unusable,
        "calibrated_on": gauge.expected.rows,
        "drop": gauge.estimated_drop,
        "margin": state.margin,
        "evidence": state.evidence.value,
        "threshold": 1 / SHARES["estimated"],
        "since": iso(state.since_ns),
        "history": [asdict(point) for point in state.history],
        "blind_spot": BLIND_SPOT,
    }
    realised = {
        "quality": asdict(figures.value),
        "unweighted": asdict(figures.unweighted),
        "fall": asdict(_realised_fall(gauge, figures)),
        "effective_labels": figures.effective,
        "truncated_share": figures.truncated,
        "unlabelled_share": figures.unlabelled,  # the interval leaves it open
        "labels": counted,
        "requests": told.hours.rows,
        "known_after": {wait: asdict(share) for wait, share in told.hours.curve(told.now).items()},
        "delay_seconds": {"median": quantile(real.bins, 0.5), "p90": quantile(real.bins, 0.9)},
        "older_than_request": real.backwards,
        "waiting": len(told.joined.waiting),
        "changed": told.joined.changed,
        "others": {name: {"labels": n, "quality": total / n / 1e6} for name, (n, total) in told.joined.others.items()},
        "drop": gauge.realised_drop,
        "margin": Z * gauge.quality_error,
        "evidence": real.evidence.value,
        "threshold": 1 / SHARES["realised"],
        "since": iso(real.since_ns),
        "refutes": real.refutes(told.newest_ns),
        "adwin": asdict(ask_adwin([row[2] / 1000 for row in real.recent])),
        "history": [asdict(point) for point in real.history],
        "problems": told.joined.sentences(),
    }
    return {"problem": told.problem, "estimated": basis | estimated, "realised": basis | realised}


def _estimated(told: Told, gauge: Gauge, drop: float | None) -> Cause:
    state = told.estimated
    size = fall(gauge, state.now(gauge))
    declared = drop is not None and state.since_row is not None
    if not state.rows:
        return Cause(kind=ESTIMATED, declared=False, matters=None, reason="no rows to estimate the quality of")
    place = f"{told.name} is estimated at {told_percent(quality(gauge, state.now(gauge)))}, {gauge.sums[1] / 1e6:.1%} in the reference"
    if declared:
        text = f"{place}: a fall of more than {drop:.1%} was declared at row {state.since_row}"
    else:
        text = f"{place}: evidence {state.evidence.value:.3g} of {1 / SHARES['estimated']:g} that it fell by more than {drop or 0:.1%}"
    return Cause(
        kind=ESTIMATED,
        declared=declared,
        matters=_matters(size, drop),
        size=size,
        unit=f"estimated fall of {told.name}",
        since=iso(state.since_ns) if declared else "",
        key=f"row {state.since_row}" if declared else "",
        moved=_moved(told, gauge) if declared else (),
        reason=text,
    )


def _realised(told: Told, gauge: Gauge, drop: float | None) -> Cause:
    real = told.realised
    figures = real.figures(gauge, told.hours)
    size = _realised_fall(gauge, figures)
    labels = real.labels + len(real.pending)
    if not labels:
        return Cause(kind=REALISED, declared=False, matters=None, reason="the truth of no request is known")
    declared = drop is not None and real.since_label is not None
    refutes = drop is not None and real.refutes(told.newest_ns)
    place = f"{told.name} by the latest labels is {told_percent(figures.value)} ({told_percent(figures.unweighted)} unweighted), {gauge.quality:.1%} in the reference"
    if figures.unlabelled >= TOLD_SHARE:  # the interval is that much wider
        place += f" (the interval is that wide because {figures.unlabelled:.0%} of the requests are of kinds that nobody labelled)"
    if declared:
        text = f"{place}: a fall of more than {drop:.1%} was declared at label {real.since_label}"
    elif refutes:
        text = f"{place}: {real.stretches[0].n} labels show that it has not fallen by {drop:.1%}"
    else:
        text = f"{place}: evidence {real.evidence.value:.3g} of {1 / SHARES['realised']:g} that it fell by more than {drop or 0:.1%}, {labels} labels"
    return Cause(
        kind=REALISED,
        declared=declared,
        matters=_matters(size, drop),
        refutes=refutes,
        size=size,
        unit=f"fall of {told.name}",
        since=iso(real.since_ns) if declared else "",
        key=f"label {real.since_label}" if declared else "",
        reason=text,
    )


def _realised_fall(gauge: Gauge, figures: Weighed) -> Estimate:
    """How far realised quality is below the reference's; both are uncertain."""
    value = figures.value
    if not value.known or math.isnan(gauge.quality):
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=value.n)
    found, error = gauge.quality - value.value, 1.96 * gauge.quality_error
    low = found - math.hypot(value.high - value.value, error)
    return Estimate(value=found, low=low, high=found + math.hypot(value.value - value.low, error), n=value.n)


def _matters(size: Estimate, drop: float | None) -> bool | None:
    return None if drop is None or not size.known else size.value >= drop


def _moved(told: Told, gauge: Gauge) -> tuple[str, ...]:
    """Labels whose estimated quality fell most; there are none but for sets of labels."""
    now, before = (
        by_label(gauge, told.estimated.now(gauge)),
        by_label(gauge, (1_000_000, *map(int, gauge.sums[1:] * 1e6))),
    )
    falls = sorted(now, key=lambda name: now[name] - before[name])
    return tuple(name for name in falls[:MOST_MOVED] if now[name] < before[name])


def told_percent(estimate: Estimate) -> str:
    """A share with its interval."""
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]" if estimate.known else "unknown"


def iso(ts_ns: int) -> str:
    """A time in ISO 8601; empty for 0."""
    return datetime.fromtimestamp(ts_ns / 1e9, tz=UTC).isoformat(timespec="milliseconds") if ts_ns else ""
