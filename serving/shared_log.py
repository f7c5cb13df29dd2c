"""Where all servers of a loop publish their request logs: a folder or a bucket, by fsspec URL (key ``requests`` of the loop file).

    <url>/<loop>/<model>/<hour>/<at>-<writer>-<digest>.parquet           a file, put whole and never changed
    <url>/<loop>/<model>/rollout/<salt>/<at>-<writer>-<digest>.parquet   evidence of a roll-out, likewise
    <url>/<loop>/_writers/<writer>.json                                  how far one collector has come

``at`` is the time of a file in nanoseconds, which only grows for one writer; ``writer`` names the folder that a collector writes to, so that no two
share a name; ``digest`` begins the SHA-256 of the content, so that a file tells whether it is whole. Nothing is merged there: it would be another file
with the same rows. The head of a writer promises that all its files up to ``until_ns`` are there and that later ones have a later time, and no file holds what
was written in more than one slot of half a minute, the same for all. So a reader of many writers can take whole files and still read rows in the order of
time (see ``log_mirror.py``): the watermarks of stream processing.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import re
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kfloop.core.addresses import redacted
from kfloop.core.blobs import Blobs, written_at
from kfloop.errors import TransientError
from kfloop.serving.compaction import HOUR
from kfloop.serving.evidence import FOLDER as ROLLOUT

WRITERS = "_writers"
FORMAT = 1
SLOT_NS = 30_000_000_000
NAME = re.compile(r"(\d{20})-([0-9a-f]{12})-([0-9a-f]{16})\.parquet")


@dataclass(frozen=True, kw_only=True)
class Head:
    """What one writer says of itself.

    Attributes:
        writer: Its name.
        since_ns: No file of it is older.
        until_ns: All files up to this time are published.
        ended: Whether it came to a good end: nothing follows unless it starts anew.
        counts: Its totals, as in ``retention.Counts``.
    """

    writer: str
    since_ns: int
    until_ns: int
    ended: bool = False
    counts: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """As it is published."""
        return json.dumps(asdict(self) | {"format": FORMAT}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Head:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: It is something else.
        """
        try:
            raw = json.loads(text)
            if raw["format"] != FORMAT:
                message = f"format {raw['format']!r}, expected {FORMAT}"
                raise ValueError(message)
            counts = {str(name): int(count) for name, count in raw["counts"].items()}
            since, until = int(raw["since_ns"]), int(raw["until_ns"])
            return cls(
                writer=str(raw["writer"]), since_ns=since, until_ns=until, ended=raw["ended"] is True, counts=counts
            )
        except (KeyError, TypeError, AttributeError) as error:
            message = f"no head of a writer: {error!r}"
            raise ValueError(message) from error


@dataclass(frozen=True, kw_only=True, order=True)
class Published:
    """A file that is there.

    Attributes:
        at_ns: Its time.
        key: Its path below the loop's folder.
        writer: Who published it.
        digest: How the SHA-256 of its content begins.
        size: Bytes.
    """

    at_ns: int
    key: str
    writer: str
    digest: str
    size: int


class SharedLog(Blobs):
    """The published files of one loop.

    Args:
        url: As ``Workspace.requests`` has it.
        loop: Name of the loop: several share a place and never mix.

    Raises:
        ConfigError: Nothing here can read such a URL, or a variable that it refers to is not set.
    """

    def __init__(self, url: str, loop: str) -> None:
        super().__init__(url, "request log")
        self._root = posixpath.join(self._root, loop)
        kinds = [self._fs.protocol] if isinstance(self._fs.protocol, str) else self._fs.protocol
        self._on_disk = "file" in kinds

    def put(self, path: Path, key: str) -> None:
        """Put a file there, whole or not at all, and ask whether it arrived.

        Raises:
            TransientError: The server cannot be asked now, or has another number of bytes.
        """
        place, size = self._at(key), path.stat().st_size
        with self._told("written"):
            if self._on_disk:
                _appear(Path(place), path.read_bytes())
            else:
                self._fs.put_file(str(path), place)
        self.verify(key, size)

    def verify(self, key: str, size: int) -> None:
        """Ask whether a file is there with all its bytes.

        Raises:
            TransientError: The server cannot be asked now, or has another number of bytes.
        """
        with self._told("read"):
            there = int(self._fs.info(self._at(key))["size"])
        if there != size:
            raise TransientError(
                f"request log '{redacted(self.url)}': '{key}' has {there} bytes there, expected {size}",
                hint="it is put there again",
            )

    def announce(self, head: Head) -> None:
        """Put a writer's head there in place of its last one."""
        place = self._at(f"{WRITERS}/{head.writer}.json")
        with self._told("written"):
            if self._on_disk:
                _appear(Path(place), head.to_json().encode())
            else:
                self._fs.pipe_file(place, head.to_json().encode())

    def leave(self, folder: str) -> None:
        """Remove a folder on a disk when nothing is in it any more; object stores have none."""
        if self._on_disk:
            with contextlib.suppress(OSError):
                Path(self._at(folder)).rmdir()

    def forget(self, writer: str) -> None:
        """Remove the head of a writer that is long gone."""
        self.remove(f"{WRITERS}/{writer}.json")

    def get(self, keys: list[str], places: list[Path]) -> None:
        """Bring files to places on this disk, whole or not; one that is gone by now is left out."""
        if not keys:
            return
        with self._told("read"):
            try:
                self._fs.get([self._at(key) for key in keys], [str(place) for place in places])
            except FileNotFoundError:
                for key, place in zip(keys, places, strict=True):
                    try:
                        self._fs.get_file(self._at(key), str(place))
                    except FileNotFoundError:
                        place.unlink(missing_ok=True)

    def heads(self) -> dict[str, tuple[Head | None, float]]:
        """By writer what it says of itself and when it said so (unix time, by the server's clock); null for a head that cannot be read."""
        found: dict[str, tuple[Head | None, float]] = {}
        for name, line in self._listed(WRITERS).items():
            if line["type"] != "file" or not name.endswith(".json") or name.startswith("."):
                continue
            text = self.read(f"{WRITERS}/{name}")
            if text is None:
                continue
            writer = name.removesuffix(".json")
            try:
                head = Head.from_json(text)
            except ValueError:
                found[writer] = (None, written_at(line))
            else:
                found[writer] = (head if head.writer == writer else None, written_at(line))
        return found

    def folders(self) -> list[str]:
        """Folders that hold files, by path: hours of each model, the newest first, and those of roll-outs."""
        found: list[str] = []
        for model in self._below(""):
            if not model.startswith(("_", ".")):
                names = self._below(model)
                found += [f"{model}/{name}" for name in names if HOUR.fullmatch(name)]
                if ROLLOUT in names:
                    found += [f"{model}/{ROLLOUT}/{salt}" for salt in self._below(f"{model}/{ROLLOUT}")]
        return sorted(found, key=posixpath.basename, reverse=True)

    def files(self, folder: str) -> tuple[list[Published], list[str]]:
        """The files of one folder, oldest first, and the names of what is none of ours."""
        found, strange = [], []
        for name, line in self._listed(folder).items():
            told = NAME.fullmatch(name)
            if told and line["type"] == "file":
                at, writer, digest = told.groups()
                key, size = f"{folder}/{name}", int(line.get("size") or 0)
                found.append(Published(at_ns=int(at), key=key, writer=writer, digest=digest, size=size))
            elif not name.startswith("."):
                strange.append(name)
        return sorted(found), strange

    def _below(self, folder: str) -> list[str]:
        return [name for name, line in self._listed(folder).items() if line["type"] == "directory"]

    def _listed(self, folder: str) -> dict[str, dict[str, Any]]:
        """What lies directly in a folder, by name; nothing where there is none."""
        with self._told("listed"):
            try:
                lines = self._fs.ls(self._at(folder).rstrip("/"), detail=True)
            except FileNotFoundError:
                return {}
        named = {posixpath.basename(str(line["name"]).rstrip("/")): line for line in lines}
        return {name: line for name, line in named.items() if name != posixpath.basename(folder) or not folder}


def _appear(place: Path, content: bytes) -> None:
    """Write a file on a disk; it appears by rename, and survives a power cut."""
    place.parent.mkdir(parents=True, exist_ok=True)
    staging = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.tmp")
    with staging.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    staging.replace(place)


def hour_of(at_ns: int) -> str:
    """Folder of an hour, ``20261122T01`` in UTC."""
    return datetime.fromtimestamp(at_ns / 1e9, tz=UTC).strftime("%Y%m%dT%H")
