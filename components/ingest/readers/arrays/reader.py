"""Arrays: an npz file with inputs and labels, or a folder of IDX files."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.readers.arrays.blocks import Block, idx_block, npz_blocks
from kfloop.components.ingest.readers.arrays.labels import Columns, ids_column, labels_of, split_column, time_column
from kfloop.components.ingest.readers.arrays.values import Pictures, Vectors, choose
from kfloop.components.ingest.readers.table.limit import Limit
from kfloop.components.ingest.source import Batch, Source
from kfloop.core.artifacts import DIGEST_LENGTH, file_sha256
from kfloop.errors import ConfigError, InputError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

    from kfloop.core.sections import DataConfig

X_NAMES = ("x", "data", "features", "images")
Y_NAMES = ("y", "label", "labels", "target", "targets")
OPTIONAL = {"id": ("ids", "id"), "group": ("groups", "group"), "time": ("time", "times"), "split": ("split", "splits")}
_IDX = re.compile(r"^(?P<set>.*?)[-_.]?(?P<what>images|labels)[-_.]idx\d-ubyte(\.gz)?$", re.IGNORECASE)
_SPLITS = {"train": "train", "t10k": "test", "test": "test"}


def recognise(path: Path, config: DataConfig) -> bool:
    """Whether a path is an npz file, or a folder with IDX files."""
    del config
    try:
        if path.is_dir():
            return {match["what"].lower() for child in path.iterdir() if (match := _IDX.match(child.name))} >= {
                "images"
            }
        return path.suffix.lower() == ".npz" and path.is_file()
    except (OSError, zipfile.BadZipFile):
        return False


def open_source(path: Path, config: DataConfig, like: Source | None = None) -> Source:
    """Open an npz file or a folder of IDX files.

    Arrays of one value a row are read whole; the inputs are streamed. Arrays [N, H, W] and [N, H, W, C] of pixels are images, all others
    vectors.

    Args:
        path: The file or folder.
        config: Section ``data``; ``label``, ``id``, ``group``, ``time`` and ``split.column`` name arrays of an npz file.
        like: The base source, when these are freshly labelled rows.

    Raises:
        InputError: An array is missing, empty, of Python objects, or of another length than the others.
        ConfigError: The configuration asks for what arrays cannot be.
    """
    if not path.exists():
        raise InputError(f"'{path}' does not exist", hint="paths are relative to the loop file")
    if config.task == "forecasting" or config.modality not in {"auto", "image", "vector"}:
        raise ConfigError(
            f"data.modality is '{config.modality}' and data.task '{config.task}', but '{path}' holds arrays of rows",
            hint="leave both at auto, or point data.source to something else",
        )
    sets = _idx_sets(path) if path.is_dir() else [_npz_set(path, config)]
    found, notes = choose(sets[0].x, config, None if like is None else like.schema)
    known = None if like is None or like.task == "regression" else like.labels
    plan = labels_of([part.y for part in sets], f"'{path}'", config.task if like is None else like.task, known)
    reader = _Reader(
        sets=sets, values=found, labels=plan.encoded, limit=Limit(_total(sets), config.limit if like is None else None)
    )
    return Source(
        kind="idx" if path.is_dir() else "npz",
        modality=found.modality,
        task=plan.task,
        uri=str(path),
        labels=plan.names,
        n=reader.limit.n,
        digest=_digest(sets),
        schema=found.schema,
        inputs=found.inputs,
        facts=found.facts,
        batches=reader.batches,
        suggestions={} if path.is_dir() or config.label is not None else {"label": sets[0].y.name},
        notes=(*notes, *plan.notes),
    )


@dataclass(frozen=True, kw_only=True)
class _Set:
    """Arrays that belong together; ``columns`` are those of one value a row beside the label."""

    x: Block
    y: Block
    columns: Columns
    prefix: str = ""


def _total(sets: list[_Set]) -> int:
    return sum(part.x.shape[0] for part in sets)


def _npz_set(path: Path, config: DataConfig) -> _Set:
    blocks = npz_blocks(path)
    x = _named(blocks, X_NAMES, None, path, "inputs")
    y = _named(blocks, Y_NAMES, config.label, path, "labels")
    told = {"id": config.id, "group": config.group, "time": config.time, "split": config.split.column}
    others: dict[str, Block] = {}
    for role, names in OPTIONAL.items():
        wanted = told[role]
        if wanted is not None and wanted not in blocks:
            raise InputError(
                f"'{path}' has no array '{wanted}' (data.{role}): it has {_listed(blocks)}",
                hint=nearest(wanted, blocks),
            )
        name = wanted or next((name for name in names if name in blocks), None)
        if name is not None:
            others[role] = blocks[name]
    for block in (y, *others.values()):
        if block.shape[:1] != x.shape[:1]:
            raise InputError(
                f"'{path}': array '{x.name}' {list(x.shape)} and array '{block.name}' {list(block.shape)} differ in length",
                hint="write one label for each row",
            )
    columns: Columns = {}
    if "id" in others:
        columns["id"] = ids_column(others["id"].whole(), others["id"].name, path)
    if "group" in others:
        columns["group"] = others["group"].whole().reshape(x.shape[0], -1)[:, 0].astype(str)
    if "time" in others:
        columns["time"] = time_column(others["time"].whole(), others["time"].name, path)
    if "split" in others:
        columns["split"] = split_column(others["split"].whole(), others["split"].name, path)
    return _Set(x=x, y=y, columns=columns)


def _named(blocks: dict[str, Block], names: tuple[str, ...], wanted: str | None, path: Path, what: str) -> Block:
    """The array of a role, by configuration or name.

    Raises:
        InputError: There is none, more than one, or it is empty.
    """
    found = [wanted] if wanted is not None else [name for name in blocks if name.lower() in names]
    if len(found) != 1 or found[0] not in blocks:
        said = f"no array '{wanted}' (data.label)" if wanted is not None else f"{len(found) or 'no'} arrays of {what}"
        raise InputError(
            f"'{path}' has {said}: it has {_listed(blocks)}",
            hint=f"call the {what} {names[0].upper() if what == 'inputs' else names[0]} (or one of {', '.join(names[1:])})"
            + (", or set data.label" if what == "labels" else ""),
            arrays=list(blocks),
        )
    block = blocks[found[0]]
    if not block.shape or not all(block.shape):
        raise InputError(f"'{path}': array '{block.name}' {list(block.shape)} is empty", hint="write one row or more")
    return block


def _listed(blocks: dict[str, Block]) -> str:
    return ", ".join(f"{name} {list(block.shape)}" for name, block in blocks.items()) or "none"


def _idx_sets(folder: Path) -> list[_Set]:
    """Pairs of images and labels; ``train-`` and ``t10k-`` are the official splits."""
    files: dict[str, dict[str, Path]] = {}
    for child in sorted(folder.iterdir()):
        if match := _IDX.match(child.name):
            files.setdefault(match["set"].lower(), {}).setdefault(match["what"].lower(), child)
    sets: list[_Set] = []
    for name in sorted(files, key=lambda name: (_SPLITS.get(name) != "train", name)):
        pair = files[name]
        if set(pair) != {"images", "labels"}:
            there, gone = next(iter(pair.values())), ({"images", "labels"} - set(pair)).pop()
            raise InputError(
                f"'{there}' has no {gone} file beside it", hint=f"put the IDX file of its {gone} into '{folder}'"
            )
        x, y = idx_block(pair["images"]), idx_block(pair["labels"])
        if x.shape[:1] != y.shape[:1] or not x.shape or not all(x.shape):
            raise InputError(
                f"'{x.path}' {list(x.shape)} and '{y.path}' {list(y.shape)} differ in length or are empty",
                hint="copy the files again",
            )
        if sets and sets[0].x.shape[1:] != x.shape[1:]:
            raise InputError(
                f"'{x.path}' {list(x.shape)} has other sides than '{sets[0].x.path}' {list(sets[0].x.shape)}"
            )
        split = _SPLITS.get(name)
        columns: Columns = {} if split is None or len(files) == 1 else {"split": np.full(x.shape[0], split)}
        sets.append(_Set(x=x, y=y, columns=columns, prefix=f"{split or name or 'row'}/"))
    if len({frozenset(part.columns) for part in sets}) > 1:
        raise InputError(
            f"'{folder}' holds sets called {', '.join(map(repr, files))}: expected train and t10k (or test)"
        )
    return sets


def _digest(sets: list[_Set]) -> str:
    """Digest of the bytes; file names count only where there are several files."""
    paths = sorted({block.path for part in sets for block in (part.x, part.y)})
    if len(paths) == 1:
        return file_sha256(paths[0])[:DIGEST_LENGTH]
    lines = "".join(f"{path.name}\0{file_sha256(path)}\n" for path in paths)
    return hashlib.sha256(lines.encode()).hexdigest()[:DIGEST_LENGTH]


@dataclass(frozen=True, kw_only=True)
class _Reader:
    sets: list[_Set]
    values: Pictures | Vectors
    labels: tuple[pa.Array, dict[int, str]]
    limit: Limit

    def batches(self) -> Iterator[Batch]:
        first = 0
        for part in self.sets:
            start = 0
            for values in part.x.rows(self.values.most):
                yield self._batch(part, values, start, first)
                start += len(values)
            first += start

    def _batch(self, part: _Set, values: np.ndarray, start: int, first: int) -> Batch:
        """Rows from ``start`` of a set whose row 0 is row ``first`` of the source."""
        import pyarrow as pa

        labels, wrong = self.labels
        numbers = np.arange(first + start, first + start + len(values))
        kept = self.limit.kept(numbers)
        inside = np.arange(start, start + len(values))
        ids = part.columns["id"][inside] if "id" in part.columns else np.char.add(part.prefix, inside.astype(str))
        huge = self.values.too_large(values) if isinstance(self.values, Vectors) else {}
        wrong = wrong | {int(numbers[at]): reason for at, reason in huge.items()}
        fit = kept & ~np.isin(numbers, list(wrong)) if wrong else kept
        quarantined = [
            {
                "id": str(ids[at]),
                "reason": f"row {int(inside[at]) + 1}, array '{(part.x if at in huge else part.y).name}': {wrong[int(numbers[at])]}",
            }
            for at in np.flatnonzero(kept & ~fit).tolist()
        ]
        columns: dict[str, Any] = {"id": pa.array(ids[fit].tolist(), pa.string()), **self.values.columns(values[fit])}
        columns["label"] = labels.take(pa.array(numbers[fit]))
        for name in ("group", "time", "split"):
            if name in part.columns:
                column = part.columns[name][inside][fit]
                columns[name] = pa.array(column) if name == "time" else pa.array(column.tolist(), pa.string())
        return Batch(table=pa.table(columns), quarantined=quarantined)
