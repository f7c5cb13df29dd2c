"""What was tried with the models beside scoring them: their cost, corrupted rows, and what the challenger's answers rest on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kfloop.report import drawings, trial_plots
from kfloop.report.examples import cell
from kfloop.report.pictures import DAMAGE
from kfloop.report.sections.heat import pictures_of, read_arrays
from kfloop.report.sources import Context, read_beside
from kfloop.report.values import (
    Interval,
    compact,
    count,
    decimal,
    duration,
    interval,
    items,
    mapping,
    number,
    rows,
    text,
    words,
)

MODELS = ("challenger", "champion", "baseline")
_BARS, _COLUMNS, _CHANNELS, _EXAMPLES = 8, 20, 3, 24
_EDGE = 2  # ends of an edge
_KEYS = {  # what blue and red mean, where it is not for and against a class
    "regression": ("raises the number", "lowers it"),
    "anomaly": ("raises the score", "lowers it"),
    "forecasting": ("moves the forecast",),
}
_ROWS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("parameters", "parameters", count),
    ("size_mb", "size, MiB", compact),
    ("cpu_ms_1", "one answer on the CPU, ms", compact),
    ("cpu_ms_batch", "a batch on the CPU, ms", compact),
    ("batch", "answers in that batch", count),
    ("gpu_ms_1", "one answer on the GPU, ms", compact),
    ("memory_mb", "memory for loading and answering, MiB", compact),
    ("train_seconds", "training", duration),
    ("train_cost", "price of the training", compact),
    ("price_per_1000", "price of 1000 answers", compact),
)


def build(context: Context) -> Mapping[str, Any]:
    """What is shown of cost, robustness and explanations; empty parts where the evaluation left nothing, or damage."""
    source = context.source("evaluate")
    told = read_beside(source.folder, "explanations.json")
    return {
        "cost": _kept(lambda: _cost(source.report), {"rows": [], "plots": [], "columns": []}),
        "robustness": _kept(lambda: _robustness(source.report), {"plots": [], "left_out": []}),
        "importance": _kept(lambda: _importance(told), {"plot": ""}),
        "explained": _kept(lambda: _explained(told, source.folder), {"problem": "", "examples": []}),
    }


def _kept(make: Callable[[], dict[str, Any]], empty: dict[str, Any]) -> dict[str, Any]:
    try:
        return make()
    except DAMAGE:
        return empty


def _cost(report: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: mapping(mapping(report.get("cost")).get(name)) for name in MODELS}
    found = {name: figures for name, figures in found.items() if figures}
    lines = [
        [title, *(spell(figures.get(key)) for figures in found.values())]
        for key, title, spell in _ROWS
        if any(number(figures.get(key)) is not None for figures in found.values())
    ]
    main = text(report.get("primary"))
    plots = []
    for key, title in (("cpu_ms_1", "one answer on the CPU, ms"), ("size_mb", "size, MiB")):
        points = {}
        for name, figures in found.items():
            spent = number(figures.get(key))
            quality = interval(mapping(mapping(report.get(name)).get("overall")).get(main))
            if spent is not None and quality is not None and quality.value is not None:
                points[name] = (spent, quality)
        if len(points) > 1:
            plots.append(trial_plots.cost_and_quality(f"cost-{key}", words(main), title, points))
    return {"columns": list(found), "rows": lines, "plots": plots}


def _robustness(report: Mapping[str, Any]) -> dict[str, Any]:
    plots, left_out, n, metric = [], [], None, ""
    for place, (kind, told) in enumerate(mapping(report.get("robustness")).items()):
        facts = mapping(told)
        severities = [number(item) for item in items(facts.get("severities"))]
        known = [item for item in severities if item is not None]
        curves = {name: _curve(facts.get(name)) for name in MODELS}
        curves = {name: found for name, found in curves.items() if found and len(found) == len(known)}
        if not curves or len(known) != len(severities):
            left_out.append((words(kind), text(facts.get("problem")) or "nothing was measured"))
            continue
        amounts = ", ".join(compact(item) for item in items(facts.get("amounts")))
        caption = f"{text(facts.get('unit'))}: {amounts}" if amounts else ""
        plots.append(
            {"drawn": trial_plots.robustness(f"robust-{place}", words(kind), known, curves), "caption": caption}
        )
        n, metric = facts.get("n"), text(facts.get("metric"))
    return {"plots": plots, "left_out": left_out, "n": count(n), "metric": words(metric)}


def _curve(value: Any) -> list[Interval]:
    return [found for item in items(value) if (found := interval(item)) is not None]


def _importance(told: Mapping[str, Any]) -> dict[str, Any]:
    facts = mapping(told.get("importance"))
    found = {text(line.get("name"), limit=60): interval(line) for line in rows(facts.get("columns"))[:_COLUMNS]}
    drawn = {name: one for name, one in found.items() if one is not None and one.value is not None}
    title = f"loss of {words(facts.get('metric'))}"
    return {
        "plot": trial_plots.importance("importance", title, drawn) if drawn else "",
        "caption": text(facts.get("caption")),
    }


def _explained(told: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    kind = text(told.get("kind"))
    arrays = read_arrays(folder) if kind == "image" else {}
    forecast = told.get("objective") == "forecasting"
    examples = []
    for place, line in enumerate(rows(told.get("examples"))[:_EXAMPLES]):
        shown = dict(_shown(line, f"explained-{place}", arrays))
        if shown:
            label, predicted = (_answer(line.get(key)) for key in ("label", "predicted"))
            value = f"{text(line.get('output'), limit=80)}: {decimal(line.get('value'))}" if not forecast else ""
            empty = {"pictures": [], "words": [], "drawn": ""}
            about = {"id": text(line.get("id"), limit=80), "label": label, "predicted": predicted, "value": value}
            examples.append(empty | shown | about | {"right": line.get("right")})
    return {
        "kind": kind if kind in {"image", "graph"} else "wide",
        "problem": text(told.get("problem")),
        "caption": text(told.get("caption")),
        "examples": examples,
        "keys": _KEYS.get(text(told.get("objective")), ("for the answer", "against it")),
    }


def _shown(line: Mapping[str, Any], name: str, arrays: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What shows one example, by its kind."""
    kind = text(line.get("kind"))
    if kind == "image":
        found = pictures_of(arrays, line.get("place"), f"row {text(line.get('id'), limit=80)}")
        if found:
            yield "pictures", found
    elif kind == "text":
        yield "words", _words(line)
    elif kind == "bars":
        bars = rows(line.get("bars"))[:_BARS]
        weights = {_bar(bar): number(bar.get("weight")) or 0.0 for bar in bars}
        if weights:
            yield "drawn", trial_plots.signed(name, f"change of the {text(line.get('output'), limit=40)}", weights)
    elif kind == "graph":
        yield "drawn", _graph(line)
    else:
        channels = [
            (
                text(channel.get("name"), limit=40),
                [number(value) for value in items(channel.get("values"))],
                [number(value) or 0.0 for value in items(channel.get("weights"))],
            )
            for channel in rows(line.get("channels"))[:_CHANNELS]
        ]
        if channels:
            yield (
                "drawn",
                trial_plots.shaded(name, channels, filled=kind == "audio", seconds=number(line.get("seconds"))),
            )


def _bar(bar: Mapping[str, Any]) -> str:
    name = text(bar.get("name"), limit=40)
    if "own" not in bar:
        return name
    return f"{name} = {'missing' if bar.get('own') is None else cell(bar.get('own'))}"


def _words(line: Mapping[str, Any]) -> list[dict[str, Any]]:
    weights = [number(weight) or 0.0 for weight in items(line.get("weights"))]
    largest = max(map(abs, weights), default=0.0) or 1.0
    return [
        {
            "text": text(token, limit=60),
            "tone": "for" if weight > 0 else "against",
            "share": round(100 * abs(weight) / largest),
        }
        for token, weight in zip(items(line.get("tokens")), weights, strict=False)
    ]


def _graph(line: Mapping[str, Any]) -> str:
    import numpy as np

    pairs = [pair for pair in items(line.get("edges")) if isinstance(pair, list) and len(pair) == _EDGE]
    edges = np.array(pairs, dtype=np.int64).reshape(-1, _EDGE)
    weights = [number(weight) or 0.0 for weight in items(line.get("weights"))]
    return drawings.graph(len(weights), edges, f"graph {text(line.get('id'), limit=80)}, nodes by weight", weights)


def _answer(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(text(item, limit=40) for item in value) or "none of them"
    return compact(value) if isinstance(value, float) else text(value, limit=60)
