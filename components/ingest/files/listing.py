"""Files of a folder and what says their label: subfolders, a table, or their names. No file is opened here but to digest it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.components.ingest.files.items import BY_SUFFIX, SPLITS_BY_NAME, FileItem, FileListing
from kfloop.components.ingest.files.metadata import METADATA, guessed_label, read_metadata
from kfloop.components.ingest.files.pattern import guess_pattern, match_stem, parse_pattern
from kfloop.core.artifacts import DIGEST_LENGTH, file_sha256
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kfloop.core.sections import DataConfig

SHOWN = 5
SPLIT_DEPTH = 3  # split, class, file


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """One look at a folder.

    Attributes:
        path: The folder.
        what: What its files are, for messages: ``image``, ``audio file``.
        found: Relative paths of the files with a wanted suffix, sorted.
        other: Relative paths of all other files.
        nameless: Paths that are not UTF-8, made readable: no row can be called like them.
    """

    path: Path
    what: str
    suffixes: frozenset[str]
    found: tuple[str, ...]
    other: tuple[str, ...]
    nameless: tuple[str, ...]


def has_files(folder: Path, suffixes: frozenset[str], *, enough: int = 1) -> bool:
    """Whether the folder holds files of these suffixes; stops looking as soon as it knows. Never raises."""
    return sum(1 for _ in islice(walk_files(folder, suffixes), enough)) == enough


def walk_files(folder: Path, suffixes: frozenset[str], *, without: bool = False) -> Iterator[str]:
    """Relative paths, with ``/``, of the visible files with one of the suffixes, or of all others; links to folders are not followed."""
    for top, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = "" if Path(top) == folder else Path(top).relative_to(folder).as_posix() + "/"
        for name in sorted(files):
            if not name.startswith(".") and (_suffix(name) in suffixes) is not without:
                yield prefix + name


def list_files(folder: Path, config: DataConfig, suffixes: frozenset[str], *, what: str) -> FileListing:
    """The labelled files of a folder.

    What says the label, the first that is there: ``data.label`` (a column of ``metadata.csv``), ``data.pattern``, a ``metadata.csv`` with a
    column called like a label, subfolders named like splits that hold class subfolders, class subfolders, and names that
    share a pattern.

    Args:
        folder: The folder.
        config: ``label``, ``group``, ``time``, ``pattern`` and ``split.column`` are used.
        suffixes: Suffixes of the wanted files, in lower case with the dot.
        what: What such a file is called in messages, in the singular.

    Raises:
        InputError: No such files, nothing that says their labels, or a bad ``metadata.csv``.
        ConfigError: ``data.pattern`` cannot be read.
    """
    if not folder.is_dir():
        raise InputError(
            f"'{folder}' is {'a file' if folder.exists() else 'not there'}: expected a folder with {what}s",
            hint=f"name the folder that holds it: '{folder.parent}'" if folder.exists() else "check data.source",
            source=str(folder),
        )
    found = list(walk_files(folder, suffixes))
    look = _Folder(
        path=folder,
        what=what,
        suffixes=suffixes,
        found=tuple(name for name in found if _readable(name) == name),
        other=tuple(_readable(name) for name in walk_files(folder, suffixes, without=True) if name != METADATA),
        nameless=tuple(_readable(name) for name in found if _readable(name) != name),
    )
    if not look.found and config.label is None:
        raise _nothing(look)
    return _listing(look, config)


def _listing(look: _Folder, config: DataConfig) -> FileListing:
    if config.label is not None:
        return read_metadata(look.path, config, config.label)
    if config.pattern is not None:
        return _by_pattern(look, config.pattern)
    label = guessed_label(look.path / METADATA)
    if label is not None:
        return read_metadata(look.path, config, label, guessed=True)
    tops = {name.split("/", 1)[0] for name in look.found if "/" in name}
    if (
        tops
        and {top.lower() for top in tops} <= set(SPLITS_BY_NAME)
        and any(name.count("/") > 1 for name in look.found)
    ):
        return _by_split_folder(look)
    # One subfolder tells nothing apart: there the names may.
    pattern = guess_pattern([_stem(name) for name in look.found]) if len(tops) <= 1 else None
    if tops and pattern is None:
        return _by_subfolder(look, tops)
    if pattern is None:
        raise _unlabelled(look)
    listing = _by_pattern(look, pattern)
    note = (
        f"data.pattern was guessed from names such as '{look.found[0]}': '{pattern}'"
        " - set data.pattern if {label} or {group} stand elsewhere"
    )
    return FileListing(
        layout=listing.layout,
        items=listing.items,
        skipped=listing.skipped,
        suggestions={"pattern": pattern},
        notes=(note, *listing.notes),
    )


def _by_subfolder(look: _Folder, tops: Iterable[str]) -> FileListing:
    if {top.lower() for top in tops} <= set(SPLITS_BY_NAME):
        names = sorted(tops)
        raise InputError(
            f"the subfolders of '{look.path}' are named like splits ({', '.join(names)}) and hold no class subfolders",
            hint=f"put class subfolders into each of them, such as '{names[0]}/<class>/', or write {METADATA} and set data.label",
            labels=names,
        )
    items, skipped = [], _others(look)
    for name in look.found:
        parts = name.split("/")
        if len(parts) == 1:
            skipped.append((name, "lies outside the class subfolders"))
        else:
            items.append(FileItem(id=name, path=look.path / name, label=parts[0]))
    return FileListing(layout="class_folders", items=tuple(items), skipped=tuple(sorted(skipped)))


def _by_split_folder(look: _Folder) -> FileListing:
    items, skipped = [], _others(look)
    for name in look.found:
        parts = name.split("/")
        if len(parts) < SPLIT_DEPTH:
            skipped.append((name, "lies outside the class subfolders of the splits"))
            continue
        split = SPLITS_BY_NAME[parts[0].lower()]
        items.append(FileItem(id=name, path=look.path / name, label=parts[1], split=split))
    return FileListing(layout="split_folders", items=tuple(items), skipped=tuple(sorted(skipped)))


def _by_pattern(look: _Folder, pattern: str) -> FileListing:
    parsed = parse_pattern(pattern)
    items: list[FileItem] = []
    skipped = _others(look)
    seen: dict[str, str] = {}
    for name in look.found:
        values = match_stem(parsed, _stem(name))
        if values is None:
            skipped.append((name, f"its name does not fit data.pattern '{pattern}'"))
            continue
        key = values.get("id", name)
        if key in seen:
            raise InputError(
                f"'{name}' and '{seen[key]}' in '{look.path}' have the same {{id}} '{key}' in their names",
                hint="call that part of data.pattern something else than {id}: it must differ from file to file",
            )
        seen[key] = name
        items.append(
            FileItem(
                id=key,
                path=look.path / name,
                label=values["label"],
                group=values.get("group"),
                time=values.get("time"),
            )
        )
    if not items:
        raise InputError(
            f"none of the {len(look.found)} {look.what}s in '{look.path}' fits data.pattern '{pattern}': the first is '{look.found[0]}'",
            hint="write the stem of a file with its parts in braces, such as {label}_{group}_{take} for 7_anna_3",
            pattern=pattern,
        )
    items.sort(key=lambda item: item.id)
    return FileListing(layout="pattern", items=tuple(items), skipped=tuple(sorted(skipped)))


def files_digest(items: Iterable[FileItem]) -> str:
    """Digest of names, labels, groups, splits, times and bytes of the files, wherever their folder lies."""
    state = hashlib.sha256()
    for item in sorted(items, key=lambda item: item.id):
        found = file_sha256(item.path) if item.path.is_file() else "missing"
        told: list[Any] = [item.id, item.label, item.group or "", item.split or "", item.time or "", found]
        state.update(("\0".join(told) + "\n").encode("utf-8", errors="surrogateescape"))
    return state.hexdigest()[:DIGEST_LENGTH]


def _suffix(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _others(look: _Folder) -> list[tuple[str, str]]:
    article = "an" if look.what[0] in "aeiou" else "a"
    reason = f"not {article} {look.what} {BY_SUFFIX}"
    return [*((name, reason) for name in look.other), *((name, "its name is not UTF-8") for name in look.nameless)]


def _readable(name: str) -> str:
    """A name with the bytes that are not UTF-8 spelt out."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _nothing(look: _Folder) -> InputError:
    return InputError(
        f"'{look.path}' has no {look.what}s ({', '.join(sorted(look.suffixes))})",
        hint=f"put the {look.what}s of each class into a subfolder named like the class",
        source=str(look.path),
    )


def _unlabelled(look: _Folder) -> InputError:
    names = ", ".join(f"'{name}'" for name in look.found[:SHOWN])
    hint = (
        f"move them into one subfolder per class, set data.pattern such as {{label}}_{{take}}, or write {METADATA}"
        " (file_name, label) and set data.label"
    )
    table = look.path / METADATA
    if table.is_file():
        with table.open(encoding="utf-8-sig", errors="replace") as stream:
            columns = [name.strip() for name in stream.readline().split(",")]
        hint = f"set data.label to a column of {METADATA}: it has {', '.join(columns)}"
    return InputError(
        f"'{look.path}' holds {len(look.found)} {look.what}s ({names}{', ...' if len(look.found) > SHOWN else ''}), but nothing says their class",
        hint=hint,
        source=str(look.path),
    )
