"""The blob store: immutable folders named by kind and digest, published by rename.

A blob is written under a temporary name beside its place and appears there complete or not at all. Publishing the same
digest twice, also by two processes at once, leaves one blob.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from kfloop.core.artifacts import folder_digest
from kfloop.errors import ConfigError, StateError


class Store:
    """Blobs in a local folder.

    Args:
        url: Folder path or ``file://`` URL. Other fsspec URLs are refused until the cluster back end reads and writes them.
    """

    def __init__(self, url: str) -> None:
        if "://" in url and not url.startswith("file://"):
            raise ConfigError(
                f"store '{url}' is not a local folder",
                hint="this release keeps blobs in a folder, for example .kfloop/store",
            )
        self.root = Path(url.removeprefix("file://"))

    def path(self, kind: str, digest: str) -> Path:
        """Place of a blob, whether or not it is there."""
        return self.root / kind / digest

    def has(self, kind: str, digest: str) -> bool:
        """Whether the blob is there, complete."""
        return self.path(kind, digest).is_dir()

    def require(self, kind: str, digest: str) -> Path:
        """Place of a blob that must be there.

        Raises:
            StateError: The blob is missing.
        """
        path = self.path(kind, digest)
        if not path.is_dir():
            raise StateError(
                f"{kind} '{digest}' is not in the store '{self.root}'",
                hint="bring it back from a backup, or run the loop again with: kfloop run --force",
                kind=kind,
                digest=digest,
            )
        return path

    def publish(self, folder: Path, kind: str, digest: str | None = None) -> Path:
        """Copy ``folder`` into the store.

        Args:
            folder: Finished folder.
            kind: Kind of blob, for example ``models``.
            digest: Name of the blob; null means the content digest of the folder.

        Returns:
            The blob's place.
        """
        place = self.path(kind, digest or folder_digest(folder))
        if place.is_dir():
            return place
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


def _sync(path: Path) -> None:
    """Force ``path`` to disk, so that a blob that is visible survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
