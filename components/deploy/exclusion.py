"""Exclusion: one change of a loop's champion at a time, whoever asks for it, from wherever."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING

from kfloop.core.workspace import run_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.core.state import State
    from kfloop.core.workspace import Workspace


@contextlib.contextmanager
def exclusive(state: State, workspace: Workspace, purpose: str) -> Iterator[None]:
    """Hold the loop's lease, unless this process (or the run it is a step of) holds it already."""
    holder = state.leases.holder(workspace.loop)
    if holder is not None and holder.is_us(run_id()):
        yield
        return
    with state.leases.acquire(workspace.loop, f"{purpose}-{uuid.uuid4().hex[:6]}"):
        yield
