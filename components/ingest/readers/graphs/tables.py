"""A graph as two tables in a folder: ``nodes.csv`` and ``edges.csv``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.files.items import SPLITS_BY_NAME
from kfloop.components.ingest.labels.plan import guess_label
from kfloop.components.ingest.readers.graphs.edges import Edges
from kfloop.components.ingest.readers.graphs.nodes import Graph
from kfloop.components.ingest.readers.graphs.npz_nodes import Features
from kfloop.core.artifacts import file_sha256, sha256_text
from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.sections import DataConfig

KIND = "graph_tables"
NODES, EDGES = "nodes.csv", "edges.csv"
IDS = ("id", "node", "node_id")
SOURCES = ("source", "src", "from")
TARGETS = ("target", "dst", "to")
WEIGHTS = ("weight", "w")
SPLIT = "split"
FLOAT_ID = re.compile(r"[+-]?\d+\.\d*(e[+-]?\d+)?", re.IGNORECASE)


def read_tables(folder: Path, config: DataConfig) -> Graph:
    """The graph of ``nodes.csv`` (id, label, features) and ``edges.csv`` (source, target, and weight where there is one).

    Args:
        folder: Holds both.
        config: ``id``, ``label``, ``group``, ``split.column`` and ``delimiter`` are used.

    Raises:
        InputError: A column is not there, an id is missing, there twice, or a number with a fraction, or a feature is not a number.
    """
    nodes = _read(folder / NODES, config)
    columns = nodes.column_names
    key = _column(folder / NODES, columns, (config.id,) if config.id else IDS)
    label, guessed = guess_label(columns, config, f"'{folder / NODES}'")
    split = config.split.column or (SPLIT if SPLIT in columns else None)
    for name in (config.group, config.split.column):
        if name is not None:
            _column(folder / NODES, columns, (name,))
    ids = nodes[key].combine_chunks()
    _check_ids(folder / NODES, key, ids)
    names = [name for name in columns if name not in {key, label, config.group, config.time, split}]
    edges, ends = _edges(folder / EDGES, config, ids)

    def describe(place: int) -> tuple[str, str]:
        found = (("source", edges.source, ends[0]), ("target", edges.target, ends[1]))
        what, _, texts = next(end for end in found if end[1][place] < 0)
        text = texts[place].as_py()
        said = f"{what} '{text}' is no node of {NODES}" if text else f"no {what}"
        return f"{EDGES}:{place + 1}", f"{EDGES} row {place + 1}: {said}"

    return Graph(
        kind=KIND,
        path=folder,
        digest=sha256_text(f"{file_sha256(folder / NODES)}\n{file_sha256(folder / EDGES)}"),
        features=_features(folder / NODES, nodes, names),
        labels=_labels(nodes[label].combine_chunks()),
        label=label,
        guessed=guessed,
        edges=edges,
        describe=describe,
        ids=ids,
        place=lambda place: f"{NODES} row {place + 1}",
        groups=nodes[config.group].combine_chunks() if config.group else None,
        splits=_splits(folder / NODES, split, nodes[split].combine_chunks()) if split else None,
    )


def _read(path: Path, config: DataConfig) -> pa.Table:
    """A CSV file as texts, without the blanks at their ends; an empty cell is null."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    delimiter = config.delimiter
    try:
        with path.open(encoding="utf-8-sig") as stream:
            header = stream.readline()
        if delimiter is None:
            delimiter = max(",;\t|", key=header.count)
        width = header.count(delimiter) + 1
        table = csv.read_csv(
            path,
            parse_options=csv.ParseOptions(delimiter=delimiter),
            convert_options=csv.ConvertOptions(
                column_types={name.strip().strip('"'): pa.string() for name in header.split(delimiter)},
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' is not CSV in UTF-8: {error}", hint="save it again as CSV with UTF-8") from error
    names = [name.strip() for name in table.column_names]
    if len(set(names)) != width:
        raise InputError(f"'{path}' has a column twice: {', '.join(names)}", hint="give each column a name of its own")
    arrays = [pc.utf8_trim_whitespace(column.cast(pa.string())).combine_chunks() for column in table.columns]
    return pa.table(dict(zip(names, arrays, strict=True)))


def _column(path: Path, columns: Sequence[str], options: Sequence[str]) -> str:
    found = next((name for name in columns if name.lower() in options or name in options), None)
    if found is None:
        raise InputError(
            f"'{path}' has no column '{options[0]}': it has {', '.join(columns)}",
            hint=nearest(options[0], columns) if columns else "write a header",
            columns=list(columns),
        )
    return found


def _check_ids(path: Path, column: str, ids: pa.Array) -> None:
    first: dict[str, int] = {}
    for row, name in enumerate(ids.to_pylist(), start=1):
        facts: dict[str, Any] = {"row": row, "column": column}
        if not name:
            raise InputError(f"'{path}' row {row}, column '{column}': no id", hint="give every node an id", **facts)
        if FLOAT_ID.fullmatch(name):
            raise _float_id(path, row, column, name)
        if name in first:
            raise InputError(
                f"'{path}' row {row}, column '{column}': node '{name}' is there twice (also in row {first[name]})",
                hint="keep one row for each node",
                **facts,
            )
        first[name] = row


def _float_id(path: Path, row: int, column: str, name: str) -> InputError:
    return InputError(
        f"'{path}' row {row}, column '{column}': node id '{name}' is a number with a point",
        hint="write whole numbers or names: a table with missing ids turns them into such numbers",
        row=row,
        column=column,
    )


def _edges(path: Path, config: DataConfig, ids: pa.Array) -> tuple[Edges, tuple[pa.Array, pa.Array]]:
    """Edges by the rows of their nodes, -1 for a dangling end, and the ends as they are written."""
    import pyarrow.compute as pc

    table = _read(path, config)
    found: list[NDArray[np.int64]] = []
    texts = []
    for options in (SOURCES, TARGETS):
        column = _column(path, table.column_names, options)
        text = table[column].combine_chunks()
        index = pc.fill_null(pc.index_in(text, value_set=ids, skip_nulls=True), -1).to_numpy().astype(np.int64)
        for place in np.flatnonzero(index < 0).tolist():
            name = text[place].as_py()
            if name and FLOAT_ID.fullmatch(name):
                raise _float_id(path, place + 1, column, name)
        found.append(index)
        texts.append(text)
    weight = next((name for name in table.column_names if name.lower() in WEIGHTS), None)
    weights = None if weight is None else _numbers(path, weight, table[weight].combine_chunks())
    return Edges(source=found[0], target=found[1], weight=weights), (texts[0], texts[1])


def _features(path: Path, nodes: pa.Table, names: Sequence[str]) -> Features:
    if not names:
        raise InputError(
            f"'{path}' has no feature columns: it has {', '.join(nodes.column_names)}",
            hint="add one numeric column or more; of ones when nothing is known about the nodes",
        )
    matrix = np.stack([_numbers(path, name, nodes[name].combine_chunks()) for name in names], axis=1)
    return Features(name=NODES, shape=matrix.shape, rows=lambda first, last: matrix[first:last])


def _numbers(path: Path, column: str, texts: pa.Array) -> NDArray[np.float32]:
    """A column of finite numbers.

    Raises:
        InputError: A cell is none, naming its row.
    """
    import pyarrow as pa

    try:
        values: NDArray[np.float64] = texts.cast(pa.float64()).fill_null(float("nan")).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        values = np.array([_number(text) for text in texts.to_pylist()], dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        row, cell = int(wrong[0]) + 1, texts[int(wrong[0])].as_py()
        raise InputError(
            f"'{path}' row {row}, column '{column}': "
            + (f"'{cell}' is not a finite number" if cell else "the cell is empty, expected a number"),
            hint=f"{len(wrong)} of {len(values)} cells of '{column}' are like this: fill them in, or remove the column",
            row=row,
            column=column,
        )
    return values.astype(np.float32)


def _number(text: str | None) -> float:
    try:
        return float(text) if text else float("nan")
    except ValueError:
        return float("nan")


def _labels(texts: pa.Array) -> pa.Array:
    """Labels as numbers where all of them are numbers, so that a quantity is seen as one."""
    import pyarrow as pa

    for kind in (pa.int64(), pa.float64()):
        try:
            return texts.cast(kind)
        except pa.ArrowInvalid:
            continue
    return texts


def _splits(path: Path, column: str, texts: pa.Array) -> pa.Array:
    import pyarrow as pa

    found: list[str] = []
    for row, text in enumerate(texts.to_pylist(), start=1):
        split = "rest" if not text else "rest" if text.lower() == "rest" else SPLITS_BY_NAME.get(text.lower())
        if split is None:
            raise InputError(
                f"'{path}' row {row}, column '{column}': '{text}' is no split",
                hint="write train, validation or test; nothing for nodes outside of them",
                row=row,
                column=column,
            )
        found.append(split)
    return pa.array(found, type=pa.string())
