"""Following: everything that shows what the ledger says catches up with it: repository, server, aliases, model cards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kfloop.components.deploy.projecting import project, standing
from kfloop.core.cards import ensure_card
from kfloop.core.state import open_state
from kfloop.core.state.anchor import anchor

if TYPE_CHECKING:
    from kfloop.components.deploy.projecting import Standing
    from kfloop.core.sections import DeployConfig
    from kfloop.core.workspace import Workspace


def follow(workspace: Workspace, config: DeployConfig, now: Standing | None = None) -> list[str]:
    """Let everything follow the ledger; may be repeated at any time.

    Args:
        workspace: Places of the loop.
        config: Patience with a running server; what the card says about the model.
        now: What the ledger says; read when null.

    Returns:
        One sentence per thing that was changed.
    """
    anchor(workspace)
    now = now or standing(open_state(workspace.state).ledger, workspace.loop)
    changes = project(workspace, config, now)
    for entry in (now.champion, now.pending, now.rejected):
        if entry is not None:
            changes += ensure_card(workspace, config.about, entry)
    return changes
