"""What is beyond its limit in the health of a service: sentences, one cause, and the part of the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kfloop.components.monitor.health.hours import DAY_HOURS, Hour, iso
from kfloop.components.monitor.health.latency import summary
from kfloop.components.monitor.policy.causes import DATA_QUALITY, Cause
from kfloop.core.artifacts import canonical_json, sha256_text
from kfloop.core.statistics.estimate import wilson

if TYPE_CHECKING:
    from kfloop.components.monitor.health.requirements import Finding, Requirements
    from kfloop.core.sections import MonitorConfig

COUNTERS = ("answered", "failed", "refused", "written", "dropped")
SLOWER = 2.0
"""How many times slower than at first is told, where ``latency_ms_p95`` sets no limit."""
MOST_SENTENCES = 8
SHARES = (("failure_share", "failed"), ("dropped_share", "were not logged"))


@dataclass(frozen=True, kw_only=True)
class View:
    """What is looked at: the newest traffic, and what it is compared with.

    Attributes:
        recent: The newest hours.
        span: How many hours these are, to now.
        first: The champion's first day; None while it is not over.
        hours: The newest hours one by one.
        counters: What the server counted within a day.
        requirements: What the training rows had to meet.
        backwards: Rows whose clock went back.
    """

    recent: Hour
    span: int
    first: Hour | None
    hours: dict[int, Hour]
    counters: dict[str, int]
    requirements: Requirements
    backwards: int

    @property
    def per_hour(self) -> float:
        """Rows an hour now."""
        return self.recent.rows / self.span if self.span else 0.0

    @property
    def service(self) -> dict[str, Any]:
        """The counters, and the shares of what failed and of what was lost; a share of nothing is unknown."""
        told = {name: self.counters.get(name) for name in COUNTERS}
        return told | {
            "failure_share": _share(told["failed"], told["answered"]),
            "dropped_share": _share(told["dropped"], told["written"]),
        }

    def unmet(self, config: MonitorConfig) -> list[Finding]:
        """Expectations that some values of the newest traffic do not meet, the worst first."""
        return self.requirements.judge(self.recent.expected, tolerance=config.unexpected_share, fewest=config.min_rows)


def findings(view: View, config: MonitorConfig) -> list[str]:
    """Everything that is beyond its limit, one sentence each, at most a screenful."""
    text = [line.sentence for line in view.unmet(config) if line.beyond]
    if len(text) > MOST_SENTENCES:
        text = [*text[:MOST_SENTENCES], f"and {len(text) - MOST_SENTENCES} more expectations are not met"]
    slow = _slow(view, config)
    text += [slow] if slow else []
    for name, what in SHARES:
        share, limit = view.service[name], getattr(config, name)
        if share is not None and share > limit:
            text.append(f"{share:.1%} of the latest requests {what}, monitor.{name} is {limit:.1%}")
    if view.backwards:
        text.append(f"the clock of {view.backwards} requests went back by an hour or more")
    return text


def cause(view: View, config: MonitorConfig) -> Cause | None:
    """The one cause; None where the training suite could not be asked of any request."""
    if not any(found.expected for found in view.hours.values()):
        return None
    unmet = [line for line in view.unmet(config) if line.beyond]
    if not unmet:
        reason = "requests meet the expectations that the training rows met"
        return Cause(kind=DATA_QUALITY, declared=False, matters=False, reason=reason)
    worst, more = unmet[0], f", and {len(unmet) - 1} more" if len(unmet) > 1 else ""
    return Cause(
        kind=DATA_QUALITY,
        declared=True,
        matters=False,
        size=wilson(worst.unexpected, worst.judged),
        unit="share of unexpected values",
        since=_since(view, unmet),
        key=sha256_text(canonical_json(sorted([line.expectation, line.column] for line in unmet))),
        moved=tuple(dict.fromkeys(line.column for line in unmet)),
        reason=f"{worst.sentence}{more}; rows that are wrong are mended at their source, not learned from",
    )


def facts(
    view: View, config: MonitorConfig, price_per_1000: float | None, blessed_ms_p95: float | None
) -> dict[str, Any]:
    """Rates, latency, counters, cost and expectations, as the report of a round has them."""
    price = config.price_per_1000 if config.price_per_1000 is not None else price_per_1000
    first = view.first
    return {
        "rows_per_hour": {"now": view.per_hour, "before": None if first is None else first.rows / DAY_HOURS},
        "latency_ms": {
            "now": summary(view.recent.latency),
            "before": None if first is None else summary(first.latency),
            "blessed_p95": blessed_ms_p95,
            "limit_p95": config.latency_ms_p95,
        },
        "service": view.service,
        "cost": {
            "price_per_1000": price,
            "per_day": None if price is None else price * view.per_hour * DAY_HOURS / 1000,
        },
        "expectations": {
            "asked": len({place for found in view.hours.values() for place in found.expected}),
            "left_out": list(view.requirements.left_out),
            "unmet": [asdict(line) | {"share": line.share, "sentence": line.sentence} for line in view.unmet(config)],
        },
        "clock_backwards": view.backwards,
        "findings": findings(view, config),
    }


def _slow(view: View, config: MonitorConfig) -> str:
    p95 = summary(view.recent.latency)["p95"]
    before = summary(view.first.latency)["p95"] if view.first is not None else None
    limit = config.latency_ms_p95
    if p95 is not None and limit is not None and p95 > limit:
        return f"latency p95 is {p95:.3g} ms, monitor.latency_ms_p95 is {limit:g}"
    if p95 is not None and before is not None and limit is None and p95 > SLOWER * before:
        return f"latency p95 is {p95:.3g} ms, on the champion's first day it was {before:.3g}"
    return ""


def _since(view: View, unmet: list[Finding]) -> str:
    """The first of the hours kept in which one of these expectations was not met more often than it may be."""
    wanted = {(line.expectation, line.column) for line in unmet}
    for hour in sorted(view.hours):
        found = view.requirements.judge(view.hours[hour].expected, tolerance=0.0, fewest=1)
        if any((line.expectation, line.column) in wanted and line.beyond for line in found):
            return iso(hour)
    return ""


def _share(part: int | None, rest: int | None) -> float | None:
    return None if part is None or rest is None or part + rest == 0 else part / (part + rest)
