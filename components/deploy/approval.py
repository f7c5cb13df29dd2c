"""Approval: a person promotes, or rejects, exactly the challenger that the gate held, on record.

What waits stands in the ledger: the run, the challenger, the evidence digest and the blob of the decision. Approval takes the decision from
the store and recomputes both digests, so that neither an edited report nor the report of another run gets through.
"""

from __future__ import annotations

import getpass
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kfloop.components.deploy.changing import Change, ignore
from kfloop.components.deploy.checking import AGAIN, refuse_ended, refuse_unpassed
from kfloop.components.deploy.deployment import DeploymentReport, described
from kfloop.components.deploy.exclusion import exclusive
from kfloop.components.deploy.following import follow
from kfloop.components.deploy.recovery import recover
from kfloop.components.deploy.rolling import carry_out, stop_routing
from kfloop.core.decisions import stored_decision
from kfloop.core.sections import DeployConfig, GateConfig
from kfloop.core.state import open_state
from kfloop.core.state.standing import active_rollout, rejection, successor
from kfloop.core.workspace import run_id
from kfloop.errors import InputError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kfloop.core.state import State
    from kfloop.core.state.ledger import Entry
    from kfloop.core.workspace import Workspace

DAY_SECONDS = 86400.0


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A hold that a person closed.

    Attributes:
        version: The version that was held.
        model_digest: Its package.
        evidence_digest: The decision.
        ledger_row: Number of the row.
        sentence: All of this for people.
    """

    version: int
    model_digest: str
    evidence_digest: str
    ledger_row: int
    sentence: str


def approve(
    workspace: Workspace,
    run: str,
    *,
    actor: str = "",
    reason: str = "",
    config: DeployConfig | None = None,
    gate: GateConfig | None = None,
    at: Callable[[str], None] = ignore,
) -> DeploymentReport:
    """Promote the challenger of a decision that is on hold, or begin to roll it out (``deploy.rollout``).

    Args:
        workspace: Places of the loop.
        run: Id of the run, or evidence digest of the decision, or a beginning that names one.
        actor: Who approves; the user's name when empty.
        reason: Why.
        config: Section ``deploy``.
        gate: Section ``gate``, for how long a hold can be approved.
        at: Called with the name of each stage reached, for tests.

    Raises:
        InputError: No decision on hold, or several, are called so.
        StateError: It was rejected, superseded, has expired or was changed since, rests on an override that ended, or the champion has changed.
        ServingError: The version did not verify; the champion keeps serving and the challenger stays on hold.
        LeaseHeldError: A run of this loop, or another approval, is at work.
    """
    config, gate = config or DeployConfig(), gate or GateConfig()
    state = open_state(workspace.state)
    with exclusive(state, workspace, "approve"):
        recover(workspace, config)
        hold = find_hold(state, workspace, run)
        history = state.ledger.history(workspace.loop)
        waits = _promoted(history, hold) is None
        if waits:
            refuse_closed(history, hold)
            _refuse_expired(hold, gate.approval_days)
        _, report = stored_decision(workspace, str(hold.details.get("decision")), hold.evidence_digest)
        if waits:
            refuse_unpassed(report)
            refuse_ended(history, report)
        at("held")
        change = Change(
            action="promote",
            digest=hold.model_digest,
            expected=report.get("champion_digest"),
            actor=actor or getpass.getuser(),
            reason=reason or "approved",
            evidence_digest=hold.evidence_digest,
            decision=str(hold.details["decision"]),
        )
        return described(carry_out(change, workspace, config, at))


def reject(
    workspace: Workspace,
    run: str,
    *,
    actor: str = "",
    reason: str = "",
    config: DeployConfig | None = None,
    at: Callable[[str], None] = ignore,
) -> Rejection:
    """Close a hold, or end a roll-out, without a promotion; see ``approve`` for the arguments and errors.

    A promotion of that name which is open, because the server is away, is given up first.
    """
    state = open_state(workspace.state)
    with exclusive(state, workspace, "reject"):
        opened = state.ledger.open_intent(workspace.loop)
        given_up = opened if opened is not None and opened.action == "promote" and _is_called(opened, run) else None
        if given_up is not None:
            told = f"withdrawn: given up by {actor or getpass.getuser()}: {reason or 'rejected'}"
            state.ledger.close(given_up, done=False, reason=told)
        recover(workspace, config)
        history = state.ledger.history(workspace.loop)
        rollout = active_rollout(history)
        called = rollout if rollout is not None and _is_called(rollout, run) else given_up
        hold = called or _open_hold(state, workspace, run)
        at("held")
        row = state.ledger.note(
            workspace.loop,
            action="reject",
            actor=actor or getpass.getuser(),
            reason=reason or "rejected",
            version=hold.version,
            model_digest=hold.model_digest,
            evidence_digest=hold.evidence_digest,
            run_id=run_id(),
            details=hold.details,
        )
        at("noted")
        if hold.action == "rollout":
            stop_routing(workspace, hold)
        follow(workspace, config or DeployConfig())
        at("projected")
    stays = state.ledger.champion(workspace.loop)
    return Rejection(
        version=hold.version,
        model_digest=hold.model_digest,
        evidence_digest=hold.evidence_digest,
        ledger_row=row.seq,
        sentence=f"Version {hold.version} ({_of(hold)}) was rejected by {row.actor}: {row.reason}. "
        + (f"Version {stays.version} stays champion." if stays else "There is still no champion."),
    )


def _open_hold(state: State, workspace: Workspace, run: str) -> Entry:
    """A hold that somebody can still decide on."""
    hold = find_hold(state, workspace, run)
    history = state.ledger.history(workspace.loop)
    promoted = _promoted(history, hold)
    if promoted is not None:
        raise StateError(
            f"the challenger of {_of(hold)} was approved by {promoted.actor} and is champion",
            hint="to take it back: kfloop rollback",
        )
    refuse_closed(history, hold)
    return hold


def _is_called(entry: Entry, run: str) -> bool:
    """Whether ``run`` is a beginning of the entry's run or evidence."""
    return bool(run) and (entry.evidence_digest.startswith(run) or entry.run_id.startswith(run))


def find_hold(state: State, workspace: Workspace, run: str) -> Entry:
    """The latest hold of the decision that ``run`` names.

    Raises:
        InputError: There is none, or more than one.
    """
    history = state.ledger.history(workspace.loop)
    found = {entry.evidence_digest: entry for entry in history if entry.action == "hold" and _is_called(entry, run)}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        names = ", ".join(sorted(_of(entry) for entry in found.values()))
        raise InputError(f"{len(found)} decisions on hold are called '{run}': {names}", hint="give more of the name")
    for known in state.runs.beginning(workspace.loop, run) if run else []:
        record = state.runs.get(known) or {}
        if record.get("repeated_of"):
            return find_hold(state, workspace, str(record["repeated_of"]))
        outcome = (record.get("decision") or {}).get("outcome")
        hint = (
            "let one of its rules rest: kfloop override RULE, then kfloop run"
            if outcome == "reject"
            else "see: kfloop status"
        )
        raise InputError(f"run '{known}' holds nothing: it ended with '{outcome or record.get('status')}'", hint=hint)
    raise InputError(f"no decision on hold is called '{run}'", hint="see: kfloop status --ledger")


def refuse_closed(history: Sequence[Entry], hold: Entry) -> None:
    """Refuse a hold that nobody can decide on any more.

    Raises:
        StateError: It was rejected, another challenger is held or was promoted since, or the champion has changed.
    """
    rejected = rejection(history, hold)
    if rejected is not None:
        raise StateError(
            f"the challenger of {_of(hold)} was rejected by {rejected.actor} on {_day(rejected.at)}: {rejected.reason}",
            hint=AGAIN,
        )
    later = successor(history, hold)
    if later is not None:
        what = (
            f"{_of(later)}, whose challenger waits or waited"
            if later.action == "hold"
            else f"the {later.action} of version {later.version} by {later.actor} on {_day(later.at)}"
        )
        raise StateError(
            f"{_of(hold)} is superseded by {what}; it was judged against "
            + (f"champion version {hold.previous_version}" if hold.previous_version else "no champion"),
            hint=f"kfloop approve {later.evidence_digest[:12]}" if later.action == "hold" else AGAIN,
        )


def _promoted(history: Sequence[Entry], hold: Entry) -> Entry | None:
    """The row that promoted this very decision and still stands; approving it again changes nothing."""
    last = next((entry for entry in reversed(history) if entry.phase == "done"), None)
    return last if last is not None and last.evidence_digest == hold.evidence_digest and last.seq > hold.seq else None


def _refuse_expired(hold: Entry, days: float) -> None:
    age = (time.time() - hold.at) / DAY_SECONDS
    if age > days:
        raise StateError(
            f"{_of(hold)} is on hold since {_day(hold.at)}, {age:.1f} days: an approval expires after {days:g} (gate.approval_days)",
            hint=f"data and traffic may have changed; {AGAIN}",
        )


def _of(entry: Entry) -> str:
    """A decision for people: its run, or its evidence where it was made outside of one."""
    return f"run {entry.run_id}" if entry.run_id else f"decision {entry.evidence_digest[:12]}"


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
