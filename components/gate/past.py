"""What the ledger says of the past: which promotion a decision follows, and whether a person turned this very challenger down.

A challenger that somebody rejected, or rolled back from, is never promoted automatically: when it passes it is on hold, and a person
who approves it goes on record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kfloop.core.state import open_state
from kfloop.core.state.database import exists
from kfloop.core.state.entries import champion_of
from kfloop.core.state.standing import told_down, turned_down

if TYPE_CHECKING:
    from kfloop.core.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Past:
    """What a decision has to know of earlier ones.

    Attributes:
        champion_row: Number of the ledger's row that made the present champion; 0 for none.
        turned_down: Who turned the challenger down, when and why; empty for nobody.
    """

    champion_row: int = 0
    turned_down: str = ""


def past_of(workspace: Workspace, challenger: str | None) -> Past:
    """Read the ledger; the same facts stand in the section ``gate`` so that no cached decision outlives them.

    Args:
        workspace: Places of the loop.
        challenger: Digest of its package; null where no report names it.
    """
    if not workspace.state or not exists(workspace.state):  # a gate by itself, without a loop around it
        return Past()
    history = open_state(workspace.state).ledger.history(workspace.loop)
    champion, down = champion_of(history), turned_down(history, challenger or "")
    return Past(champion_row=champion.seq if champion else 0, turned_down=told_down(down) if down else "")
