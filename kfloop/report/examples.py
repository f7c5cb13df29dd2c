"""Examples of any modality as what a page can show: a picture, a sound with a player, an excerpt, some cells, a drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kfloop.report import drawings
from kfloop.report.pictures import DAMAGE, Pictures, Row
from kfloop.report.values import compact, count, text

EXCERPT = 220  # characters of a text
CELL = 40
CELLS = 6
PLAYERS = 8  # in one list: each is up to 43 kB of the page


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row as the page shows it.

    Attributes:
        id: Id of the row.
        label: Its given label in words.
        split: Where it is.
        kind: ``picture``, ``sound``, ``text``, ``cells`` or ``drawing``.
        uri: Picture or sound as a ``data:`` URI.
        drawing: SVG made by ``kfloop.report.drawings``, every text in it escaped.
        text: Excerpt.
        cells: Names and values.
        note: Its size in words.
    """

    id: str
    label: str
    split: str
    kind: str
    uri: str = ""
    drawing: str = ""
    text: str = ""
    cells: tuple[tuple[str, str], ...] = ()
    note: str = ""


def by_id(pictures: Pictures, ids: Iterable[Any], *, players: int = PLAYERS) -> dict[str, Example]:
    """The examples with these ids; a row that cannot be shown is left out.

    Args:
        pictures: The dataset version.
        ids: Ids, the most important first.
        players: How many sounds can be played; the others are drawn only.
    """
    wanted = [text(identity) for identity in ids]
    found = pictures.rows_by_id(wanted)
    rows = [found[name] for name in dict.fromkeys(wanted) if name in found]
    return {example.id: example for example in show(pictures, rows, players=players)}


def show(pictures: Pictures, rows: Iterable[Row], *, players: int = PLAYERS) -> Iterator[Example]:
    """The rows as examples; what cannot be shown is left out."""
    version = pictures.version
    if version is None:
        return
    make = _MAKERS.get(version.modality, _cells)
    for place, row in enumerate(rows):
        try:
            name, given = text(row.value("id")), pictures.given(row)
            if version.modality == "audio":
                shown = _sound(pictures, row, f"row {name}", play=place < players)
            else:
                shown = make(pictures, row, f"row {name}")
        except DAMAGE:
            continue
        yield Example(id=name, label=given, split=row.split, **shown)


def _picture(pictures: Pictures, row: Row, alt: str) -> dict[str, Any]:
    del alt
    return {"kind": "picture", "uri": pictures.image_uri(row)}


def _sound(pictures: Pictures, row: Row, alt: str, *, play: bool) -> dict[str, Any]:
    version = pictures.version
    rate = 0 if version is None else int(version.schema["sample_rate"])
    samples = row.array("audio")
    return {
        "kind": "sound",
        "uri": drawings.wav_uri(samples, rate) if play else "",
        "drawing": drawings.waveform(samples, f"waveform of {alt}"),
        "note": f"{len(samples) / rate:.2f} s",
    }


def _text(pictures: Pictures, row: Row, alt: str) -> dict[str, Any]:
    del pictures, alt
    whole = str(row.value("text"))
    return {"kind": "text", "text": text(whole, limit=EXCERPT), "note": f"{len(whole):,} characters"}


def _vector(pictures: Pictures, row: Row, alt: str) -> dict[str, Any]:
    del pictures
    values = row.array("vector")
    return {"kind": "drawing", "drawing": drawings.curve(values, f"values of {alt}"), "note": f"{len(values):,} values"}


def _node(pictures: Pictures, row: Row, alt: str) -> dict[str, Any]:
    degree = row.value("degree")
    note = f"node {row.value('node')}" + ("" if degree is None else f", degree {count(degree)}")
    return _vector(pictures, row, alt) | {"note": note}


def _graph(pictures: Pictures, row: Row, alt: str) -> dict[str, Any]:
    edges = row.array("edges").reshape(-1, 2)
    size = row.value("n_nodes")
    if size is None:
        width = 1 if pictures.version is None else int(pictures.version.schema.get("node_features") or 1)
        size = len(row.array("nodes")) // width
    note = f"{count(size)} nodes, {count(len(edges))} edges"
    drawn = drawings.graph(int(size), edges, f"graph of {alt}, {note}")
    return {"kind": "drawing", "drawing": drawn, "note": note}


def _cells(pictures: Pictures, row: Row, alt: str) -> dict[str, Any]:
    del alt
    version = pictures.version
    names = (
        []
        if version is None
        else [name for name in version.inputs if name != "time" and name in row.table.column_names]
    )
    shown = tuple((text(name, limit=CELL), cell(row.value(name))) for name in names[:CELLS])
    more = f"and {len(names) - CELLS} more columns" if len(names) > CELLS else ""
    when = row.value("time")
    return {"kind": "cells", "cells": (*((("time", cell(when)),) if when is not None else ()), *shown), "note": more}


def cell(value: Any) -> str:
    """One value of a table in a few signs."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return compact(value)
    if isinstance(value, int):
        return str(value)  # no separators: it may be a year or a code
    return text(value, limit=CELL)


_MAKERS: dict[str, Callable[[Pictures, Row, str], dict[str, Any]]] = {
    "image": _picture,
    "text": _text,
    "vector": _vector,
    "nodes": _node,
    "graphs": _graph,
}
