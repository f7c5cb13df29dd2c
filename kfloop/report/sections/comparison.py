"""Challenger, champion and baseline on the same rows: values, differences, slices, errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kfloop.report import plots
from kfloop.report.sources import Context
from kfloop.report.values import Interval, count, decimal, interval, items, mapping, number, rows, short, text, words

MODELS = ("challenger", "champion", "baseline")
_MATRIX_LIMIT = 30  # classes: a larger table is no longer readable
_SLICES_PLOTTED = 24


def build(context: Context) -> Mapping[str, Any]:
    """What the comparison section shows."""
    report = context.source("evaluate").report
    models = {name: mapping(report.get(name)) for name in MODELS if mapping(report.get(name))}
    differences = {name: mapping(mapping(report.get("differences")).get(name)) for name in MODELS[1:]}
    return {
        "facts": list(_facts(report, models)),
        "absent": [name for name in MODELS if name not in models],
        "models": list(models),
        "metrics": _metrics(models),
        "differences": [_difference(name, found) for name, found in differences.items() if found],
        "slices": _slices(context, models, differences),
        "matrix": _matrix(context, report),
        "calibration": _calibration(report, models),
        "examples": _examples(context, report),
    }


def _facts(report: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "test rows", count(report.get("n_test"))
    yield "dataset version", short(report.get("dataset_digest"))
    for name, model in models.items():
        yield name, short(model["digest"]) if model.get("digest") else words(model.get("kind"))
    for name, rows_known in mapping(report.get("overlap")).items():
        yield f"test rows that the {name} was trained on", count(rows_known)


def _metrics(models: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    overall = {name: mapping(model.get("overall")) for name, model in models.items()}
    names = dict.fromkeys(metric for found in overall.values() for metric in found)
    metrics = []
    for place, metric in enumerate(names):
        known = {name: interval(found.get(metric)) for name, found in overall.items()}
        drawn = {name: found for name, found in known.items() if found is not None and found.value is not None}
        metrics.append(
            {
                "name": words(metric),
                "plot": plots.intervals(f"metric-{place}", words(metric), drawn) if drawn else "",
                "values": [_spelled(found) for found in known.values()],
            }
        )
    return metrics


def _spelled(found: Interval | None) -> str:
    return decimal(None) if found is None else str(found)


def _difference(other: str, found: Mapping[str, Any]) -> dict[str, Any]:
    overall = {words(name): interval(value) for name, value in mapping(found.get("overall")).items()}
    drawn = {name: value for name, value in overall.items() if value is not None and value.value is not None}
    levels = {value.level for value in drawn.values() if value.level is not None}
    return {
        "other": other,
        "level": f"{100 * levels.pop():g} %" if len(levels) == 1 else "",
        "plot": plots.differences(f"difference-{other}", f"challenger minus {other}", drawn) if drawn else "",
        "rows": [[name, _spelled(value)] for name, value in overall.items()],
    }


def _slices(context: Context, models: Mapping[str, Any], differences: Mapping[str, Any]) -> dict[str, Any]:
    of_model = {name: mapping(model.get("slices")) for name, model in models.items()}
    against = {name: mapping(found.get("slices")) for name, found in differences.items() if found}
    names = list(dict.fromkeys(key for found in (*of_model.values(), *against.values()) for key in found))
    metric = next((key for found in of_model.values() for part in found.values() for key in mapping(part)), "accuracy")
    shown = {key: _slice_name(context, key) for key in names}

    def value(found: Mapping[str, Any], key: str) -> Interval | None:
        return interval(mapping(found.get(key)).get(metric))

    plotted = []
    for other, found in against.items():
        drawn = {
            shown[key]: got for key in names[:_SLICES_PLOTTED] if (got := value(found, key)) and got.value is not None
        }
        if drawn:
            plotted.append(plots.differences(f"slices-{other}", f"{words(metric)}, challenger minus {other}", drawn))
    sizes = {key: next((got.n for found in of_model.values() if (got := value(found, key))), None) for key in names}
    return {
        "metric": words(metric),
        "plots": plotted,
        "columns": [*of_model, *(f"minus {name}" for name in against)],
        "rows": [
            [
                shown[key],
                count(sizes[key]),
                *(_spelled(value(found, key)) for found in (*of_model.values(), *against.values())),
            ]
            for key in names
        ],
    }


def _slice_name(context: Context, key: str) -> str:
    """``class:cat`` becomes ``class cat``; a class given by its index becomes its name."""
    kind, _, value = text(key, limit=60).partition(":")
    if kind == "class" and value.isdecimal() and value not in context.labels:
        return f"class {context.label(int(value))}"
    return f"{kind} {value}".strip()


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


def _examples(context: Context, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = rows(report.get("examples"))[:24]
    pictures = context.pictures.by_id(line.get("id") for line in found)
    return [
        {
            "id": text(line.get("id"), limit=80),
            "label": context.label(line.get("label")),
            "predicted": context.label(line.get("predicted")),
            "confidence": decimal(line.get("confidence"), 2),
            "picture": pictures.get(text(line.get("id"))),
        }
        for line in found
    ]
