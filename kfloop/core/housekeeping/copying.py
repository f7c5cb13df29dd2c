"""Blobs from one store to another, each checked against a list of what blobs hold."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from kfloop.core.addresses import redacted
from kfloop.core.artifacts import folder_digest
from kfloop.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kfloop.core.store import Store

KIND = "state"
CONTENTS = "blobs.json"  # kind/name of each blob -> digest of what it holds: not every name says that


def read_contents(folder: Path) -> dict[str, str]:
    """What each blob of a backup holds, by digest; nothing where it is from a kfloop that did not list them.

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
    """Write the list into ``out``, with those blobs of the store that no earlier list had.

    Args:
        store: Where the blobs are.
        out: Folder of the list.
        scratch: Folder for a blob that lies elsewhere.
        contents: What blobs hold, as far as it is known.
    """
    for kind, digest in store.everything():
        if f"{kind}/{digest}" not in contents and kind != KIND:
            for folder in _at_hand(store, kind, digest, scratch):
                contents[f"{kind}/{digest}"] = folder_digest(folder)
    (out / CONTENTS).write_text(json.dumps(contents, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def copy_blobs(source: Store, target: Store, scratch: Path, contents: dict[str, str]) -> tuple[int, int]:
    """Copy what ``target`` has not; each copy is compared with what it was made of, and with the list.

    Args:
        source: Where the blobs are.
        target: Where they shall be.
        scratch: Folder for one that lies elsewhere.
        contents: What blobs hold, by digest; what is not in it is added.

    Returns:
        Number of blobs copied, and of those that were there.

    Raises:
        StateError: A blob is damaged, or changed meanwhile.
    """
    copied, present = 0, 0
    there = target.everything()
    for kind, digest in source.everything():
        if kind == KIND:
            continue
        if (kind, digest) in there:
            present += 1
            continue
        for folder in _at_hand(source, kind, digest, scratch):
            expected = folder_digest(folder)
            if contents.setdefault(f"{kind}/{digest}", expected) != expected:
                raise StateError(
                    f"{kind} '{digest}' in '{redacted(source.url)}' is damaged: it does not hold what was backed up",
                    hint="bring it back from another copy, or remove its folder: what needs it will say that it is missing",
                    kind=kind,
                    digest=digest,
                )
            if folder_digest(target.publish(folder, kind, digest)) != expected:
                target.remove(kind, digest)
                raise StateError(f"{kind} '{digest}' changed while it was copied", hint="run the command again")
        copied += 1
    return copied, present


def _at_hand(store: Store, kind: str, digest: str, scratch: Path) -> Iterator[Path]:
    """The folder of a blob; one that lies elsewhere is here for this moment only."""
    if store.blobs is None:
        yield store.require(kind, digest)
        return
    try:
        if store.blobs.fetch(kind, digest, scratch):
            yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
