"""The page of a replay: ``kfloop simulate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from kfloop.report.html import environment, write_page
from kfloop.report.simulation_plots import Course, course
from kfloop.report.values import MISSING, count, decimal, duration, estimate, mapping, moment, number, rows, text, words

SMOOTHED = 4
MONITOR = "monitor"
BASELINES = {
    "repeat_last": "repeat the last label, as if it were known at once",
    "repeat_known": "repeat the last label that is known by then",
    "majority": "always the most frequent class of the first period",
}
LISTED = 200  # rounds of the monitor in the table


def render_simulation(summary: Mapping[str, Any], out: Path, *, made: float) -> Path:
    """Write the page of a replay.

    Args:
        summary: As ``pipelines.simulating.outcomes.summarise`` gives it.
        out: The file to write; it appears whole or not at all.
        made: Unix time that the page names as its own.

    Returns:
        ``out``.
    """
    windows = {name: rows(found) for name, found in mapping(summary.get("windows")).items()}
    page = (
        environment()
        .get_template("simulation.html.j2")
        .render(
            loop_name=text(summary.get("loop")),
            title=_title(summary),
            facts=_facts(summary),
            notes=[text(note) for note in mapping(summary.get("data")).get("notes", [])],
            policies=_policies(summary),
            differences=_differences(summary),
            drawn=_drawn(windows),
            rounds=_rounds(windows.get(MONITOR, [])),
            outcomes=_outcomes(windows.get(MONITOR, [])),
            made=moment(made),
        )
    )
    write_page(out, page)
    return out


def _title(summary: Mapping[str, Any]) -> str:
    found = mapping(summary.get("policies"))
    told = [f"{name} {decimal(mapping(one).get('accuracy'))}" for name, one in found.items()]
    return f"Accuracy: {', '.join(told)}"


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    data, settings = mapping(summary.get("data")), mapping(summary.get("settings"))
    return [
        ("rows answered", f"{count(data.get('answered'))} of {count(data.get('rows'))}"),
        ("from", moment(data.get("start"))),
        ("to", moment(data.get("end"))),
        ("windows", f"{count(data.get('windows'))} of {count(settings.get('window'))} rows"),
        ("a label is known after", duration(settings.get("label_delay"))),
        ("rows of a retraining", count(settings.get("memory")) if settings.get("memory") else "as many as the first"),
    ]


def _policies(summary: Mapping[str, Any]) -> list[list[str]]:
    """Rows of the table of policies, the baselines below."""
    found = []
    for name, told in mapping(summary.get("policies")).items():
        one = mapping(told)
        found.append(
            [
                f"every {mapping(summary.get('settings')).get('every')} windows" if name == "every" else name,
                decimal(one.get("accuracy")),
                *(count(one.get(key)) for key in ("trainings", "promoted", "rows_trained")),
                duration(one.get("cpu_seconds")),
                duration(one.get("watch_cpu_seconds")) if number(one.get("watch_cpu_seconds")) else MISSING,
                decimal(one.get("price"), 2),
            ]
        )
    for key, said in BASELINES.items():
        value = number(mapping(summary.get("baselines")).get(key))
        found.append([said, decimal(value), *[MISSING] * 6])
    return found


def _differences(summary: Mapping[str, Any]) -> list[list[str]]:
    return [
        [name, estimate(told), count(mapping(told).get("n")), count(mapping(told).get("block"))]
        for name, told in mapping(summary.get("differences")).items()
    ]


def _drawn(windows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The plot; empty where nothing was played."""
    longest: Sequence[Mapping[str, Any]] = max(windows.values(), key=len, default=[])
    if not longest:
        return ""
    smoothed = SMOOTHED if len(longest) > 4 * SMOOTHED else 1
    watched = windows.get(MONITOR, [])
    return course(
        Course(
            times=[_time(one) for one in longest],
            accuracy={name: _smooth(found, smoothed) for name, found in windows.items() if len(found) == len(longest)},
            smoothed=smoothed,
            trained={name: [_time(one) for one in found if one.get("trained")] for name, found in windows.items()},
            promoted=[_time(one) for one in watched if one.get("promoted")],
            evidence=[(_time(one), value) for one in watched if (value := number(one.get("log10_e"))) is not None],
            threshold=next(
                (found for one in watched if (found := number(one.get("log10_threshold"))) is not None), None
            ),
        )
    )


def _smooth(windows: Sequence[Mapping[str, Any]], smoothed: int) -> list[float | None]:
    """Accuracy in each window and those before it; None where none of them has labels."""
    found: list[float | None] = []
    for place in range(len(windows)):
        part = windows[max(0, place + 1 - smoothed) : place + 1]
        labelled = sum(number(one.get("labelled")) or 0 for one in part)
        found.append(sum(number(one.get("hits")) or 0 for one in part) / labelled if labelled else None)
    return found


def _outcomes(watched: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """How often the monitor concluded what."""
    names = [text(one.get("outcome")) for one in watched]
    return [[words(name), count(names.count(name))] for name in dict.fromkeys(names)]


def _rounds(watched: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Windows at whose end the monitor concluded something new."""
    found, before = [], ""
    for one in watched:
        outcome = text(one.get("outcome"))
        if one.get("trained") or outcome != before:
            accuracy = _smooth([one], 1)[0]
            became = ("promoted" if one.get("promoted") else "rejected") if one.get("trained") else MISSING
            why = f"{text(one.get('reason'))}. {text(one.get('gate'))}" if one.get("gate") else text(one.get("reason"))
            found.append([moment(one.get("end"))[:16], decimal(accuracy), words(outcome), became, why])
        before = outcome
    return found[:LISTED]


def _time(window: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(text(window.get("end"))).replace(tzinfo=None)
