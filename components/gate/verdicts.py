"""Verdicts: what one rule says about one measurement, and the sentence that says it to people.

A verdict has three values. ``not_evaluated`` counts as a failure everywhere: a rule that could not be judged protects
nobody. The sentence is rendered from the same object that decided, so a report cannot say something else than what was
decided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from kfloop.components.gate.advice import advice_on
from kfloop.components.gate.levels import detectable
from kfloop.core.statistics.metrics import FIGURES

if TYPE_CHECKING:
    from kfloop.components.gate.measurement import Measurement

Outcome = Literal["pass", "fail", "not_evaluated"]
Use = Literal["point", "interval", "unless_refuted"]

_TINY = 1e-9
_ROUNDING = 1e-12  # what two divisions and a subtraction may add: .85 - .9 is a little less than -.05
# Values outside of these ranges are not measurements but defects of the step that wrote them.
_RANGES: dict[str, tuple[float, float]] = {
    name: (figure.low, figure.high) for figures in FIGURES.values() for name, figure in figures.items()
}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What a rule asks of a measurement.

    Attributes:
        rule: Name of the rule.
        metric: Name of the metric, which sets the range of possible values.
        subject: What is measured, in words.
        threshold: The number asked for.
        at_least: True for ``>=``, False for ``<=``.
        use: What must satisfy the bound: the ``point`` estimate, the whole ``interval``, or any part of it (``unless_refuted``).
        min_n: Smallest number of examples that counts as evidence.
        versus: ``absolute``, or the model that the challenger is compared with.
        relative: Whether it is a share of the other model's value.
        mode: ``enforce`` or ``warn``.
    """

    rule: str
    metric: str
    subject: str
    threshold: float
    at_least: bool
    use: Use = "point"
    min_n: int = 1
    versus: str = "absolute"
    relative: bool = False
    mode: str = "enforce"

    @property
    def difference(self) -> bool:
        """Whether the measurement is a difference of two models."""
        return self.versus != "absolute"


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
        level: Confidence level of the interval.
        n: Number of examples.
        shortfall: How far the judged number is on the wrong side of the threshold; None where it is not.
        detectable: The true value that this rule passes (with ``unless_refuted``: notices) in 80 % of rounds of this size.
        sentence: All of the above for people.
        advice: What to do about it; empty for a pass.
        mode: ``enforce`` (decides) or ``warn`` (is reported only).
        subject: What was measured, in words; empty for conditions that are not about a number.
        versus: ``absolute``, ``champion`` or ``baseline``.
        relative: Whether value and threshold are shares of the other model's value.
        overridden_by: Who said that this failure does not block, why and until when; None for nobody.
    """

    rule: str
    verdict: Outcome
    value: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    level: float | None = None
    n: int | None = None
    shortfall: float | None = None
    detectable: float | None = None
    sentence: str = ""
    advice: str = ""
    mode: str = "enforce"
    subject: str = ""
    versus: str = "absolute"
    relative: bool = False
    overridden_by: dict[str, Any] | None = None

    @property
    def blocks(self) -> bool:
        """Whether this verdict alone forbids a promotion."""
        return self.mode == "enforce" and self.verdict != "pass" and self.overridden_by is None


def judge(bar: Bar, measured: Measurement) -> Verdict:
    """Hold a measurement against a bar.

    Inclusive on both sides: a value equal to the threshold, but for the last digits of a float, passes. A comparison that must be won, not
    tied, needs a threshold above zero.
    """
    problem = _problem(bar, measured)
    outcome: Outcome = "not_evaluated"
    shortfall = None
    if not problem:
        judged = _judged(bar, measured)
        equal = math.isclose(judged, bar.threshold, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
        met = equal or (judged >= bar.threshold if bar.at_least else judged <= bar.threshold)
        outcome = "pass" if met else "fail"
        shortfall = None if met else abs(judged - bar.threshold)
    verdict = Verdict(
        rule=bar.rule,
        verdict=outcome,
        value=measured.value,
        low=measured.low,
        high=measured.high,
        threshold=bar.threshold,
        level=measured.level,
        n=measured.n,
        shortfall=shortfall,
        detectable=None if problem else _detectable(bar, measured),
        mode=bar.mode,
        subject=bar.subject,
        versus=bar.versus,
        relative=bar.relative,
    )
    verdict = replace(verdict, sentence=_sentence(bar, verdict, problem))
    return replace(verdict, advice=advice_on(bar, verdict, measured, problem))


def _detectable(bar: Bar, measured: Measurement) -> float | None:
    """What the rule could show with as many rows; null where that is no possible value."""
    found = detectable(measured, bar.threshold, at_least=bar.at_least, use=bar.use)
    low, high = (-math.inf, math.inf) if bar.difference else _RANGES.get(bar.metric, (-math.inf, math.inf))
    return found if found is not None and low <= found <= high else None


def condition(rule: str, *, met: bool | None, good: str, bad: str, advice: str) -> Verdict:
    """A verdict on something that is not a number.

    Args:
        rule: Name of the condition.
        met: True passes, False fails, None could not be evaluated.
        good: Sentence for a pass.
        bad: Sentence for a failure, or for why it could not be evaluated.
        advice: What to do when it is not met.
    """
    outcome: Outcome = "not_evaluated" if met is None else "pass" if met else "fail"
    sentence = f"{good if met else bad}: {_word(outcome)}"
    return Verdict(rule=rule, verdict=outcome, sentence=sentence, advice="" if met else advice)


def _judged(bar: Bar, measured: Measurement) -> float:
    """The number that is held against the threshold: the end that is worse for the challenger, or with ``unless_refuted`` the better one."""
    worse, better = (measured.low, measured.high) if bar.at_least else (measured.high, measured.low)
    end = {"point": measured.value, "interval": worse, "unless_refuted": better}[bar.use]
    if end is None:  # _problem has ruled this out
        message = f"rule '{bar.rule}' was judged without a number"
        raise AssertionError(message)
    return end


def _impossible(measured: Measurement) -> str:
    """Why this interval cannot be one of this value; empty where it can, or where there is none."""
    if measured.value is None or measured.low is None or measured.high is None:
        return ""
    if measured.low > measured.high:
        return f"its interval [{measured.low:g}, {measured.high:g}] is upside down"
    # A bootstrap interval may lie beside its value (a calibration error is biased), but never farther than it is wide.
    width = measured.high - measured.low + _TINY
    beside = not measured.low - width <= measured.value <= measured.high + width
    return f"its interval [{measured.low:g}, {measured.high:g}] is not one of {measured.value:g}" if beside else ""


def _problem(bar: Bar, measured: Measurement) -> str:
    """Why the measurement cannot be judged; empty when it can."""
    if measured.value is None:
        return measured.missing or "there is no number"
    low, high = _RANGES.get(bar.metric, (-math.inf, math.inf))
    if not bar.difference and not low <= measured.value <= high:
        return f"{measured.value:g} is no possible value of {bar.metric} (expected {low:g} to {high:g})"
    if bar.use != "point" and (measured.low is None or measured.high is None):
        return "it has no interval, and the rule asks for one" + (f": {measured.unsure}" if measured.unsure else "")
    if impossible := _impossible(measured):
        return impossible
    if measured.n is None:
        return "" if bar.min_n <= 1 else f"its number of examples is unknown, the rule needs at least {bar.min_n}"
    return "" if measured.n >= bar.min_n else f"it rests on {measured.n} examples, the rule needs at least {bar.min_n}"


def _sentence(bar: Bar, verdict: Verdict, problem: str) -> str:
    bound = f"{'at least' if bar.at_least else 'at most'} {figure(verdict.threshold, bar)}"
    if problem:
        return f"{bar.subject} must be {bound}, but {problem}: {_word(verdict.verdict)}"
    text = f"{bar.subject} is {figure(verdict.value, bar)}"
    if verdict.low is not None and verdict.high is not None:
        share = f"{100 * verdict.level:.4g}% " if verdict.level is not None else ""
        text += f" ({share}interval {figure(verdict.low, bar)} to {figure(verdict.high, bar)})"
    if verdict.n is not None:
        text += f" on {verdict.n} {'requests' if bar.metric in _REQUEST_METRICS else 'examples'}"
    lower = bar.at_least is (bar.use == "interval")
    end = "" if bar.use == "point" else "lower end " if lower else "upper end "
    short = (
        f" ({figure(verdict.shortfall, bar).lstrip('+')} {'short' if bar.at_least else 'too much'})"
        if verdict.shortfall
        else ""
    )
    return f"{text}; {end}must be {bound}{short}: {_word(verdict.verdict)}"


_REQUEST_METRICS = frozenset({"p50_ms", "p95_ms", "p99_ms", "throughput_rps"})


def figure(value: float | None, bar: Bar) -> str:
    """A number as the rule's sentence spells it: differences with their sign, shares in percent."""
    if value is None:
        return "unknown"
    if bar.relative:
        return f"{100 * value:+.4g}%" if value else "0%"
    return f"{value:+.4g}" if bar.difference and value else f"{value:.4g}"


def _word(outcome: Outcome) -> str:
    return outcome.replace("_", " ")
