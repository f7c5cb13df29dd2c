"""Verdicts: what one rule says about one measurement, and the sentence that says it to people.

A verdict has three values. ``not_evaluated`` counts as a failure everywhere: a rule that could not be judged protects
nobody. The sentence is rendered from the same object that decided, so a report cannot say something else than what was
decided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from kfloop.core.statistics.metrics import FIGURES

Outcome = Literal["pass", "fail", "not_evaluated"]

# Values outside of these ranges are not measurements but defects of the step that wrote them.
_RANGES: dict[str, tuple[float, float]] = {
    name: (figure.low, figure.high) for figures in FIGURES.values() for name, figure in figures.items()
}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number out of a report, or why there is none.

    Attributes:
        value: The number; None when it is missing.
        low: Lower end of its interval; None for a number without interval.
        high: Upper end of its interval.
        n: Number of examples or requests behind it; None when the step does not count them.
        level: Confidence level of the interval.
        missing: Why there is no number; empty when there is one.
        unsure: Why a number may have no interval; empty where nothing is known of that.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    level: float | None = None
    missing: str = ""
    unsure: str = ""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What a rule asks of a measurement.

    Attributes:
        rule: Name of the rule.
        metric: Name of the metric, which sets the range of possible values.
        subject: What is measured, in words.
        threshold: The number asked for.
        at_least: True for ``>=``, False for ``<=``.
        interval: Whether the worse end of the interval is judged instead of the point estimate.
        min_n: Smallest number of examples that counts as evidence.
        difference: Whether the measurement is a difference of two models.
        relative: Whether it is a share of the other model's value.
        mode: ``enforce`` or ``warn``.
    """

    rule: str
    metric: str
    subject: str
    threshold: float
    at_least: bool
    interval: bool = False
    min_n: int = 1
    difference: bool = False
    relative: bool = False
    mode: str = "enforce"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one rule concluded; the fields of the gate's report.

    Attributes:
        rule: Name of the rule.
        verdict: ``pass``, ``fail`` or ``not_evaluated`` (counts as fail).
        value: Measured value; None without one.
        low: Lower end of the interval.
        high: Upper end of the interval.
        threshold: The number asked for; None for conditions that are not about a number.
        n: Number of examples.
        sentence: All of the above for people.
        mode: ``enforce`` (decides) or ``warn`` (is reported only).
    """

    rule: str
    verdict: Outcome
    value: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    n: int | None = None
    sentence: str = ""
    mode: str = "enforce"

    @property
    def blocks(self) -> bool:
        """Whether this verdict alone forbids a promotion."""
        return self.mode == "enforce" and self.verdict != "pass"


def number(value: Any) -> float | None:
    """``value`` as a finite float; None for anything else (null, NaN, infinity, text, a truth value)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def judge(bar: Bar, measured: Measurement) -> Verdict:
    """Hold a measurement against a bar.

    Inclusive on both sides: a value equal to the threshold passes. A comparison that must be won, not tied, needs a
    threshold above zero.
    """
    problem = _problem(bar, measured)
    outcome: Outcome = "not_evaluated"
    if not problem:
        judged = _judged(bar, measured)
        met = judged >= bar.threshold if bar.at_least else judged <= bar.threshold
        outcome = "pass" if met else "fail"
    verdict = Verdict(
        rule=bar.rule,
        verdict=outcome,
        value=measured.value,
        low=measured.low,
        high=measured.high,
        threshold=bar.threshold,
        n=measured.n,
        mode=bar.mode,
    )
    return replace(verdict, sentence=_sentence(bar, verdict, problem, measured.level))


def condition(rule: str, *, met: bool | None, good: str, bad: str) -> Verdict:
    """A verdict on something that is not a number.

    Args:
        rule: Name of the condition.
        met: True passes, False fails, None could not be evaluated.
        good: Sentence for a pass.
        bad: Sentence for a failure, or for why it could not be evaluated.
    """
    outcome: Outcome = "not_evaluated" if met is None else "pass" if met else "fail"
    return Verdict(rule=rule, verdict=outcome, sentence=f"{good if met else bad}: {_word(outcome)}")


def _judged(bar: Bar, measured: Measurement) -> float:
    """The number that is held against the threshold: with ``interval`` the end that is worse for the challenger."""
    end = (measured.low if bar.at_least else measured.high) if bar.interval else measured.value
    if end is None:  # _problem has ruled this out
        message = f"rule '{bar.rule}' was judged without a number"
        raise AssertionError(message)
    return end


def _problem(bar: Bar, measured: Measurement) -> str:
    """Why the measurement cannot be judged; empty when it can."""
    if measured.value is None:
        return measured.missing or "there is no number"
    low, high = _RANGES.get(bar.metric, (-math.inf, math.inf))
    if not bar.difference and not low <= measured.value <= high:
        return f"{measured.value:g} is no possible value of {bar.metric} (expected {low:g} to {high:g})"
    if bar.interval and (measured.low is None or measured.high is None):
        return "it has no interval, and the rule asks for one" + (f": {measured.unsure}" if measured.unsure else "")
    if measured.low is not None and measured.high is not None and measured.low > measured.high:
        return f"its interval [{measured.low:g}, {measured.high:g}] is upside down"
    if measured.n is None:
        return "" if bar.min_n <= 1 else f"its number of examples is unknown, the rule needs at least {bar.min_n}"
    return "" if measured.n >= bar.min_n else f"it rests on {measured.n} examples, the rule needs at least {bar.min_n}"


def _sentence(bar: Bar, verdict: Verdict, problem: str, level: float | None) -> str:
    bound = f"{'at least' if bar.at_least else 'at most'} {_text(bar.threshold, bar)}"
    if problem:
        return f"{bar.subject} must be {bound}, but {problem}: {_word(verdict.verdict)}"
    text = f"{bar.subject} is {_text(verdict.value, bar)}"
    if verdict.low is not None and verdict.high is not None:
        share = f"{100 * level:.4g}% " if level is not None else ""
        text += f" ({share}interval {_text(verdict.low, bar)} to {_text(verdict.high, bar)})"
    if verdict.n is not None:
        text += f" on {verdict.n} {'requests' if bar.metric in _REQUEST_METRICS else 'examples'}"
    end = ("lower end " if bar.at_least else "upper end ") if bar.interval else ""
    return f"{text}; {end}must be {bound}: {_word(verdict.verdict)}"


_REQUEST_METRICS = frozenset({"p50_ms", "p95_ms", "p99_ms", "throughput_rps"})


def _text(value: float | None, bar: Bar) -> str:
    if value is None:
        return "unknown"
    if bar.relative:
        return f"{100 * value:+.4g}%" if value else "0%"
    return f"{value:+.4g}" if bar.difference and value else f"{value:.4g}"


def _word(outcome: Outcome) -> str:
    return outcome.replace("_", " ")
