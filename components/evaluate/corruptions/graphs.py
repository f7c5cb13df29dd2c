"""Corruptions of graphs, of the nodes of one graph, and of windows of a series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.corruptions.altered import AlteredVersion, vectors_of, with_column, with_lists
from kfloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Numbers = np.random.Generator


def noisy_nodes(version: DatasetVersion, amount: float, random: Numbers, _: Any) -> AlteredVersion:
    """Noise on the features of all nodes, in standard deviations of the training nodes."""
    std = np.nanstd(vectors_of(version.table("train", ["vector"])).astype(np.float64), axis=0)
    tables = {}
    for split in version.splits:
        table = version.table(split)
        values = vectors_of(table)
        tables[split] = with_lists(
            table, "vector", values + amount * np.nan_to_num(std) * random.standard_normal(values.shape)
        )
    return AlteredVersion(version, tables)


def fewer_edges(version: DatasetVersion, amount: float, random: Numbers, _: Any) -> AlteredVersion:
    """The graph without a share ``amount`` of its edges.

    Raises:
        InputError: It has none.
    """
    edges = version.beside("edges")
    if edges is None or not edges.num_rows:
        raise InputError("the graph has no edges", hint="give it some")
    ends = np.stack([edges["source"].to_numpy(), edges["target"].to_numpy()], axis=1)
    kept = _kept_pairs(ends, amount, random)
    return AlteredVersion(version, {}, {"edges": edges.filter(kept)})


def _kept_pairs(ends: NDArray[Any], amount: float, random: Numbers) -> NDArray[np.bool_]:
    """Which edges [M, 2] stay; one that is listed in either direction stays or goes as a whole."""
    pairs, place = np.unique(np.sort(ends, axis=1), axis=0, return_inverse=True)
    kept = random.random(len(pairs)) >= amount
    return np.asarray(kept[place.reshape(-1)])


def graphs_with_fewer_edges(table: pa.Table, amount: float, random: Numbers, version: DatasetVersion) -> pa.Table:
    """Graphs without a share ``amount`` of their edges.

    Raises:
        InputError: None has any.
    """
    import pyarrow as pa

    del version
    lists = [item.values.to_numpy(zero_copy_only=False).reshape(-1, 2) for item in table["edges"].combine_chunks()]
    if not any(len(item) for item in lists):
        raise InputError("no graph has an edge", hint="give them some")
    fewer = [item[_kept_pairs(item, amount, random)].reshape(-1) if len(item) else item.reshape(-1) for item in lists]
    return with_column(table, "edges", pa.array(fewer, type=table.schema.field("edges").type))


def graphs_with_noise(table: pa.Table, amount: float, random: Numbers, version: DatasetVersion) -> pa.Table:
    """Noise on the features of nodes, in standard deviations of the training graphs."""
    import pyarrow as pa

    width = max(1, int(version.schema["node_features"]))
    train = version.table("train", ["nodes"])["nodes"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    std = np.nan_to_num(np.nanstd(train.reshape(-1, width).astype(np.float64), axis=0))
    if not std.any():
        raise InputError("all nodes have the same features", hint="nothing to do")
    noisy = []
    for item in table["nodes"].combine_chunks():
        nodes = item.values.to_numpy(zero_copy_only=False).reshape(-1, width)
        noisy.append((nodes + amount * std * random.standard_normal(nodes.shape)).reshape(-1))
    return with_column(table, "nodes", pa.array(noisy, type=table.schema.field("nodes").type))


def noisy_windows(windows: NDArray[Any], amount: float, random: Numbers, std: NDArray[Any]) -> NDArray[Any]:
    """Noise on windows [N, steps, C], in standard deviations of each channel, [C]."""
    return windows + amount * std * random.standard_normal(windows.shape)


def gaps_in_windows(windows: NDArray[Any], amount: float, random: Numbers, std: NDArray[Any]) -> NDArray[Any]:
    """A piece of each window is missing in all channels."""
    del std
    length = windows.shape[1]
    missing = min(length - 1, max(1, round(amount * length)))
    first = random.integers(0, length - missing + 1, len(windows))[:, None]
    steps = np.arange(length)
    gone = (steps >= first) & (steps < first + missing)
    return np.where(gone[:, :, None], np.nan, windows)


def jitter(windows: NDArray[Any], amount: float, random: Numbers, std: NDArray[Any]) -> NDArray[Any]:
    """Each step has the values of one at most so many steps before or after it."""
    del std
    count, length = windows.shape[:2]
    far = round(amount)
    steps = np.clip(np.arange(length) + random.integers(-far, far + 1, (count, length)), 0, length - 1)
    return np.take_along_axis(windows, steps[:, :, None], axis=1)
