"""Copying blobs from one store into another, each one read back and compared; one that is damaged is named and keeps no other one waiting."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kfloop.core.addresses import redacted
from kfloop.core.artifacts import folder_digest
from kfloop.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kfloop.core.store import Store

STATE = "state"  # kind of the copies of state that lie beside the blobs of a backup
CONTENTS = (
    "blobs.json"  # beside a copy of state; KIND/NAME of each blob -> digest of what it holds: not every name says that
)


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """A blob that could not be copied: its kind, its digest, and why."""

    kind: str
    digest: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Copies:
    """What was copied.

    Attributes:
        copied: Blobs that were copied now.
        present: Blobs that were there.
        damaged: Blobs that could not be read, or came out as something else; nothing of them is there.
    """

    copied: int
    present: int
    damaged: tuple[Damaged, ...]


def copy_blobs(source: Store, target: Store, scratch: Path, contents: dict[str, str], *, mend: bool = False) -> Copies:
    """Copy what ``target`` has not; each copy is read back from there and compared with what it was made of.

    Args:
        source: Where the blobs are.
        target: Where they shall be.
        scratch: Folder for what lies elsewhere, one blob at a time; need not exist.
        contents: What blobs hold, as ``read_contents`` gives it; what it lacks of those that are copied is added.
        mend: Also replace blobs of ``target`` that do not hold what its own list, or ``contents``, says; all of them are read for that.

    Raises:
        TransientError: One of the stores is away.
        StateError: ``target`` cannot be written.
    """
    copied, present, damaged = 0, 0, list[Damaged]()
    there = target.everything()
    for kind, digest in source.everything():
        if kind == STATE:
            continue
        replace = (kind, digest) in there
        if replace and not (mend and _is_damaged(target, kind, digest, scratch, contents)):
            present += 1
            continue
        try:
            reason = _copy(source, target, kind, digest, scratch, contents, replace=replace)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if reason:
            damaged.append(Damaged(kind=kind, digest=digest, reason=reason))
        else:
            copied += 1
    return Copies(copied=copied, present=present, damaged=tuple(damaged))


def read_contents(folder: Path) -> dict[str, str]:
    """What each blob of a backup holds, by digest; nothing where it is of a kfloop that did not list them.

    Raises:
        StateError: The list is damaged.
    """
    path = folder / CONTENTS
    if not path.exists():
        return {}
    try:
        return {str(name): str(digest) for name, digest in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise StateError(f"'{path}' is no list of blobs: {error}", hint="take another backup: --at NAME") from error


def write_contents(store: Store, out: Path, scratch: Path, contents: dict[str, str]) -> None:
    """Write the list into ``out``, with those blobs of the store that it lacks and that can be read.

    Args:
        store: The backup's blobs.
        out: Folder of the list.
        scratch: Folder for a blob that lies elsewhere.
        contents: What blobs hold, as far as it is known.
    """
    for kind, digest in store.everything():
        if kind != STATE and f"{kind}/{digest}" not in contents:
            with contextlib.suppress(StateError, OSError), at_hand(store, kind, digest, scratch) as folder:
                contents[f"{kind}/{digest}"] = folder_digest(folder)
    (out / CONTENTS).write_text(json.dumps(contents, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def put(target: Store, folder: Path, kind: str, digest: str) -> None:
    """Publish a folder; of a store elsewhere no mirror is kept.

    Raises:
        StateError: The target cannot be written.
    """
    try:
        (target if target.blobs is None else target.blobs).publish(folder, kind, digest)
    except OSError as error:
        raise StateError(
            f"'{redacted(target.url)}' cannot be written: {error}",
            hint="is it a folder, is there room, and may you write there? then run it again: what was copied is kept",
        ) from error


@contextlib.contextmanager
def at_hand(store: Store, kind: str, digest: str, scratch: Path) -> Iterator[Path]:
    """The folder of a blob; one that lies elsewhere is fetched from there, compared with its list, and is here for this moment only.

    Raises:
        StateError: It is not there, or damaged.
    """
    if store.blobs is None:
        yield store.require(kind, digest)
        return
    try:
        if not store.blobs.fetch(kind, digest, scratch):
            raise StateError(f"{kind} '{digest}' is not in the store any more", hint="run the command again")
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _copy(
    source: Store, target: Store, kind: str, digest: str, scratch: Path, contents: dict[str, str], *, replace: bool
) -> str:
    """Copy one blob.

    Returns:
        What is wrong with it; empty where nothing is.
    """
    with contextlib.ExitStack() as held:
        try:
            folder = held.enter_context(at_hand(source, kind, digest, scratch / "from"))
            expected = folder_digest(folder)
        except (StateError, OSError) as error:
            return str(error)
        if contents.setdefault(f"{kind}/{digest}", expected) != expected:
            return "it does not hold what was backed up"
        if replace:
            target.remove(kind, digest)
        put(target, folder, kind, digest)
    try:
        with at_hand(target, kind, digest, scratch / "to") as copy:
            reason = "" if folder_digest(copy) == expected else "its copy is another one: it changed meanwhile"
    except (StateError, OSError) as error:
        reason = f"its copy cannot be read: {error}"
    if reason:
        target.remove(kind, digest)
    return reason


def _is_damaged(store: Store, kind: str, digest: str, scratch: Path, contents: dict[str, str]) -> bool:
    wanted = contents.get(f"{kind}/{digest}")
    try:
        with at_hand(store, kind, digest, scratch) as folder:
            return wanted is not None and folder_digest(folder) != wanted
    except (StateError, OSError):
        return True
