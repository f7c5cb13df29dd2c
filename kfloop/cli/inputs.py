"""What ``kfloop predict`` is given, as the tensors of the served model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.encoding import Encoder
    from kfloop.core.signature import Signature

    Tensors = dict[str, NDArray[Any]]

DRAWN = "generation"
ARRAYS = frozenset({".npz", ".npy"})


def read_inputs(files: Sequence[Path], version: Path, signature: Signature) -> tuple[Tensors, list[str]]:
    """Tensors by name, and where each example came from.

    Args:
        files: One .npz or .npy file, or files of the kind that the model was trained on.
        version: The version's folder in the model repository, which holds its encoder.
        signature: What the model takes.

    Raises:
        InputError: The files cannot be read as what the model takes.
    """
    if len(files) == 1 and files[0].suffix in ARRAYS:
        return _arrays(files[0], signature), [str(files[0])]
    readers = {"image": _pictures, "text": _lines, "table": _rows}
    read = readers.get(signature.modality) if signature.objective != DRAWN else None
    if read is None:
        ports = ", ".join(f"{port.name} {port.dtype} {list(port.shape)}" for port in signature.inputs)
        each = ", with an axis of examples in front" if signature.batched else ""
        if all(file.suffix in ARRAYS for file in files):
            raise InputError(
                f"{len(files)} {files[0].suffix} files were given ('{files[0]}', '{files[1]}', ...), but one is taken at a time",
                hint="send them one after the other, or join their arrays in one file",
            )
        raise InputError(
            f"'{files[0]}' is no .npz file, and a model for {signature.objective} of {signature.modality} data takes no other",
            hint=f"write its tensors with numpy.savez under their names: {ports}{each}",
        )
    from kfloop.core.scoring import read_encoder

    encoder = read_encoder(version)
    table, names = read(files, signature, encoder)
    if not names:
        raise InputError(
            f"'{files[0]}' holds no examples", hint="a text on each line, or rows below the names of columns"
        )
    return {port.name: array for port, array in zip(signature.inputs, encoder.encode(table), strict=True)}, names


def read_arrays(files: Sequence[Path], wanted: Sequence[str]) -> tuple[Tensors, list[str]]:
    """Tensors by name out of one .npz or .npy file, for a model of which only the names of its tensors are known.

    Args:
        files: The file.
        wanted: Names of the tensors that the model can take.

    Raises:
        InputError: Another kind of file, more than one, or other names.
    """
    if len(files) > 1 or files[0].suffix not in ARRAYS:
        raise InputError(
            f"'{files[0]}' is {'one of several files' if len(files) > 1 else 'no .npz or .npy file'}, and without the loop's own files "
            "nobody knows how to encode others",
            hint=f"write one file with numpy.savez under the names {', '.join(wanted)}",
        )
    found = _stored(files[0], wanted)
    strange = sorted(set(found) - set(wanted))
    if strange or not found:
        raise InputError(
            f"'{files[0]}' holds {sorted(found)}, but the model takes {list(wanted)}", hint="name the arrays so"
        )
    count = len(next(iter(found.values())))
    return found, [f"{files[0]}#{row}" for row in range(count)]


def _stored(path: Path, wanted: Sequence[str]) -> Tensors:
    """Arrays by name; one without a name is the only tensor of its model."""
    try:
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            if len(wanted) == 1:
                return {wanted[0]: stored}
            raise InputError(
                f"'{path}' holds one array without a name, but the model takes {list(wanted)}",
                hint="write an .npz file with numpy.savez under these names",
            )
        with stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"'{path}' cannot be read: {error}", hint="write it with numpy.savez") from error


def _arrays(path: Path, signature: Signature) -> Tensors:
    from kfloop.core.scoring import misfit

    wanted = [port.name for port in signature.inputs]
    found = _stored(path, wanted)
    if sorted(found) != sorted(wanted):
        raise InputError(f"'{path}' holds {sorted(found)}, but the model takes {wanted}", hint="name the arrays so")
    wrong = misfit([found[name] for name in wanted], signature)
    if wrong:
        raise InputError(
            f"'{path}' does not fit: the model {wrong}",
            hint="write it so: array.astype changes the type, array.reshape the shape",
        )
    return {name: found[name] for name in wanted}


def _pictures(files: Sequence[Path], signature: Signature, encoder: Encoder) -> tuple[pa.Table, list[str]]:
    import pyarrow as pa

    from kfloop.components.ingest.readers.images.decoding import decode

    del encoder
    height, width, channels = signature.inputs[0].shape
    pixels = np.stack([decode(path, height, channels).pixels for path in files])
    column = pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), height * width * channels)
    return pa.table({"image": column}), [str(path) for path in files]


def _lines(files: Sequence[Path], signature: Signature, encoder: Encoder) -> tuple[pa.Table, list[str]]:
    import pyarrow as pa

    del signature, encoder
    texts, names = [], []
    for path in files:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"'{path}' cannot be read as UTF-8 text: {error}") from error
        texts += lines
        names += [f"{path}:{number}" for number in range(1, len(lines) + 1)]
    return pa.table({"text": pa.array(texts, pa.string())}), names


def _rows(files: Sequence[Path], signature: Signature, encoder: Encoder) -> tuple[pa.Table, list[str]]:
    """Rows as ``ingest`` reads them: the same delimiters, marks of missing values and times."""
    import pyarrow as pa

    from kfloop.components.ingest.readers.table.delimited import open_csv

    del signature
    described = {column["name"]: column["kind"] for column in encoder.state()["columns"]}
    texts = frozenset(name for name, kind in described.items() if kind == "category")
    tables, names = [], []
    for path in files:
        feed = open_csv(path, None, texts.intersection)
        lost = next((name for name in described if name not in feed.types), None)
        if lost is not None:  # beside a file that has it, it would be filled up as missing
            raise InputError(f"'{path}' has no column '{lost}'", hint=nearest(lost, feed.types), column=lost)
        for rows in feed.read([name for name in feed.types if name in described]):
            for number in sorted(rows.bad):
                raise InputError(f"'{path}', {rows.bad[number]}", hint="mend the row, or leave it out")
            tables.append(rows.table)
            names += [f"{path}: {feed.place(int(number))}" for number in rows.numbers]
    return pa.concat_tables(tables, promote_options="permissive"), names
