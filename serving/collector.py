"""The collector: writes the log packets that the served models sent (``receiving.py``) as Parquet by model and hour, off the answer's path.

Files appear by rename and are never changed (columns: see ``packets.py``); those of an hour that is over become one (``compaction.py``). The disk is bounded by section
``serve.log``; what is lost is counted.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kfloop.core.sections import LogConfig
from kfloop.errors import ConfigError
from kfloop.serving.compaction import is_over, merge_hour
from kfloop.serving.control import GOLDEN_ID
from kfloop.serving.evidence import write_evidence
from kfloop.serving.packets import Rows, as_table, parquet_options, parse, shape_of, without
from kfloop.serving.receiving import Receiver
from kfloop.serving.retention import read_counts, read_lost, tidy, write_counts
from kfloop.serving.shared_log import SLOT_NS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kfloop.serving.log_publisher import Publisher

FLUSH_SECONDS = 1.0
TIDY_SECONDS = MERGE_SECONDS = 60.0
PUBLISH_AFTER_SECONDS = 1.0  # after the end of a slot
LAST_PUBLISH_SECONDS = 25.0  # at the end; a pod is given a minute


class Collector:
    """Listens on a socket of its own and writes what arrives.

    Args:
        folder: Root of the request log.
        config: What is kept; everything when left out.
        secret: Key of the digests, in hex; a fresh one when left out.
        address: Socket to listen on, in a folder that is this collector's alone (``owning.py``); one in a private folder when left out.
        read_until: Tells the time of the newest row that the monitor has counted, in nanoseconds; null where that is not known.
        publisher: Brings the files to where all servers of the loop publish theirs; then only what is there is deleted here.
    """

    def __init__(
        self,
        folder: Path,
        config: LogConfig | None = None,
        *,
        secret: str = "",
        address: Path | None = None,
        read_until: Callable[[], int | None] = lambda: None,
        publisher: Publisher | None = None,
    ) -> None:
        self._folder, self._config, self._publisher = folder, config or LogConfig(), publisher
        self._read_until = read_until if publisher is None else lambda: 0
        self._receiver = Receiver(self._config, secret=secret, address=address, flush=self.write, lose=self._count)
        self.address = self._receiver.address
        self._stop, self._ends = threading.Event(), threading.Event()
        self._writing, self._counting, self._cleaning = threading.Lock(), threading.Lock(), threading.Lock()
        self._publishing = threading.Lock()
        self._merged: dict[
            Path, tuple[int, int]
        ] = {}  # by finished hour: when its folder changed last, and damaged files in it
        self._files = 0
        self._size, self._full, self._tidied = 0, False, 0.0
        self._lost = read_lost(folder)  # by sender: rows that it says it dropped
        self._before = read_counts(folder)
        self._told = self._before
        self.counts = read_counts(folder)
        self._writer = threading.Thread(target=self._write_now_and_then, name="kfloop-log-writer", daemon=True)
        self._merger = threading.Thread(
            target=self._publish_now_and_then if publisher else self._merge_now_and_then,
            name="kfloop-log-merger",
            daemon=True,
        )

    @property
    def written(self) -> int:
        """Rows written by this collector."""
        return self.counts.written - self._before.written

    @property
    def dropped(self) -> int:
        """Rows lost, and packets that were none, since this collector began."""
        before, now = self._before, self.counts
        return now.dropped - before.dropped + now.garbage - before.garbage

    @property
    def received(self) -> int:
        """Packets that arrived."""
        return self._receiver.received

    def start(self) -> None:
        """Begin to listen."""
        self._receiver.start()
        self._writer.start()
        self._merger.start()

    def stop(self) -> None:
        """Write what is left and close."""
        self._stop.set()
        self._receiver.stop()
        self._writer.join()
        if self._publisher is None:
            self._merger.join()
        self.write()
        if self._publisher is not None:
            self._ends.set()
            self._merger.join(LAST_PUBLISH_SECONDS)
            if waiting := self._publisher.waiting():
                sys.stderr.write(
                    f"request log: {waiting} files in '{self._folder}' are not published yet; the next start goes on\n"
                )
        self._receiver.close()

    def write(self) -> None:
        """Write everything received so far."""
        with self._writing:
            alike: dict[tuple[Any, ...], Rows] = {}
            paired: list[dict[str, Any]] = []
            for packet in self._receiver.take():
                try:
                    head, arrays = parse(packet)
                except (ValueError, KeyError, TypeError, struct.error):  # not one of ours: the rest is written
                    self._count("garbage", 1)
                    continue
                if "rollout" in head:
                    paired.append(head)
                    continue
                self._hear(head)
                head, arrays = without(head, arrays, GOLDEN_ID)
                if head["ids"]:
                    alike.setdefault(shape_of(head, arrays), []).append((head, arrays))
            for (model, *_), rows in alike.items():
                self._write_file(model, rows)
            try:
                write_evidence(self._folder, paired)
            except (OSError, ValueError, KeyError, TypeError):  # a full disk, or no record of ours
                self._count("dropped", len(paired))
            self._tell()

    def _hear(self, head: dict[str, Any]) -> None:
        """What the sender says it lost: a total of its own, so that a packet that is lost hides nothing."""
        sender, lost = str(head.get("sender", "")), int(head.get("dropped", 0))
        self._count("dropped", max(0, lost - self._lost.get(sender, 0)))
        self._lost[sender] = max(lost, self._lost.get(sender, 0))

    def _count(self, name: str, more: int) -> None:
        with self._counting:
            setattr(self.counts, name, getattr(self.counts, name) + more)

    def _tell(self) -> None:
        """Write the totals where people and ``kfloop status`` see them."""
        if self.counts != self._told:
            self._told = replace(self.counts)
            with contextlib.suppress(OSError):  # a full disk: told as soon as there is room again
                write_counts(self._folder, self._told, self._lost)

    def _write_now_and_then(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            now = time.monotonic()
            grown = self._size > self._config.max_bytes and not self._full
            try:
                if now - self._tidied >= TIDY_SECONDS or self._tidied == 0.0 or grown:
                    self._tidied = now if self.tidy() else self._tidied
                self.write()
            except Exception as error:  # noqa: BLE001 - without this thread nothing would be written any more
                sys.stderr.write(f"request log: {error!r}\n")

    def tidy(self, *, wait: bool = False) -> bool:
        """Delete what is too old or too much; what the monitor has yet to read stays, and then new rows are not written.

        Args:
            wait: Wait while files are merged.

        Returns:
            Whether it was done; not while files are merged.
        """
        if not self._cleaning.acquire(blocking=wait):
            return False
        try:
            with self._writing:
                self._size = tidy(self._folder, self._config, self.counts, self._read_until())
                self._full = self._size > self._config.max_bytes
                self._tell()
        finally:
            self._cleaning.release()
        return True

    def publish(self, *, ended: bool = False) -> int:
        """Publish what was written in slots that are over (``log_publisher.py``).

        Args:
            ended: Whether nothing follows: then everything is published.

        Returns:
            Number of files that were published.

        Raises:
            KfloopError: The place cannot be reached; nothing is lost.
            ConfigError: There is no such place.
        """
        if self._publisher is None:
            raise ConfigError(
                "this log is not published anywhere", hint="name a place in key requests of the loop file"
            )
        with self._publishing:
            with self._writing:  # no file of an earlier time appears after this moment
                now, parts = time.time_ns(), self._publisher.parts()
            done = self._publisher.publish(parts, now, self.counts, ended=ended)
        if self._full:
            self.tidy(wait=True)
        return done

    def _publish_now_and_then(self) -> None:
        """At the start, so that readers know of this writer before its first row; after every slot; and once more at the end."""
        said, last = "", False
        while not last:
            last = self._ends.is_set()
            try:
                self.publish(ended=last)
                if self._publisher is not None and not last:
                    self._publisher.expire(self.counts)
                said = ""
            except Exception as error:  # noqa: BLE001 - what could not be published waits
                self._count("failed_uploads", 1)
                if str(error) != said:
                    said = str(error)
                    sys.stderr.write(f"request log: not published, and tried again: {said}\n")
            if not last:
                self._ends.wait((SLOT_NS - time.time_ns() % SLOT_NS) / 1e9 + PUBLISH_AFTER_SECONDS)

    def _merge_now_and_then(self) -> None:
        while not self._stop.wait(MERGE_SECONDS):
            try:
                self.merge()
            except Exception as error:  # noqa: BLE001 - a log in small files is read as well
                sys.stderr.write(f"request log: hours are not merged: {error!r}\n")

    def merge(self) -> None:
        """Merge the files of hours that are over, where something changed since the last look."""
        for hour in self._folder.glob("[!.]*/[!.]*"):
            if self._stop.is_set() or not is_over(hour.name, time.time()):
                continue
            with self._cleaning:
                if not hour.is_dir() or self._merged.get(hour, (0, 0))[0] == hour.stat().st_mtime_ns:
                    continue
                done = merge_hour(hour, stopped=self._stop.is_set)
                self._merged[hour] = (0 if done.waits else hour.stat().st_mtime_ns, done.damaged)
            self._count("merged_files", done.parts)
        self._merged = {hour: known for hour, known in self._merged.items() if hour.is_dir()}
        self.counts.damaged_files = sum(damaged for _, damaged in self._merged.values())

    def _write_file(self, model: str, rows: Rows) -> None:
        import pyarrow.parquet as pq

        table = as_table(rows)
        if self._full:
            self._count("dropped", table.num_rows)
            self._count("full", table.num_rows)
            return
        hour = datetime.now(UTC).strftime("%Y%m%dT%H")
        folder = self._folder / model / hour
        self._files += 1
        name = f"{time.time_ns():020d}-{os.getpid()}-{self._files:06d}.parquet"
        staging = folder / f".{name}.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, staging, **parquet_options(table))
            self._size += staging.stat().st_size
            staging.replace(folder / name)
        except OSError:  # a full disk: the server answers on, the loss is counted
            staging.unlink(missing_ok=True)
            self._count("dropped", table.num_rows)
            return
        self._count("written", table.num_rows)
