"""What monitoring saw: evidence over time against its threshold, the size of each shift, every cause, and why it led to this trigger."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kfloop.core.drifted import read_part
from kfloop.errors import InputError
from kfloop.report import monitor_plots, plots
from kfloop.report.sections import watching
from kfloop.report.sources import Context
from kfloop.report.values import (
    compact,
    count,
    decimal,
    estimate,
    instant,
    items,
    mapping,
    moment,
    number,
    percent,
    rows,
    short,
    text,
    words,
)

_EFFECTS_PLOTTED = 20
_STREAMS = 12
_FINDINGS = 20


def build(context: Context) -> Mapping[str, Any]:
    """What the section shows."""
    report = context.source("monitor").report
    history = [line for line in rows(report.get("history")) if number(line.get("log_e")) is not None]
    threshold = number(report.get("threshold"))
    limit = math.log(threshold) if threshold is not None and threshold > 0 else None
    timed = [(at, number(line.get("log_e")) or 0.0) for line in history if (at := instant(line.get("ts"))) is not None]
    effects = sorted(rows(report.get("effects")), key=lambda line: -abs(number(line.get("shift_sd")) or 0.0))
    findings = [_alarm(line) for line in items(report.get("data_quality"))]
    health = watching.health(mapping(report.get("health")))
    return {
        "outcome": words(report.get("outcome")),
        "reason": text(report.get("reason")),
        "facts": _facts(report),
        "guarantee": [text(report.get(name)) for name in ("guarantee", "rehearsal") if report.get(name)],
        "unwatched": [text(line) for line in items(report.get("unwatched"))[:_FINDINGS]],
        "causes": watching.causes(report),
        "views": _streams(report),
        "plot": monitor_plots.evidence(timed, limit, _declared(report, history)) if timed else "",
        "history": [[moment(line.get("ts")), count(line.get("rows")), decimal(line.get("log_e"))] for line in history],
        "effects_plot": _bars({words(line.get("name")): number(line.get("shift_sd")) for line in effects}),
        "effects": [
            [words(line.get("name")), *(decimal(line.get(key)) for key in ("reference", "current", "shift_sd"))]
            for line in effects[:_EFFECTS_PLOTTED]
        ],
        "columns": _columns(report),
        "drifted": _drifted(report),
        "quality": [*findings, *(line for line in health["findings"] if line not in findings)][:_FINDINGS],
        "judged": watching.quality(mapping(report.get("quality"))),
        "health": health,
    }


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    alarm, unusable = report.get("alarm_row"), report.get("rows_unusable")
    version = number(report.get("champion_version"))
    return [
        ("champion", " ".join(filter(None, (f"version {count(version)}," if version else "", short(report.get("champion_digest")))))),
        ("rows seen", count(report.get("rows_seen"))),
        ("of them new", count(report.get("rows_new"))),
        ("e-value", compact(report.get("e_value"))),
        ("threshold", compact(report.get("threshold"))),
        ("two-sample classifier, area under the curve", estimate(report.get("c2st_auc"))),
        ("drift declared at row", "" if alarm is None else count(alarm)),
        ("unusable rows", count(unusable) if unusable else ""),
        ("fresh labels", count(report.get("fresh_labels"))),
    ]  # fmt: skip


def _declared(report: Mapping[str, Any], history: list[dict[str, Any]]) -> float | None:
    """When drift was declared: the time of the first point that has the row of the alarm."""
    alarm = number(report.get("alarm_row"))
    reached = (line for line in history if alarm is not None and (number(line.get("rows")) or 0) >= alarm)
    return next((instant(line.get("ts")) for line in reached), None)


def _streams(report: Mapping[str, Any]) -> list[list[str]]:
    """Evidence by what it was found in, the strongest first; reports of older rounds call it views."""
    found = mapping(report.get("streams")) or mapping(report.get("views"))
    ranked = sorted(found.items(), key=lambda pair: -(number(pair[1]) or 0.0))
    return [[words(name), decimal(value)] for name, value in ranked[:_STREAMS]]


def _columns(report: Mapping[str, Any]) -> list[list[str]]:
    """Columns of the request by how far they moved: a number by name, or objects like the effects."""
    found = report.get("columns")
    pairs = [(name, number(value)) for name, value in mapping(found).items()]
    pairs += [(words(line.get("name")), number(line.get("shift_sd"))) for line in rows(found)]
    known = [(name, value) for name, value in pairs if value is not None]
    return [
        [text(name), decimal(value)] for name, value in sorted(known, key=lambda pair: -abs(pair[1]))[:_EFFECTS_PLOTTED]
    ]


def _drifted(report: Mapping[str, Any]) -> dict[str, Any]:
    """Where requests moved to: shares of the reference and of the latest requests in each part of a table that grew."""
    found = {}
    for line in rows(report.get("drifted")):
        shares = (number(line.get("reference")), number(line.get("current")))
        name = _part(line)
        if name and None not in shares:
            found[name] = (shares[0] or 0.0, shares[1] or 0.0)
    return {
        "rows": [[name, percent(before), percent(now)] for name, (before, now) in found.items()],
        "plot": monitor_plots.moved_to(found) if found else "",
    }


def _part(line: Mapping[str, Any]) -> str:
    """A part in words; its column where it is not well defined."""
    try:
        return text(read_part(dict(line)).text, limit=80)
    except InputError:
        return text(line.get("column"), limit=80)


def _bars(sizes: Mapping[str, float | None]) -> str:
    drawn = {name: size for name, size in list(sizes.items())[:_EFFECTS_PLOTTED] if size is not None}
    return plots.effects(drawn) if drawn else ""


def _alarm(line: Any) -> str:
    """A data-quality finding is a sentence, or an object of which every part is shown."""
    fields = mapping(line)
    if not fields:
        return text(line)
    sentence = fields.get("sentence") or fields.get("detail") or fields.get("message")
    return text(sentence) if sentence else ", ".join(f"{words(key)}: {text(value)}" for key, value in fields.items())
