"""A folder of texts: one ``.txt`` file each, in a subfolder for each class, possibly below ``train`` and ``test``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kfloop.components.ingest.files.items import SPLITS_BY_NAME
from kfloop.components.ingest.readers.table.feed import Feed, Rows
from kfloop.components.ingest.readers.text.facts import not_utf8
from kfloop.components.ingest.source import FILES_PER_BATCH
from kfloop.core.artifacts import DIGEST_LENGTH, file_sha256
from kfloop.errors import InputError

SUFFIX = ".txt"
BOM = "\ufeff"
_LOOK = 50


def is_text_folder(folder: Path) -> bool:
    """Whether the subfolders of a folder hold more ``.txt`` files than others; looks at a few only."""
    texts = others = 0
    for child in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))[:3]:
        files = (path for path in child.rglob("*") if path.is_file())
        for path, _ in zip(files, range(_LOOK), strict=False):
            texts, others = texts + (path.suffix.lower() == SUFFIX), others + (path.suffix.lower() != SUFFIX)
    return texts > others


def open_text_folder(folder: Path) -> Feed:
    """List the files of a folder.

    Raises:
        InputError: There are no texts, or the subfolders are splits without classes below.
    """
    import pyarrow as pa

    found = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path, folder))
    files = [path for path in found if path.suffix.lower() == SUFFIX and len(path.relative_to(folder).parts) > 1]
    if not files:
        raise InputError(
            f"'{folder}' has no {SUFFIX} files in subfolders",
            hint="put the texts of each class into a subfolder named like it",
        )
    parts = [path.relative_to(folder).parts for path in files]
    official = all(part[0].lower() in SPLITS_BY_NAME for part in parts)
    if official and any(len(part) < 3 for part in parts):  # noqa: PLR2004 - split, class, file
        tops = ", ".join(sorted({part[0] for part in parts}))
        raise InputError(
            f"the subfolders of '{folder}' are named like splits ({tops}), not like classes",
            hint="put a subfolder for each class into each of them, or point data.source to one",
        )
    columns = {"id": ["/".join(part) for part in parts], "label": [part[1 if official else 0] for part in parts]}
    if official:
        columns["split"] = [part[0] for part in parts]

    def read(wanted: Sequence[str]) -> Iterator[Rows]:
        for start in range(0, len(files), FILES_PER_BATCH):
            stop = min(len(files), start + FILES_PER_BATCH)
            arrays = {name: columns[name][start:stop] for name in wanted if name in columns}
            if "text" in wanted:
                arrays["text"] = [_text(path) for path in files[start:stop]]
            table = pa.table({name: pa.array(arrays[name], type=pa.string()) for name in wanted})
            yield Rows(table=table, numbers=np.arange(start, stop))

    kept = set(files)
    left = [path for path in found if path not in kept]
    return Feed(
        kind="text_folder",
        where=f"'{folder}'",
        types=dict.fromkeys([*columns, "text"], pa.string()),
        n=len(files),
        digest=_digest(folder, files),
        read=read,
        place=lambda number: f"'{columns['id'][number]}'",
        notes=(*([_left_out(left, folder)] if left else []), *_lost(files, folder)),
    )


def _lost(files: list[Path], folder: Path) -> list[str]:
    """A note on the files whose bytes are not UTF-8."""
    lost = [path for path in files if not _is_utf8(path)]
    return [not_utf8(len(lost), "files", f"'{lost[0].relative_to(folder).as_posix()}'")] if lost else []


def _is_utf8(path: Path) -> bool:
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="replace").removeprefix(BOM).strip()


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _left_out(left: list[Path], folder: Path) -> str:
    return (
        f"left out, not being {SUFFIX} files in a class subfolder: {len(left)}, such as '{left[0].relative_to(folder)}'"
    )


def _digest(folder: Path, files: list[Path]) -> str:
    state = hashlib.sha256()
    for path in files:
        state.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n".encode())
    return state.hexdigest()[:DIGEST_LENGTH]
