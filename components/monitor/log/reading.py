"""The Parquet files of a request log: what stands in them, without reading them, and parts of them as arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.request_cells import unpack
from kfloop.core.request_files import model_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.components.monitor.log.layout import Layout

EARLIEST, LATEST = -(2**62), 2**62
HOURS_KEPT = 3
"""Folders of the latest hours whose rows are counted, so that rows which came too late are noticed."""
_SHORT = (
    "probabilities",
    "embedding",
    "image",
)  # image classifiers are logged under short names, see serving/packets.py


@dataclass(frozen=True, kw_only=True)
class Part:
    """A row group of one file.

    Attributes:
        path: The file.
        group: Number of the row group.
        rows: Its rows.
        low: Time of its oldest row in nanoseconds; very early where the file does not say.
        high: Time of its newest row; very late where the file does not say.
    """

    path: Path
    group: int
    rows: int
    low: int
    high: int


@dataclass(kw_only=True)
class Listing:
    """What stands in the log of one model.

    Attributes:
        parts: Row groups, the earliest first.
        totals: Rows in the folders of the latest hours.
        problems: One sentence for each file that cannot be used.
    """

    parts: list[Part] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def list_parts(root: Path) -> Listing:
    """Look at the footers of all files of one model's log.

    Args:
        root: Folder of the model's log; it may not exist yet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = Listing()
    totals: dict[str, int] = {}
    for path in model_files(root):
        name = path.relative_to(root).as_posix()
        try:
            footer = pq.read_metadata(path)
            parts = _parts(path, footer)
        except FileNotFoundError:  # deleted since the folder was listed: it had its time
            continue
        except (OSError, ValueError, TypeError, pa.ArrowException) as error:
            found.problems.append(f"request log file {name}: {error}")
            continue
        if not footer.num_rows:
            found.problems.append(f"request log file {name}: no rows")
        found.parts += parts
        totals[path.parent.name] = totals.get(path.parent.name, 0) + int(footer.num_rows)
    found.parts.sort(key=lambda part: (part.low, part.path.as_posix(), part.group))
    found.totals = {hour: totals[hour] for hour in sorted(totals)[-HOURS_KEPT:]}
    return found


def _parts(path: Path, footer: Any) -> list[Part]:
    place = next((i for i in range(footer.num_columns) if footer.schema.column(i).path == "ts_ns"), None)
    if place is None:
        message = "it has no column ts_ns"
        raise ValueError(message)
    parts = []
    for group in range(footer.num_row_groups):
        told = footer.row_group(group)
        bounds = told.column(place).statistics
        known = bounds is not None and bounds.has_min_max
        low, high = (int(bounds.min), int(bounds.max)) if known else (EARLIEST, LATEST)
        parts.append(Part(path=path, group=group, rows=int(told.num_rows), low=low, high=high))
    return [part for part in parts if part.rows]


def read_part(part: Part, layout: Layout, rows: int) -> Iterator[dict[str, NDArray[Any]]]:
    """The rows of one part, some at a time: ``ids``, ``ts_ns``, ``version``, ``latency_us``, ``review`` where it was told, and what the layout names.

    Answers, embeddings and tensors are [n, length], NaN or left out where the log has none of that length.

    Args:
        part: The part.
        layout: How the champion's rows stand in the log.
        rows: Rows at a time.

    Raises:
        OSError: The file cannot be read; pyarrow's own errors are ValueErrors and OSErrors.
        ValueError: Its columns are of other types than a log's.
        KeyError: It has no such columns.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(part.path) as opened:
        columns = columns_of(set(opened.schema_arrow.names), layout)
        for batch in opened.iter_batches(rows, row_groups=[part.group], columns=list(columns.names)):
            yield arrays_of(batch, columns, layout)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of one file that hold what a layout names.

    Attributes:
        names: All that are read.
        answer: Name of the answer's.
        embedding: Name of the embedding's, which the file may lack.
        image: Name of the image's, likewise.
        tensors: Length of a row of each input tensor, by the column's name.
    """

    names: tuple[str, ...]
    answer: str
    embedding: str
    image: str
    tensors: dict[str, int]


def columns_of(names: set[str], layout: Layout) -> Columns:
    """Find the columns of a file.

    Args:
        names: All columns of the file.
        layout: How the champion's rows stand in the log.

    Raises:
        KeyError: One that must be there is missing.
    """
    told = (f"output.{layout.answer}", "output.embedding", "input.image")
    answer, embedding, image = _SHORT if "probabilities" in names else told
    tensors = {f"input.{name}": size for name, size in layout.tensors if f"input.{name}" in names}
    wanted = ["request_id", "ts_ns", "version", "latency_us", answer]
    if missing := [name for name in wanted if name not in names]:
        raise KeyError(missing[0])
    extra = ["review", *([embedding] if layout.embedding else []), *([image] if layout.images else [])]
    found = (*wanted, *(name for name in extra if name in names), *tensors)
    return Columns(names=found, answer=answer, embedding=embedding, image=image, tensors=tensors)


def arrays_of(batch: Any, columns: Columns, layout: Layout) -> dict[str, NDArray[Any]]:
    """The rows of a record batch of the log, as `read_part` gives them.

    Raises:
        ValueError: Its columns are of other types than a log's.
    """
    lists = unpack(batch)
    found = {name: lists.column(name) for name in columns.names}
    rows: dict[str, Any] = {
        "ids": _names(found["request_id"]),
        "ts_ns": _whole(found["ts_ns"]),
        "version": _whole(found["version"]),
        "latency_us": _whole(found["latency_us"]),
        "answers": _fitted(found[columns.answer], layout.answers),
    }
    if columns.embedding in found:
        rows["embedding"] = _fitted(found[columns.embedding], layout.embedding)
    if columns.image in found:
        rows["images"] = _lists(found[columns.image])
    if "review" in found:
        rows["review"] = np.asarray(found["review"].to_numpy(zero_copy_only=False), dtype=bool)
    for name, size in columns.tensors.items():
        cells = _lists(found[name])
        if cells.shape[1] == size:  # a version with other columns is no version of this champion
            rows[name] = cells
    return rows


def are_names(kind: Any) -> bool:
    """Whether a column of this Arrow type can hold request ids."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _names(column: Any) -> NDArray[Any]:
    """Request ids; a row without one cannot be told from another, and so not be counted once."""
    if column.null_count or not are_names(column.type):
        message = f"expected request ids as text, found {column.type} with {column.null_count} missing"
        raise ValueError(message)
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)


def _whole(column: Any) -> NDArray[np.int64]:
    found = column.to_numpy(zero_copy_only=False)
    if found.dtype.kind not in "iu":
        message = f"expected whole numbers, found {column.type} with {column.null_count} missing"
        raise ValueError(message)
    return np.asarray(found, dtype=np.int64)


def _fitted(column: Any, width: int) -> NDArray[Any]:
    """Return [n, width]; NaN for rows of another length."""
    found = _lists(column)
    return found if found.shape[1] == width else np.full((len(found), width), np.nan)


def hold_numbers(kind: Any) -> bool:
    """Whether the cells of this Arrow type are lists of numbers."""
    import pyarrow as pa

    types = pa.types
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        return False
    value = kind.value_type
    return bool(types.is_integer(value) or types.is_floating(value) or types.is_boolean(value) or types.is_null(value))


def _lists(array: Any) -> NDArray[Any]:
    """A column of lists of one length as [n, length], without a copy where that is possible; [n, 0] where lengths differ."""
    if not hold_numbers(array.type):
        message = f"expected lists of numbers, found {array.type}"
        raise ValueError(message)
    flat = array.flatten().to_numpy(zero_copy_only=False)
    lengths = np.diff(array.offsets.to_numpy()) if hasattr(array, "offsets") else np.full(1, array.type.list_size)
    if array.null_count or lengths.min() != lengths.max():
        return np.zeros((len(array), 0))
    return np.asarray(flat.reshape(len(array), -1))
