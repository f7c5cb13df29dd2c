"""Graphs: the nodes of one (an npz file, or a table of nodes and a list of edges), or a folder of small ones."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kfloop.components.ingest.files.listing import walk_files
from kfloop.components.ingest.readers.graphs.folder import SUFFIXES, open_folder
from kfloop.components.ingest.readers.graphs.nodes import Graph, nodes_source
from kfloop.components.ingest.readers.graphs.npz import FEATURES, Arrays, holds_graph, member_names, read_edges
from kfloop.components.ingest.readers.graphs.npz_nodes import read_features, read_labels, read_splits
from kfloop.components.ingest.readers.graphs.tables import EDGES, NODES, read_tables
from kfloop.core.artifacts import DIGEST_LENGTH, file_sha256
from kfloop.errors import InputError

if TYPE_CHECKING:
    from kfloop.components.ingest.source import Source
    from kfloop.core.sections import DataConfig

KIND = "graph_npz"
LOOKED_AT = 20  # files of a folder: the first may be broken


def recognise(path: Path, config: DataConfig) -> bool:
    """Whether ``path`` is an npz file with a graph, a folder with both tables, or a folder of npz files with graphs.

    Of npz files only the names of their arrays are looked at.
    """
    try:
        if path.is_file():
            fits = config.modality in {"auto", "nodes"} and path.suffix.lower() in SUFFIXES
            return fits and holds_graph(member_names(path))
        if (path / NODES).is_file() and (path / EDGES).is_file():
            return config.modality in {"auto", "nodes"}
        if config.modality not in {"auto", "graphs"} or not path.is_dir():
            return False
        return any(_small_graph(member_names(path / name)) for name in islice(walk_files(path, SUFFIXES), LOOKED_AT))
    except (OSError, ValueError):
        return False


def _small_graph(names: frozenset[str]) -> bool:
    return holds_graph(names) and any(name in names or f"{name}_data" in names for name in FEATURES)


def open_source(path: Path, config: DataConfig, like: Source | None = None) -> Source:
    """Open a graph, or a folder of small graphs.

    Args:
        path: An npz file, a folder with ``nodes.csv`` and ``edges.csv``, or a folder of npz files.
        config: What the loop file says.
        like: The source of which the graphs of a folder are more.

    Raises:
        InputError: Not a graph; arrays whose lengths differ; ids or features that are not numbers; masks that overlap; no nodes or no
            edges; or ``like`` for the nodes of one graph, to which nothing can be added from outside.
    """
    tables = (path / NODES).is_file() and (path / EDGES).is_file()
    if path.is_dir() and not tables:
        return open_folder(path, config, like)
    if like is not None:
        raise InputError(
            f"data.fresh '{path}' is a graph of its own: its nodes have no edges to those of data.source",
            hint="add the new nodes and their edges to data.source itself, and remove data.fresh",
        )
    return nodes_source(read_tables(path, config) if tables else _read_npz(path, config), config)


def _read_npz(path: Path, config: DataConfig) -> Graph:
    import pyarrow as pa

    arrays = Arrays(path)
    edges, name, size = read_edges(arrays)
    features = read_features(arrays)
    n = features.shape[0]
    if size is not None and size != n:
        raise InputError(
            f"'{path}': '{name}' has {size} nodes, '{features.name}' {n}",
            hint="both have a row for each node, in the same order",
        )
    label, labels = read_labels(arrays, config.label)
    splits = read_splits(arrays, n)

    def describe(place: int) -> tuple[str, str]:
        ends = (("source", int(edges.source[place])), ("target", int(edges.target[place])))
        what, node = next(end for end in ends if not 0 <= end[1] < n)
        return f"{name}:{place}", f"edge {place} of '{name}': {what} {node} is no node (0 to {n - 1})"

    return Graph(
        kind=KIND,
        path=path,
        digest=file_sha256(path)[:DIGEST_LENGTH],
        features=features,
        labels=labels,
        label=label,
        guessed=config.label is None,
        edges=edges,
        describe=describe,
        ids=pa.array(np.arange(n)).cast(pa.string()),
        place=lambda place: f"node {place}",
        splits=None if splits is None else pa.array(splits.tolist(), type=pa.string()),
    )
