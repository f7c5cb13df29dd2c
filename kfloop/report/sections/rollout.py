"""How a challenger was rolled out: who gets what share, what the looks found over time, how it ended and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfloop.report import rollout_plots
from kfloop.report.sources import Context
from kfloop.report.values import compact, count, duration, mapping, moment, number, percent, rows, text, words

SIDES = {
    # A promotion asks for nothing but errors and quality.
    "worse": ("Evidence that it is worse", ("errors", "latency", "disagreement", "quality")),
    "fine": ("Evidence that it is not worse", ("errors", "quality")),
}
MEANS = {
    "errors": "fails on more requests than the champion",
    "latency": "slow requests",
    "disagreement": "rows with another answer",
    "quality": "wrong on more labelled rows than the champion",
}
_LOOKS = 12
_MUCH = 1_000_000


def build(context: Context) -> Mapping[str, Any]:
    """What the roll-out section shows, from the run record."""
    return view(mapping(context.record.get("rollout")))


def view(told: Mapping[str, Any]) -> dict[str, Any]:
    """What the section shows.

    Args:
        told: A roll-out as ``components.deploy.looking.story`` tells it.
    """
    promised, findings, looks = mapping(told.get("promised")), rows(told.get("findings")), rows(told.get("looks"))
    ended = number(told.get("ended"))
    return {
        "outcome": words(told.get("outcome")),
        "reason": text(told.get("reason")),
        "facts": [
            ("challenger", _version(told.get("version"))),
            ("champion", _version(told.get("champion_version"))),
            ("mode", text(told.get("mode"))),
            ("share of the requests", percent(told["share"], 0) if "share" in told else ""),
            ("began", moment(told["began"]) if "began" in told else ""),
            ("ended", "" if ended is None else moment(ended)),
            ("lasted" if ended is not None else "goes on for", _hours(told.get("hours"))),
            ("by", text(told.get("actor"))),
            ("requests that both answered", count(told.get("requests"))),
            ("needed at least", count(promised.get("min_requests")) if promised else ""),
            ("records lost", count(told.get("dropped")) if told.get("dropped") else ""),
        ],
        "findings": [_finding(line) for line in findings],
        "plots": [plot for side in SIDES if (plot := _plot(side, findings, looks))],
        "looks": [
            [moment(look.get("at")), count(look.get("requests")), words(look.get("advice")), text(look.get("reason"))]
            for look in looks[-_LOOKS:]
        ],
    }


def _version(value: Any) -> str:
    return f"version {value}" if value else ""


def _hours(value: Any) -> str:
    found = number(value)
    return "" if found is None else duration(found * 3600)


def _finding(line: Mapping[str, Any]) -> list[str]:
    worse, fine = line.get("worse_at"), line.get("fine_at")
    state = "worse" if worse is not None else "not\N{NO-BREAK SPACE}worse" if fine is not None else "open"
    return [
        MEANS.get(text(line.get("question")), text(line.get("question"))),
        state,
        count(line.get("n")),
        percent(line.get("mean"), 2),
        percent(line.get("bound"), 2),
        _evidence(line.get("worse"), line.get("worse_needed")),
        _evidence(line.get("fine"), line.get("fine_needed")),
    ]


def _evidence(found: Any, needed: Any) -> str:
    """Evidence beside what is needed; from a million on, nobody reads more."""
    much = (number(found) or 0.0) > _MUCH
    return f"{f'over {_MUCH:,}' if much else compact(found)} of {compact(needed)}"


def _plot(side: str, findings: list[dict[str, Any]], looks: list[dict[str, Any]]) -> str:
    """One kind of evidence over the looks; empty without two looks."""
    title, asked = SIDES[side]
    needed = next((found for line in findings if (found := number(line.get(f"{side}_needed")))), None)
    lines: dict[str, list[tuple[float, float]]] = {}
    for look in looks:
        at = number(look.get("requests"))
        for line in rows(look.get("findings")):
            found = number(line.get(side))
            if text(line.get("question")) in asked and at is not None and found is not None and line.get("n"):
                lines.setdefault(text(line.get("question")), []).append((at, found))
    if needed is None or needed <= 1 or not any(len(points) > 1 for points in lines.values()):
        return ""
    return rollout_plots.evidence(title, lines, needed, f"rollout-{side}")
