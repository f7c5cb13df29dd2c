"""Deployment: carries out a decision to promote."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.components.deploy.changing import Change, Changed, ignore
from kfloop.components.deploy.checking import refuse_ended, refuse_spent, refuse_unpassed
from kfloop.components.deploy.exclusion import exclusive
from kfloop.components.deploy.recovery import recover
from kfloop.components.deploy.rolling import carry_out
from kfloop.core.artifacts import read_report, write_report
from kfloop.core.decisions import published, read_decision
from kfloop.core.state import open_state
from kfloop.core.state.entries import champion_of
from kfloop.core.state.standing import active_rollout
from kfloop.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kfloop.core.sections import DeployConfig
    from kfloop.core.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class DeploymentReport:
    """What a deployment did.

    Attributes:
        outcome: ``promoted``, ``rolling_out`` when the challenger gets traffic and must prove itself there first, or ``unchanged`` when the
            package was champion already.
        version: Version of the champion.
        model_digest: Its package.
        previous_version: Champion before; 0 when there was none.
        ledger_row: Number of the closing row.
        evidence_digest: Decision that allowed it.
        verification: Golden answers: where, n, max_abs_diff, tolerance; None when unchanged.
        events: What was changed, in order.
        sentence: All of this for people.
        rollout: Of a roll-out: the challenger's ``version`` and ``model_digest``, ``mode``, ``share``; None otherwise.
    """

    outcome: str
    version: int
    model_digest: str
    previous_version: int
    ledger_row: int
    evidence_digest: str
    verification: Any
    events: tuple[str, ...]
    sentence: str
    rollout: dict[str, Any] | None = None


def run(
    config: DeployConfig,
    *,
    model: Path,
    decision: Path,
    out: Path,
    workspace: Workspace,
    at: Callable[[str], None] = ignore,
) -> DeploymentReport:
    """Promote the challenger of a decision, or begin to roll it out (``deploy.rollout``).

    Args:
        config: Section ``deploy``.
        model: The challenger's package; must be the one the decision is about.
        decision: The gate's decision; must say ``promote``.
        out: Scratch folder of this step.
        workspace: Places of the loop.
        at: Called with the name of each stage reached, for tests.

    Raises:
        LeaseHeldError: Another run of the loop is at work.
        StateError: The decision does not say ``promote``, is not one of the store, was changed since the gate wrote it, has a verdict against
            it, rests on an override that ended, was used before, is about a challenger that somebody turned down or about another
            package, or the champion has changed since.
        ServingError: The version did not verify; the champion keeps serving.
    """
    report = read_decision(decision)
    if report.get("outcome") != "promote":
        raise StateError(
            f"the decision says {report.get('outcome')!r}, expected 'promote'", hint="nothing is deployed without one"
        )
    blob = published(workspace, decision)
    digest = challenger_of(report, model)
    refuse_unpassed(report)
    state = open_state(workspace.state)
    # On a cluster no engine holds the lease for the run: without it here, two runs that deploy at once would take each other's open
    # intent for one that a crash left.
    with exclusive(state, workspace, "deploy"):
        changed = _deployed(report, digest, blob, config, workspace, at)
    result = described(changed)
    write_report(out, result)
    return result


def _deployed(
    report: dict[str, Any],
    digest: str,
    blob: str,
    config: DeployConfig,
    workspace: Workspace,
    at: Callable[[str], None],
) -> Changed:
    """Carry the decision out; the caller holds the lease."""
    recover(workspace, config)
    history = open_state(workspace.state).ledger.history(workspace.loop)
    champion, rollout = champion_of(history), active_rollout(history)
    known = {entry.model_digest for entry in (champion, rollout) if entry is not None}
    if digest not in known:  # a repeated step changes nothing
        refuse_spent(history, report)
        refuse_ended(history, report)
    change = Change(
        action="promote",
        digest=digest,
        expected=report.get("champion_digest"),
        actor=getpass.getuser(),
        reason=str(report.get("reason", "")),
        evidence_digest=str(report["evidence_digest"]),
        decision=blob,
    )
    return carry_out(change, workspace, config, at)


def described(changed: Changed) -> DeploymentReport:
    """The report of a change."""
    entry = changed.entry
    if entry.action == "rollout":
        return _rolling(changed)
    before = f" instead of version {entry.previous_version}" if entry.previous_version else ""
    if changed.verification is None:
        sentence = f"Version {entry.version} is champion already; nothing was deployed."
    else:
        seen = changed.verification
        sentence = (
            f"Version {entry.version} is champion{before}: its {seen.n} golden answers on the {seen.where} are within "
            f"{seen.max_abs_diff:.2g} (allowed {seen.tolerance:g})." + (f" {seen.note}" if seen.note else "")
        )
    return DeploymentReport(
        outcome="unchanged" if changed.repeated else "promoted",
        version=entry.version,
        model_digest=entry.model_digest,
        previous_version=entry.previous_version,
        ledger_row=entry.seq,
        evidence_digest=entry.evidence_digest,
        verification=changed.verification,
        events=changed.events,
        sentence=sentence,
    )


def _rolling(changed: Changed) -> DeploymentReport:
    """The report of a roll-out that began, or goes on."""
    entry, seen, told = changed.entry, changed.verification, changed.entry.details
    gets = "answers" if told["mode"] == "canary" else "sees in the background"
    proof = f" Its {seen.n} golden answers on the {seen.where} are within {seen.max_abs_diff:.2g}." if seen else ""
    return DeploymentReport(
        outcome="rolling_out",
        version=entry.previous_version,
        model_digest=entry.previous_digest,
        previous_version=entry.previous_version,
        ledger_row=entry.seq,
        evidence_digest=entry.evidence_digest,
        verification=seen,
        events=changed.events,
        sentence=f"Version {entry.version} is rolled out as a {told['mode']}: it {gets} {told['share']:.0%} of the requests, until evidence "
        f"promotes or withdraws it (kfloop rollout).{proof} Version {entry.previous_version} stays champion.",
        rollout={
            "version": entry.version,
            "model_digest": entry.model_digest,
            "mode": told["mode"],
            "share": told["share"],
        },
    )


def challenger_of(report: dict[str, Any], model: Path) -> str:
    """Digest of the decision's challenger, after a check that ``model`` is that package.

    Raises:
        StateError: The package is another one.
    """
    decided = report.get("challenger_digest")
    try:
        packaged = read_report(model).get("digest")
    except (OSError, ValueError, TypeError):
        packaged = None
    packaged = packaged or model.name
    if not decided or decided != packaged:
        raise StateError(
            f"the decision is about package '{decided}', but the package given is '{packaged}'",
            hint="run the loop again: a decision holds for one package only",
        )
    return str(decided)
