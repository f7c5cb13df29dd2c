"""Challenger, champion and baseline on the same rows: values, differences, slices, errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kfloop.core.statistics.metrics import METRICS
from kfloop.report import data_plots, examples, plots
from kfloop.report.pictures import label_words
from kfloop.report.sections import answers, cause, explanations, slices
from kfloop.report.sources import Context
from kfloop.report.values import (
    Interval,
    compact,
    count,
    decimal,
    interval,
    items,
    mapping,
    number,
    rows,
    short,
    spelled,
    text,
    words,
)

MODELS = ("challenger", "champion", "baseline")
_MATRIX_LIMIT = 30  # classes: a larger table is no longer readable
_EXAMPLES = 24
_EXAMPLES_TITLE = {
    "regression": "Largest errors",
    "multilabel": "Sets with most wrong labels",
    "anomaly": "Odd rows that look normal, and normal ones that look odd",
}


def build(context: Context) -> Mapping[str, Any]:
    """What the comparison section shows."""
    report = context.source("evaluate").report
    models = {name: mapping(report.get(name)) for name in MODELS if mapping(report.get(name))}
    differences = {name: mapping(mapping(report.get("differences")).get(name)) for name in MODELS[1:]}
    return {
        "facts": list(_facts(report, models)),
        "cause": cause.build(context, models, differences),
        "absent": [name for name in MODELS if name not in models],
        "models": list(models),
        "metrics": _metrics(models, mapping(report.get("direction"))),
        "differences": [
            _difference(name, found, text(report.get("objective")))
            | {"tests": [text(line.get("sentence")) for line in rows(mapping(report.get("tests")).get(name))]}
            for name, found in differences.items()
            if found
        ],
        "labels": _by_label(models, text(report.get("objective"))),
        "answers": answers.build(context),
        "slices": slices.build(context, models, differences),
        "groups": slices.groups(report),
        "matrix": _matrix(context, report),
        "calibration": _calibration(report, models),
        "temperature": _temperature(mapping(report.get("temperature"))),
        "segments": text(mapping(report.get("segments")).get("note")),
        "examples_title": _EXAMPLES_TITLE.get(text(report.get("objective")), "Misclassified examples"),
        "examples": _examples(context, report),
        "trials": explanations.build(context),
    }


def _facts(report: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "task", words(report.get("objective"))
    yield "main figure", words(report.get("primary"))
    yield "test rows", count(report.get("n_test"))
    if (number(report.get("block")) or 1) > 1:
        yield "windows overlap, resampled in blocks of", count(report.get("block"))
    drawn = mapping(report.get("resampling"))
    if drawn.get("by") == "group":
        yield "groups of test rows, resampled as a whole", count(drawn.get("units"))
    if (number(drawn.get("units")) or 0) < (number(drawn.get("fewest")) or 0):
        yield "no intervals: too few of these, they need", count(drawn.get("fewest"))
    yield "dataset version", short(report.get("dataset_digest"))
    for name, model in models.items():
        yield name, short(model["digest"]) if model.get("digest") else words(model.get("kind"))
        fitted, there = number(model.get("n_fitted")), number(model.get("n_train"))
        if fitted is not None and there is not None:
            told = (
                f"all {count(fitted)} training rows" if fitted == there else f"{count(fitted)} of {count(there)} rows"
            )
            yield f"{name} fitted on", told
    for name, rows_known in mapping(report.get("overlap")).items():
        yield f"test rows that the {name} was trained on", count(rows_known)


def _metrics(models: Mapping[str, Mapping[str, Any]], better: Mapping[str, Any]) -> list[dict[str, Any]]:
    overall = {name: mapping(model.get("overall")) for name, model in models.items()}
    names = dict.fromkeys(metric for found in overall.values() for metric in found)
    metrics = []
    for place, metric in enumerate(names):
        known = {name: interval(found.get(metric)) for name, found in overall.items()}
        drawn = {name: found for name, found in known.items() if found is not None and found.value is not None}
        way = text(better.get(metric))
        title = f"{words(metric)} ({way} is better)" if way in {"higher", "lower"} else words(metric)
        metrics.append(
            {
                "name": words(metric),
                "plot": plots.intervals(f"metric-{place}", title, drawn) if drawn else "",
                "values": [spelled(found) for found in known.values()],
            }
        )
    return metrics


def _difference(other: str, found: Mapping[str, Any], objective: str) -> dict[str, Any]:
    overall = {name: interval(value) for name, value in mapping(found.get("overall")).items()}
    relative = mapping(mapping(found.get("relative")).get("overall"))
    levels = {value.level for value in overall.values() if value is not None and value.level is not None}
    drawn = {}
    for name, value in overall.items():
        # Errors in units of the data are comparable side by side only as shares of the other's error; log loss has no such unit.
        share = interval(relative.get(name)) if _in_units(objective, name) else None
        used, title = (value, words(name)) if share is None else (share, f"{words(name)}, as a share")
        if used is not None and used.value is not None:
            drawn[title] = used
    return {
        "other": other,
        "level": f"{100 * levels.pop():g} %" if len(levels) == 1 else "",
        "plot": plots.differences(f"difference-{other}", f"challenger minus {other}", drawn) if drawn else "",
        "columns": ["metric", "difference", *(["as a share"] if relative else [])],
        "rows": [
            [words(name), spelled(value), *([_share(interval(relative.get(name)))] if relative else [])]
            for name, value in overall.items()
        ],
    }


def _in_units(objective: str, metric: str) -> bool:
    known = METRICS.get(objective, {}).get(metric)
    return objective != "classification" and known is not None and known.better == "lower" and known.high > 1


def _share(found: Interval | None) -> str:
    """A relative difference as ``-3.1 % (-8.0 to +2.2)``."""
    if found is None or found.value is None:
        return ""
    if found.low is None or found.high is None:
        return f"{100 * found.value:+.1f} %"
    return f"{100 * found.value:+.1f} % ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _by_label(models: Mapping[str, Any], objective: str) -> str:
    """F1 of each label, where a row may have several."""
    if objective != "multilabel":
        return ""
    slices = mapping(mapping(models.get("challenger")).get("slices"))
    found = {
        text(name, limit=60).removeprefix("class:"): interval(mapping(part).get("f1")) for name, part in slices.items()
    }
    known = {name: one for name, one in found.items() if one is not None and one.value is not None}
    drawn = dict(list(known.items())[:_MATRIX_LIMIT])
    return data_plots.shares("labels-f1", "F1 by label", drawn) if drawn else ""


def _matrix(context: Context, report: Mapping[str, Any]) -> dict[str, Any]:
    """The confusion matrix with the share of its row behind each cell, 0 to 100."""
    grid = [[number(cell) for cell in items(line)] for line in items(report.get("confusion"))]
    size = len(grid)
    if not size or size > _MATRIX_LIMIT or any(len(line) != size for line in grid):
        problem = (
            ""
            if not grid
            else f"a table of {size} classes is not shown"
            if size > _MATRIX_LIMIT
            else "it is not square"
        )
        return {"labels": [], "rows": [], "problem": problem}
    labels = [context.label(place) for place in range(size)]
    lines = []
    for place, line in enumerate(grid):
        total = sum(cell or 0 for cell in line) or 1
        cells = [
            {"count": count(cell), "share": round(100 * (cell or 0) / total), "right": column == place}
            for column, cell in enumerate(line)
        ]
        lines.append({"label": labels[place], "cells": cells})
    return {"labels": labels, "rows": lines, "problem": ""}


def _calibration(report: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> str:
    """The reliability curves, if the evaluation holds bins: by model, or inside each model."""
    by_model = mapping(report.get("calibration"))
    curves = {}
    for name, model in models.items():
        bins = rows(by_model.get(name)) or rows(model.get("calibration"))
        points = [(number(part.get("confidence")), number(part.get("accuracy"))) for part in bins]
        known = [(stated, observed) for stated, observed in points if stated is not None and observed is not None]
        if known:
            curves[name] = known
    return plots.calibration(curves) if curves else ""


def _temperature(found: Mapping[str, Any]) -> str:
    """What a temperature does to the calibration error, or would do; empty where there is none."""
    value = number(found.get("value"))
    if value is None:
        return ""
    before, after = interval(found.get("ece_before")), interval(found.get("ece_after"))
    fitted = f"A temperature of {compact(value)}, fitted on {count(found.get('n_fitted'))} validation rows"
    change = f"the calibration error from {spelled(before)} to {spelled(after)}"
    if found.get("adopted"):
        return f"{fitted} and built into the served graph, changes {change}."
    return f"{fitted}, would change {change} (package.calibration: temperature)."


def _examples(context: Context, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    lines = rows(report.get("examples"))[:_EXAMPLES]
    found = examples.by_id(context.pictures, [line.get("id") for line in lines])
    return [
        {
            "id": text(line.get("id"), limit=80),
            "label": _named(context, line.get("label")),
            "predicted": "" if "score" in line else _named(context, line.get("predicted")),
            "notes": list(_notes(line)),
            "example": found.get(text(line.get("id"))),
        }
        for line in lines
    ]


def _notes(line: Mapping[str, Any]) -> Iterator[str]:
    if "confidence" in line:
        yield f"confidence {decimal(line.get('confidence'), 2)}"
    if "error" in line:
        yield f"off by {compact(line.get('error'))}"
    if "wrong" in line:
        yield f"wrong labels: {count(line.get('wrong'))}"
    if "score" in line:
        yield f"score {compact(line.get('score'))}"
    above = number(line.get("above"))
    if above is not None:
        yield f"above {100 * above:.0f} % of rows"


def _named(context: Context, value: Any) -> str:
    """A class by its name, several names, or a number."""
    if isinstance(value, list):
        return label_words(value, "multilabel", context.labels)
    return compact(value) if isinstance(value, float) else context.label(value)
