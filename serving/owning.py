"""One owner for one folder: two collectors would count over each other, and take each other's socket away."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from kfloop.errors import ServingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = ".owner.lock"


@contextlib.contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Own a folder of a request log or of its socket, until the end of the block or of this process.

    Args:
        folder: Made where it is missing.

    Raises:
        ServingError: Another process owns it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise ServingError(
            f"'{folder}' cannot be written: {error.strerror or error}", hint="name another folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ServingError(
                f"requests are collected into '{folder}' by process {lock.read().strip() or '?'} already",
                hint="end that one (kfloop serve or kfloop collect), or name another folder with kfloop collect --out",
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
