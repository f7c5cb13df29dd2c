"""Nodes of one graph as rows, whatever they were read from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.labels.encoding import encode
from kfloop.components.ingest.labels.plan import LabelPlan, LabelScan, plain_labels, settle
from kfloop.components.ingest.limits import smallest
from kfloop.components.ingest.readers.graphs.edges import EdgeFacts, Edges, edge_facts
from kfloop.components.ingest.source import ROWS_PER_BATCH, Batch, Source
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

    from kfloop.components.ingest.readers.graphs.npz_nodes import Features
    from kfloop.core.sections import DataConfig

VECTOR_BYTES_PER_BATCH = 64 * 2**20
FACTS = ("degree", "isolated", "self_loop")


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One graph as read.

    Attributes:
        kind: Name of the layout.
        path: File or folder.
        digest: Of its bytes.
        features: Of its N nodes.
        labels: One for each node [N], null where there is none.
        label: Name of the column or array of the labels.
        guessed: Whether that name was guessed.
        edges: By index of the nodes, dangling ones included.
        describe: Names an edge by its place, and says what is wrong with it: id and reason.
        ids: Ids of the nodes, string [N].
        groups: Groups of the nodes, or None.
        splits: Official splits of the nodes, or None.
        place: Names a node by its index, for messages.
        notes: What a person should know.
    """

    kind: str
    path: Path
    digest: str
    features: Features
    labels: pa.Array
    label: str
    guessed: bool
    edges: Edges
    describe: Callable[[int], tuple[str, str]]
    ids: pa.Array
    place: Callable[[int], str]
    groups: pa.Array | None = None
    splits: pa.Array | None = None
    notes: tuple[str, ...] = field(default=())


def nodes_source(graph: Graph, config: DataConfig) -> Source:
    """The rows of a graph: one for each labelled node.

    Edges without two nodes, and those of nodes without a label, are left out of ``edges``, so that every index in it is a row.

    Raises:
        InputError: No nodes, no edges, numbers of nodes that differ, or labels that cannot be learned.
    """
    n = graph.features.shape[0]
    _check(graph, n)
    facts = edge_facts(graph.edges, n)
    if not len(facts.edges):
        raise _no_edges(graph, n)
    plan = _plan(graph, config)
    encoded, problems = encode(plan, plain_labels(graph.labels, split=plan.task == "multilabel"))
    kept = np.zeros(n, dtype=bool)
    kept[smallest([str(node) for node in range(n)], config.limit) if config.limit else slice(None)] = True
    chosen = int(kept.sum())
    kept[list(problems)] = False
    edges = facts.edges.take(kept[facts.edges.source] & kept[facts.edges.target])
    lost = len(facts.edges) - len(edges)
    notes = [*graph.notes, *plan.notes, *_notes(graph, facts, len(problems), n)]
    if lost:
        notes.append(f"{lost} edges of nodes that are left out are left out too")
    if chosen < n:
        notes.append(f"data.limit keeps {chosen} of {n} nodes; degrees are those in the whole graph")

    def batches() -> Iterator[Batch]:
        return _batches(graph, facts, encoded, kept, problems)

    return Source(
        kind=graph.kind,
        modality="nodes",
        task=plan.task,
        uri=str(graph.path),
        labels=plan.names,
        n=n,
        digest=graph.digest,
        schema={"graph": facts.schema(int(kept.sum())) | {"edges": len(edges)}},
        inputs=("vector", "node"),
        facts=FACTS,
        batches=batches,
        extras=lambda: {"edges": edges.table()},
        suggestions={"label": graph.label} if graph.guessed else {},
        notes=tuple(notes),
    )


def _check(graph: Graph, n: int) -> None:
    if n == 0:
        raise InputError(f"'{graph.path}' is an empty graph: it has no nodes", hint="a row of features for each node")
    if len(graph.labels) != n:
        raise InputError(
            f"'{graph.path}': '{graph.label}' has {len(graph.labels)} rows, '{graph.features.name}' {n}",
            hint="both have a row for each node, in the same order",
            rows=len(graph.labels),
            nodes=n,
        )


def _plan(graph: Graph, config: DataConfig) -> LabelPlan:
    if config.task == "forecasting":
        raise InputError(
            "data.task is 'forecasting', but the source is a graph",
            hint="set data.task to multiclass, multilabel or regression",
        )
    labels = plain_labels(graph.labels, split=config.task == "multilabel")
    found = LabelScan(config.task)
    found.add(labels, np.arange(len(labels), dtype=np.int64))
    return settle(found, graph.label, f"'{graph.path}'", graph.place, None, config.task)


def _no_edges(graph: Graph, n: int) -> InputError:
    m = len(graph.edges)
    if m:
        return InputError(
            f"'{graph.path}': none of the {m} edges has two nodes: {graph.describe(0)[1]}",
            hint=f"source and target are nodes; there are {n}",
        )
    return InputError(
        f"'{graph.path}' is an empty graph: {n} nodes and no edges",
        hint="without edges, give the features as a table or as vectors",
    )


def _notes(graph: Graph, facts: EdgeFacts, unlabelled: int, n: int) -> list[str]:
    told = []
    if len(facts.dangling):
        places = facts.dangling[:1].tolist()
        told.append(f"{len(facts.dangling)} dangling edges are set aside, such as: {graph.describe(places[0])[1]}")
        ends = np.concatenate([graph.edges.source, graph.edges.target])
        if ends.min() == 1 and ends.max() == n:
            told.append(f"the edges name nodes 1 to {n}: if they count from 1, subtract 1, since nodes count from 0")
    if unlabelled:
        told.append(f"{unlabelled} nodes have no label and are set aside")
    if facts.self_loops:
        told.append(f"{facts.self_loops} edges go from a node to itself")
    if facts.duplicates:
        told.append(f"{facts.duplicates} edges are there more than once")
    isolated = int((facts.degree == 0).sum())
    if isolated:
        told.append(f"{isolated} of {n} nodes have no edge to another node")
    return told


def _batches(
    graph: Graph, facts: EdgeFacts, labels: pa.Array, kept: np.ndarray, problems: dict[int, str]
) -> Iterator[Batch]:
    import pyarrow as pa

    n, width = graph.features.shape
    size = max(1, min(ROWS_PER_BATCH, VECTOR_BYTES_PER_BATCH // (4 * width)))
    aside = [_aside(graph, place) for place in facts.dangling.tolist()]
    for first in range(0, n, size):
        last = min(n, first + size)
        vectors = graph.features.rows(first, last)
        degree = facts.degree[first:last]
        columns: dict[str, Any] = {
            "id": graph.ids[first:last],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width),
            "node": pa.array(np.arange(first, last, dtype=np.int64)),
            "degree": pa.array(degree),
            "isolated": pa.array(degree == 0),
            "self_loop": pa.array(facts.loops[first:last]),
            "label": labels[first:last],
        }
        for name, values in (("group", graph.groups), ("split", graph.splits)):
            if values is not None:
                columns[name] = values[first:last]
        table = pa.table(columns)
        if not kept[first:last].all():
            table = table.filter(pa.array(kept[first:last]))
        for place in sorted(place for place in problems if first <= place < last):
            reason = f"{graph.place(place)}, '{graph.label}': {problems[place]}"
            aside.append({"id": graph.ids[place].as_py(), "reason": reason})
        yield Batch(table=table, quarantined=aside)
        aside = []


def _aside(graph: Graph, place: int) -> dict[str, str]:
    name, reason = graph.describe(place)
    return {"id": name, "reason": reason}
