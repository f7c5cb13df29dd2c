"""What the monitor asked for this training for: the parts of the requests that moved, and champion and challenger on each and on all other rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfloop.report import plots
from kfloop.report.sources import Context
from kfloop.report.values import (
    Interval,
    count,
    interval,
    items,
    mapping,
    number,
    percent,
    rows,
    short,
    spelled,
    text,
    words,
)

_NAME = 80  # characters of a part's name
_KINDS = ("drifted", "old")


def build(context: Context, models: Mapping[str, Any], differences: Mapping[str, Any]) -> dict[str, Any]:
    """The cause with one line for each of its slices; empty where a person asked for the training."""
    report = context.source("evaluate").report
    if report.get("cause") is None:
        return {}
    found = mapping(report.get("cause"))
    problems = [text(line) for line in items(found.get("problems"))]
    problems += [] if found else [f"the cause is no object: {text(report.get('cause'))}"]
    parts = rows(found.get("parts"))
    metric = text(report.get("primary")) or "accuracy"
    against = mapping(mapping(differences.get("champion")).get("slices"))
    judged = _judged(context)
    lines, drawn = [], {}
    for part in parts:
        for kind in _KINDS:
            key = str(part.get(kind) or "")
            name = text(part.get("text"), limit=_NAME) or text(key, limit=_NAME)
            name = name if kind == "drifted" else f"all but {name}"
            difference = interval(mapping(against.get(key)).get(metric))
            if difference is not None and difference.value is not None:
                drawn[name] = difference
            lines.append(
                [
                    name,
                    *(_share(part, when, kind) for when in ("reference", "current")),
                    count(part.get("n" if kind == "drifted" else "n_old")),
                    *(spelled(_of(models, model, key, metric)) for model in ("champion", "challenger")),
                    spelled(difference),
                    *(judged.get((key, warns), "no rule") for warns in (False, True)),
                ]
            )
    evidence = short(found.get("evidence"))
    return {
        "sentence": f"The monitor asked for it ({words(found.get('kind'))}): {text(found.get('reason'))} (evidence {evidence})."
        if found
        else "",
        "columns": ["rows", "before", "now", "test rows", "champion", "challenger", "difference", "decides", "warns"],
        "metric": words(metric),
        "rows": lines,
        "plot": plots.differences("cause", f"{words(metric)}, challenger minus champion", drawn) if drawn else "",
        "note": ""
        if parts or problems
        else "No column of the requests tells by itself where they moved, so that freshly labelled rows (origin fresh) stand for what caused this training.",
        "problems": problems,
    }  # fmt: skip


def _of(models: Mapping[str, Any], model: str, key: str, metric: str) -> Interval | None:
    return interval(mapping(mapping(mapping(models.get(model)).get("slices")).get(key)).get(metric))


def _share(part: Mapping[str, Any], when: str, kind: str) -> str:
    """Share of the rows of the reference, or of the requests, in the part or outside of it."""
    found = number(part.get(when))
    return percent(found if kind == "drifted" or found is None else 1 - found)


def _judged(context: Context) -> dict[tuple[str, bool], str]:
    """The gate's verdicts by slice, those that decide apart from those that only warn."""
    found: dict[tuple[str, bool], list[str]] = {}
    for line in rows(context.source("gate").report.get("verdicts")):
        key = str(line.get("rule")).partition("[")[2].rpartition("]")[0]
        found.setdefault((key, line.get("mode") == "warn"), []).append(words(line.get("verdict")))
    return {key: ", ".join(said) for key, said in found.items()}
