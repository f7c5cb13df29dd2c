"""Explanations of texts and graphs: words, nodes or neighbours are taken away, one part at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.explanations.attributing import ablation
from kfloop.components.evaluate.explanations.explaining import Explained, Job, described
from kfloop.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORDS = 200  # of a text that are shown
PARTS = 64  # of a text that are taken away: words, or pieces of several words
MOST_NODES = 60  # of a graph that is taken apart
NEIGHBOURS = 15
NUMBERS = 200_000_000  # features of nodes that go through the model for all explanations


def explain(job: Job, rows: list[int]) -> Explained:
    """Weights by word, by node, or by neighbour."""
    found: Explained = {"text": _texts, "graphs": _graphs, "nodes": _nodes}[job.version.modality](job, rows)
    return found


def _texts(job: Job, rows: list[int]) -> Explained:
    import pyarrow as pa

    model = job.model.model
    texts = job.version.table("test", ["text"]).take(rows)["text"].to_pylist()
    examples = []
    for row, text in zip(rows, texts, strict=True):
        words = (text or "").split()[:WORDS]
        if not words:
            continue
        groups = np.array_split(np.arange(len(words)), min(len(words), PARTS))
        of, _ = job.output(row)

        def run(kept: NDArray[Any], words: list[str] = words, groups: list[Any] = groups, of: Any = of) -> NDArray[Any]:
            without = [
                " ".join(words[place] for group, stays in zip(groups, line, strict=True) if stays for place in group)
                for line in kept
            ]
            inputs = model.encoder.encode(pa.table({"text": pa.array(without, type=pa.string())}))
            return np.asarray(of(model.run(inputs)[model.signature.answer]))

        found = ablation(run, len(groups))
        weights = np.repeat(found, [len(group) for group in groups])
        examples.append(described(job, row) | {"kind": "text", "tokens": words, "weights": weights.tolist()})
    caption = (
        "Words are left out one at a time (of long texts several together): where that lowers the output, the words speak for the "
        "answer, where it raises it, against."
    )
    return Explained(told={"kind": "text", "caption": caption, "examples": examples})


def _graphs(job: Job, rows: list[int]) -> Explained:
    model = job.model.model
    mean = np.asarray(model.encoder.facts["mean"], dtype=np.float32)
    examples = []
    for row in rows:
        node, edges = job.model.test.batch_inputs(np.array([row]))[:2]
        if not 0 < len(node) <= MOST_NODES:
            continue
        of, _ = job.output(row)

        def run(
            kept: NDArray[Any], node: NDArray[Any] = node, edges: NDArray[Any] = edges, of: Any = of
        ) -> NDArray[Any]:
            there = kept > 0
            nodes = np.where(there[:, :, None], node, mean).astype(np.float32)
            ends = [edges[:, line[edges].all(axis=0)] + at * len(node) for at, line in enumerate(there)]
            sizes = np.full(len(there), len(node), dtype=np.int64)
            graph = np.repeat(np.arange(len(there), dtype=np.int64), len(node))
            inputs = (nodes.reshape(-1, node.shape[1]), np.concatenate(ends, axis=1), graph, sizes)
            return np.asarray(of(model.run(inputs)[model.signature.answer]))

        weights = ablation(run, len(node))
        drawn = {"kind": "graph", "nodes": len(node), "edges": edges.T.tolist(), "weights": weights.tolist()}
        examples.append(described(job, row) | drawn)
    if rows and not examples:
        raise InputError(f"every chosen graph has more than {MOST_NODES} nodes", hint="nothing to do")
    caption = (
        "Nodes lose their edges and get mean features, one at a time: where that lowers the output, the node speaks for the answer, "
        "where it raises it, against."
    )
    return Explained(told={"kind": "graph", "caption": caption, "examples": examples})


def _nodes(job: Job, rows: list[int]) -> Explained:
    model, test = job.model.model, job.model.test
    node, edges = test.inputs
    places: NDArray[np.int64] = test.batch_rows(np.array(rows, dtype=np.int64))
    mean = np.asarray(model.encoder.facts["mean"], dtype=np.float32)
    affordable = NUMBERS // max(1, (node.size + edges.size) * (NEIGHBOURS + 2))
    if not affordable:
        raise InputError(f"a graph of {len(node):,} nodes is too large to be run for each part", hint="nothing to do")
    names = [name for split in job.version.splits for name in job.version.table(split, ["id"])["id"].to_pylist()]
    examples = []
    for row, place in list(zip(rows, places.tolist(), strict=True))[-affordable:]:
        neighbours = np.unique(edges[0][edges[1] == place])[:NEIGHBOURS]
        of, _ = job.output(row)

        def run(
            kept: NDArray[Any], place: int = place, neighbours: NDArray[Any] = neighbours, of: Any = of
        ) -> NDArray[Any]:
            found = []
            for line in kept > 0:
                features = node
                if not line[0]:
                    features = node.copy()
                    features[place] = mean
                gone = neighbours[~line[1:]]
                cut = ((edges[0] == place) & np.isin(edges[1], gone)) | ((edges[1] == place) & np.isin(edges[0], gone))
                answers = model.run((features, np.ascontiguousarray(edges[:, ~cut])))
                found.append(of(answers[model.signature.answer][[place]])[0])
            return np.array(found)

        weights = ablation(run, 1 + len(neighbours), at_once=1)
        parts = ["its own features", *(f"neighbour {names[other]}" for other in neighbours.tolist())]
        lines = [{"name": name, "weight": float(weight)} for name, weight in zip(parts, weights, strict=True)]
        examples.append(described(job, row) | {"kind": "bars", "bars": lines})
    caption = (
        "The node's own features are replaced by their means, and its edges to neighbours are cut, one at a time: where that lowers the "
        "output, the part speaks for the answer, where it raises it, against."
    )
    return Explained(told={"kind": "bars", "caption": caption, "examples": examples})
