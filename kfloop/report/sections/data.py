"""The data of the run: rows by split and class, what was set aside, and what the examples look like."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfloop.report import plots
from kfloop.report.people import people
from kfloop.report.pictures import DAMAGE, class_counts
from kfloop.report.sections import data_looks
from kfloop.report.sources import Context
from kfloop.report.values import (
    compact,
    count,
    decimal,
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

_CLASSES_SHOWN = 30
_QUARANTINE_FILE = "quarantine.jsonl"
_REASONS_SHOWN = 20
_PLACE = re.compile(r"^(row|line) \d+( \(line \d+\))?[,:]? ")
_METHODS = {
    "random": "at random, by a hash of the content",
    "stratified": "at random within each class",
    "group": "a group in one split only",
    "time": "by time",
    "official": "as the source says",
}
_SPLIT_ORDER = ("train", "validation", "test", "rest")


def build(context: Context) -> Mapping[str, Any]:
    """What the data section shows."""
    pictures = context.pictures
    report = context.source("ingest").report
    card = report | pictures.card
    labels = pictures.labels or [text(name, limit=60) for name in items(card.get("labels"))]
    counts = _ordered(class_counts(card, labels))
    shown, problem = _looks(context)
    splits = _splits(context, mapping(card.get("splits")))
    return {
        "facts": [*_facts(card, labels), *_schema_facts(mapping(card.get("schema")), card)],
        "warnings": [text(line) for line in items(report.get("warnings"))],
        "splits": splits,
        "mixed": any("fresh" in line["origins"] for line in splits),  # else all rows came from one place
        "method": _method(mapping(card.get("split")), clock=pictures.has_clock),
        "plot": plots.class_counts(
            labels[:_CLASSES_SHOWN], {name: sizes[:_CLASSES_SHOWN] for name, sizes in counts.items()}
        )
        if counts
        else "",
        "classes_left_out": max(0, len(labels) - _CLASSES_SHOWN) if counts else 0,
        "labels": labels,
        "counts": counts,
        "sources": [_source(line) for line in rows(card.get("sources"))],
        "quarantine": _quarantine(pictures.folder),
        "people": [[person.name, count(person.rows), person.first, person.last] for person in people(pictures)],
        "looks": shown,
        "problem": problem,
    }


def _looks(context: Context) -> tuple[Mapping[str, Any], str]:
    """The examples, and why there are none."""
    if context.pictures.problem:
        return {}, context.pictures.problem
    try:
        return data_looks.build(context.pictures), ""
    except DAMAGE as error:
        return {}, text(error) or type(error).__name__


def _facts(card: Mapping[str, Any], labels: list[str]) -> list[tuple[str, str]]:
    return [
        ("dataset version", short(card.get("digest"))),
        ("name", text(card.get("name"))),
        ("examples are", words(card.get("modality"))),
        ("task", words(card.get("task"))),
        ("rows", _maybe(card.get("n_rows"))),
        ("classes", count(len(labels)) if labels else ""),
        ("freshly labelled rows", _positive(card.get("fresh_rows", mapping(card.get("origins")).get("fresh")))),
        ("labels settled by people", _positive(card.get("corrected"))),
        ("version before", short(card.get("previous")) if card.get("previous") else ""),
    ]


def _schema_facts(schema: Mapping[str, Any], card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the modality says about a row."""
    series, graph = mapping(schema.get("series")), mapping(schema.get("graph"))
    channels = [text(name, limit=40) for name in items(series.get("channels"))]
    shape = items(schema.get("image_shape") or card.get("image_shape") or schema.get("vector_shape"))
    return [
        ("shape of a row", " x ".join(text(side, limit=12) for side in shape)),
        ("sample rate", f"{_maybe(schema.get('sample_rate'))} Hz" if number(schema.get("sample_rate")) else ""),
        ("columns", count(len(mapping(schema.get("columns")))) if mapping(schema.get("columns")) else ""),
        ("channels", text(", ".join(channels), limit=120)),
        ("steps seen", _maybe(series.get("context"))),
        ("steps forecast", _maybe(series.get("horizon"))),
        ("steps between windows", _maybe(series.get("stride"))),
        ("features of a node", _maybe(schema.get("node_features"))),
        ("edges", _maybe(graph.get("edges"))),
        ("edges to nowhere", _maybe(graph.get("dangling"))),
        ("self-loops", _maybe(graph.get("self_loops"))),
        ("repeated edges", _maybe(graph.get("duplicate_edges"))),
        (
            "directed",
            {True: "yes", False: "no"}.get(graph["directed"], "") if isinstance(graph.get("directed"), bool) else "",
        ),
    ]


def _maybe(value: Any) -> str:
    """A count that may be missing without a dash in its place."""
    return "" if number(value) is None else count(value)


def _positive(value: Any) -> str:
    return count(value) if number(value) else ""


def _ordered(counts: dict[str, list[int]]) -> dict[str, list[int]]:
    return {name: counts[name] for name in sorted(counts, key=_place)}


def _place(split: str) -> tuple[int, str]:
    return (_SPLIT_ORDER.index(split) if split in _SPLIT_ORDER else len(_SPLIT_ORDER), split)


def _splits(context: Context, sizes: Mapping[str, Any]) -> list[dict[str, str]]:
    total = sum(number(size) or 0 for size in sizes.values())
    return [
        {
            "name": split,
            "rows": count(sizes[split]),
            "share": percent((number(sizes[split]) or 0) / total) if total else "",
            "origins": ", ".join(f"{count(size)} {origin}" for origin, size in _origins(context, split).items()),
        }
        for split in sorted(sizes, key=_place)
    ]


def _origins(context: Context, split: str) -> dict[str, int]:
    try:
        return context.pictures.origins(split)
    except DAMAGE:
        return {}


def _method(split: Mapping[str, Any], *, clock: bool) -> str:
    """How rows were placed, in words, and from when on where that is by time.

    Args:
        split: What the card says.
        clock: Whether times are seconds since 1970.
    """
    method = text(split.get("method"), limit=40)
    times = [moment(number(value)) if clock else compact(value) for value in items(split.get("times"))]
    cutoffs = [f"{name} from {value}" for name, value in zip(("validation", "test"), times, strict=False)]
    return ", ".join([part for part in (_METHODS.get(method, words(method)), *cutoffs) if part])


def _source(line: Mapping[str, Any]) -> dict[str, Any]:
    known = {"kind", "uri", "digest"}
    rest = {key: value for key, value in line.items() if key not in known and isinstance(value, str | int | float)}
    size = rest.pop("n", None)
    return {
        "kind": words(line.get("kind")),
        "uri": text(line.get("uri")),
        "digest": short(line.get("digest")),
        "more": ", ".join(
            ([f"{count(size)} rows"] if number(size) is not None else [])
            + [
                f"{words(key)} {decimal(value) if isinstance(value, float) else text(value, limit=80)}"
                for key, value in rest.items()
            ]
        ),
    }


def _quarantine(folder: Path | None) -> dict[str, Any]:
    """Rows set aside at the ingest, by reason; the file may be missing or damaged like any other."""
    if folder is None:
        return {"total": "", "reasons": [], "problem": "", "left_out": 0}
    reasons: Counter[str] = Counter()  # without the place, so that rows with one fault are counted together
    whole: dict[str, str] = {}
    problem = ""
    try:
        with (folder / _QUARANTINE_FILE).open(encoding="utf-8") as stream:
            for line in stream:
                if line.strip():
                    told = text(mapping(json.loads(line)).get("reason")) or "no reason given"
                    reason = _PLACE.sub("", told)
                    reasons[reason] += 1
                    whole.setdefault(reason, told)
    except FileNotFoundError:
        problem = f"there is no {_QUARANTINE_FILE}"
    except (OSError, ValueError, RecursionError) as error:
        problem = text(error)
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return {
        "total": count(sum(reasons.values())),
        "reasons": [
            {"reason": whole[reason] if size == 1 else reason, "rows": count(size)}
            for reason, size in ordered[:_REASONS_SHOWN]
        ],
        "left_out": max(0, len(ordered) - _REASONS_SHOWN),
        "problem": problem,
    }
