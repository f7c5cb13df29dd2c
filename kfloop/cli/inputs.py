"""What ``kfloop predict`` is given, as the tensors of the served model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.core.sections import DataConfig
    from kfloop.core.signature import Signature

    Tensors = dict[str, NDArray[Any]]

DRAWN = "generation"
ARRAYS = frozenset({".npz", ".npy"})


def read_inputs(
    files: Sequence[Path], version: Path, signature: Signature, data: DataConfig | None = None
) -> tuple[Tensors, list[str]]:
    """Tensors by name, and where each example came from.

    Args:
        files: One .npz or .npy file, or files of the kind that the model was trained on.
        version: The version's folder in the model repository, which holds its encoder.
        signature: What the model takes.
        data: Section ``data`` of the loop: how its own files are read; the defaults when left out.

    Raises:
        InputError: The files cannot be read as what the model takes.
    """
    from kfloop.cli.input_files import READERS
    from kfloop.core.sections import DataConfig

    if len(files) == 1 and files[0].suffix in ARRAYS:
        return _arrays(files[0], signature), [str(files[0])]
    if all(file.suffix in ARRAYS for file in files):
        raise InputError(
            f"{len(files)} {files[0].suffix} files were given ('{files[0]}', '{files[1]}', ...), but one is taken at a time",
            hint="send them one after the other, or join their arrays in one file",
        )
    read = READERS.get(signature.modality) if signature.objective != DRAWN else None
    if read is None:
        ports = ", ".join(f"{port.name} {port.dtype} {list(port.shape)}" for port in signature.inputs)
        each = ", with an axis of examples in front" if signature.batched else ""
        raise InputError(
            f"'{files[0]}' is no .npz file, and a model for {signature.objective} of {signature.modality} data takes no other",
            hint=f"write its tensors with numpy.savez under their names: {ports}{each}",
        )
    from kfloop.core.scoring import read_encoder

    encoder = read_encoder(version)
    arrays, names = read(files, encoder, data or DataConfig())
    if not names:
        raise InputError(
            f"'{files[0]}' holds no examples", hint="a text on each line, or rows below the names of columns"
        )
    return {port.name: array for port, array in zip(signature.inputs, arrays, strict=True)}, names


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
