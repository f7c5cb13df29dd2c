"""The quality of the given labels: how much noise and where, and the examples whose label is most doubtful, to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kfloop.report import data_plots, examples
from kfloop.report.people import settled_by
from kfloop.report.pictures import label_words
from kfloop.report.sections import annotators, duplicates
from kfloop.report.sources import Context
from kfloop.report.values import Interval, count, decimal, interval, items, mapping, number, rows, share, text, words

_POLICIES = {
    "report": "only reported, trained on as they are",
    "weight": "trained on with half the weight",
    "quarantine": "not trained on",
    "relabel_queue": "put to people, trained on as they are",
}
_SHOWN, _TALL = 24, 12  # the latter where an example is a list of cells
_OUTLIERS = 12
_CLASSES = 30
_GROUPS = 20
_MATRIX = 14  # classes up to which the whole matrix fits the page; beyond, the largest confusions are listed
_BESIDE = 7  # classes up to which it fits beside a plot
_CONFUSIONS = 20


def build(context: Context) -> Mapping[str, Any]:
    """What the labels section shows."""
    report = context.source("check_labels").report
    task = text(report.get("task") or context.pictures.card.get("task"))

    def named(value: Any) -> str:
        return label_words(value, task, context.labels) if not isinstance(value, dict) else text(value, limit=60)

    ranked = rows(report.get("ranked"))
    shown = _TALL if text(context.pictures.card.get("modality")) in {"table", "series"} else _SHOWN
    outliers = mapping(report.get("outliers"))
    far = rows(outliers.get("ranked"))
    per_class = rows(report.get("per_class"))
    groups = [_group(line) for line in rows(report.get("groups"))[:_GROUPS]]
    return {
        "facts": [
            *(
                []
                if task == "forecasting"
                else [
                    ("rows checked", count(report.get("n"))),
                    ("flagged", count(report.get("n_flagged"))),
                    ("estimated share of wrong labels", share(report.get("noise"))),
                ]
            ),
            (
                "held-out rows with a duplicate in training",
                share(report["leakage"]) if report.get("leakage") is not None else "",
            ),
            ("doubtful training rows", _POLICIES.get(text(report.get("policy")), words(report.get("policy")))),
            ("waiting for people", count(report.get("queued")) if number(report.get("queued")) else ""),
        ],
        "method": text(report.get("method")),
        "suspects": _suspects(context, ranked[:shown], named),
        "left_out": max(0, len(ranked) - shown),
        "none": "A forecast has no labels to doubt." if task == "forecasting" else "No label is doubted.",
        "plot": _noise_plot(per_class, named),
        "per_class": [_class_line(line, named) for line in per_class],
        "matrix": _matrix(mapping(report.get("noise_matrix")), named),
        "duplicates": duplicates.build(context, mapping(report.get("duplicates")), named),
        "outliers": _outliers(context, far[:_OUTLIERS]),
        "outliers_total": count(outliers.get("n")) if number(outliers.get("n")) else "",
        "imbalance": _imbalance(mapping(report.get("imbalance")), named),
        "groups": [line for line in groups if line["worse"]],
        "groups_alike": [line for line in groups if not line["worse"]],
        "annotators": annotators.build(context, mapping(report.get("annotators")), named),
    }


def _suspects(context: Context, lines: list[dict[str, Any]], named: Callable[[Any], str]) -> list[dict[str, Any]]:
    ids = [line.get("id") for line in lines]
    found, settled = examples.by_id(context.pictures, ids), settled_by(context.pictures, ids)
    return [
        {
            "id": text(line.get("id"), limit=80),
            "settled": settled.get(text(line.get("id")), ""),
            "given": named(line.get("given")),
            "suggested": named(line.get("suggested")),
            "margin": decimal(line.get("margin"), 2),
            "split": text(line.get("split")),
            "example": found.get(text(line.get("id"))),
        }
        for line in lines
    ]


def _outliers(context: Context, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = examples.by_id(context.pictures, [line.get("id") for line in lines])
    return [
        {
            "id": text(line.get("id"), limit=80),
            "score": decimal(line.get("score")),
            "split": text(line.get("split")),
            "example": found.get(text(line.get("id"))),
        }
        for line in lines
    ]


def _known(value: Any) -> Interval | None:
    found = interval(value)
    return found if found is not None and found.value is not None else None


def _fields(found: Interval) -> dict[str, float | None]:
    return {"value": found.value, "low": found.low, "high": found.high}


def _noise_plot(per_class: list[dict[str, Any]], named: Callable[[Any], str]) -> str:
    """The classes with the largest estimated share of wrong labels first."""
    known = ((named(line.get("label")), _known(line.get("noise"))) for line in per_class)
    drawn = {label: found for label, found in known if found and 0 <= (found.value or 0.0) <= 1}
    worst = sorted(drawn.items(), key=lambda item: -(item[1].value or 0.0))[:_CLASSES]
    return (
        data_plots.shares("class-noise", "estimated share of wrong labels by given class", dict(worst)) if worst else ""
    )


def _class_line(line: Mapping[str, Any], named: Callable[[Any], str]) -> list[str]:
    return [named(line.get("label")), count(line.get("n")), count(line.get("flagged")), share(line.get("noise"))]


def _matrix(found: Mapping[str, Any], named: Callable[[Any], str]) -> dict[str, Any]:
    """Share of each true label among the rows given one, as a heat map or, for many classes, as a list of the largest."""
    labels = [named(name) for name in items(found.get("labels"))]
    grid = [
        [_known(cell) for cell in items(line)[: len(labels)]] for line in items(found.get("given_true"))[: len(labels)]
    ]
    if not labels or not any(cell for line in grid for cell in line):
        return {"labels": [], "rows": [], "confusions": [], "beside": False}
    off = [
        (cell, labels[given], labels[true])
        for given, line in enumerate(grid)
        for true, cell in enumerate(line)
        if cell and given != true and cell.value
    ]
    off.sort(key=lambda item: -(item[0].value or 0.0))
    lines = [
        {"label": label, "cells": [_heat(cell, right=given == true) for true, cell in enumerate(line)]}
        for given, (label, line) in enumerate(zip(labels, grid, strict=False))
    ]
    wide = len(labels) > _MATRIX
    return {
        "labels": [] if wide else labels,
        "beside": len(labels) <= _BESIDE,
        "rows": [] if wide else lines,
        "confusions": [[given, true, share(_fields(cell)), count(cell.n)] for cell, given, true in off[:_CONFUSIONS]],
    }


def _heat(found: Interval | None, *, right: bool) -> dict[str, Any]:
    """One cell: per cent without its sign, the interval as its title, and how dark it is."""
    if found is None or found.value is None:
        return {"value": "", "title": "not known", "share": 0, "right": right, "zero": True}
    value = min(1.0, max(0.0, found.value))
    # Wrong labels are a few per cent where right ones are most: each kind has a scale of its own.
    dark = 100 * value if right else min(100.0, 250 * value)
    shown = f"{100 * value:.0f}" if value in {0.0, 1.0} or right else f"{100 * value:.1f}"
    return {"value": shown, "title": share(_fields(found)), "share": round(dark), "right": right, "zero": value == 0}


def _imbalance(found: Mapping[str, Any], named: Callable[[Any], str]) -> list[tuple[str, str]]:
    """Largest and smallest class, unless all are equal: then there are none."""

    def sized(value: Any) -> str:
        line = mapping(value)
        if line:
            return f"{named(line.get('label'))} ({count(line.get('n'))} rows)"
        return "" if value is None else named(value)

    if not found:
        return []
    if number(found.get("ratio")) == 1:
        return [("classes", "all of one size"), ("rows of each", count(mapping(found.get("largest")).get("n")))]
    return [
        ("largest class", sized(found.get("largest"))),
        ("smallest class", sized(found.get("smallest"))),
        ("largest to smallest", decimal(found.get("ratio"), 2)),
        ("evenness, 1 when all are equal", decimal(found.get("entropy"))),
    ]


def _group(line: Mapping[str, Any]) -> dict[str, str]:
    chance = number(line.get("p_adjusted"))
    return {
        "column": text(line.get("column"), limit=60),
        "value": text(line.get("value"), limit=60),
        "n": count(line.get("n")),
        "noise": share(line.get("noise")),
        "p": decimal(chance),
        "worse": "yes" if chance is not None and chance < 0.05 else "",  # noqa: PLR2004 - the usual level
    }
