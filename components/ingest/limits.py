"""Which rows a limit keeps."""

from __future__ import annotations

import hashlib
import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def smallest(ids: Sequence[str], limit: int | None) -> list[int]:
    """Places of the ``limit`` rows with the smallest hashes of their ids, in order: a smaller limit is a part of a larger one."""
    if limit is None or limit >= len(ids):
        return list(range(len(ids)))
    return sorted(heapq.nsmallest(limit, range(len(ids)), key=lambda row: hashlib.blake2b(ids[row].encode()).digest()))
