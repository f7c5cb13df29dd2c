"""The mirror: brings what all servers of a loop published (``shared_log.py``) to this disk, where the monitor and others read it like any request log.

The monitor counts rows in the order of time and once, and looks back ten seconds. So a file is brought when every writer has published what is older: up
to the last whole slot before the least ``until_ns`` of all heads. A writer that came to a good end is not waited for; one that fell silent is, for an hour. What it publishes after that
is brought as well, and the monitor says how many rows came too late for it.

For each writer the mirror remembers how far it has brought its files, and looks for later ones only: files of hours that are over become one here, and
old ones are deleted here when they are gone there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import file_sha256
from kfloop.serving.compaction import HOUR, is_over, merge_hour
from kfloop.serving.retention import Counts, write_counts
from kfloop.serving.shared_log import NAME, SLOT_NS, Head, Published, SharedLog, hour_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.core.workspace import Workspace

STATE, LOCK, BROUGHT = ".mirror.json", ".mirror.lock", ".bringing"
FORMAT = 1
PATIENCE_SECONDS = 3600.0
LAG_NS = 300 * 10**9
AT_ONCE = 64  # files
FOREVER = 2**63 - 1


@dataclass(kw_only=True)
class Writer:
    """What is known of one writer.

    Attributes:
        brought_ns: All its files up to this time are here, or were.
        beyond: Later files of it that are here: those of a writer that fell silent before it said that they are there.
        done: Its head, when nothing else was to be brought of it; empty otherwise.
        silent: Seconds since it last said anything, where that is too long and it did not end well; else 0.
        until_ns: How far it says it has come.
        counts: Its totals.
    """

    brought_ns: int = 0
    beyond: list[str] = field(default_factory=list)
    done: str = ""
    silent: float = 0.0
    until_ns: int = 0
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(kw_only=True)
class Mirrored:
    """What was brought so far.

    Attributes:
        writers: By name.
        ordered_ns: Up to this time rows were brought in the order of time.
        waits_for: The writer that is furthest behind, where another has come minutes further; else empty.
        behind: Seconds by which the writer that is furthest behind was behind the clock; null where none is waited for.
        late_files: Files that came after their time.
        damaged: Files that are not what their names say.
        strange: Names of what is none of ours.
        merged: By folder of an hour when it changed last, after its files became one.
    """

    writers: dict[str, Writer] = field(default_factory=dict)
    ordered_ns: int = 0
    waits_for: str = ""
    behind: float | None = None
    late_files: int = 0
    damaged: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    merged: dict[str, int] = field(default_factory=dict)


def bring(workspace: Workspace, *, every: float = 0.0, now: float | None = None) -> Path:
    """Bring what is new; does nothing for a loop whose log is on this disk alone.

    Args:
        workspace: The loop's places.
        every: A mirror that was brought up to date less than so many seconds ago is taken as it is.
        now: The time; the clock's when left out.

    Returns:
        Folder of the request log that can be read.

    Raises:
        KfloopError: The place cannot be reached or read; what was brought before is still there.
    """
    root = workspace.request_log
    if not workspace.requests:
        return root
    shared = SharedLog(workspace.requests, workspace.loop)
    with _alone(root):
        told = _told(root)
        with contextlib.suppress(FileNotFoundError):
            if told is not None and every and 0 <= time.time() - (root / STATE).stat().st_mtime < every:
                return root
        if told is None:  # what is here cannot be told from what was here: all of it is brought again
            for path in root.glob("[!.]*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            told = Mirrored()
        _Round(root, shared, told, time.time() if now is None else now).bring()
    return root


def read_mirrored(workspace: Workspace) -> Mirrored | None:
    """What the mirror of a loop knows; null where there is none."""
    return _told(workspace.request_log) if workspace.requests and (workspace.request_log / STATE).is_file() else None


class _Round:
    """One look at the place."""

    def __init__(self, root: Path, shared: SharedLog, told: Mirrored, now: float) -> None:
        self._root, self._shared, self._told, self._now = root, shared, told, now

    def bring(self) -> None:
        heads = self._heads()
        ordered = self._ordered(heads)
        shown = {name: head.to_json() for name, head in heads.items()}
        changed = [name for name, head in shown.items() if self._told.writers[name].done != head]
        if changed:
            held = self._list(changed, heads, ordered)
            for name in heads:
                writer = self._told.writers[name]
                writer.brought_ns = max(writer.brought_ns, min(ordered, writer.until_ns))
                writer.beyond = [key for key in writer.beyond if _at(key) > writer.brought_ns]
                settled = (heads[name].ended or writer.silent) and ordered >= writer.until_ns and name not in held
                writer.done = shown[name] if settled else ""
        for head in heads.values():
            self._told.writers[head.writer].counts = head.counts
        _write(self._root, self._told)
        with contextlib.suppress(OSError):  # a log in small files is read as well
            self._merge(ordered)
        _write(self._root, self._told)
        total: dict[str, int] = {}
        for writer in self._told.writers.values():
            for name, count in writer.counts.items():
                total[name] = total.get(name, 0) + count
        if heads:
            write_counts(self._root, Counts(**{name: total.get(name, 0) for name in asdict(Counts())}), {})

    def _heads(self) -> dict[str, Head]:
        """By writer what it says; what cannot be read is told of as strange."""
        self._told.strange = []
        heads: dict[str, Head] = {}
        for name, (found, said) in self._shared.heads().items():
            head = found
            if head is None:
                self._told.strange.append(f"_writers/{name}.json")
                known = self._told.writers.get(name)
                if known is None or not known.until_ns:
                    continue
                # It is waited for as it was seen last; if it lives, it says more within half a minute.
                head = Head(writer=name, since_ns=0, until_ns=known.until_ns, counts=known.counts)
            heads[name] = head
            writer = self._told.writers.setdefault(name, Writer(brought_ns=head.since_ns - 1))
            writer.until_ns = head.until_ns
            quiet = self._now - said
            writer.silent = quiet if quiet > PATIENCE_SECONDS and not head.ended else 0.0
        return heads

    def _ordered(self, heads: dict[str, Head]) -> int:
        """Up to which time every writer that is waited for has published everything."""
        behind = {
            name: head.until_ns
            for name, head in heads.items()
            if not head.ended and not self._told.writers[name].silent
        }
        least = min(behind, key=lambda name: behind[name], default="")
        self._told.behind = max(self._now - behind[least] / 1e9, 0.0) if behind else None
        self._told.waits_for = least if any(until > behind[least] + LAG_NS for until in behind.values()) else ""
        return (behind[least] + 1) // SLOT_NS * SLOT_NS - 1 if behind else FOREVER

    def _list(self, changed: list[str], heads: dict[str, Head], ordered: int) -> set[str]:
        """Bring what is new since the writers whose heads changed were seen last.

        Returns:
            Writers of which files are there whose time has not come.
        """
        first = hour_of(min(self._told.writers[name].brought_ns for name in changed))
        folders = self._shared.folders()
        wanted: list[Published] = []
        held: set[str] = set()
        for folder in folders:
            name = folder.rpartition("/")[2]
            if HOUR.fullmatch(name) and name < first:
                continue
            files, strange = self._shared.files(folder)
            self._told.strange += [f"{folder}/{name}" for name in strange]
            wanted += [file for file in files if self._is_new(file, heads, ordered)]
            held |= {file.writer for file in files if file.at_ns > ordered}
        wanted.sort()
        for start in range(0, len(wanted), AT_ONCE):
            self._fetch(wanted[start : start + AT_ONCE])
        self._told.late_files += sum(file.at_ns <= self._told.ordered_ns for file in wanted)
        reached = max([file.at_ns for file in wanted], default=0) if ordered == FOREVER else ordered
        self._told.ordered_ns = max(self._told.ordered_ns, reached)
        self._forget(folders)
        return held

    def _is_new(self, file: Published, heads: dict[str, Head], ordered: int) -> bool:
        writer = self._told.writers.setdefault(file.writer, Writer())
        if not writer.brought_ns < file.at_ns <= ordered or file.key in writer.beyond:
            return False
        head = heads.get(file.writer)
        if head is None or file.at_ns > head.until_ns:
            # It said nothing of it yet: a file is whole when it is listed, but another one before it may not be there.
            if head is not None and not head.ended and not writer.silent:
                return False
            writer.beyond.append(file.key)
        return True

    def _fetch(self, files: list[Published]) -> None:
        """Bring some files; one that is not what its name says is left empty here, so that the monitor names it in every round."""
        wanted = [file for file in files if not (self._root / file.key).exists()]
        staging = self._root / BROUGHT
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        places = [staging / file.key.rpartition("/")[2] for file in wanted]
        self._shared.get([file.key for file in wanted], places)
        for file, place in zip(wanted, places, strict=True):
            if place.is_file() and not _is_whole(place, file):
                self._shared.get([file.key], [place])
            if not place.is_file():  # deleted there since it was listed: it had its time
                continue
            if not _is_whole(place, file):
                place.write_bytes(b"")
                self._told.damaged.append(file.key)
            target = self._root / file.key
            target.parent.mkdir(parents=True, exist_ok=True)
            place.replace(target)
        shutil.rmtree(staging, ignore_errors=True)

    def _forget(self, folders: list[str]) -> None:
        """Delete here the oldest hours that were deleted there; not where everything is gone, which is no clean-up."""
        for model in {folder.split("/")[0] for folder in folders}:
            newest = next((name for name in folders if re.fullmatch(rf"{re.escape(model)}/{HOUR.pattern}", name)), "")
            for here in sorted(path for path in (self._root / model).glob("[!.]*") if HOUR.fullmatch(path.name)):
                if self._shared.files(f"{model}/{here.name}")[0] or not self._shared.files(newest)[0]:
                    break
                shutil.rmtree(here, ignore_errors=True)

    def _merge(self, ordered: int) -> None:
        """Merge the files of hours that are over for every writer, where something changed since the last look."""
        kept: dict[str, int] = {}
        for hour in self._root.glob("[!.]*/[!.]*"):
            if not hour.is_dir() or not is_over(hour.name, min(self._now, ordered / 1e9)):
                continue
            name = hour.relative_to(self._root).as_posix()
            if self._told.merged.get(name) != hour.stat().st_mtime_ns:
                done = merge_hour(hour, part=NAME)
                kept[name] = 0 if done.waits else hour.stat().st_mtime_ns
            else:
                kept[name] = self._told.merged[name]
        self._told.merged = kept


def _is_whole(place: Path, file: Published) -> bool:
    return file_sha256(place).startswith(file.digest)


def _at(key: str) -> int:
    return int(key.rpartition("/")[2].partition("-")[0])


def _told(root: Path) -> Mirrored | None:
    """What was written of a mirror; new where the folder is empty, null where it cannot be known."""
    try:
        raw: dict[str, Any] = json.loads((root / STATE).read_text(encoding="utf-8"))
        if raw.pop("format") != FORMAT:
            return None
        writers = {name: Writer(**writer) for name, writer in raw.pop("writers").items()}
        return Mirrored(**raw, writers=writers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(root: Path, told: Mirrored) -> None:
    staging = root / f"{STATE}.tmp"
    with staging.open("w", encoding="utf-8") as stream:
        json.dump(asdict(told) | {"format": FORMAT}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    staging.replace(root / STATE)


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Two commands at once bring one after the other."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
