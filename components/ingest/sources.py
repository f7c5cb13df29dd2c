"""Sources of labelled images: what is there, before a pixel is decoded."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.artifacts import DIGEST_LENGTH, file_sha256
from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from kfloop.core.sections import DataConfig

DIGITS = "digits"
METADATA = "metadata.csv"
FILE_COLUMN = "file_name"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing"})
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image file.

    Attributes:
        id: Row id: path relative to its folder, with ``fresh/`` before it for freshly labelled images.
        path: The file; it may be missing when ``metadata.csv`` names it.
        label: Class name.
        origin: ``base`` or ``fresh``.
    """

    id: str
    path: Path
    label: str
    origin: str = "base"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The labelled files of one folder, ordered by id.

    Attributes:
        items: The files.
        skipped: Files that are not images, or that have no label: id and reason.
    """

    items: tuple[Item, ...]
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """What a source holds.

    Attributes:
        kind: ``digits``, ``image_folder`` or ``image_table`` (with ``metadata.csv``).
        uri: ``digits`` or the folder.
        labels: Class names in the order of their indices.
        n: Rows, fresh ones included, before unreadable images are set aside.
        n_fresh: Freshly labelled rows among them.
        digest: Digest of all files, names and labels, the fresh folder included.
    """

    kind: str
    uri: str
    labels: tuple[str, ...]
    n: int
    n_fresh: int
    digest: str


def inspect(config: DataConfig) -> SourceInfo:
    """Look at a source without decoding images and without writing anything.

    Raises:
        InputError: There is no such source, it is empty, it has one class only, its labels cannot be found, or freshly labelled
            images have a class that the source does not have.
    """
    base, fresh = listings(config)
    if base is None:
        images, targets = digit_arrays()
        labels: tuple[str, ...] = tuple(str(digit) for digit in range(10))
        n, kind = len(targets), DIGITS
        found = hashlib.sha256(images.tobytes() + targets.tobytes()).hexdigest()
    else:
        labels, n = classes(base.items), len(base.items)
        kind = "image_folder" if config.label is None else "image_table"
        found = _files_digest(base.items)
    total = hashlib.sha256(f"{found}\n{_files_digest(fresh.items)}".encode()).hexdigest()[:DIGEST_LENGTH]
    n = min(n, config.limit or n) + len(fresh.items)
    return SourceInfo(kind=kind, uri=config.source, labels=labels, n=n, n_fresh=len(fresh.items), digest=total)


def listings(config: DataConfig) -> tuple[Listing | None, Listing]:
    """The files of the source (none for ``digits``) and of the fresh folder, checked.

    Raises:
        InputError: As for ``inspect``.
    """
    base = None if config.source == DIGITS else _base(config)
    known = [str(digit) for digit in range(10)] if base is None else list(classes(base.items))
    fresh = _fresh(config, known)
    return base, fresh


def digit_arrays() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The 1797 handwritten digits of scikit-learn: uint8 [N, 8, 8, 1] with 0..16 stretched to 0..255, and labels int64 [N]."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    return images, digits.target.astype(np.int64)


def classes(items: Iterable[Item]) -> tuple[str, ...]:
    """Class names; whole numbers in the order of their value."""
    names = {item.label for item in items}
    numeric = all(name.isascii() and name.isdigit() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if numeric else 0, name)))


def _base(config: DataConfig) -> Listing:
    folder = Path(config.source)
    if not folder.exists():
        raise InputError(
            f"data.source '{config.source}' does not exist: expected 'digits' or a folder of images",
            hint=f"{nearest(folder.name, [DIGITS, *_siblings(folder)])} (paths are relative to the loop file)",
            source=config.source,
        )
    listing = list_folder(folder, config.label)
    names = classes(listing.items)
    if len(names) == 1:
        raise InputError(
            f"'{folder}' has one class only ('{names[0]}', {len(listing.items)} images): expected two or more",
            hint="put each class into a subfolder of its own, or name the label column of metadata.csv in data.label",
            labels=list(names),
        )
    if config.label is None and {name.lower() for name in names} <= SPLIT_NAMES:
        raise InputError(
            f"the subfolders of '{folder}' are named like splits ({', '.join(names)}), not like classes",
            hint=f"point data.source to one of them, such as '{folder / names[0]}': kfloop splits the rows itself",
            labels=list(names),
        )
    return listing


def _fresh(config: DataConfig, known: list[str]) -> Listing:
    """Newly labelled files; an absent or empty folder is no error, because labels come later."""
    if config.fresh is None or not Path(config.fresh).is_dir():
        if config.fresh is not None and Path(config.fresh).exists():
            raise InputError(
                f"data.fresh '{config.fresh}' is a file: expected a folder of labelled images",
                hint="name a folder; it need not exist yet",
            )
        return Listing(items=())
    folder = Path(config.fresh)
    table = config.label is not None and (folder / METADATA).is_file()
    if not table and not any(_is_image(path) for path in folder.rglob("*")):
        return Listing(items=())
    listing = list_folder(folder, config.label if table else None)
    for item in listing.items:
        if item.label not in known:
            raise InputError(
                f"'{item.path}' is labelled '{item.label}', a class that data.source does not have",
                hint=nearest(item.label, known) + " A new class must be added to data.source itself.",
                label=item.label,
            )
    items = tuple(
        Item(id=f"fresh/{item.id}", path=item.path, label=item.label, origin="fresh") for item in listing.items
    )
    return Listing(items=items, skipped=tuple((f"fresh/{name}", reason) for name, reason in listing.skipped))


def list_folder(folder: Path, label: str | None) -> Listing:
    """The labelled files of an image folder.

    Args:
        folder: Class subfolders, or ``metadata.csv`` with the columns ``file_name`` and ``label``.
        label: Name of the label column; null for class subfolders.

    Raises:
        InputError: No images, no labels, or a bad ``metadata.csv``.
    """
    if not folder.is_dir():
        raise InputError(
            f"'{folder}' is a file: expected a folder of images",
            hint=f"name the folder that holds it: '{folder.parent}'",
            source=str(folder),
        )
    listing = _by_subfolder(folder) if label is None else _by_table(folder, label)
    if listing.items:
        return listing
    loose = [path.name for path in sorted(folder.iterdir()) if _is_image(path)]
    if loose and label is None:
        raise InputError(
            f"'{folder}' holds {len(loose)} images, such as '{loose[0]}', but nothing says their class",
            hint=_how_to_label(folder),
        )
    raise InputError(
        f"'{folder}' has no images ({', '.join(sorted(SUFFIXES))})",
        hint="put the images of each class into a subfolder named like the class",
        source=str(folder),
    )


def _by_subfolder(folder: Path) -> Listing:
    items: list[Item] = []
    skipped: list[tuple[str, str]] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in name.parts):
            continue
        if not _is_image(path):
            skipped.append((name.as_posix(), "not an image file by its suffix"))
        elif len(name.parts) == 1:
            skipped.append((name.as_posix(), "lies outside the class subfolders"))
        else:
            items.append(Item(id=name.as_posix(), path=path, label=name.parts[0]))
    return Listing(items=tuple(items), skipped=tuple(skipped))


def _by_table(folder: Path, label: str) -> Listing:
    path = folder / METADATA
    if not path.is_file():
        raise InputError(
            f"data.label is '{label}', but '{folder}' has no {METADATA}",
            hint=f"write {METADATA} with the columns {FILE_COLUMN} and {label}, or remove data.label to use subfolders as classes",
        )
    try:
        table = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        lines = list(table)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"'{path}' is not CSV in UTF-8: {error}", hint="save it again as CSV with UTF-8") from error
    columns = list(table.fieldnames or ())
    for column in (FILE_COLUMN, label):
        if column not in columns:
            raise InputError(
                f"'{path}' has no column '{column}': it has {', '.join(columns) or 'none'}",
                hint=nearest(column, columns) if columns else f"write the columns {FILE_COLUMN} and {label}",
                columns=columns,
            )
    items: dict[str, Item] = {}
    skipped: list[tuple[str, str]] = []
    for number, line in enumerate(lines, start=2):
        name, value = (line[FILE_COLUMN] or "").strip(), (line[label] or "").strip()
        if not name or not value:
            skipped.append((name or f"{METADATA}:{number}", f"no {'label' if name else FILE_COLUMN} in line {number}"))
            continue
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise InputError(
                f"'{path}' line {number}: '{name}' lies outside the folder", hint="give paths inside the folder"
            )
        key = relative.as_posix()
        if key in items and items[key].label != value:
            raise InputError(
                f"'{path}' line {number}: '{name}' is labelled '{value}' here and '{items[key].label}' before",
                hint="keep one line for each file",
            )
        items[key] = Item(id=key, path=folder / relative, label=value)
    return Listing(items=tuple(items[key] for key in sorted(items)), skipped=tuple(skipped))


def _files_digest(items: Iterable[Item]) -> str:
    state = hashlib.sha256()
    for item in sorted(items, key=lambda item: item.id):
        found = file_sha256(item.path) if item.path.is_file() else "missing"
        state.update(f"{item.id}\0{item.label}\0{found}\n".encode())
    return state.hexdigest()


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")


def _siblings(folder: Path) -> list[str]:
    return [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []


def _how_to_label(folder: Path) -> str:
    if not (folder / METADATA).is_file():
        return f"move them into one subfolder per class, or write {METADATA} ({FILE_COLUMN}, label) and set data.label"
    with (folder / METADATA).open(encoding="utf-8-sig", errors="replace") as stream:
        columns = [name.strip() for name in stream.readline().split(",")]
    return f"set data.label to a column of {METADATA}: it has {', '.join(columns)}"
