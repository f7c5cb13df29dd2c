"""Blobs in an object store: immutable folders behind any fsspec URL, such as S3.

There is no rename of folders in an object store. So the files of a blob are put first, below a name of their upload's own, and the list of them
with their digests last, by one request that does not replace another list: what has a list is complete. Of two uploads of one blob at once
the first list counts, and the files of the other one are left-overs that ``kfloop gc`` removes, as are those of an upload that was killed.

    <url>/<kind>/<digest>.blob.json        the list: {"format": 1, "upload": ..., "files": {path: {"sha256": ..., "bytes": ...}}}
    <url>/<kind>/<digest>/<upload>/<path>  the files
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import re
import shutil
import uuid
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.addresses import hidden, redacted, resolved
from kfloop.core.artifacts import file_sha256
from kfloop.core.object_errors import kind_of
from kfloop.errors import ConfigError, KfloopError, StateError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

LIST = ".blob.json"
FORMAT = 1
UPLOAD = re.compile(r"(.+?)/up-[0-9a-f]{12}/")
EXTRAS = {"s3": 'pip install "kfloop[s3]"', "gs": "pip install gcsfs", "abfs": "pip install adlfs"}


class Blobs:
    """Blobs behind an fsspec URL; credentials come from the environment, as the file system wants them.

    Args:
        url: The URL, as the loop file has it.
        name: What lies there, for messages.

    Raises:
        ConfigError: Nothing here can read such a URL, or a variable that it refers to is not set.
    """

    def __init__(self, url: str, name: str = "store") -> None:
        self.url, self._name = url.rstrip("/"), name
        credentials = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
        try:
            self._fs, self._root = _opened(resolved(self.url), credentials)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"{name} '{redacted(url)}' cannot be opened: {hidden(str(error), url)}",
                hint=EXTRAS.get(url.partition(":")[0], "give a folder or an fsspec URL such as s3://bucket/path"),
            ) from error

    def contents(self, kind: str, digest: str) -> dict[str, Any] | None:
        """The list of a blob that is complete; null for one that is not there.

        Raises:
            StateError: The list cannot be read.
        """
        text = self.read(f"{kind}/{digest}{LIST}")
        if text is None:
            return None
        try:
            found = json.loads(text)
            (known,) = [found] if found["format"] == FORMAT else []
            return {"upload": str(known["upload"]), "files": dict(known["files"])}
        except (ValueError, TypeError, KeyError) as error:
            raise StateError(
                f"the list of {kind} '{digest}' in store '{redacted(self.url)}' is damaged: {error!r}",
                hint="bring it back from a backup: kfloop restore SRC --blobs; or remove it and run the loop again with: kfloop run --force",
                kind=kind,
                digest=digest,
            ) from error

    def digests(self, kind: str) -> list[str]:
        """Names of the complete blobs of a kind, the oldest first; servers tell times in whole seconds."""
        with self._told("listed"):
            try:
                found = self._fs.ls(self._at(kind), detail=True)
            except FileNotFoundError:
                return []
        lists = [line for line in found if line["type"] == "file" and line["name"].endswith(LIST)]
        return [
            _base(line["name"]).removesuffix(LIST)
            for line in sorted(lists, key=lambda line: (written_at(line), line["name"]))
        ]

    def publish(self, folder: Path, kind: str, digest: str) -> bool:
        """Put a folder there, whole or not at all.

        Returns:
            Whether this call did; somebody else's blob of that name stays.
        """
        if self.contents(kind, digest) is not None:
            return False
        upload = f"up-{uuid.uuid4().hex[:12]}"
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in paths]
        files = {
            name: {"sha256": file_sha256(path), "bytes": path.stat().st_size}
            for name, path in zip(names, paths, strict=True)
        }
        base = f"{kind}/{digest}/{upload}"
        with self._told("written"):
            if paths:
                self._fs.put([str(path) for path in paths], [self._at(f"{base}/{name}") for name in names])
        text = json.dumps({"format": FORMAT, "upload": upload, "files": files}, sort_keys=True)
        self._create(f"{kind}/{digest}{LIST}", text.encode())
        # A server without conditional requests lets a later list replace this one: what is there now tells whose files count.
        # An upload that fails anywhere before leaves its files: the list may have been written though its answer was lost.
        counts = (self.contents(kind, digest) or {}).get("upload")
        if counts not in {None, upload}:
            with contextlib.suppress(KfloopError):
                self.remove(base)
        return bool(counts == upload)

    def fetch(self, kind: str, digest: str, place: Path) -> bool:
        """Bring a blob to ``place`` on this disk, where it appears whole or not at all.

        Returns:
            Whether it is there.

        Raises:
            StateError: A file of it is missing, or is not what the list says.
        """
        found = self.contents(kind, digest)
        if found is None:
            return False
        place.parent.mkdir(parents=True, exist_ok=True)
        staging = place.with_name(f".tmp-{place.name}-{uuid.uuid4().hex[:8]}")
        staging.mkdir()
        try:
            self._download(found, kind, digest, staging)
            try:
                staging.rename(place)
            except OSError:
                if not place.is_dir():  # somebody else brought it first: theirs is as good as ours
                    raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return True

    def _download(self, found: dict[str, Any], kind: str, digest: str, staging: Path) -> None:
        names = sorted(found["files"])
        for name in names:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
        lost = None
        with self._told("read"):
            try:
                if names:
                    keys = [self._at(f"{kind}/{digest}/{found['upload']}/{name}") for name in names]
                    self._fs.get(keys, [str(staging / name) for name in names])
            except FileNotFoundError as error:
                lost = error
        for name in names:
            path = staging / name
            if lost is not None or not path.is_file() or file_sha256(path) != found["files"][name]["sha256"]:
                raise StateError(
                    f"{kind} '{digest}' in store '{redacted(self.url)}' is damaged: "
                    + (f"a file is missing ({lost})" if lost else f"'{name}' is not what was put there"),
                    hint="bring it back from a backup: kfloop restore SRC --blobs; or remove it and run the loop again with: kfloop run --force",
                    kind=kind,
                    digest=digest,
                ) from lost

    def sizes(self) -> dict[tuple[str, str], int]:
        """Bytes of each complete blob, by kind and digest."""
        files = self._files()
        lists = {key.removesuffix(LIST): size for key, (size, _) in files.items() if key.endswith(LIST)}
        for key, (size, _) in files.items():
            upload = UPLOAD.match(key)
            if upload and upload.group(1) in lists:
                lists[upload.group(1)] += size
        return {(name.rpartition("/")[0], name.rpartition("/")[2]): size for name, size in sorted(lists.items())}

    def leftovers(self, before: float) -> dict[str, int]:
        """Bytes of each upload that no list names and that had no file put since ``before`` (unix time)."""
        found: dict[str, list[tuple[int, float]]] = {}
        for key, facts in self._files().items():
            if upload := UPLOAD.match(key):
                found.setdefault(upload.group(0).rstrip("/"), []).append(facts)
        named = {
            f"{kind}/{digest}/{(self.contents(kind, digest) or {}).get('upload')}" for kind, digest in self.sizes()
        }
        return {
            name: sum(size for size, _ in files)
            for name, files in sorted(found.items())
            if name not in named and max(at for _, at in files) < before
        }

    def drop(self, kind: str, digest: str) -> None:
        """Remove a blob, its list first, so that a kill leaves none that reads as complete."""
        self.remove(f"{kind}/{digest}{LIST}")
        self.remove(f"{kind}/{digest}")

    def _files(self) -> dict[str, tuple[int, float]]:
        """Size and time of every file, by its path below the URL."""
        with self._told("listed"):
            found = self._fs.find(self._root, detail=True)
        start = len(self._root) + 1
        return {
            str(name)[start:]: (int(line.get("size") or 0), written_at(line))
            for name, line in found.items()
            if line["type"] == "file"
        }

    def read(self, key: str) -> str | None:
        """Text of one file; null where there is none."""
        with self._told("read"):
            try:
                return str(self._fs.cat_file(self._at(key)).decode("utf-8"))
            except FileNotFoundError:
                return None

    def remove(self, key: str) -> None:
        """Remove a file or all that lies below a name; nothing happens where there is none."""
        with self._told("removed"), contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._at(key), recursive=True)

    def _create(self, key: str, content: bytes) -> None:
        """Put a file there by one request, unless there is one."""
        with self._told("written"):
            try:
                self._fs.pipe_file(self._at(key), content, mode="create")
            except OSError:  # servers say in different words that there is one
                if not self._fs.exists(self._at(key)):
                    raise

    def _at(self, key: str) -> str:
        return posixpath.join(self._root, key)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Every file system has errors of its own; here they are two: what must be mended, and what may pass."""
        try:
            yield
        except (KfloopError, FileExistsError):
            raise
        except Exception as error:
            shown = redacted(self.url)
            reason = hidden(str(error) or repr(error), self.url)
            if isinstance(error, PermissionError | FileNotFoundError) or kind_of(error) == "refused":
                raise StateError(
                    f"{self._name} '{shown}' cannot be {what}: {reason}",
                    hint="is the bucket there, and may the credentials use it? those of S3 come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL)",
                ) from error
            raise TransientError(f"{self._name} '{shown}' cannot be {what} now: {reason}", hint="try again") from error


@lru_cache(maxsize=8)
def _opened(url: str, credentials: tuple[tuple[str, str], ...]) -> tuple[Any, str]:  # noqa: ARG001
    """File system and path of a URL, opened once for the same credentials; listings are never remembered, for others write too."""
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    opened, root = url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    return opened, str(root).rstrip("/")


def _base(name: str) -> str:
    return posixpath.basename(name.rstrip("/"))


def written_at(line: dict[str, Any]) -> float:
    """When a file was written, which file systems spell differently; later than all others where that is not known, so that it is never taken for old."""
    at = next(
        (line[name] for name in ("LastModified", "last_modified", "mtime", "updated", "created") if line.get(name)),
        None,
    )
    if isinstance(at, datetime):
        return at.timestamp()
    return float(at) if isinstance(at, int | float) else float("inf")
