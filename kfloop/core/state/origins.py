"""Which conclusion of the monitor a training run goes back to: behind the trigger in one run, or started by it as a run of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfloop.core.state import State
    from kfloop.core.state.monitors import Trigger

STARTING = "submit_training"  # step of monitoring as compiled for a cluster


def trigger_of(state: State, loop: str, run: str) -> Trigger | None:
    """The conclusion for which a run trains; null where nobody but a person asked for it.

    A run on a cluster may be at work before the step that started it has told its id. Until it tells, and where it was killed before it could, a
    start for the present champion counts as this run's: should a person have started it, it is judged on more than it need be, never on less.

    Args:
        state: State of the loops.
        loop: Name of the loop.
        run: Id of the training run; empty outside a run.
    """
    if not run:
        return None
    triggers = state.triggers.history(loop, "retrain")
    for trigger in reversed(triggers):
        if run in {trigger.run_id, started_training(state, trigger.run_id).get("outcome")}:
            return trigger
    last = triggers[-1] if triggers else None
    return last if last is not None and _is_starting(state, loop, last) else None


def started_training(state: State, run: str) -> dict[str, Any]:
    """What a round says of the training that it started as a run of its own, on a cluster; empty where it trained itself."""
    events = state.runs.events(run) if run else []
    told = (item.payload for item in reversed(events) if item.step == STARTING and item.event == "succeeded")
    return next(told, {})


def _is_starting(state: State, loop: str, trigger: Trigger) -> bool:
    """Whether the round has begun to start a training for the present champion and has not told which: it may have failed when the server had started it."""
    events = [item for item in (state.runs.events(trigger.run_id) if trigger.run_id else []) if item.step == STARTING]
    champion = state.ledger.champion(loop)
    untold = bool(events) and events[-1].event != "succeeded"
    return untold and champion is not None and champion.model_digest == trigger.champion_digest
