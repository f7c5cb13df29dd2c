"""Parts of the monitoring section: the causes, what is known of quality, and the health of the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfloop.report import monitor_plots
from kfloop.report.monitor_plots import Point
from kfloop.report.values import (
    MISSING,
    compact,
    count,
    decimal,
    duration,
    estimate,
    instant,
    interval,
    items,
    mapping,
    moment,
    number,
    percent,
    rows,
    share,
    text,
    words,
)

NS = 1e9
NAMES = ("estimated", "realised")
UNITS = {"h": 1.0, "d": 24.0, "w": 168.0}
_HUGE = 1e9  # no figure of quality is that large: it would flatten all others
_EXPECTATIONS = 12
_LABELS = 12


def causes(report: Mapping[str, Any]) -> list[list[str]]:
    """One row for each cause: what it is, whether it is certain, whether it matters, how large, since when, and why."""
    return [
        [
            words(line.get("kind")),
            _word(line.get("declared"), "declared", "not declared"),
            "says the champion is fine" if line.get("refutes") is True else _word(line.get("matters"), "yes", "no"),
            _size(line),
            moment(line.get("since")) if line.get("since") else MISSING,
            text(line.get("reason")),
        ]
        for line in rows(report.get("causes"))
    ]


def quality(found: Mapping[str, Any]) -> dict[str, Any]:
    """What is estimated without labels and what labels say; empty parts where there is neither."""
    parts = {name: mapping(found.get(name)) for name in NAMES}
    title = text(parts["estimated"].get("name") or parts["realised"].get("name")) or "quality"
    reference = next((value for part in parts.values() if (value := number(part.get("reference"))) is not None), None)
    curves = {name: points for name, part in parts.items() if (points := _points(part.get("history")))}
    floors = {
        name: reference - drop
        for name, part in parts.items()
        if name in curves and reference is not None and (drop := number(part.get("drop"))) is not None
    }
    known = mapping(parts["realised"].get("known_after"))
    waits = {
        text(wait): spelled
        for wait, value in sorted(known.items(), key=lambda pair: _hours(pair[0]))
        if (spelled := interval(value)) is not None and spelled.value is not None and 0 <= spelled.value <= 1
    }
    return {
        "problem": text(found.get("problem")),
        "plot": monitor_plots.quality(curves, title, reference, floors) if curves else "",
        "curve": monitor_plots.known_after(waits) if waits else "",
        "table": _table(title, parts, reference),
        "facts": _label_facts(parts["realised"]),
        "notes": [
            text(note)
            for note in (
                parts["estimated"].get("blind_spot"),
                mapping(parts["realised"].get("adwin")).get("statement"),
                *items(parts["realised"].get("problems")),
            )
            if note
        ],
        "by_label": [
            [text(name), percent(value)]
            for name, value in list(mapping(parts["estimated"].get("by_label")).items())[:_LABELS]
        ],
    }


def _table(title: str, parts: Mapping[str, Mapping[str, Any]], reference: float | None) -> list[list[str]]:
    lines = [
        [
            f"{name} {title}",
            share(part.get("quality")),
            _points_of(part.get("fall")),
            percent(part.get("drop")) if part.get("drop") is not None else "only told",
            f"{compact(part.get('evidence'))} of {compact(part.get('threshold'))}",
            moment(part.get("since")) if part.get("since") else MISSING,
        ]
        for name, part in parts.items()
        if part
    ]
    if lines and reference is not None:
        lines.append(["reference", percent(reference), *[""] * 4])
    return lines


def _label_facts(part: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not part:
        return []
    delay = mapping(part.get("delay_seconds"))
    facts = [
        ("labels that came back", count(part.get("labels"))),
        ("of so many requests", count(part.get("requests"))),
        ("worth as many unbiased ones", count(part.get("effective_labels"))),
        ("share of the requests that labels stand for", percent(_covered(part))),
        ("labels without their request yet", count(part.get("waiting"))),
        ("half of them came within", duration(delay.get("median"))),
        ("nine tenths within", duration(delay.get("p90"))),
        ("unweighted", share(part.get("unweighted"))),
    ]
    return [(name, "" if value == MISSING else value) for name, value in facts]


def _covered(part: Mapping[str, Any]) -> float | None:
    """Of the rest nothing is known but what the model expects of itself; the interval leaves it open."""
    unlabelled = number(part.get("unlabelled_share"))
    return None if unlabelled is None else 1 - unlabelled


def health(found: Mapping[str, Any]) -> dict[str, Any]:
    """Volume, latency, failures, cost, and the expectations that requests do not meet."""
    rates, latency = mapping(found.get("rows_per_hour")), mapping(found.get("latency_ms"))
    service, cost, asked = (mapping(found.get(name)) for name in ("service", "cost", "expectations"))
    hours = [
        (at, n)
        for pair in items(found.get("volume"))
        if len(line := items(pair)) > 1
        and (at := instant(line[0])) is not None
        and (n := number(line[1])) is not None
        and 0 <= n < _HUGE
    ]
    facts = [
        ("rows an hour now", compact(rates.get("now"))),
        ("on the champion's first day", compact(rates.get("before"))),
        ("answered in a day", count(service.get("answered"))),
        ("failed", _counted(service, "failed", "failure_share")),
        ("refused by the edge", count(service.get("refused"))),
        ("rows the log lost", _counted(service, "dropped", "dropped_share")),
        ("cost of 1000 answers", compact(cost.get("price_per_1000"))),
        ("cost of a day", compact(cost.get("per_day"))),
        ("expectations of the training suite asked", count(asked.get("asked"))),
    ]
    return {
        "facts": [(name, "" if value == MISSING else value) for name, value in facts],
        "volume": monitor_plots.volume(hours) if hours else "",
        "latency": _latency(latency),
        "unmet": [
            [
                text(line.get("column")),
                words(text(line.get("expectation")).removeprefix("expect_column_")),
                percent(line.get("share")),
                percent(line.get("allowed")),
                count(line.get("judged")),
                "beyond its limit" if line.get("beyond") is True else "within",
            ]
            for line in rows(asked.get("unmet"))[:_EXPECTATIONS]
        ],
        "findings": [text(line) for line in items(found.get("findings"))],
    }


def _latency(found: Mapping[str, Any]) -> list[list[str]]:
    keys = ("p50", "p95", "p99")
    lines = [
        [
            name,
            *(decimal(mapping(found.get(key)).get(part)) for part in keys),
            count(mapping(found.get(key)).get("rows")),
        ]
        for name, key in (("now", "now"), ("the champion's first day", "before"))
        if number(mapping(found.get(key)).get("p50")) is not None
    ]
    if lines:
        single = (("when it was blessed", "blessed_p95"), ("limit", "limit_p95"))
        lines += [
            [name, "", decimal(found.get(key)), "", ""] for name, key in single if number(found.get(key)) is not None
        ]
    return lines


def _points(history: Any) -> list[Point]:
    """Points of a curve in the order of time; an interval that is unknown is left flat."""
    found = []
    for line in rows(history):
        ns, value = number(line.get("ts_ns")), number(line.get("value"))
        at = None if ns is None else instant(ns / NS)
        if at is not None and value is not None and abs(value) < _HUGE:
            low, high = number(line.get("low")), number(line.get("high"))
            found.append(
                Point(
                    at, value, value if low is None else max(low, -_HUGE), value if high is None else min(high, _HUGE)
                )
            )
    return sorted(found)


def _hours(wait: str) -> float:
    """``1 d`` in hours: a report's keys stand in the order of the alphabet."""
    figure, _, unit = wait.partition(" ")
    return float(figure) * UNITS.get(unit, 0.0) if figure.isdigit() else 0.0


def _size(line: Mapping[str, Any]) -> str:
    spelled = estimate(line.get("size"))
    unit = text(line.get("unit"))
    return spelled if spelled == MISSING or not unit else f"{unit} {spelled}"


def _points_of(value: Any) -> str:
    """A fall in percentage points."""
    found = interval(value)
    if found is None or found.value is None:
        return MISSING
    ends = "" if found.low is None or found.high is None else f" ({100 * found.low:.1f} to {100 * found.high:.1f})"
    return f"{100 * found.value:.1f} points{ends}"


def _counted(service: Mapping[str, Any], name: str, part: str) -> str:
    found = count(service.get(name))
    return found if number(service.get(part)) is None else f"{found} ({percent(service.get(part), 2)})"


def _word(value: Any, true: str, false: str) -> str:
    return true if value is True else false if value is False else "unknown"
