"""Arrays in npz and IDX files as streams of rows.

A member of an npz file cannot be memory-mapped (``np.load`` with ``mmap_mode`` reads it whole, for it may be packed), so its bytes are
unpacked and cut into rows here; only an array in Fortran order is loaded whole.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from kfloop.components.ingest.readers.table.dialect import open_bytes
from kfloop.errors import InputError

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAGIC = b"\x93NUMPY"
_BLOCK_BYTES = 32 << 20
_ROWS = 65_536
PIXEL = 255


@dataclass(frozen=True, kw_only=True)
class Block:
    """One array in a file.

    Attributes:
        name: Its name, for messages.
        path: The file.
        member: Name inside an npz file; empty for IDX.
        shape: Shape; the first is the number of rows.
        dtype: Type of its values.
        start: Where the values begin, in bytes.
        fortran: Whether columns stand together, which cannot be cut into rows.
    """

    name: str
    path: Path
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int
    fortran: bool = False

    def rows(self, most: int) -> Iterator[np.ndarray]:
        """The rows, at most ``most`` at a time, and not more than fit into 32 MiB.

        Raises:
            InputError: The file is cut short or damaged.
        """
        width = self.dtype.itemsize * max(1, math.prod(self.shape[1:]))
        step = max(1, min(most, _BLOCK_BYTES // max(1, width)))
        try:
            with _open(self.path, self.member) as stream:
                if self.fortran:
                    whole = np.lib.format.read_array(stream, allow_pickle=False)
                    yield from (whole[at : at + step] for at in range(0, self.shape[0], step))
                    return
                _read(stream, self.start)
                for at in range(0, self.shape[0], step):
                    count = min(step, self.shape[0] - at)
                    values = np.frombuffer(_read(stream, count * width), dtype=self.dtype)
                    yield values.reshape(count, *self.shape[1:])
        except (EOFError, OSError, zlib.error, zipfile.BadZipFile, ValueError) as error:
            raise InputError(
                f"array '{self.name}' {list(self.shape)} in '{self.path}' is cut short or damaged: {error}",
                hint="write or copy the file again",
            ) from error

    def whole(self) -> np.ndarray:
        """All of it, for arrays of one value a row."""
        parts = list(self.rows(1 << 62))
        return np.concatenate(parts) if parts else np.empty(self.shape, self.dtype)


@dataclass(frozen=True, kw_only=True)
class Range:
    """What the values of an array are.

    Attributes:
        low: Smallest.
        high: Largest.
        whole: Whether all are whole numbers.
    """

    low: float
    high: float
    whole: bool


def value_range(block: Block) -> Range | None:
    """Range of an array's values; null when one of them is not finite."""
    low, high, whole = math.inf, -math.inf, True
    for values in block.rows(_ROWS):
        if not np.isfinite(values).all():
            return None
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        whole = whole and bool((values == np.rint(values)).all())
        if low < 0 or high > PIXEL or (not whole and high > 1):
            break
    return Range(low=low, high=high, whole=whole)


def npz_blocks(path: Path) -> dict[str, Block]:
    """Headers of the arrays of an npz file.

    Raises:
        InputError: It is no npz, or holds arrays of Python objects.
    """
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith(".npy"):
                    found[member.removesuffix(".npy")] = _npy_header(archive, member, path)
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
        size = path.stat().st_size if path.is_file() else 0
        raise InputError(
            f"'{path}' is no npz file: {error if size else 'it is empty'}",
            hint="write it with numpy.savez(path, X=..., y=...)",
        ) from error
    return found


def _npy_header(archive: zipfile.ZipFile, member: str, path: Path) -> Block:
    name = member.removesuffix(".npy")
    with archive.open(member) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
        except ValueError as error:
            raise InputError(
                f"array '{name}' in '{path}' has no header of numpy: {error}", hint="write it again"
            ) from error
        if dtype.hasobject:
            raise InputError(
                f"array '{name}' {list(shape)} in '{path}' holds Python objects, which are pickled: kfloop never unpickles data",
                hint="write numbers or fixed texts: array.astype(float) or array.astype(str)",
            )
        return Block(
            name=name,
            path=path,
            member=member,
            shape=tuple(shape),
            dtype=dtype,
            start=stream.tell(),
            fortran=bool(fortran) and len(shape) > 1,
        )


def idx_block(path: Path) -> Block:
    """Header of an IDX file, possibly packed.

    Raises:
        InputError: It is no IDX file.
    """
    try:
        with _open(path, "") as stream:
            zero, code, dimensions = struct.unpack(">HBB", _read(stream, 4))
            if zero != 0 or code not in IDX_TYPES:
                raise InputError(
                    f"'{path}' is no IDX file: it begins with {zero:04x}{code:02x}, expected 0000 and a type such as 08",
                    hint="copy the file again",
                )
            shape = struct.unpack(f">{dimensions}I", _read(stream, 4 * dimensions))
    except (EOFError, OSError, zlib.error, struct.error) as error:
        raise InputError(f"'{path}' cannot be read as IDX: {error}", hint="copy the file again") from error
    return Block(
        name=path.name, path=path, member="", shape=shape, dtype=np.dtype(IDX_TYPES[code]), start=4 + 4 * dimensions
    )


class _Member:
    """A member of an npz file; closes the archive with it."""

    def __init__(self, path: Path, member: str) -> None:
        self.archive = zipfile.ZipFile(path)
        self.stream = self.archive.open(member)

    def __enter__(self) -> IO[bytes]:
        return self.stream

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.archive.close()


def _open(path: Path, member: str) -> _Member | IO[bytes]:
    if member:
        return _Member(path, member)
    return open_bytes(path)


def _read(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise EOFError(f"{count - len(data)} of {count} bytes are missing")
    return data
