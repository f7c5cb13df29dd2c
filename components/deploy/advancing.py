"""Advancing a roll-out: look at its evidence, go on, promote or withdraw. One may look at any time and as often as one likes.

Nothing that a look goes by is remembered between two of them but the ledger and the evidence itself, so a look may be killed anywhere and made again:

- before the row ``withdraw``, or before the intent of the promotion: the next look comes to the same end;
- after ``withdraw``: the ledger says that it is over, and everything follows;
- after the intent: recovery finishes the promotion, or withdraws the intent and the next look begins anew.
"""

from __future__ import annotations

import contextlib
import getpass
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from kfloop.components.deploy.changing import Change, change_champion, ignore
from kfloop.components.deploy.checking import refuse_ended, refuse_unpassed
from kfloop.components.deploy.exclusion import exclusive
from kfloop.components.deploy.following import follow
from kfloop.components.deploy.gathering import forget, gather
from kfloop.components.deploy.looking import promised, remember
from kfloop.components.deploy.recovery import recover
from kfloop.components.deploy.rolling import withdraw
from kfloop.components.deploy.targets.embedded import policy_now
from kfloop.components.deploy.truth import read_truth
from kfloop.core.decisions import stored_decision
from kfloop.core.sections import RolloutConfig
from kfloop.core.signature import read_signature
from kfloop.core.state import open_state
from kfloop.core.state.database import exists
from kfloop.core.state.standing import active_rollout
from kfloop.core.statistics.paired_bets import Finding
from kfloop.core.store import Store
from kfloop.errors import InputError, LeaseHeldError, ServingError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kfloop.core.state.ledger import Entry
    from kfloop.core.workspace import Workspace

HOUR_SECONDS = 3600.0
ADVANCE_STAGES = ("looked", "withdrawn", "registered", "intended", "verified", "closed", "projected")
WAITS = "; a person decides: kfloop rollout --promote (or --withdraw) --reason WHY"
POINTS = {
    "errors": "fails on {mean:+.2%} of the requests more than the champion (at most {bound:.2%} is borne)",
    "latency": "takes more than {ratio:g} times the champion's time on {mean:.0%} of the requests (at most {bound:.0%} is borne)",
    "disagreement": "gives another answer on {mean:.1%} of the rows (at most {bound:.0%} is borne)",
    "quality": "is wrong on {mean:+.2%} of the labelled rows more than the champion (at most {bound:.2%} is borne)",
}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a roll-out stands.

    Attributes:
        outcome: ``none``, ``rolling_out``, ``promoted``, ``withdrawn``, or ``busy`` where another run keeps it from being promoted now.
        advice: What the evidence says: ``continue``, ``promote``, ``withdraw``, or ``hold`` for a person.
        reason: Why, with figures.
        version: The challenger; 0 for none.
        model_digest: Its package.
        champion_version: Who is champion.
        mode: ``canary`` or ``shadow``.
        share: Share of the traffic.
        requests: Requests that both answered.
        requests_needed: Fewest of them before a promotion.
        dropped: Records of requests that were lost on the way to the log.
        damaged: Files of evidence that cannot be read; what is in them does not count.
        hours: How long it goes on.
        findings: What each question has found, see ``kfloop.core.statistics.paired_bets``.
        ledger_row: Row that began it, or ended it.
        sentence: All of this for people.
    """

    outcome: str
    advice: str = ""
    reason: str = ""
    version: int = 0
    model_digest: str = ""
    champion_version: int = 0
    mode: str = ""
    share: float = 0.0
    requests: int = 0
    requests_needed: int = 0
    dropped: int = 0
    damaged: int = 0
    hours: float = 0.0
    findings: tuple[Finding, ...] = field(default=())
    ledger_row: int = 0
    sentence: str = ""


def look(workspace: Workspace) -> Progress:
    """Where the roll-out stands and what its evidence says; changes nothing but what it keeps of the evidence that it read."""
    if not exists(workspace.state):
        return Progress(outcome="none", sentence="No roll-out goes on.")
    history = open_state(workspace.state).ledger.history(workspace.loop)
    entry = active_rollout(history)
    if entry is None:
        last = next((row for row in reversed(history) if row.action == "withdraw"), None)
        before = f" The last one, of version {last.version}, was withdrawn: {last.reason}." if last else ""
        return Progress(outcome="none", sentence=f"No roll-out goes on.{before}")
    config = promised(entry)
    signature = read_signature(Store.of(workspace).require("models", entry.model_digest))
    told = gather(workspace, entry, config, signature.objective, read_truth(config.feedback, signature))
    hours = (time.time() - entry.at) / HOUR_SECONDS
    advice, reason = conclude(told.found, told.requests, hours, config.rollout)
    return Progress(
        outcome="rolling_out",
        advice=advice,
        reason=reason,
        version=entry.version,
        model_digest=entry.model_digest,
        champion_version=entry.previous_version,
        mode=str(entry.details["mode"]),
        share=float(entry.details["share"]),
        requests=told.requests,
        requests_needed=config.rollout.min_requests,
        dropped=told.dropped,
        damaged=len(told.damaged),
        hours=hours,
        findings=tuple(told.found),
        ledger_row=entry.seq,
        sentence=f"Version {entry.version} is rolled out as a {entry.details['mode']} ({entry.details['share']:.0%}) beside champion version "
        f"{entry.previous_version} for {hours:.1f} h: {reason}{WAITS if advice == 'hold' else ''}.",
    )


def conclude(found: Sequence[Finding], requests: int, hours: float, config: RolloutConfig) -> tuple[str, str]:
    """What the evidence says.

    Args:
        found: What each question has found.
        requests: Requests that both answered.
        hours: How long it goes on.
        config: Section ``deploy.rollout`` as it was at the start.

    Returns:
        ``withdraw``, ``promote``, ``continue``, or ``hold`` where the time is over and something is still open; and why.
    """
    worse = [finding for finding in found if finding.worse_at is not None]
    if worse:
        return "withdraw", "; ".join(
            f"it {_point(finding, config)}, shown" for finding in worse
        ) + f", after {requests} requests"
    # Quality cannot be asked of a loop without feedback; as soon as there is any, it has to be shown as well.
    wanted = [f for f in found if f.question == "errors" or (f.question == "quality" and f.n)]
    missing = [finding.question for finding in wanted if finding.fine_at is None]
    over = requests >= config.max_requests or hours >= config.max_hours
    if requests < config.min_requests:
        few = f"{requests} requests were answered by both, at least {config.min_requests} are needed"
        return ("withdraw", f"after {hours:.1f} hours {few}") if hours >= config.max_hours else ("continue", few)
    told = f"after {requests} requests it is worse in nothing"
    if not missing:
        return "promote", f"{told}, and not worse by more than is borne in {' and '.join(f.question for f in wanted)}"
    open_question = f"{told}, but not shown to be as good in {' and '.join(missing)}"
    # What was not shown is no proof, however long one waited: a person decides, as with a decision on hold.
    return ("hold", f"{open_question}, and its time is over") if over else ("continue", open_question)


def advance(
    workspace: Workspace, *, actor: str = "", by_hand: str = "", at: Callable[[str], None] = ignore
) -> Progress:
    """Look at the evidence of the roll-out, and promote or withdraw its challenger where it says so.

    Args:
        workspace: Places of the loop.
        actor: Who asks; the user's name when empty.
        by_hand: Promote although not everything is shown yet, because somebody says so: why. Refused where something was shown worse, or with
            fewer than ``min_requests`` requests.
        at: Called with the name of each stage reached, for tests.

    Raises:
        InputError: Somebody asks for a promotion, and there is no roll-out.
        StateError: Somebody asks for a promotion, and the evidence does not allow it.
        ServerUnavailable: The server went away; the next look tries again.
    """
    told = look(workspace)
    if told.outcome != "none":
        remember(workspace, told)
    forget(workspace, told.ledger_row)
    at("looked")
    if by_hand:
        told = _allowed(told)
    state = open_state(workspace.state)
    if told.outcome == "none" and (policy_now(workspace) or {}).get("rollout"):
        # It ended, and whoever ended it was killed before the policy said so.
        with contextlib.suppress(LeaseHeldError), exclusive(state, workspace, "rollout"):
            recover(workspace)
    if told.outcome == "none" or told.advice in ("continue", "hold"):
        return told
    who = actor or getpass.getuser()
    try:
        with exclusive(state, workspace, "rollout"):
            before = active_rollout(state.ledger.history(workspace.loop))
            recover(workspace, promised(before) if before is not None else None)
            entry = active_rollout(state.ledger.history(workspace.loop))
            if entry is None or entry.seq != told.ledger_row:
                return look(workspace)  # somebody else was faster
            if told.advice == "withdraw":
                done = _withdrawn(workspace, entry, who, told, at)
            else:
                done = _promote(workspace, entry, who, told, by_hand, at)
            return done or look(workspace)  # it was withdrawn meanwhile
    except LeaseHeldError as busy:
        entry = active_rollout(state.ledger.history(workspace.loop))
        if told.advice == "withdraw" and entry is not None and entry.seq == told.ledger_row:
            return _withdrawn(workspace, entry, who, told, at, everything=False) or look(workspace)
        return _ended(told, "busy", f"{told.reason}; it waits, because {busy.message}", told.ledger_row)


def withdraw_by_hand(workspace: Workspace, reason: str, *, actor: str = "") -> Progress:
    """Withdraw the roll-out that is going on because somebody says so; only a person may promote its challenger afterwards.

    Raises:
        InputError: There is none.
        StateError: It ended while one waited: its challenger may be champion by now.
    """
    told = look(workspace)
    entry = active_rollout(open_state(workspace.state).ledger.history(workspace.loop)) if told.version else None
    if entry is None:
        raise InputError(f"loop '{workspace.loop}' has no roll-out to withdraw", hint="see: kfloop status --ledger")
    said, who = _ended(told, told.outcome, reason, told.ledger_row), actor or getpass.getuser()
    try:
        with exclusive(open_state(workspace.state), workspace, "rollout"):
            done = _withdrawn(workspace, entry, who, said, ignore)
    except LeaseHeldError:
        done = _withdrawn(workspace, entry, who, said, ignore, everything=False)
    if done is None:
        raise StateError(
            f"the roll-out of version {entry.version} ended meanwhile",
            hint="see: kfloop status; to take a promotion back: kfloop rollback",
        )
    return done


def _allowed(told: Progress) -> Progress:
    """The same with the advice to promote, where a person may say so."""
    if told.outcome == "none":
        raise InputError("no roll-out goes on, so nothing can be promoted", hint="see: kfloop status")
    if told.advice == "withdraw" or told.requests < told.requests_needed:
        raise StateError(
            f"version {told.version} is not promoted: {told.reason}",
            hint="wait for more requests, or: kfloop rollout --withdraw",
        )
    return Progress(**{**vars(told), "advice": "promote"})


def _withdrawn(
    workspace: Workspace,
    entry: Entry,
    actor: str,
    told: Progress,
    at: Callable[[str], None],
    *,
    everything: bool = True,
) -> Progress | None:
    """Withdraw; with ``everything`` registry, repository and server follow now, else with the next command. Null where it ended meanwhile."""
    figures = {
        "requests": told.requests,
        "hours": told.hours,
        "findings": [asdict(finding) for finding in told.findings],
    }
    row = withdraw(workspace, entry, actor, told.reason, figures=figures, down=True)
    if row is None:
        return None
    at("withdrawn")
    if everything:
        follow(workspace, promised(entry))
        at("projected")
    return _ended(told, "withdrawn", told.reason, row.seq)


def _promote(
    workspace: Workspace, entry: Entry, actor: str, told: Progress, by_hand: str, at: Callable[[str], None]
) -> Progress | None:
    """Promote by the decision that began the roll-out, if it still holds; null where it was withdrawn meanwhile."""
    reason = f"{entry.details['mode']}: {told.reason}" + (f"; {by_hand}" if by_hand else "")
    change = Change(
        action="promote",
        digest=entry.model_digest,
        expected=entry.details["champion"],
        actor=actor,
        reason=reason,
        evidence_digest=entry.evidence_digest,
        decision=str(entry.details["decision"]),
    )
    try:
        _, report = stored_decision(workspace, change.decision, entry.evidence_digest)
        refuse_unpassed(report)
        refuse_ended(open_state(workspace.state).ledger.history(workspace.loop), report)
        done = change_champion(change, workspace, promised(entry), at)
    except (
        StateError,
        ServingError,
    ) as error:  # it never becomes champion like this, so it gets no more traffic either
        champion = open_state(workspace.state).ledger.champion(workspace.loop)
        if champion is not None and champion.model_digest == entry.model_digest:
            raise  # it is champion; what lags behind follows with the next command
        failed = _ended(
            told, told.outcome, f"{told.reason}, but it cannot be promoted: {error.message}", told.ledger_row
        )
        return _withdrawn(workspace, entry, actor, failed, at)
    return _ended(told, "promoted", told.reason, done.entry.seq)


def _ended(told: Progress, outcome: str, reason: str, row: int) -> Progress:
    words = {"promoted": "is champion", "withdrawn": "was withdrawn from its roll-out"}
    sentence = f"Version {told.version} {words.get(outcome, 'is still rolled out')}: {reason}."
    if outcome == "withdrawn":
        sentence += f" Version {told.champion_version} stays champion."
    return Progress(**{**vars(told), "outcome": outcome, "reason": reason, "ledger_row": row, "sentence": sentence})


def _point(finding: Finding, config: RolloutConfig) -> str:
    return POINTS[finding.question].format(mean=finding.mean or 0.0, bound=finding.bound, ratio=config.margin.latency)
