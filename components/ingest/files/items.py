"""What a listing of files is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BY_SUFFIX = "by its suffix"
SPLITS_BY_NAME = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, kw_only=True)
class FileItem:
    """One labelled file.

    Attributes:
        id: Path relative to the folder, with ``/``; or the ``{id}`` of its name.
        path: The file; it may be missing when ``metadata.csv`` names it.
        label: Class name, or the text of a number.
        group: What must not cross splits, where known.
        split: ``train``, ``validation`` or ``test`` when the source says so.
        time: When it was made, as the source writes it.
    """

    id: str
    path: Path
    label: str
    group: str | None = None
    split: str | None = None
    time: str | None = None


@dataclass(frozen=True, kw_only=True)
class FileListing:
    """The labelled files of a folder, ordered by id.

    Attributes:
        layout: ``class_folders``, ``split_folders``, ``metadata`` or ``pattern``.
        items: The files.
        skipped: Files that cannot be used, or that have no label: name and reason.
        suggestions: Fields of ``DataConfig`` that were guessed.
        notes: What a person should know.
    """

    layout: str
    items: tuple[FileItem, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    suggestions: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def unlabelled(self) -> tuple[tuple[str, str], ...]:
        """What was skipped for another reason than its suffix: rows that were meant to be used."""
        return tuple(row for row in self.skipped if not row[1].endswith(BY_SUFFIX))

    @property
    def foreign(self) -> tuple[str, ...]:
        """Names of the files of another kind."""
        return tuple(name for name, reason in self.skipped if reason.endswith(BY_SUFFIX))
