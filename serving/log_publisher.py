"""The publisher: brings what one collector wrote to the place where all servers of the loop publish their request logs (``shared_log.py``).

The collector writes small files as ever. When a slot of half a minute is over, those of it become one for each shape of rows, sealed under a name that never
changes again; sealed files are published in the order of their times, and deleted here when they are there whole. A kill at any point repeats a step under the same
names: nothing is lost and nothing is published twice. While the place cannot be reached, files wait here, and ``serve.log.max_bytes`` bounds them.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING

from kfloop.core.artifacts import file_sha256
from kfloop.core.request_files import MERGED
from kfloop.serving.compaction import HOUR, PART, delete_parts, merge_files
from kfloop.serving.evidence import FOLDER as ROLLOUT
from kfloop.serving.retention import DAY_NS, written_ns
from kfloop.serving.shared_log import SLOT_NS, Head, SharedLog, hour_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kfloop.serving.retention import Counts

IDENTITY = (
    ".writer.json"  # in the collector's folder: the name that its files are published under, and how far it has come
)
SEALED_BYTES = 32_000_000  # of parts, from which on another file begins
SILENT_SECONDS = 60.0  # a writer says that it is there before it publishes after such a pause
EXPIRE_SECONDS = 3600.0


class Publisher:
    """Publishes one collector's folder.

    Args:
        folder: Root of the collector's log, which this process owns.
        shared: Where to.
        days: Age from which published files are deleted.
        read_until: Tells the time of the newest row that the monitor has counted, in nanoseconds; null where nobody knows of a monitor.
        at: Called with the name of each stage reached, for tests.
    """

    def __init__(
        self,
        folder: Path,
        shared: SharedLog,
        *,
        days: float,
        read_until: Callable[[], int | None] = lambda: None,
        at: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._folder, self._shared, self._days, self._read_until, self._at = folder, shared, days, read_until, at
        self._told: dict[str, int] = {}  # totals that earlier names of this collector have told
        self.writer, self._since, self._until = self._identity()
        self._said = self._expired = -float("inf")  # by the clock of this process

    def parts(self) -> list[Path]:
        """Finished files that were not sealed yet. Whoever asks holds the collector's pen, so that none of an earlier time appears later."""
        return [path for folder in self._places() for path in folder.glob("[!.]*.parquet") if PART.fullmatch(path.name)]

    def publish(self, parts: list[Path], now_ns: int, counts: Counts, *, ended: bool = False) -> int:
        """Seal and publish what was written in slots that are over.

        Args:
            parts: What ``parts`` gave.
            now_ns: The time at that moment.
            counts: Totals of the collector, for its head.
            ended: Whether nothing follows: then the slot that is not over is published, too.

        Returns:
            Number of files that were published.

        Raises:
            KfloopError: The place cannot be reached or written; what was not published stays.
            OSError: This disk cannot be read or written.
        """
        until = now_ns if ended else now_ns // SLOT_NS * SLOT_NS - 1
        done = self._begin_anew(now_ns, counts) if self._until >= now_ns + SLOT_NS else 0
        for folder in self._places():
            _sweep(folder)
            slots: dict[int, list[Path]] = {}
            for path in sorted(path for path in parts if path.parent == folder and path.exists()):
                if ended or written_ns(path) <= until:
                    slots.setdefault(written_ns(path) // SLOT_NS, []).append(path)
            for together in slots.values():
                _seal(folder, together, self._at)
        newest, put = self._put_sealed(counts)
        self._until = max(newest, until)
        self._keep()
        self._at("kept")
        counts.published_files += put
        self._say(counts, ended=ended)
        self._tidy_places()
        return done + put

    def _put_sealed(self, counts: Counts) -> tuple[int, int]:
        """Publish what is sealed; the time of the newest of this writer's files, and how many were published."""
        newest, done = self._until, 0
        for path in self._sealed():
            if time.monotonic() - self._said >= SILENT_SECONDS:  # so that nobody takes it for gone while much waits
                self._say(counts, ended=False)
            at_ns = max(written_ns(path), self._until + 1)  # a clock may have been set back
            name = f"{at_ns:020d}-{self.writer}-{file_sha256(path)[:16]}.parquet"
            self._shared.put(path, f"{self._remote(path, at_ns)}/{name}")
            self._at("published")
            path.unlink()
            self._at("deleted")
            newest, done = max(newest, at_ns), done + 1
        return newest, done

    def _begin_anew(self, now_ns: int, counts: Counts) -> int:
        """Go on as another writer: the clock was set back by more than a slot, and times of this writer only grow.

        Else readers would wait for whatever is written from now on until the clock has come where it was, and find it too late then. What is sealed already
        keeps its name, because it may be there: published twice it could be counted twice.

        Returns:
            Number of files that were published under the old name.
        """
        self._until, done = self._put_sealed(counts)
        counts.published_files += done
        left = self._head(counts, ended=True)
        self._told = dict(asdict(counts))
        self._begin(now_ns)
        self._say(counts, ended=False)
        self._shared.announce(left)
        return done

    def waiting(self) -> int:
        """Files that are finished and not published yet."""
        return sum(1 for folder in self._places() for _ in folder.glob("[!.]*.parquet"))

    def expire(self, counts: Counts) -> None:
        """Delete what was published long enough ago and is read, of all writers, once an hour.

        Raises:
            KfloopError: The place cannot be reached.
        """
        if time.monotonic() - self._expired < EXPIRE_SECONDS:
            return
        self._expired = time.monotonic()
        oldest, read = time.time_ns() - int(self._days * DAY_NS), self._read_until()
        for folder in self._shared.folders():
            of_rollout = folder.split("/")[1] == ROLLOUT
            if not of_rollout and folder.rpartition("/")[2] > hour_of(oldest):
                continue
            for file in self._shared.files(folder)[0]:
                if file.at_ns < oldest and (read is None or file.at_ns <= read):
                    self._shared.remove(file.key)
                    counts.deleted_files += 1
                    counts.deleted_bytes += file.size
            self._shared.leave(folder)
        for writer, (_, said) in self._shared.heads().items():
            if writer != self.writer and said < oldest / 1e9:
                self._shared.forget(writer)

    def _identity(self) -> tuple[str, int, int]:
        """Name of this writer, its first time and how far it has come; a new one where there is none."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            raw = json.loads((self._folder / IDENTITY).read_text(encoding="utf-8"))
            found = str(raw["writer"]), int(raw["since_ns"]), int(raw["until_ns"])
            self._told = {str(name): int(count) for name, count in raw.get("told", {}).items()}
            return found
        self._begin(time.time_ns())
        return self.writer, self._since, self._until

    def _begin(self, now_ns: int) -> None:
        """Take a new name; what was collected before, also before there was such a place, is published under it."""
        files = [path for folder in self._places() for path in folder.glob("[!.]*.parquet")]
        since = min([now_ns, *map(written_ns, files)])
        self.writer, self._since, self._until = uuid.uuid4().hex[:12], since, since // SLOT_NS * SLOT_NS - 1
        self._keep()

    def _keep(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        told = {"writer": self.writer, "since_ns": self._since, "until_ns": self._until, "told": self._told}
        staging = self._folder / f"{IDENTITY}.tmp"
        with staging.open("w", encoding="utf-8") as stream:
            json.dump(told, stream)
            stream.flush()
            os.fsync(stream.fileno())
        staging.replace(self._folder / IDENTITY)

    def _say(self, counts: Counts, *, ended: bool) -> None:
        self._shared.announce(self._head(counts, ended=ended))
        self._said = time.monotonic()

    def _head(self, counts: Counts, *, ended: bool) -> Head:
        own = {name: max(0, count - self._told.get(name, 0)) for name, count in asdict(counts).items()}
        return Head(writer=self.writer, since_ns=self._since, until_ns=self._until, ended=ended, counts=own)

    def _places(self) -> Iterator[Path]:
        """Folders that hold files: hours, and roll-outs."""
        for model in sorted(self._folder.glob("[!.]*")):
            for folder in sorted(model.glob("[!.]*")):
                if folder.name == ROLLOUT:
                    yield from (salt for salt in sorted(folder.glob("[!.]*")) if salt.is_dir())
                elif folder.is_dir():
                    yield folder

    def _sealed(self) -> list[Path]:
        """What never changes any more, the oldest first."""
        found = [path for folder in self._places() for path in folder.glob("[!.]*.parquet")]
        return sorted(
            (path for path in found if not PART.fullmatch(path.name)), key=lambda path: (written_ns(path), path)
        )

    def _remote(self, path: Path, at_ns: int) -> str:
        """Folder of a file there; the hour is that of its time there, so that readers know where to look."""
        model, *rest = path.parent.relative_to(self._folder).parts
        return f"{model}/{'/'.join(rest)}" if rest[0] == ROLLOUT else f"{model}/{hour_of(at_ns)}"

    def _tidy_places(self) -> None:
        """Hours that are over leave no empty folder behind."""
        for folder in list(self._places()):
            if HOUR.fullmatch(folder.name) and folder.name < hour_of(time.time_ns() - 3600 * 10**9):
                with contextlib.suppress(OSError):  # only when it is empty
                    folder.rmdir()


def _seal(folder: Path, parts: list[Path], at: Callable[[str], None]) -> None:
    """Make sealed files of finished ones, the oldest first."""
    if len(parts) > 1:
        merge_files(parts, most=SEALED_BYTES, at=at)
        _sweep(folder)
    for path in parts:  # fits no other, or cannot be read: the monitor will name it
        if path.exists():
            path.rename(path.with_name(path.name.removesuffix(".parquet") + MERGED))
            at("sealed")


def _sweep(folder: Path) -> None:
    """Delete what a kill left, and the parts of what was merged: nobody reads them here. Lists of what never was merged go, too."""
    for left in folder.glob(f".*{MERGED}.tmp"):
        left.unlink(missing_ok=True)
    for names in folder.glob(f".*{MERGED}.parts"):
        merged = folder / names.name[1:].removesuffix(".parts")
        if merged.exists():
            delete_parts(merged)
        else:
            names.unlink()
