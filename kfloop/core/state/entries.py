"""Rows of the ledger, and what a list of them says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the ledger.

    Attributes:
        loop: The loop.
        seq: Number of the row, from 1.
        at: Unix time in seconds.
        phase: ``intent``, ``done`` or ``withdrawn``; ``noted`` for a row that changes no champion.
        intent: Number of the intent that a closing row answers; 0 for an intent and for what is noted.
        action: ``promote`` or ``rollback``; noted are ``hold``, ``reject``, ``override``, ``end_override``, ``rollout`` (a challenger begins to get
            traffic) and ``withdraw`` (it gets no more).
        version: Version that becomes (or became) champion, or that is held; also its Triton and MLflow version. 0 where there is none.
        model_digest: Digest of its package.
        previous_version: Champion before, 0 when there was none.
        previous_digest: Package of the champion before, empty when there was none.
        actor: Who did it.
        reason: Why, in one sentence.
        evidence_digest: Digest of the decision that allowed it.
        run_id: The run, if any.
        details: What only some rows have: ``decision`` (blob of the decision in the store), ``rule`` and ``until`` (unix time) of an override, ``mode``, ``share``, ``salt`` and
            ``config`` of a roll-out, ``rollout`` (its row), ``figures`` and ``down`` (whether only a person may promote it again) of its withdrawal.
    """

    loop: str
    seq: int
    at: float
    phase: str
    intent: int
    action: str
    version: int
    model_digest: str
    previous_version: int
    previous_digest: str
    actor: str
    reason: str
    evidence_digest: str
    run_id: str
    details: dict[str, Any] = field(default_factory=dict)


def champion_of(entries: list[Entry]) -> Entry | None:
    """The row that made the present champion; null before the first promotion."""
    return next((entry for entry in reversed(entries) if entry.phase == "done"), None)


def open_intent_of(entries: list[Entry]) -> Entry | None:
    """The last intent, unless a row after it closed it; what people note meanwhile closes nothing."""
    last = next((entry for entry in reversed(entries) if entry.phase != "noted"), None)
    return last if last is not None and last.phase == "intent" else None
