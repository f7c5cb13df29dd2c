"""A folder of small graphs, an npz file each."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.files.items import SPLITS_BY_NAME, FileItem, FileListing
from kfloop.components.ingest.files.listing import files_digest, list_files, walk_files
from kfloop.components.ingest.labels.encoding import encode
from kfloop.components.ingest.labels.plan import LabelPlan, LabelScan, plain_labels, settle
from kfloop.components.ingest.limits import smallest
from kfloop.components.ingest.readers.graphs.edges import edge_facts
from kfloop.components.ingest.readers.graphs.npz import LABELS, Arrays, member_names, read_edges
from kfloop.components.ingest.readers.graphs.npz_nodes import read_features
from kfloop.components.ingest.source import FILES_PER_BATCH, Batch, Source
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from kfloop.core.sections import DataConfig

KIND = "graph_folder"
SUFFIXES = frozenset({".npz"})
FACTS = ("n_nodes", "n_edges", "isolated", "self_loops", "dangling")


def open_folder(path: Path, config: DataConfig, like: Source | None) -> Source:
    """Open a folder of npz files, each with node features, edges and its label, or in a subfolder named like its class.

    Args:
        path: The folder.
        config: What the loop file says.
        like: The source whose labels and number of node features the graphs must have.

    Raises:
        InputError: No graphs, no labels, or labels that cannot be learned.
    """
    files = [path / name for name in walk_files(path, SUFFIXES)]
    inside = (
        config.label is None and config.pattern is None and any(_own_label(file) for file in files[:FILES_PER_BATCH])
    )
    listing, labels, aside = _own_labels(path, files) if inside else _told_labels(path, config)
    names = [item.id for item in listing.items]
    if not names:
        raise InputError(
            f"'{path}' has no graph with a label" + (f": '{aside[0]['id']}': {aside[0]['reason']}" if aside else ""),
            hint=f"save the label of each graph as one of {', '.join(LABELS)}, or use a subfolder for each class",
        )
    plan = _plan(path, config, listing, labels, like)
    encoded, problems = encode(plan, labels)
    lost = len(aside)
    kept = [place for place in smallest(names, config.limit) if place not in problems]
    aside += [{"id": names[place], "reason": reason} for place, reason in problems.items()]
    width = int(like.schema["node_features"]) if like else _width(path, listing)

    def batches() -> Iterator[Batch]:
        return _batches(listing.items, kept, encoded, width, aside)

    return Source(
        kind=KIND,
        modality="graphs",
        task=plan.task,
        uri=str(path),
        labels=plan.names,
        n=len(names) + lost,
        digest=files_digest(listing.items),
        schema={"node_features": width},
        inputs=("nodes", "edges"),
        facts=FACTS,
        batches=batches,
        suggestions=listing.suggestions,
        notes=(*listing.notes, *plan.notes),
    )


def _own_label(file: Path) -> str | None:
    names = member_names(file)
    return next((name for name in LABELS if name in names), None)


def _own_labels(path: Path, files: Sequence[Path]) -> tuple[FileListing, pa.Array, list[dict[str, str]]]:
    """Labels that the files hold themselves; subfolders may be splits."""
    import pyarrow as pa

    items: list[FileItem] = []
    values: list[Any] = []
    aside: list[dict[str, str]] = []
    relative = [file.relative_to(path) for file in files]
    tops = {name.parts[0].lower() if len(name.parts) > 1 else "" for name in relative}
    official = tops <= set(SPLITS_BY_NAME)
    for file, name in zip(files, relative, strict=True):
        try:
            value = _scalar(file)
        except InputError as error:
            aside.append({"id": name.as_posix(), "reason": error.message.replace(str(file), name.as_posix())})
            continue
        split = SPLITS_BY_NAME[name.parts[0].lower()] if official else None
        items.append(FileItem(id=name.as_posix(), path=file, label=str(value), split=split))
        values.append(value)
    kinds = {type(value) for value in values}
    plain = values if len(kinds) <= 1 or kinds == {int, float} else [str(value) for value in values]
    return FileListing(layout="own", items=tuple(items)), plain_labels(pa.array(plain)), aside


def _scalar(file: Path) -> Any:
    arrays = Arrays(file)
    name = next((name for name in LABELS if name in arrays.names), None)
    if name is None:
        raise InputError(f"no label: it has {', '.join(sorted(arrays.names))}", hint=f"save one of {', '.join(LABELS)}")
    value = arrays.read(name)
    if value.size != 1:
        raise InputError(
            f"label '{name}' has shape {list(value.shape)}: expected one value", hint="a label for the graph"
        )
    found = value.reshape(-1)[0].item()
    return found.decode() if isinstance(found, bytes) else found


def _told_labels(path: Path, config: DataConfig) -> tuple[FileListing, pa.Array, list[dict[str, str]]]:
    """Labels by subfolder, ``metadata.csv`` or pattern."""
    import pyarrow as pa

    listing = list_files(path, config, SUFFIXES, what="npz file")
    labels = plain_labels(pa.array([item.label for item in listing.items], type=pa.string()))
    return listing, labels, [{"id": name, "reason": reason} for name, reason in listing.unlabelled]


def _plan(path: Path, config: DataConfig, listing: FileListing, labels: pa.Array, like: Source | None) -> LabelPlan:
    names = [item.id for item in listing.items]
    task = like.task if like else config.task
    if task == "forecasting":
        raise InputError(
            "data.task is 'forecasting', but the source is a folder of graphs",
            hint="set data.task to multiclass or regression",
        )
    if task == "auto" and listing.layout not in {"own", "metadata"}:
        task = "multiclass"  # a subfolder called 512 is a class
    found = LabelScan(task)
    found.add(labels, np.arange(len(labels), dtype=np.int64))
    known = like.labels if like else None
    return settle(found, "label", f"'{path}'", lambda place: f"file '{names[place]}'", known, task)


def _width(path: Path, listing: FileListing) -> int:
    """The most common number of node features, of the first files."""
    counts: Counter[int] = Counter()
    for item in listing.items[:FILES_PER_BATCH]:
        try:
            counts[read_features(Arrays(item.path)).shape[1]] += 1
        except InputError:
            continue  # named when its row is made
    if not counts:
        raise InputError(
            f"none of the graphs in '{path}' has node features, such as '{listing.items[0].id}'",
            hint="save an array 'features' of shape [n, D] in each",
        )
    return counts.most_common(1)[0][0]


def _batches(
    items: Sequence[FileItem], kept: Sequence[int], labels: pa.Array, width: int, told: list[dict[str, str]]
) -> Iterator[Batch]:
    aside = list(told)
    places = iter(kept)
    while chunk := list(islice(places, FILES_PER_BATCH)):
        rows, good = [], []
        for place in chunk:
            try:
                rows.append(_row(items[place], width))
                good.append(place)
            except InputError as error:
                name = items[place].id
                aside.append({"id": name, "reason": error.message.replace(str(items[place].path), name)})
        yield Batch(table=_table(rows, labels.take(good)), quarantined=aside)
        aside = []
    if aside:
        yield Batch(table=_table([], labels[:0]), quarantined=aside)


def _row(item: FileItem, width: int) -> dict[str, Any]:
    """One graph; its dangling edges are left out and counted."""
    arrays = Arrays(item.path)
    features = read_features(arrays)
    n = features.shape[0]
    edges, name, size = read_edges(arrays)
    if n == 0:
        raise InputError(f"'{item.path}' is an empty graph: it has no nodes", hint="remove it")
    if size is not None and size != n:
        raise InputError(f"'{name}' has {size} nodes, '{features.name}' {n}", hint="both have a row for each node")
    if features.shape[1] != width:
        raise InputError(
            f"'{features.name}' has {features.shape[1]} columns, other graphs {width}", hint="save the same features"
        )
    facts = edge_facts(edges, n)
    pairs = np.stack([facts.edges.source, facts.edges.target], axis=1)
    return {
        "id": item.id,
        "nodes": features.rows(0, n).reshape(-1),
        "edges": pairs.reshape(-1),
        "n_nodes": n,
        "n_edges": len(pairs),
        "isolated": int((facts.degree == 0).sum()),
        "self_loops": facts.self_loops,
        "dangling": len(facts.dangling),
        "group": item.group,
        "split": item.split,
    }


def _table(rows: list[dict[str, Any]], labels: pa.Array) -> pa.Table:
    import pyarrow as pa

    types = {"id": pa.string(), "nodes": pa.list_(pa.float32()), "edges": pa.list_(pa.int64())}
    types |= dict.fromkeys(FACTS, pa.int64())
    for name in ("group", "split"):
        if any(row[name] is not None for row in rows):
            types[name] = pa.string()
    columns = {name: pa.array([row[name] for row in rows], type=kind) for name, kind in types.items()}
    return pa.table(columns | {"label": labels})
