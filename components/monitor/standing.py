"""The branch of a monitoring round that does not retrain: it does nothing, on record."""

from __future__ import annotations

from kfloop.core.execution import recorded
from kfloop.core.workspace import Workspace

STEP = "stand_by"


def record(trigger: str, workspace: str) -> str:
    """Record that the round ended without a retraining.

    Args:
        trigger: What the monitor concluded.
        workspace: `Workspace.to_json`.

    Returns:
        The trigger.
    """
    with recorded(STEP, Workspace.from_json(workspace)) as facts:
        facts["outcome"] = trigger
    return trigger
