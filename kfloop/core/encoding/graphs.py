"""Small graphs: those of a batch as one graph of separate parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from kfloop.core.encoding.base import Encoder as Base
from kfloop.core.encoding.base import columns_of, targets
from kfloop.core.encoding.examples import Examples
from kfloop.core.encoding.nodes import feature_facts, undirected
from kfloop.core.signature import Port
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion


@dataclass(frozen=True, kw_only=True)
class GraphExamples(Examples):
    """Graphs of one split.

    Attributes:
        inputs: The graphs one after the other, as the network takes them: node float32 [nodes, F], edges int64 [2, M], graph int64 [nodes],
            sizes int64 [graphs]. Their first axis is not the row.
        first_node: Where the nodes of each stored graph begin, int64 [graphs + 1].
        first_edge: Where its edges begin, int64 [graphs + 1].
        place: Which stored graph each row is, int64 [N].
    """

    first_node: NDArray[np.int64]
    first_edge: NDArray[np.int64]
    place: NDArray[np.int64]

    def batch_inputs(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """The rows' graphs alone, their nodes numbered from 0 on."""
        chosen = self.place[rows]
        node, edges, _, sizes = self.inputs
        taken = sizes[chosen]
        begins = np.cumsum(taken) - taken  # where the nodes of each chosen graph begin in the batch
        lengths = np.diff(self.first_edge)[chosen]
        shift = np.repeat(begins - self.first_node[chosen], lengths)
        return (
            node[_ranges(self.first_node[chosen], taken)],
            np.ascontiguousarray(edges[:, _ranges(self.first_edge[chosen], lengths)] + shift),
            np.repeat(np.arange(len(chosen), dtype=np.int64), taken),
            np.ascontiguousarray(taken),
        )

    def take(self, rows: NDArray[Any]) -> Examples:
        """Some rows; all graphs stay stored."""
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
    """Gives ``node`` float32 [nodes, F], ``edges`` int64 [2, M], ``graph`` int64 [nodes] (which graph each is of) and ``sizes`` int64 [graphs].

    Args:
        width: Number F of features of a node.
        facts: ``mean`` and ``std`` of each feature over the training graphs' nodes, and whether the features count words.
    """

    modality = "graphs"
    batched = False

    def __init__(self, width: int, facts: dict[str, Any]) -> None:
        self.width, self._facts = width, facts

    @classmethod
    def fit(cls, version: DatasetVersion, **options: Any) -> Self:
        """Constants of the nodes' features, from the training graphs."""
        del options
        encoder = cls(int(version.schema["node_features"]), {})
        nodes = encoder.encode(version.table("train", ["nodes", "edges"]))[0]
        if not len(nodes):
            raise InputError("the train split has no graph with a node", hint="add graphs, or lower data.split")
        encoder._facts = feature_facts(nodes)
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
        """Nodes and edges of all graphs of a request, and which are whose."""
        return (
            Port(name="node", dtype="float32", shape=(-1, self.width)),
            Port(name="edges", dtype="int64", shape=(2, -1)),
            Port(name="graph", dtype="int64", shape=(-1,)),
            Port(name="sizes", dtype="int64", shape=(-1,)),
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Normalisation constants."""
        return self._facts

    def encode(self, table: pa.Table) -> tuple[NDArray[Any], ...]:
        """All graphs of a table as one request."""
        node, edges, sizes, _ = self._graphs(table)
        return node, edges, np.repeat(np.arange(len(sizes), dtype=np.int64), sizes), sizes

    def examples(self, version: DatasetVersion, split: str, objective: str, *, normal: str | None = None) -> Examples:
        """The graphs of a split."""
        table = version.table(split)
        node, edges, sizes, lengths = self._graphs(table)
        return GraphExamples(
            inputs=(node, edges, np.repeat(np.arange(len(sizes), dtype=np.int64), sizes), sizes),
            target=targets(table, version, objective, normal),
            weights=np.ones(table.num_rows, dtype=np.float32),
            first_node=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            first_edge=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            place=np.arange(len(sizes), dtype=np.int64),
            **columns_of(table),
        )

    def _graphs(self, table: pa.Table) -> tuple[NDArray[Any], ...]:
        """Nodes and edges of all graphs, and how many nodes and edges each has."""
        ids = table["id"].to_pylist() if "id" in table.column_names else None
        nodes, edges, sizes, lengths, begin = [], [], [], [], 0
        pairs = zip(_lists(table["nodes"]), _lists(table["edges"]), strict=True)
        for number, (flat, links) in enumerate(pairs):
            if len(flat) % self.width:
                name = ids[number] if ids is not None else f"number {number}"
                raise InputError(
                    f"graph '{name}' has {len(flat)} values for its nodes, which is no multiple of {self.width} features",
                    hint="give the features the model was trained on, or train it anew",
                )
            count = len(flat) // self.width
            ends = links.astype(np.int64).reshape(-1, 2).T
            ends = undirected(ends[:, ((ends >= 0) & (ends < count)).all(axis=0)])
            nodes.append(flat)
            edges.append(ends + begin)
            sizes.append(count)
            lengths.append(ends.shape[1])
            begin += count
        flat = np.concatenate(nodes) if nodes else np.empty(0)
        return (
            np.nan_to_num(flat.astype(np.float32).reshape(-1, self.width), copy=False),
            np.concatenate([*edges, np.empty((2, 0), dtype=np.int64)], axis=1),
            np.array(sizes, dtype=np.int64),
            np.array(lengths, dtype=np.int64),
        )


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The whole numbers from each start on, as many as its length, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0, dtype=np.int64) + np.repeat(starts - (ends - lengths), lengths)


def _lists(column: Any) -> list[NDArray[Any]]:
    values = column.combine_chunks()
    flat = values.flatten().to_numpy(zero_copy_only=False)
    ends = np.cumsum(values.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
    return np.split(flat, ends[:-1]) if len(ends) else []
