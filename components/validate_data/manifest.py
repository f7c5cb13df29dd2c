"""One row of facts for each example: what a suite of expectations can judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.expectations.kinds import FLOAT, INT, STR, TIME, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from kfloop.core.versions import DatasetVersion


def build_manifest(version: DatasetVersion) -> pa.Table:
    """The manifest of a dataset version: ``split``, every column but heavy inputs, and classes by their names.

    The table stays memory-mapped but for the columns that change or are added:

    - ``label``: the name of the class; for several classes their names joined by ``|``, and their number in ``label_count``;
    - ``mean``, ``std``, ``sharpness``, ``constant`` of the pixels, for images that were written without facts;
    - ``time_step`` of a series: time since the row before of the same split and group (seconds, or the unit of an integer time);
    - ``graph_dangling``, ``graph_self_loops``, ``graph_duplicate_edges`` of a graph, the same in each row;
    - columns of other types become int64, float64, string or timestamp[us].
    """
    table = version.manifest()
    for name in table.schema.names:
        wanted = _usual(table.schema.field(name).type)
        if wanted is not None:
            table = _replace(table, name, table[name].cast(wanted))
    if version.modality == "image" and "constant" not in table.schema.names:
        table = _with(table, _pixel_facts(version))
    if version.modality == "series":
        table = _with(table, {"time_step": _time_steps(table)})
    if version.modality == "nodes":
        table = _with(table, _graph_facts(version, table.num_rows))
    if version.task == "multiclass":
        return _replace(table, "label", _names(table["label"], version.labels))
    if version.task == "multilabel":
        joined, counts = _joined(table["label"], version.labels)
        return _with(_replace(table, "label", joined), {"label_count": counts})
    return table


def _with(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def _pixel_facts(version: DatasetVersion) -> dict[str, Any]:
    import pyarrow as pa

    parts = [
        image_facts(pixels_of(batch, version.image_shape))
        for split in version.splits
        for batch in version.batches(split)
    ]
    return {name: pa.array(np.concatenate([part[name] for part in parts])) for name in parts[0]} if parts else {}


def _time_steps(table: pa.Table) -> Any:
    """Time since the row before of the same split and group; null for the first row of each."""
    import pyarrow as pa

    codes = np.zeros(table.num_rows, np.int64)
    for name in ("split", "group"):
        if name in table.schema.names:
            encoded = table[name].combine_chunks().dictionary_encode("encode")
            codes = codes * len(encoded.dictionary) + encoded.indices.to_numpy()
    clock = table["time"]
    scale = 1e6 if pa.types.is_timestamp(clock.type) else 1.0
    order = np.argsort(codes, kind="stable")
    ticks = clock.cast(pa.int64()).fill_null(0).to_numpy()[order]
    missing = clock.is_null().to_numpy()[order]
    steps, first = np.zeros(len(ticks)), np.ones(len(ticks), dtype=bool)
    steps[1:] = np.diff(ticks) / scale
    first[1:] = (np.diff(codes[order]) != 0) | missing[1:] | missing[:-1]
    placed, gaps = np.empty_like(steps), np.empty_like(first)
    placed[order], gaps[order] = steps, first | missing
    return pa.array(placed, mask=gaps)


def _graph_facts(version: DatasetVersion, n_rows: int) -> dict[str, Any]:
    import pyarrow as pa

    facts = version.schema.get("graph", {})
    names = [name for name in ("dangling", "self_loops", "duplicate_edges") if name in facts]
    return {f"graph_{name}": pa.repeat(pa.scalar(int(facts[name]), pa.int64()), n_rows) for name in names}


def _usual(kind: Any) -> Any:
    """The type that stands for this one in a manifest; null when it is that type already."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_date(kind):
        return pa.timestamp("us")
    usual = {INT: pa.int64(), FLOAT: pa.float64(), STR: pa.string(), TIME: pa.timestamp("us")}
    wanted = usual.get(kind_of(kind))
    if wanted is None or kind.equals(wanted) or pa.types.is_uint64(kind) or pa.types.is_large_string(kind):
        return None
    return wanted


def _replace(table: pa.Table, name: str, column: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, column)


def _names(column: pa.ChunkedArray, labels: list[str]) -> Any:
    """Class names of class indices, chunk by chunk."""
    import pyarrow as pa

    names = pa.array(labels, pa.string())
    return pa.chunked_array([names.take(chunk) for chunk in column.chunks], pa.string())


def _joined(column: pa.ChunkedArray, labels: list[str]) -> tuple[Any, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = ["|".join(labels[index] for index in row) if row is not None else None for row in column.to_pylist()]
    return pa.array(texts, pa.string()), pc.list_value_length(column).cast(pa.int64())


def pixels_of(table: pa.Table, shape: tuple[int, int, int]) -> np.ndarray:
    """The images of some rows, uint8 [N, H, W, C]."""
    flat = table["image"].combine_chunks()
    pixels = flat.flatten().to_numpy(zero_copy_only=False) if table.num_rows else np.empty(0, np.uint8)
    return np.asarray(pixels).reshape(table.num_rows, *shape)


def image_facts(images: np.ndarray) -> dict[str, np.ndarray]:
    """Facts of decoded images, computed from their pixels.

    Args:
        images: uint8 [N, H, W, C].

    Returns:
        ``mean`` and ``std`` of the grey pixels (0 to 255), ``sharpness`` (variance of the 4-neighbour Laplacian; 0 for images without an inside) and
        ``constant`` (no two grey pixels differ), each [N].
    """
    grey = images.astype(np.float64).mean(axis=3)
    flat = grey.reshape(len(grey), -1) if len(grey) else np.empty((0, 1))
    return {
        "mean": flat.mean(axis=1),
        "std": flat.std(axis=1),
        "sharpness": _sharpness(grey),
        "constant": np.ptp(flat, axis=1) == 0,
    }


def _sharpness(grey: np.ndarray) -> np.ndarray:
    if min(grey.shape[1:], default=0) < 3:  # noqa: PLR2004 - a Laplacian needs a neighbour on each side
        return np.zeros(len(grey))
    inside = grey[:, 1:-1, 1:-1]
    laplacian = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * inside
    return np.asarray(laplacian.reshape(len(grey), -1).var(axis=1))
