"""What the rows of a dataset version look like, each modality in its own way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kfloop.report import data_plots
from kfloop.report.examples import Example, cell, show
from kfloop.report.pictures import LOOKED_AT, Pictures, Row
from kfloop.report.values import count, mapping, moment, text

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

_PER_CLASS = 8
_SAMPLE = {"audio": 9, "text": 12, "vector": 16, "graphs": 16, "nodes": 8, "image": 24}
_SPLIT = "test"
_TABLE_ROWS, _TABLE_COLUMNS = 8, 14
_CHANNELS = 4
_STEPS = 20_000  # of a longer series every so-manieth row is drawn
_SCHEMA_ROWS = 60
_ORDER = ("train", "validation", "test")


def build(pictures: Pictures) -> Mapping[str, Any]:
    """Whichever of these fit: pictures by class, single examples, the head of a table, and plots.

    Raises:
        KfloopError: The version cannot be read.
    """
    version = pictures.version
    if version is None:
        return {}
    by_class = version.modality == "image" and version.task == "multiclass"
    return {
        "classes": _by_class(pictures) if by_class else [],
        "examples": [] if by_class else _examples(pictures, version),
        "head": _head(pictures, version) if version.modality in {"table", "series"} else {},
        "plots": [drawn for drawn in _plots(version) if drawn],
        "series": _series(version) if version.modality == "series" else "",
        "schema": _schema(version),
    }


def _by_class(pictures: Pictures) -> list[dict[str, Any]]:
    found = pictures.head_by_class(_SPLIT, _PER_CLASS)
    return [
        {"label": pictures.labels[label], "pictures": list(show(pictures, chosen))}
        for label, chosen in found.items()
        if chosen
    ]


def _examples(pictures: Pictures, version: DatasetVersion) -> list[Example]:
    """Some rows of the test split, one of each class first where there are classes."""
    wanted = _SAMPLE.get(version.modality, 0)
    if not wanted:
        return []
    if version.task != "multiclass":
        return list(show(pictures, pictures.head(_SPLIT, wanted), players=wanted))
    of_class = [chosen for chosen in pictures.head_by_class(_SPLIT, wanted).values() if chosen]
    turns = [chosen[place] for place in range(wanted) for chosen in of_class if place < len(chosen)]
    return list(show(pictures, turns[:wanted], players=wanted))


def _head(pictures: Pictures, version: DatasetVersion) -> dict[str, Any]:
    """The first rows of the training split as a table."""
    found = pictures.head("train", _TABLE_ROWS)
    extra = [name for name in ("time", "group") if found and name in found[0].table.column_names]
    names = [*extra, *(name for name in version.inputs if name not in extra)]
    labelled = bool(found) and "label" in found[0].table.column_names
    shown = names[:_TABLE_COLUMNS]
    return {
        "columns": ["row", *(["label"] if labelled else []), *(text(name, limit=24) for name in shown)],
        "rows": [
            [
                text(row.value("id"), limit=40),
                *([pictures.given(row)] if labelled else []),
                *(cell(row.value(name)) for name in shown),
            ]
            for row in found
        ],
        "numbers": [
            place for place, value in enumerate(_values(version, found, shown, labelled=labelled)) if _is_number(value)
        ],
        "left_out": max(0, len(names) - len(shown)),
    }


def _values(version: DatasetVersion, found: list[Row], names: list[str], *, labelled: bool) -> list[Any]:
    """What stands in the first line of the table, as values."""
    if not found:
        return []
    label = (
        found[0].value("label") if version.task == "regression" else None
    )  # the index of a class stands there by its name
    return [None, *([label] if labelled else []), *(found[0].value(name) for name in names)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plots(version: DatasetVersion) -> list[str]:
    """Distributions of what has no classes to count: numbers to be predicted, lengths, sizes, degrees."""
    drawn = []
    if version.task == "regression":
        drawn.append(_distribution(version, "label", "label by split"))
    facts = {
        "audio": [("seconds", "seconds of sound")],
        "text": [("characters", "characters of a text")],
        "nodes": [("degree", "edges of a node")],
        "graphs": [("n_nodes", "nodes of a graph"), ("n_edges", "edges of a graph")],
    }
    drawn += [
        _distribution(version, name, title) for name, title in facts.get(version.modality, ()) if name in version.facts
    ]
    return drawn


def _distribution(version: DatasetVersion, column: str, title: str) -> str:
    found = {split: _numbers(version, split, column) for split in _ORDER if split in version.splits}
    return data_plots.distribution(f"distribution-{column}", title, found)


def _numbers(version: DatasetVersion, split: str, column: str) -> NDArray[Any]:
    import numpy as np

    part = version.table(split, [column]).slice(0, 10 * LOOKED_AT)
    return np.asarray(part[column].to_numpy(), dtype=np.float64)


def _series(version: DatasetVersion) -> str:
    """The channels through all splits; of several series the first."""
    import numpy as np

    names = [name for name in version.inputs if name != "time"][:_CHANNELS]
    if not names:
        return ""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    starts: dict[str, int] = {}
    times: list[str] = []
    tables = _one_series(version, names)
    stride = max(1, -(-sum(table.num_rows for table in tables.values()) // _STEPS))
    for split, table in tables.items():
        thinned = table.take(np.arange(0, table.num_rows, stride)) if stride > 1 else table
        starts[split] = len(times)
        shown = thinned["time"].to_pylist() if "time" in thinned.column_names else [""] * thinned.num_rows
        times += [_time(value) for value in shown]
        for name in names:
            parts[name].append(np.asarray(thinned[name].to_numpy(), dtype=np.float64))
    whole = {text(name, limit=60): np.concatenate(found) for name, found in parts.items()}
    return data_plots.series(whole, starts, times if any(times) else ()) if times else ""


def _one_series(version: DatasetVersion, names: list[str]) -> dict[str, pa.Table]:
    """Time and channels of the first series, by split."""
    import pyarrow.compute as pc

    found = {}
    chosen = None
    for split in (name for name in _ORDER if name in version.splits):
        table = version.table(split)
        table = table.select([name for name in ("time", "group", *names) if name in table.column_names])
        if "group" in table.column_names and table.num_rows:
            chosen = table["group"][0] if chosen is None else chosen
            table = table.filter(pc.equal(table["group"], chosen))
        found[split] = table
    return found


def _time(value: object) -> str:
    return moment(value.isoformat())[:10] if hasattr(value, "isoformat") else text(value, limit=16)


def _schema(version: DatasetVersion) -> dict[str, Any]:
    """Every column of the version: name, type, what it is for."""
    roles = {
        "id": "id",
        "label": "label",
        "origin": "origin",
        "content": "hash of the inputs",
        "group": "group",
        "time": "time",
    }
    roles |= dict.fromkeys(version.inputs, "input") | dict.fromkeys(version.facts, "fact")
    types = mapping(version.schema.get("columns"))
    fields = list(version.table(version.splits[0]).schema)
    return {
        "rows": [
            [text(field.name, limit=60), text(types.get(field.name) or field.type, limit=60), roles.get(field.name, "")]
            for field in fields[:_SCHEMA_ROWS]
        ],
        "left_out": count(len(fields) - _SCHEMA_ROWS) if len(fields) > _SCHEMA_ROWS else "",
    }
