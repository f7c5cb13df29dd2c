"""Parquet: one file, or a folder of parts, read a piece of a row group at a time."""

from __future__ import annotations

import hashlib
import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.readers.table.feed import Feed, Rows, row_place
from kfloop.components.ingest.readers.table.kinds import is_list, normal_type, normalise
from kfloop.components.ingest.source import ROWS_PER_BATCH
from kfloop.core.artifacts import DIGEST_LENGTH, file_sha256
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

SUFFIXES = frozenset({".parquet", ".pq"})
MOST_LOOKED_AT = 1000
_INDEX = re.compile(r"__index_level_\d+__")


def has_parts(folder: Path) -> bool:
    """Whether there is a Parquet file among the first entries of a folder; a folder of a million pictures is not searched."""
    return any(
        entry.suffix.lower() in SUFFIXES for entry in islice(folder.rglob("*"), MOST_LOOKED_AT) if entry.is_file()
    )


def parts(path: Path) -> list[Path]:
    """The Parquet files of a path, in the order of their names; hidden ones and those beginning with ``_`` left out."""
    if path.is_file():
        return [path] if path.suffix.lower() in SUFFIXES else []
    if not path.is_dir():
        return []
    return sorted(
        part
        for part in path.rglob("*")
        if part.suffix.lower() in SUFFIXES
        and part.is_file()
        and not any(name.startswith((".", "_")) for name in part.relative_to(path).parts)
    )


def open_parquet(path: Path) -> Feed:
    """Look at the metadata of every part.

    Raises:
        InputError: A part is no Parquet, the parts do not fit together, or there are no rows.
    """
    import pyarrow as pa

    files = parts(path)
    where = f"'{path}'"
    partitioned = [part for part in files if any("=" in name for name in part.relative_to(path).parts[:-1])]
    if partitioned:
        raise InputError(
            f"'{partitioned[0]}' lies in a folder that stands for a column: expected every column inside the files",
            hint="write the data again without partitioning by column",
        )
    if not files:
        raise InputError(f"{where} holds no Parquet files", hint="name a .parquet file, or a folder of them")
    types: dict[str, pa.DataType] = {}
    counts = []
    for part in files:
        schema, count = _look(part)
        counts.append(count)
        _merge(types, schema, part, first=part == files[0])
    if not sum(counts):
        raise InputError(f"{where} has no rows: it has the columns {', '.join(types)}", hint="write rows into it")

    index = [name for name in types if _INDEX.fullmatch(name)]
    for name in index:
        del types[name]
    empty = [name for name, kind in types.items() if pa.types.is_null(kind)]
    types.update(dict.fromkeys(empty, pa.float64()))

    def read(columns: Sequence[str]) -> Iterator[Rows]:
        start = 0
        for part in files:
            for table in _tables(part, columns, types):
                yield Rows(table=table, numbers=np.arange(start, start + table.num_rows))
                start += table.num_rows

    return Feed(
        kind="parquet",
        where=where,
        types=types,
        n=sum(counts),
        digest=_digest(path, files),
        read=read,
        place=row_place,
        notes=(
            *(f"column '{name}' is empty" for name in empty),
            *(f"column '{name}' is left out (the index of a data frame)" for name in index),
        ),
    )


def _look(part: Path) -> tuple[Any, int]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(part) as file:
            schema, count = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        size = part.stat().st_size if part.is_file() else 0
        reason = "it is empty" if not size else str(error).splitlines()[0]
        raise InputError(f"'{part}' cannot be read as Parquet: {reason}", hint="write the file again") from error
    doubled = [name for name in schema.names if schema.names.count(name) > 1]
    if doubled:
        raise InputError(
            f"'{part}' has {schema.names.count(doubled[0])} columns called '{doubled[0]}': it has {', '.join(schema.names)}",
            hint="give each column a name of its own",
        )
    return schema, count


def _merge(types: dict[str, Any], schema: Any, part: Path, *, first: bool) -> None:
    """Types that fit every part: whole numbers become numbers, an empty column takes the type of the others."""
    import pyarrow as pa

    if not first and set(schema.names) != set(types):
        odd = min(set(schema.names) ^ set(types))
        raise InputError(
            f"'{part}' {'has' if odd in schema.names else 'lacks'} the column '{odd}', unlike the parts before it",
            hint="write all parts with the same columns",
            column=odd,
        )
    for name, kind in zip(schema.names, schema.types, strict=True):
        found = _normal(name, kind)
        known = types.get(name, found)
        if known != found and {known, found} != {pa.int64(), pa.float64()} and not pa.types.is_null(found):
            if not pa.types.is_null(known):
                raise InputError(
                    f"'{part}', column '{name}' is of type {found}, but {known} in the parts before it",
                    hint="write all parts with the same types",
                    column=name,
                )
            known = found
        types[name] = pa.float64() if {known, found} == {pa.int64(), pa.float64()} else known


def _normal(name: str, kind: Any) -> Any:
    """Normal type of a column; a nested one is kept as it is, for it may be left out or be the label."""
    import pyarrow as pa

    if is_list(kind):
        return pa.list_(kind.value_type)
    if pa.types.is_null(kind):
        return kind
    try:
        return normal_type(name, kind)
    except InputError:
        return kind


def _tables(part: Path, columns: Sequence[str], types: dict[str, Any]) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = list(columns)
    # Without pre_buffer and with a small buffer a row group is decoded page by page; otherwise a file of one row group is
    # loaded whole.
    with pq.ParquetFile(part, pre_buffer=False, buffer_size=1 << 20) as file:
        if not wanted:
            yield from _lengths(file.metadata.num_rows)
            return
        try:
            for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=wanted, use_threads=False):
                arrays = {}
                for name in wanted:
                    array = normalise(name, batch.column(name), f" in '{part.name}'")
                    kind = types[name]
                    if array.null_count == len(array) and not is_list(kind):
                        array = pa.nulls(len(array), kind)
                    arrays[name] = array if array.type == kind or is_list(array.type) else array.cast(kind)
                yield pa.table(arrays)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"'{part}' cannot be read as Parquet: {str(error).splitlines()[0]}", hint="write the file again"
            ) from error


def _lengths(count: int) -> Iterator[Any]:
    """Tables without columns still have to say how many rows they stand for: one column of nulls does."""
    import pyarrow as pa

    for start in range(0, count, ROWS_PER_BATCH):
        yield pa.table({"": pa.nulls(min(ROWS_PER_BATCH, count - start))})


def _digest(path: Path, files: list[Path]) -> str:
    if path.is_file():
        return file_sha256(path)[:DIGEST_LENGTH]
    state = hashlib.sha256()
    for part in files:
        state.update(f"{part.relative_to(path).as_posix()}\0{file_sha256(part)}\n".encode())
    return state.hexdigest()[:DIGEST_LENGTH]
