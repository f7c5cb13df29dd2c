"""Files that people have, as the tensors of a served model: each modality is read as ``ingest`` reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.components.ingest.readers.table.feed import Feed, Texts
    from kfloop.core.encoding import Encoder
    from kfloop.core.sections import DataConfig

    Found = tuple[Sequence[NDArray[Any]], list[str]]

LEAVE_OUT = "mend it, or leave it out"


def _pictures(files: Sequence[Path], encoder: Encoder, data: DataConfig) -> Found:
    import pyarrow as pa

    from kfloop.components.ingest.readers.images.decoding import decode

    del data
    height, width, channels = encoder.ports[0].shape
    pixels = np.stack(list(_decoded(files, lambda path: decode(path, height, channels).pixels)))
    column = pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), height * width * channels)
    return encoder.encode(pa.table({"image": column})), [str(path) for path in files]


def _sounds(files: Sequence[Path], encoder: Encoder, data: DataConfig) -> Found:
    """Brought to the rate of the training, and cut as its sounds were."""
    import pyarrow as pa

    from kfloop.components.ingest.readers.audio.decoding import decode

    rate = int(encoder.state()["sample_rate"])
    sounds = list(_decoded(files, lambda path: decode(path, rate, data.max_seconds).samples))
    return encoder.encode(pa.table({"audio": pa.array(sounds, pa.list_(pa.int16()))})), [str(path) for path in files]


def _decoded(files: Sequence[Path], decode: Callable[[Path], NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Each file as an array; what cannot be decoded is told with its name."""
    for path in files:
        if path.is_dir():
            raise InputError(f"'{path}' is a folder", hint=f"name its files: {path}/*")
        try:
            yield decode(path)
        except InputError as error:
            raise InputError(f"'{path}': {error.message}", hint=LEAVE_OUT, path=str(path)) from error


def _texts(files: Sequence[Path], encoder: Encoder, data: DataConfig) -> Found:
    """Lines of files, blank ones left out as ``ingest`` does; of files with columns, the one with the text."""
    import pyarrow as pa

    from kfloop.components.ingest.readers.table.reader import has_columns, is_csv

    texts: list[str] = []
    names: list[str] = []
    for path in files:
        told = has_columns(path) or (is_csv(path) and data.text is not None)
        for text, place in _column(path, data) if told else _lines(path):
            texts.append(text)
            names.append(place)
    return (encoder.encode(pa.table({"text": pa.array(texts, pa.string())})) if texts else ()), names


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")  # other signs that end a line may stand in a text
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' cannot be read as UTF-8 text: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield line.removesuffix("\r"), f"{path}:{number}"


def _column(path: Path, data: DataConfig) -> Iterator[tuple[str, str]]:
    column = data.text or "text"
    for table, names in _fed(path, (column,), frozenset):
        for text, place in zip(table[column].to_pylist(), names, strict=True):
            if text is None or not str(text).strip():
                raise InputError(f"{place}, column '{column}': no text", hint=LEAVE_OUT)
            yield str(text), place


def _rows(files: Sequence[Path], encoder: Encoder, data: DataConfig) -> Found:
    """Rows as ``ingest`` reads them: the same delimiters, marks of missing values and times."""
    import pyarrow as pa

    del data
    described = {column["name"]: column["kind"] for column in encoder.state()["columns"]}
    texts = frozenset(name for name, kind in described.items() if kind == "category")
    encoded, names = [], []
    for path in files:
        found = list(_fed(path, tuple(described), texts.intersection))
        names += [place for _, places in found for place in places]
        try:
            encoded.append(encoder.encode(pa.concat_tables(table for table, _ in found)) if found else ())
        except InputError as error:
            raise InputError(f"'{path}': {error.message}", hint=error.hint, path=str(path)) from error
    return [np.concatenate(parts) for parts in zip(*filter(None, encoded), strict=True)], names


def _fed(path: Path, wanted: Sequence[str], texts: Texts) -> Iterator[tuple[pa.Table, list[str]]]:
    """Some columns of a table, and the place of each row.

    Raises:
        InputError: A column is not there, or a row cannot be read.
    """
    from kfloop.components.ingest.readers.table.reader import open_rows

    feed: Feed = open_rows(path, None, texts)
    lost = next((name for name in wanted if name not in feed.types), None)
    if lost is not None:  # beside a file that has it, it would be filled up as missing
        raise InputError(f"'{path}' has no column '{lost}'", hint=nearest(lost, feed.types), column=lost)
    for rows in feed.read([name for name in feed.types if name in wanted]):
        for number in sorted(rows.bad):
            raise InputError(f"'{path}', {rows.bad[number]}", hint="mend the row, or leave it out")
        yield rows.table, [f"{path}: {feed.place(int(number))}" for number in rows.numbers]


def _series(files: Sequence[Path], encoder: Encoder, data: DataConfig) -> Found:
    """The last window of each series of a file, which is looked at as ``ingest`` looks at it: times in order, channels numeric."""
    import pyarrow as pa

    from kfloop.components.ingest.readers.series.layout import find_layout
    from kfloop.components.ingest.readers.series.reading import read_blocks
    from kfloop.components.ingest.readers.series.scan import scan

    told = encoder.state()
    channels, context = tuple(told["channels"]), int(told["context"])
    alone = {"label": None, "id": None, "limit": None, "task": "forecasting", "modality": "series"}
    config = data.model_copy(
        update=alone
        | {
            "series": data.series.model_copy(update={"channels": channels}),
            "split": data.split.model_copy(update={"column": None}),
        }
    )
    windows: list[NDArray[Any]] = []
    names: list[str] = []
    for path in files:
        layout = find_layout(path, config)
        scan(layout)
        last: dict[str, tuple[NDArray[np.float64], int]] = {}
        for block in read_blocks(layout):
            for row, reason in block.bad:
                raise InputError(f"'{path}' row {row} {reason}", hint="mend the row, or leave it out")
            groups = np.array([""] * len(block.rows) if block.groups is None else block.groups.to_pylist(), dtype=str)
            for group in dict.fromkeys(groups.tolist()):
                own = groups == group
                past = [last[group][0]] if group in last else []
                values = np.concatenate([*past, block.values[own]])[-context:]
                last[group] = values, int(block.rows[own][-1])
        for group, (values, row) in last.items():
            of = f" of '{group}'" if group else ""
            if len(values) < context:
                raise InputError(
                    f"'{path}' has {len(values)} rows{of}, but the model looks at the last {context}",
                    hint="give a longer past",
                )
            table = pa.table({name: values[:, place] for place, name in enumerate(channels)})
            windows.append(encoder.encode(table)[0])
            names.append(f"{path}: after row {row}{of}")
    return ((np.concatenate(windows),) if windows else ()), names


READERS: dict[str, Callable[[Sequence[Path], Encoder, DataConfig], Found]] = {
    "image": _pictures,
    "audio": _sounds,
    "text": _texts,
    "table": _rows,
    "series": _series,
}
