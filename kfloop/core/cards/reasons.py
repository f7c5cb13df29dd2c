"""Why a version was trained: a cause that the monitor found, fresh labels, because somebody insisted, or for the first time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfloop.core.state import open_state
from kfloop.core.state.origins import trigger_of

if TYPE_CHECKING:
    from kfloop.core.state.ledger import Entry
    from kfloop.core.workspace import Workspace


def why_trained(workspace: Workspace, entry: Entry, evaluation: dict[str, Any]) -> dict[str, Any]:
    """The reason, as ``kind``, a ``sentence``, and the ``evidence`` digest of a trigger.

    Args:
        workspace: Places of the loop.
        entry: The ledger's row that promoted or held the version.
        evaluation: The evaluation of the decision.
    """
    state = open_state(workspace.state)
    run = _training_run(state.ledger.history(workspace.loop), entry)
    trigger = trigger_of(state, workspace.loop, run)
    if trigger is not None:
        return _reason(
            trigger.cause or "drift", f"The monitor asked for it: {trigger.reason}", run, trigger.evidence_digest
        )
    record = state.runs.get(run) if run else None
    if not entry.previous_version:
        return _reason("first", "First training of the loop: there was no champion.", run)
    fresh = ((evaluation.get("challenger") or {}).get("slices") or {}).get("origin:new")
    if fresh:
        n = max((figure.get("n") or 0 for figure in fresh.values() if isinstance(figure, dict)), default=0)
        return _reason("fresh_labels", f"Freshly labelled rows had come in; {n} of them are among the test rows.", run)
    if (record or {}).get("forced"):
        return _reason("forced", "Somebody insisted: kfloop run --force.", run)
    return _reason("asked", "Somebody asked for it: data, configuration or code had changed (kfloop run).", run)


def _training_run(history: list[Entry], entry: Entry) -> str:
    """The run that decided: of an approval it is the run of its hold."""
    holds = [row for row in history if row.action == "hold" and row.evidence_digest == entry.evidence_digest]
    return holds[0].run_id if holds else entry.run_id


def _reason(kind: str, sentence: str, run: str, evidence: str = "") -> dict[str, Any]:
    return {"kind": kind, "sentence": sentence, "run_id": run or None, "evidence": evidence or None}
