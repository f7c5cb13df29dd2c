"""Repeating: when a round is the same as one before, and what then stands."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.core.records import champion_dict
from kfloop.core.state.entries import champion_of
from kfloop.core.state.standing import successor
from kfloop.errors import EXIT_DONE, EXIT_REJECTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfloop.core.state.entries import Entry
    from kfloop.pipelines.rounds import Loop

REPEATABLE = ("succeeded", "rejected", "held")
DAY_SECONDS = 86400.0


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """An earlier record that answers for this round too, why, and the exit status."""

    record: dict[str, Any]
    message: str
    exit_code: int


def same_round(loop: Loop, fingerprint: str) -> Repeated | None:
    """The latest record of the same round, if nothing has happened since that could change its decision."""
    earlier = _latest(loop, fingerprint)
    if earlier is None:
        return None
    history = loop.state.ledger.history(loop.config.name)
    entry, hold = champion_of(history), _hold(history, earlier)
    since = f"nothing new since run {earlier['run_id']}"
    challenger = earlier["digests"].get("package")
    ended = _ended(history, earlier)
    if ended:
        return Repeated(record=earlier, message=f"{since}: {ended}; --force decides again", exit_code=EXIT_REJECTED)
    as_then = earlier["champion"]["after"] == champion_dict(entry)
    if entry is not None and entry.model_digest == challenger and not as_then:
        return Repeated(record=earlier, message=f"{since}: its challenger is champion by now", exit_code=EXIT_DONE)
    if entry is not None and _rolled_back(entry, hold, earlier):
        return Repeated(
            record=earlier,
            message=f"{since}: {entry.actor} rolled its challenger back ({entry.reason}); --force decides again",
            exit_code=EXIT_REJECTED,
        )
    if not as_then or (hold is not None and _lapse(loop, history, hold)):
        return None
    return Repeated(record=earlier, message=f"{since}: {earlier['message']}", exit_code=earlier["exit_code"])


def lapsed(loop: Loop, fingerprint: str) -> str:
    """Why nobody can approve any more what the same round held; empty where nothing was held, or it still waits."""
    earlier = _latest(loop, fingerprint)
    if earlier is None:
        return ""
    history = loop.state.ledger.history(loop.config.name)
    hold = _hold(history, earlier)
    return "" if hold is None else _lapse(loop, history, hold)


def _latest(loop: Loop, fingerprint: str) -> dict[str, Any] | None:
    found = loop.state.runs.last(loop.config.name, fingerprint=fingerprint) if fingerprint else []
    return found[0] if found and found[0]["status"] in REPEATABLE else None


def _lapse(loop: Loop, history: Sequence[Entry], hold: Entry) -> str:
    days = loop.config.gate.approval_days
    name = f"run {hold.run_id}" if hold.run_id else f"decision {hold.evidence_digest[:12]}"
    if time.time() - hold.at > days * DAY_SECONDS:
        return f"the hold of {name} expired after {days:g} days (gate.approval_days)"
    later = successor(history, hold)
    if later is not None:
        return f"the hold of {name} was superseded by the {later.action} of version {later.version}"
    return ""


def _rolled_back(entry: Entry, hold: Entry | None, earlier: dict[str, Any]) -> bool:
    """Whether somebody rolled back from what the earlier round let through; held again since then, it waits again."""
    back = entry.action == "rollback" and entry.previous_digest == earlier["digests"].get("package")
    return back and earlier["status"] != "rejected" and (hold is None or hold.seq < entry.seq)


def _hold(history: Sequence[Entry], earlier: dict[str, Any]) -> Entry | None:
    """The latest row by which the decision of an earlier round is on hold; null where it held nothing."""
    about = [row for row in _about(history, earlier) if row.action == "hold"]
    return about[-1] if about else None


def _ended(history: Sequence[Entry], earlier: dict[str, Any]) -> str:
    """Why what an earlier run held or rolled out was turned down, in words; empty where it was not, or is held again."""
    about = _about(history, earlier)
    last = about[-1] if about else None
    if last is not None and last.action == "reject":
        return f"{last.actor} rejected its challenger ({last.reason})"
    if last is not None and last.action == "withdraw" and last.details.get("down"):
        return f"the roll-out of its challenger was withdrawn ({last.reason})"
    return ""


def _about(history: Sequence[Entry], earlier: dict[str, Any]) -> list[Entry]:
    evidence = (earlier.get("decision") or {}).get("evidence_digest")
    return [row for row in history if evidence and row.evidence_digest == evidence]
