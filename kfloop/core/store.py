"""The blob store: immutable folders named by kind and digest, on a disk or in an object store.

On a disk a blob is written under a temporary name beside its place and appears there by rename. Publishing the same digest twice, also by two
processes at once, leaves one blob. Of a store elsewhere (``s3://...``, see ``blobs``) this disk keeps a mirror below the loop's folder: whoever
asks for the place of a blob gets it from there, brought when it was not there yet.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.core.addresses import redacted, resolved
from kfloop.core.artifacts import folder_digest, sha256_text
from kfloop.core.blobs import Blobs
from kfloop.errors import ConfigError, StateError

if TYPE_CHECKING:
    from kfloop.core.workspace import Workspace

MIRRORS = "mirror"
NESTED = "cards"  # the one kind that has kinds of its own below it, one for each version


class Store:
    """Blobs by kind and digest.

    Args:
        url: Folder path, ``file://`` URL, or any other fsspec URL.
        mirror: Folder that keeps what was brought from elsewhere; not needed for a folder.

    Raises:
        ConfigError: The URL cannot be used, or is elsewhere and there is no mirror.
    """

    def __init__(self, url: str, mirror: Path | None = None) -> None:
        self.url = url
        opened = resolved(url)
        elsewhere = "://" in opened and not opened.startswith("file://")
        if elsewhere and mirror is None:
            raise ConfigError(f"store '{redacted(url)}' is not on this disk: open it with Store.of(workspace)")
        self.blobs = Blobs(url) if elsewhere else None
        self.root = mirror if elsewhere and mirror is not None else Path(opened.removeprefix("file://"))

    @classmethod
    def of(cls, workspace: Workspace) -> Store:
        """The store of a loop, with its mirror in the loop's folder (on a cluster all steps share it through the volume)."""
        return cls(workspace.store, workspace.kfloop_dir / MIRRORS / sha256_text(workspace.store)[:12])

    def path(self, kind: str, digest: str) -> Path:
        """Place of a blob on this disk, whether or not it is there; one that lies elsewhere is brought first."""
        place = self.root / kind / digest
        if self.blobs is not None and digest and not place.is_dir():
            self.blobs.fetch(kind, digest, place)
        return place

    def uri(self, kind: str, digest: str) -> str:
        """Where a blob lies, for people and other programs."""
        return str(self.root / kind / digest) if self.blobs is None else f"{self.blobs.url}/{kind}/{digest}"

    def has(self, kind: str, digest: str) -> bool:
        """Whether the blob is there, complete; what only the mirror has is not."""
        if self.blobs is not None:
            return self.blobs.contents(kind, digest) is not None
        return self.path(kind, digest).is_dir()

    def digests(self, kind: str) -> list[str]:
        """Names of the complete blobs of a kind, the oldest first."""
        if self.blobs is not None:
            return self.blobs.digests(kind)
        places = [path for path in (self.root / kind).glob("[!.]*") if path.is_dir()]
        return [path.name for path in sorted(places, key=lambda path: (path.stat().st_mtime_ns, path.name))]

    def everything(self) -> dict[tuple[str, str], int]:
        """Bytes of each complete blob, by kind and digest; not those of the mirror."""
        if self.blobs is not None:
            return self.blobs.sizes()
        folders = [path for path in self.root.glob("[!.]*") if path.is_dir()]
        kinds = [kind for path in folders for kind in (path.glob("[!.]*") if path.name == NESTED else [path])]
        return {
            (kind.relative_to(self.root).as_posix(), path.name): _bytes(path)
            for kind in sorted(kinds)
            for path in sorted(kind.glob("[!.]*"))
            if path.is_dir()
        }

    def leftovers(self, before: float) -> dict[str, int]:
        """Bytes of each upload or copy that was begun before ``before`` (unix time) and never ended, by its name in the store."""
        if self.blobs is not None:
            return self.blobs.leftovers(before)
        # Beside blobs, never within one: cards of models stand a folder deeper than the others.
        found = [*self.root.glob("*/.tmp-*"), *self.root.glob("cards/*/.tmp-*")]
        staged = [path for path in found if path.is_dir() and path.stat().st_mtime < before]
        return {path.relative_to(self.root).as_posix(): _bytes(path) for path in staged}

    def remove(self, kind: str, digest: str) -> None:
        """Remove a blob, and its copy in the mirror; a kill leaves it whole or gone."""
        if self.blobs is not None:
            self.blobs.drop(kind, digest)
        place = self.root / kind / digest
        if place.is_dir():
            gone = place.with_name(f".tmp-{digest}-{uuid.uuid4().hex[:8]}")
            place.rename(gone)
            shutil.rmtree(gone)

    def remove_leftover(self, name: str) -> None:
        """Remove what ``leftovers`` named."""
        if self.blobs is not None:
            self.blobs.remove(name)
        else:
            shutil.rmtree(self.root / name, ignore_errors=True)

    def require(self, kind: str, digest: str) -> Path:
        """Place of a blob that must be there.

        Raises:
            StateError: The blob is missing.
        """
        if not self.has(kind, digest):
            raise StateError(
                f"{kind} '{digest}' is not in the store '{redacted(self.url)}'",
                hint="bring it back from a backup: kfloop restore SRC --blobs; or run the loop again with: kfloop run --force",
                kind=kind,
                digest=digest,
            )
        return self.path(kind, digest)

    def bring(self, place: Path) -> Path:
        """Make sure that a place which this store gave, maybe in another pod or before a clean-up, has its blob."""
        if self.blobs is not None and not place.is_dir() and place.is_relative_to(self.root):
            self.path(place.parent.relative_to(self.root).as_posix(), place.name)
        return place

    def publish(self, folder: Path, kind: str, digest: str | None = None) -> Path:
        """Copy ``folder`` into the store.

        Args:
            folder: Finished folder.
            kind: Kind of blob, for example ``models``.
            digest: Name of the blob; null means the content digest of the folder.

        Returns:
            The blob's place on this disk.
        """
        name = digest or folder_digest(folder)
        place = self.root / kind / name
        if self.blobs is not None and not self.blobs.publish(folder, kind, name):
            return self.path(kind, name)
        return place if place.is_dir() else _publish(folder, place)


def _publish(folder: Path, place: Path) -> Path:
    """Copy a folder to its place, where it appears whole."""
    staging = place.with_name(f".tmp-{place.name}-{uuid.uuid4().hex[:8]}")
    staging.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(folder, staging)
        for path in staging.rglob("*"):
            _sync(path)
        try:
            staging.rename(place)
        except OSError:
            if not place.is_dir():  # somebody else published it first: theirs is as good as ours
                raise
        _sync(place.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return place


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _sync(path: Path) -> None:
    """Force ``path`` to disk, so that a blob that is visible survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
