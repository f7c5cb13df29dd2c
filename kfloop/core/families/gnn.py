"""``gnn``: graph networks for the nodes of one graph and for whole small graphs.

``gcn`` after Kipf & Welling, "Semi-supervised classification with graph convolutional networks", ICLR 2017; ``sage`` after Hamilton and
others, "Inductive representation learning on large graphs", NeurIPS 2017 (mean of the neighbours); ``gin`` after Xu and others, "How
powerful are graph neural networks?", ICLR 2019.

The encoder makes edges undirected and leaves out loops and doubles; the network adds each node to its own neighbourhood, counts degrees from
``edges``, and passes over an edge that leads to no node or from a node to itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from kfloop.core.families import Defaults
from kfloop.core.families.heads import Head, standardiser
from kfloop.core.sections import Section

if TYPE_CHECKING:
    from kfloop.core.families import NetworkSpec


class Options(Section):
    """What ``train.options`` may say."""

    kind: Literal["gcn", "sage", "gin"] | None = None
    """How neighbours are put together; null means ``gcn`` for nodes and ``gin`` for graphs."""
    layers: Annotated[int, Field(ge=1, le=8)] | None = None
    """Edges that information travels; null means 2 for nodes and 3 for graphs."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the inputs of each layer that is left out in a training step; null means 0.5 for nodes and 0.1 for graphs."""
    pooling: Literal["sum", "mean"] = "sum"
    """How the nodes of a graph become one embedding."""
    features: Literal["auto", "shares", "standard", "raw"] = "auto"
    """``shares`` divides the features of a node by their sum (counts of words), ``standard`` takes standard deviations; ``auto`` looks."""


def build(spec: NetworkSpec) -> nn.Module:
    """The network."""
    return NodeNetwork(spec) if spec.modality == "nodes" else GraphNetwork(spec)


def defaults(spec: NetworkSpec, n_train: int) -> Defaults:
    """Nodes: all at once, for as long as the validation loss falls. Graphs: as other small data."""
    if spec.modality == "nodes":
        return Defaults(epochs=200, batch_size=max(1, n_train), learning_rate=1e-2, weight_decay=0.05, patience=50)
    return Defaults(epochs=60, batch_size=32, learning_rate=3e-3, patience=15)


class Links:
    """The edges of a forward pass, ready to send messages along.

    Args:
        edges: Source and target of each, int64 [2, M]; an end outside of the nodes, such as -1, makes it none.
        node: Features of the nodes [N, F], for their number and type.
    """

    def __init__(self, edges: Tensor, node: Tensor) -> None:
        count = node.shape[0]
        real = ((edges >= 0) & (edges < count)).all(0) & (edges[0] != edges[1])
        self.weight = real.to(node.dtype)[:, None]  # [M, 1]
        # Any place will do for an edge that counts nothing; places are kept inside without a branch, which exports need.
        inside = torch.where(real, edges, torch.zeros_like(edges))
        self.source, self.target = inside[0], inside[1]
        self.degree = torch.zeros_like(node[:, :1]).index_add(0, self.target, self.weight)  # [N, 1]

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the neighbours of each node, [N, D] to [N, D]."""
        message = values[self.source] * self.weight
        # In the type of the messages: under autocast values may come in half precision.
        return message.new_zeros(values.shape).index_add(0, self.target, message)

    def spread(self, values: Tensor) -> Tensor:
        """D^-1/2 (A + I) D^-1/2 of ``gcn``, with the degrees of A + I."""
        scale = (self.degree + 1).rsqrt()
        scaled = values * scale
        return (self.sum(scaled) + scaled) * scale

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the neighbours; zeros where a node has none."""
        return self.sum(values) / self.degree.clamp(min=1)


class Layer(nn.Module):
    """One round of messages. Values are made narrow before they travel: that is the same for these sums, and cheaper.

    Args:
        kind: ``gcn``, ``sage`` or ``gin``.
        width_in: Length of the values of a node.
        width_out: Length afterwards.
        norm: Batch normalisation over nodes, as ``gin`` has it for graphs.
    """

    def __init__(self, kind: str, width_in: int, width_out: int, *, norm: bool) -> None:
        super().__init__()
        self.kind = kind
        self.project = nn.Linear(width_in, width_out, bias=False)
        self.own = nn.Linear(width_in, width_out, bias=False) if kind == "sage" else None
        self.bias = nn.Parameter(torch.zeros(width_out))
        self.own_share = nn.Parameter(torch.zeros(1)) if kind == "gin" else None
        self.norm: nn.Module = nn.BatchNorm1d(width_out) if norm else nn.Identity()
        self.second = nn.Linear(width_out, width_out) if kind == "gin" else None
        nn.init.xavier_uniform_(self.project.weight)

    def forward(self, values: Tensor, links: Links) -> Tensor:
        """Values [N, D] to [N, D']."""
        sent: Tensor = self.project(values)
        if self.own is not None:
            gathered = self.own(values) + links.mean(sent)
        elif self.own_share is not None:
            gathered = (1 + self.own_share) * sent + links.sum(sent)
        else:
            gathered = links.spread(sent)
        hidden = functional.relu(self.norm(gathered + self.bias))
        return hidden if self.second is None else functional.relu(self.second(hidden))


class Body(nn.Module):
    """What both networks share: normalised features, and rounds of messages.

    Args:
        spec: Features, constants and options.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        options, nodes = Options.model_validate(spec.options), spec.modality == "nodes"
        self.kind = options.kind or ("gcn" if nodes else "gin")
        self.whole_graphs = not nodes
        width = spec.inputs[0].shape[1]
        auto = "shares" if spec.facts.get("counts") and nodes else "standard"
        self.features = auto if options.features == "auto" else options.features
        mean, std = standardiser(spec.facts, 1, width)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        share = options.dropout if options.dropout is not None else (0.5 if nodes else 0.1)
        self.dropout = nn.Dropout(share)
        # The last layer of gcn is this one's messages and the head: a linear map may come before or after them.
        rounds = (options.layers or (2 if nodes else 3)) - (1 if self.kind == "gcn" else 0)
        widths = [width + (1 if self.whole_graphs else 0), *[spec.embedding_size] * rounds]
        self.layers = nn.ModuleList(
            Layer(self.kind, widths[at], widths[at + 1], norm=self.whole_graphs) for at in range(rounds)
        )
        self.width = widths[-1]

    def forward(self, node: Tensor, edges: Tensor) -> Tensor:
        """Values of the nodes, [N, D]."""
        links = Links(edges, node)
        values = self.normalised(node)
        if self.whole_graphs:
            values = torch.cat([values, torch.log1p(links.degree)], dim=1)
        for layer in self.layers:
            values = layer(self.dropout(values), links)
        return links.spread(self.dropout(values)) if self.kind == "gcn" else self.dropout(values)

    def normalised(self, node: Tensor) -> Tensor:
        """Features as the layers take them."""
        if self.features == "shares":
            return node / node.abs().sum(1, keepdim=True).clamp(min=1e-9)
        return (node - self.mean) / self.std if self.features == "standard" else node


class NodeNetwork(nn.Module):
    """Answers for all nodes of a graph.

    Args:
        spec: Its description.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.body = Body(spec)
        self.head = Head(spec, self.body.width)

    def forward(self, node: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Answers and embeddings [N, D] of nodes float32 [N, F] with edges int64 [2, M]."""
        values = self.body(node, edges)
        return self.head(values), values


class GraphNetwork(nn.Module):
    """Answers for whole graphs.

    Args:
        spec: Its description.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.pooling = Options.model_validate(spec.options).pooling
        self.body = Body(spec)
        self.embed = nn.Linear(self.body.width, spec.embedding_size)
        self.head = Head(spec, spec.embedding_size)

    def forward(self, node: Tensor, edges: Tensor, graph: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Answers and embeddings [G, D] of G graphs: nodes float32 [N, F], edges int64 [2, M], graph int64 [N], sizes int64 [G]."""
        values = self.body(node, edges)
        pooled = torch.zeros(sizes.shape[0], values.shape[1], dtype=values.dtype, device=values.device)
        pooled = pooled.index_add(0, graph, values)
        if self.pooling == "mean":
            pooled = pooled / sizes.clamp(min=1)[:, None]
        embedding = functional.relu(self.embed(pooled))
        return self.head(embedding), embedding
