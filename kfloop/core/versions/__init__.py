"""Dataset versions: immutable folders of Arrow splits and a card, named by the digest of their content.

A row's split is the source's own, or depends on a stable hash of its content or group, or on cutoffs that the first version of a loop
set: it never changes between versions. Rows of equal content fall into the same split, so that no test row was trained on.
"""

from kfloop.core.versions.hashing import content_hash
from kfloop.core.versions.images import Rows, image_column, write_version
from kfloop.core.versions.reading import DatasetVersion, Split, read_version, verify_version
from kfloop.core.versions.splitting import SPLITS, split_of, stable_share
from kfloop.core.versions.writing import CARD, QUARANTINE, VersionWriter

__all__ = [
    "CARD",
    "QUARANTINE",
    "SPLITS",
    "DatasetVersion",
    "Rows",
    "Split",
    "VersionWriter",
    "content_hash",
    "image_column",
    "read_version",
    "split_of",
    "stable_share",
    "verify_version",
    "write_version",
]
