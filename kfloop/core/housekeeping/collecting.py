"""Garbage collection: blobs that some run of this state gave and that nothing kept names any more, and left-overs of uploads."""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kfloop.core.housekeeping import KEPT_RUNS
from kfloop.core.housekeeping.holding import all_held
from kfloop.core.housekeeping.references import Blob, kept_blobs, loops_of, named_by
from kfloop.core.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.state import State
    from kfloop.core.workspace import Workspace

ABANDONED_S = 7 * 24 * 3600  # a step on a cluster holds no lease, and may write nothing for long
STALE_S = 24 * 3600  # no upload and no copy takes longer; a younger one may still be at work


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What a collection removed, or would remove.

    Attributes:
        removed: Blobs, as kind and digest, in order.
        leftovers: Unfinished uploads and copies, by their names in the store, and ``scratch/NAME`` of steps that were killed.
        kept: Number of blobs that something names.
        foreign: Number of blobs that no run of this state gave; they are left alone.
        bytes: Size of all that was removed.
        dry_run: Whether nothing was removed.
    """

    removed: tuple[Blob, ...]
    leftovers: tuple[str, ...]
    kept: int
    foreign: int
    bytes: int
    dry_run: bool


def collect_garbage(state: State, workspace: Workspace, *, runs: int = KEPT_RUNS, dry_run: bool = False) -> Collected:
    """Remove what nothing names any more.

    Args:
        state: State of the loop, and of all loops that share its store.
        workspace: Places of the loop.
        runs: Number of runs of each loop, the newest first, whose blobs stay.
        dry_run: Only say what would be removed.

    Raises:
        LeaseHeldError: A run of one of the loops is at work.
        StateError: A run took a loop over meanwhile; what is left is left alone.
    """
    store = Store.of(workspace)
    # A run at work may be about to name a blob that no record names yet.
    with all_held(state, {*loops_of(state), workspace.loop}, "gc") as mine:
        named = set[Blob]().union(*named_by(state).values())
        kept = kept_blobs(state, store, workspace, runs)
        sizes = store.everything()
        garbage = sorted(blob for blob in sizes if blob in named and blob not in kept)
        leftovers = store.leftovers(time.time() - STALE_S)
        abandoned = _abandoned(workspace.kfloop_dir / "scratch", time.time() - ABANDONED_S)
        if not dry_run:
            for kind, digest in garbage:
                for lease in mine:
                    lease.check()  # cut off for long, it may have been taken over by a run that found this blob in place
                store.remove(kind, digest)
            for name in leftovers:
                store.remove_leftover(name)
            for place in abandoned:
                shutil.rmtree(place, ignore_errors=True)
    return Collected(
        removed=tuple(garbage),
        leftovers=(*sorted(leftovers), *(f"scratch/{place.name}" for place in abandoned)),
        kept=len(kept),
        foreign=sum(blob not in named and blob not in kept for blob in sizes),
        bytes=sum(sizes[blob] for blob in garbage) + sum(leftovers.values()) + sum(abandoned.values()),
        dry_run=dry_run,
    )


def _abandoned(scratch: Path, before: float) -> dict[Path, int]:
    """Folders of killed steps in which nothing was written since ``before``, in order, with their bytes."""
    found = {}
    for place in sorted(scratch.iterdir()) if scratch.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # its step ends at this moment
            facts = [path.lstat() for path in (place, *place.rglob("*"))]
            if place.is_dir() and not place.is_symlink() and max(fact.st_mtime for fact in facts) < before:
                found[place] = sum(path.lstat().st_size for path in place.rglob("*") if path.is_file())
    return found
