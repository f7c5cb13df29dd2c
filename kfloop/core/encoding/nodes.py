"""Nodes of one graph: the features of all of them and the edges between them, whichever rows are asked about.

Learning is transductive, as in Kipf & Welling, "Semi-supervised classification with graph convolutional networks", ICLR 2017: every split's
examples see the features of all nodes, and the labels of their own rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from kfloop.core.encoding.base import Encoder as Base
from kfloop.core.encoding.base import columns_of, targets
from kfloop.core.encoding.examples import Examples
from kfloop.core.signature import Port
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

MOSTLY = 0.5  # share of zeros above which features that are never negative are counts of words


@dataclass(frozen=True, kw_only=True)
class NodeExamples(Examples):
    """Rows of one split, each a node of the same graph.

    Attributes:
        inputs: Of the whole graph: node float32 [nodes, F], edges int64 [2, M]. Their first axis is not the row.
        place: Where each row stands among the nodes, int64 [N].
    """

    place: NDArray[np.int64]

    def batch_inputs(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """The whole graph, for any rows."""
        del rows
        return self.inputs

    def batch_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places of the rows' nodes."""
        return np.ascontiguousarray(self.place[rows])

    def take(self, rows: NDArray[Any]) -> Examples:
        """Some rows; the graph stays whole."""
        return replace(
            self,
            target=self.target[rows],
            weights=self.weights[rows],
            ids=self.ids[rows],
            content=self.content[rows],
            origin=self.origin[rows],
            place=self.place[rows],
        )


class Encoder(Base):
    """Gives ``node`` float32 [nodes, F] and ``edges`` int64 [2, M]: each edge once in either direction, none from a node to itself.

    Args:
        width: Number F of features.
        facts: ``mean`` and ``std`` of each feature over the training nodes, and whether the features count words.
    """

    modality = "nodes"
    batched = False

    def __init__(self, width: int, facts: dict[str, Any]) -> None:
        self.width, self._facts = width, facts

    @classmethod
    def fit(cls, version: DatasetVersion, **options: Any) -> Self:
        """Constants of the features, from the training nodes."""
        del options
        table = version.table("train", ["vector"])
        encoder = cls(int(table.schema.field("vector").type.list_size), {})
        if not table.num_rows:
            raise InputError("the train split has no nodes", hint="add labelled nodes, or lower data.split")
        encoder._facts = feature_facts(encoder.vectors(table))
        return encoder

    @classmethod
    def restore(cls, plain: Mapping[str, Any]) -> Self:
        """As ``state`` says."""
        return cls(int(plain["width"]), dict(plain["facts"]))

    def state(self) -> dict[str, Any]:
        """Width and constants."""
        return {"width": self.width, "facts": self._facts}

    @property
    def ports(self) -> tuple[Port, ...]:
        """Features and edges of a whole graph."""
        return (
            Port(name="node", dtype="float32", shape=(-1, self.width)),
            Port(name="edges", dtype="int64", shape=(2, -1)),
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Normalisation constants."""
        return self._facts

    def encode(self, table: pa.Table) -> tuple[NDArray[Any], ...]:
        """The nodes of a table alone, as a graph without edges: those are beside the rows of a version, see ``examples``."""
        return self.vectors(table), np.empty((2, 0), dtype=np.int64)

    def vectors(self, table: pa.Table) -> NDArray[np.float32]:
        """Features float32 [N, F] of the rows of a table.

        Raises:
            InputError: The nodes have another number of features than in training.
        """
        flat = table["vector"].combine_chunks()
        if flat.type.list_size != self.width:
            raise InputError(
                f"the nodes have {flat.type.list_size} features each, but the model takes {self.width}",
                hint="give the features the model was trained on, in the same order, or train it anew",
            )
        values = flat.flatten().to_numpy(zero_copy_only=False) if table.num_rows else np.empty(0, np.float32)
        return np.nan_to_num(values.reshape(-1, self.width).astype(np.float32), copy=False)

    def examples(self, version: DatasetVersion, split: str, objective: str, *, normal: str | None = None) -> Examples:
        """The rows of a split as nodes of the graph of all splits."""
        tables = {name: version.table(name, ["vector", "node"]) for name in version.splits}
        vectors = np.concatenate([self.vectors(table) for table in tables.values()])
        names = np.concatenate([table["node"].to_numpy() for table in tables.values()]).astype(np.int64)
        table = version.table(split)
        first = sum(tables[name].num_rows for name in list(tables)[: list(tables).index(split)])
        return NodeExamples(
            inputs=(vectors, both_ways(names, version.beside("edges"))),
            target=targets(table, version, objective, normal),
            weights=np.ones(table.num_rows, dtype=np.float32),
            place=np.arange(first, first + table.num_rows, dtype=np.int64),
            **columns_of(table),
        )


def feature_facts(values: NDArray[np.float32]) -> dict[str, Any]:
    """Mean and standard deviation of each feature [N, F]; one that never changes keeps its value (mean 0, deviation 1)."""
    means, stds = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    still = stds < 1e-6 * np.maximum(np.abs(means), 1.0)
    counts = bool(len(values)) and bool((values >= 0).all()) and float((values == 0).mean()) > MOSTLY
    return {
        "mean": np.where(still, 0.0, means).tolist(),
        "std": np.where(still, 1.0, stds).tolist(),
        "counts": counts,
    }


def both_ways(names: NDArray[np.int64], edges: pa.Table | None) -> NDArray[np.int64]:
    """Edges int64 [2, M] by place among the nodes, each once in either direction; loops and edges to no node are left out.

    Args:
        names: Number of each node, int64 [nodes].
        edges: Columns source and target, as numbers of nodes, or null.
    """
    if edges is None or not edges.num_rows or not len(names):
        return np.empty((2, 0), dtype=np.int64)
    order = np.argsort(names, kind="stable")
    ends, known = [], np.ones(edges.num_rows, dtype=np.bool_)
    for name in ("source", "target"):
        wanted = edges[name].to_numpy()
        place = order[np.minimum(np.searchsorted(names[order], wanted), len(names) - 1)]
        known &= names[place] == wanted
        ends.append(place)
    return undirected(np.stack(ends)[:, known])


def undirected(edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Edges [2, M] to edges [2, M'], each once in either direction and without loops, in one order whatever theirs was."""
    edges = edges[:, edges[0] != edges[1]]
    if not edges.shape[1]:
        return np.empty((2, 0), dtype=np.int64)
    pairs = np.unique(np.concatenate([edges, edges[::-1]], axis=1), axis=1)
    return np.ascontiguousarray(pairs.astype(np.int64))
