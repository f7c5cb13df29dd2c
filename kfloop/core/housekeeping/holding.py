"""Holding the leases of several loops at once: no run of theirs begins meanwhile, and a kill frees them as it does that of a run."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from kfloop.core.records import new_run_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kfloop.core.state import State
    from kfloop.core.state.leases import Lease


@contextlib.contextmanager
def all_held(state: State, loops: Iterable[str], purpose: str) -> Iterator[list[Lease]]:
    """Hold the leases of these loops.

    Raises:
        LeaseHeldError: A run of one of them is at work.
    """
    with contextlib.ExitStack() as held:
        yield [
            held.enter_context(state.leases.acquire(loop, f"{purpose}-{new_run_id()}")) for loop in sorted(set(loops))
        ]
