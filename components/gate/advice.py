"""Advice: what a person can do about a rule that did not pass, in one sentence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfloop.components.gate.measurement import Measurement
    from kfloop.components.gate.verdicts import Bar, Verdict

MOST_ROWS = 1_000_000  # beyond this, more rows are no advice
_SERVICE = ("_ms", "_mb", "_rps", "load_seconds", "parameters", "price_per_1000", "train_cost", "train_seconds")
_PRICES = ("price_per_1000", "train_cost")
_DATA = {
    "noise": "have the flagged labels looked at (kfloop review export), or let their weights count less (labels.policy: weight)",
    "leakage": "remove the duplicates that the label report lists, or give rows that belong together one data.group",
    "ece": "let the package calibrate its probabilities (package.calibration: temperature)",
}


_VERSUS = {
    "champion": "keep the champion, or train on more data or longer; the slices in the report show where the challenger is worse",
    "baseline": "serve the simpler model, or give the deep one more data or training",
    "absolute": "look at the slices and the worst mistakes in the report; more labelled rows like them help most",
}


def advice_on(bar: Bar, verdict: Verdict, measured: Measurement, problem: str) -> str:
    """What to do; empty for a pass.

    Args:
        bar: The rule.
        verdict: What it concluded.
        measured: The number it concluded it from.
        problem: Why nothing could be concluded; empty otherwise.
    """
    if verdict.verdict == "pass":
        return ""
    if problem:
        return _on_missing(bar, measured)
    rows = _rows_to_prove(bar, measured)
    if rows is None:
        return _on_failure(bar)
    told = f"about {_round(rows)} test rows would prove it" if rows <= MOST_ROWS else "no number of rows proves it soon"
    return f"the estimate itself is {'above' if bar.at_least else 'below'} the bound: if it holds, {told}"


def _on_failure(bar: Bar) -> str:
    if bar.metric in _DATA:
        return _DATA[bar.metric]
    if bar.metric.endswith(_SERVICE):
        return "make the model smaller (train.options), or raise the bound if users can live with it"
    return _VERSUS[bar.versus]


def _on_missing(bar: Bar, measured: Measurement) -> str:
    if measured.value is None and bar.metric in _PRICES:
        return "say what it costs: evaluate.price_per_hour for answers, train.price_per_hour for the training"
    if measured.value is None:
        return (
            measured.todo or "read the report of the step that should have measured it; an unknown number never passes"
        )
    if measured.n is not None and measured.n < bar.min_n:
        point = "" if bar.use == "point" else " and judge the estimate (use: point)"
        more = f"{bar.min_n - measured.n} more test rows of this kind are needed, and only a share of newly labelled rows joins the test split"
        return f"{more}; or lower min_n{point}"
    if measured.unsure:
        return "bring more of these units into the test split, or judge the estimate (use: point)"
    return "read the report of the step that measured it"


def _rows_to_prove(bar: Bar, measured: Measurement) -> int | None:
    """Rows with which the present estimate would pass as an interval; null where the estimate itself fails, or nothing is known of it."""
    if bar.use != "interval" or measured.value is None or not measured.n:
        return None
    gap = measured.value - bar.threshold if bar.at_least else bar.threshold - measured.value
    end = measured.low if bar.at_least else measured.high
    if gap <= 0 or end is None:
        return None
    needed = measured.n * (abs(measured.value - end) / gap) ** 2  # an arm shrinks with the root of the number of rows
    return math.ceil(needed - 0.5) if math.isfinite(needed) else MOST_ROWS + 1


def _round(rows: int) -> str:
    """Two digits: more would pretend to know."""
    digits = max(0, len(str(rows)) - 2)
    return f"{math.ceil(rows / 10**digits) * 10**digits:,}".replace(",", " ")
