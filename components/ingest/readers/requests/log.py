"""The files of a request log: where they are, and what one pass over their ids tells."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from kfloop.core.request_cells import cell_length
from kfloop.core.request_files import hour_files, model_files
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path

NEEDED = ("request_id", "ts_ns", "image")
WITHOUT_INPUTS = frozenset({"request_id", "ts_ns", "probabilities", "latency_us"})  # as section serve.log can ask for
TRIED = 20  # files looked at before a folder is said not to be a request log: the first may be broken
SHOWN = 3
_LOOKED_AT = 200  # entries of one folder


@dataclass(kw_only=True)
class Scan:
    """What one pass over the ids of the log found.

    Attributes:
        rows: Rows in all files that can be read.
        matched: Request ids that have an answer.
        repeated: Rows with an answer whose id came before.
        widths: Values of an image, with the number of answered rows that have it.
        broken: Files that cannot be used, by name, and why.
    """

    rows: int = 0
    matched: set[str] = field(default_factory=set)
    repeated: int = 0
    widths: Counter[int] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)


def listing(path: Path) -> Iterator[Path]:
    """The log's files, oldest first; hidden ones are not finished.

    Raises:
        InputError: The folder holds the logs of several models.
    """
    found = sorted([*hour_files(path), *model_files(path)])
    if not found:
        below = {model: model_files(model) for model in sorted(path.glob("[!.]*")) if model.is_dir()}
        models = [model for model, files in below.items() if files]
        if len(models) > 1:
            raise InputError(
                f"'{path}' holds the request logs of {len(models)} models: {', '.join(model.name for model in models)}",
                hint=f"name one of them in data.source, such as '{models[0]}'",
            )
        found = [file for model in models for file in below[model]]
    yield from found


def glimpse(folder: Path, depth: int = 3) -> Iterator[Path]:
    """Some Parquet files in or below a folder; a folder of a million pictures is not walked to the end."""
    folders = []
    for child in islice(folder.iterdir(), _LOOKED_AT):
        if child.name.startswith("."):
            continue
        if child.suffix == ".parquet":
            yield child
        elif depth > 1 and not child.suffix and child.is_dir():
            folders.append(child)
    for below in folders[:TRIED]:
        yield from glimpse(below, depth - 1)


def is_log(file: Path) -> bool:
    """Whether a file has the columns of a request log."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = set(pq.read_schema(file).names)
        return set(NEEDED) <= names or names >= WITHOUT_INPUTS
    except (OSError, ValueError, pa.ArrowException):
        return False


def scan_log(path: Path, files: list[Path], known: Container[str]) -> Scan:
    """One pass over ids and widths; images stay on disk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    scan = Scan()
    for file in files:
        try:
            with pq.ParquetFile(file) as opened:
                missing = [column for column in NEEDED if column not in opened.schema_arrow.names]
                if missing:
                    scan.broken[name_in(path, file)] = f"it has no column '{missing[0]}'"
                    continue
                ids = opened.read(columns=["request_id"])["request_id"].to_pylist()
                width = _width(opened)
        except FileNotFoundError:  # deleted since the folder was listed: it had its time
            continue
        except (OSError, ValueError, pa.ArrowException) as error:
            scan.broken[name_in(path, file)] = f"cannot be read: {error}"
            continue
        scan.rows += len(ids)
        hits = [identity for identity in ids if identity in known]
        scan.repeated += len(hits) - len(set(hits) - scan.matched)
        scan.matched.update(hits)
        scan.widths[width] += len(hits)
    del scan.widths[0]
    return scan


def _width(opened: Any) -> int:
    """Bytes of an image in this file, from its schema or else from its first row; 0 if it has none."""
    import pyarrow as pa

    field = opened.schema_arrow.field("image")
    if (length := cell_length(field)) is not None:
        return length
    kind = field.type
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    first = next(opened.iter_batches(batch_size=1, columns=["image"]), None)
    value = None if first is None or not first.num_rows or not pa.types.is_list(kind) else first["image"][0].as_py()
    return 0 if value is None else len(value)


def name_in(path: Path, file: Path) -> str:
    """Name of a file of the log, for people and for the digest."""
    return file.relative_to(path).as_posix()


def example_ids(files: list[Path]) -> list[str]:
    """Some ids of the log, for a message."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in files:
        try:
            return [str(name) for name in pq.read_table(file, columns=["request_id"])["request_id"].to_pylist()[:SHOWN]]
        except (OSError, ValueError, KeyError, pa.ArrowException):
            continue
    return []
