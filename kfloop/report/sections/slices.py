"""Slices: the main figure of each part of the test rows, by model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfloop.report import plots
from kfloop.report.sources import Context
from kfloop.report.values import Interval, count, interval, mapping, spelled, text, words

_SLICES_PLOTTED = 24
_KINDS = ("drifted", "old", "origin", "class", "channel", "segment", "column")  # in the order shown


def build(context: Context, models: Mapping[str, Any], differences: Mapping[str, Any]) -> dict[str, Any]:
    """Figures by slice of each model, and their differences: a table, and plots of the first ones."""
    of_model = {name: mapping(model.get("slices")) for name, model in models.items()}
    against = {name: mapping(found.get("slices")) for name, found in differences.items() if found}
    # What corruptions do, and how groups are treated, stands in sections of their own.
    keys = (
        key
        for found in (*of_model.values(), *against.values())
        for key in found
        if not key.startswith(("corruption:", "group:"))
    )
    names = sorted(dict.fromkeys(keys), key=_order)
    report = context.source("evaluate").report
    told, main = mapping(report.get("slice_facts")), text(report.get("primary"))
    parts = [(key, mapping(part)) for found in of_model.values() for key, part in found.items()]
    metric = {
        key: main if main in part else next(iter(part)) for key, part in reversed(parts) if part and key in names
    }  # the figure that rules are about; the first one of a slice without it
    several = len(set(metric.values())) > 1
    title = " and ".join(words(name) for name in sorted(set(metric.values()))) or "accuracy"
    shown = {
        key: _slice_name(context, key, mapping(told.get(key)))
        + (f" ({words(metric[key])})" if several and key in metric else "")
        for key in names
    }

    def value(found: Mapping[str, Any], key: str) -> Interval | None:
        return interval(mapping(found.get(key)).get(metric.get(key, "accuracy")))

    plotted = []
    for other, found in against.items():
        drawn = {
            shown[key]: got for key in names[:_SLICES_PLOTTED] if (got := value(found, key)) and got.value is not None
        }
        if drawn:
            plotted.append(plots.differences(f"slices-{other}", f"{title}, challenger minus {other}", drawn))
    levels = {
        f"{100 * got.level:.3g}"
        for found in of_model.values()
        for key in names
        if (got := value(found, key)) and got.level
    }
    sizes = {key: next((got.n for found in of_model.values() if (got := value(found, key))), None) for key in names}
    return {
        "metric": title,
        "level": " to ".join(dict.fromkeys((min(levels, key=float), max(levels, key=float)))) + " %" if levels else "",
        "hidden": max(0, len(names) - _SLICES_PLOTTED),
        "plots": plotted,
        "columns": [*of_model, *(f"minus {name}" for name in against)],
        "rows": [
            [
                shown[key],
                count(sizes[key]),
                *(spelled(value(found, key)) for found in (*of_model.values(), *against.values())),
            ]
            for key in names
        ],
    }


def _order(key: str) -> tuple[int, str, int, float, str]:
    """Kinds as listed, then columns by name, and the ranges and numbers of one from the smallest on."""
    kind, _, rest = key.partition(":")
    column, _, value = rest.rpartition("=")
    part = 0 if value.startswith("below ") else 2 if value.endswith(" or more") else 1
    first = value.removeprefix("below ").removesuffix(" or more").removeprefix("[").partition(",")[0]
    try:
        size = float(first)
    except ValueError:  # a name, or a time: these sort as they are written
        size = 0.0
    return _KINDS.index(kind) if kind in _KINDS else len(_KINDS), column, part, size, value


def _slice_name(context: Context, key: str, facts: Mapping[str, Any]) -> str:
    """``class:cat`` becomes ``class cat``; a class given by its index becomes its name; other slices are told in their own words."""
    kind, _, value = text(key, limit=60).partition(":")
    if kind in {"column", "segment", "group", "drifted", "old"} and facts.get("text"):
        return text(facts.get("text"), limit=80)
    if kind == "class" and value.isdecimal() and value not in context.labels:
        return f"class {context.label(int(value))}"
    return f"{kind} {value}".strip()


def groups(report: Mapping[str, Any]) -> dict[str, Any]:
    """The challenger's rates by group of people, and the gaps between the groups: a table with one row each."""
    slices = mapping(mapping(report.get("challenger")).get("slices"))
    told = mapping(report.get("slice_facts"))
    found = {key: mapping(part) for key, part in slices.items() if key.startswith("group:")}
    figures = list(dict.fromkeys(name for key, part in found.items() if "=" in key for name in part))
    gaps = {name: name.removesuffix("_gap") for part in found.values() for name in part if name.endswith("_gap")}
    rows, notes = [], []
    for key, part in sorted(found.items(), key=lambda item: "=" not in item[0]):
        facts = mapping(told.get(key))
        shown = part if "=" in key else {gaps.get(name, name): value for name, value in part.items()}
        label = text(facts.get("text"), limit=120) or key
        if "=" not in key:
            notes.append(f"The gap of {key.removeprefix('group:')}: {label}.")
        cells = [spelled(interval(shown.get(name))) for name in figures]
        rows.append([label if "=" in key else f"gap of {key.removeprefix('group:')}", count(facts.get("n")), *cells])
    return {"columns": ["group", "rows", *(words(name) for name in figures)], "rows": rows, "notes": notes}
