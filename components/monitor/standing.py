"""A monitoring round that does not retrain: it does nothing, on record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kfloop.components.monitor.policy.concluding import IN_FLIGHT, RETRAIN
from kfloop.core.execution import recorded
from kfloop.core.state import open_state
from kfloop.core.workspace import Workspace, run_id

if TYPE_CHECKING:
    from kfloop.core.state.monitors import Trigger

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


def stand_back(workspace: Workspace, training: str) -> str:
    """Take back the trigger of this round, on record: when it came to start its training, another one of the loop was at work.

    Args:
        workspace: Places of the loop.
        training: Run of the training at work.

    Returns:
        The reason.
    """
    state, run = open_state(workspace.state), run_id()
    reason = f"run {training} trains this loop already"
    # Outside a run there is no trigger to take back.
    rows = state.triggers.history(workspace.loop, RETRAIN) if run else []
    mine: Trigger | None = next((row for row in rows if row.run_id == run), None)
    if mine is not None:
        reason = f"{mine.reason}, but {reason}"
        state.triggers.add(
            workspace.loop,
            run_id=run,
            trigger=IN_FLIGHT,
            reason=reason,
            champion_digest=mine.champion_digest,
            fingerprint=mine.fingerprint,
            evidence_digest=mine.evidence_digest,
            cause=mine.cause,
            labels=mine.labels,
        )
    return reason
