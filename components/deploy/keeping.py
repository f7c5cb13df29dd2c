"""Keeping: the branch of a decision that does not promote. It changes no champion; it records, and checks the champion.

A challenger on hold is registered and stands in the ledger, so that a person approves exactly what the gate held.
"""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.components.deploy.changing import ignore
from kfloop.components.deploy.deployment import challenger_of
from kfloop.components.deploy.exclusion import exclusive
from kfloop.components.deploy.following import follow
from kfloop.components.deploy.recovery import recover
from kfloop.components.deploy.rolling import end_rollout
from kfloop.core.artifacts import write_report
from kfloop.core.decisions import published, read_decision
from kfloop.core.registry import Registry
from kfloop.core.state import open_state
from kfloop.core.state.standing import pending_hold
from kfloop.core.store import Store
from kfloop.core.workspace import run_id
from kfloop.errors import StateError
from kfloop.serving.repository import served

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kfloop.core.sections import DeployConfig
    from kfloop.core.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class KeepingReport:
    """What was kept.

    Attributes:
        outcome: ``rejected`` or ``held``.
        reason: The decision's reason.
        model_digest: The challenger; None when no report named it.
        version: Its version in the registry; None when it was not registered (rejected).
        champion_version: The champion that keeps serving; None without one.
        champion_digest: Its package.
        evidence_digest: The decision; what ``kfloop approve`` takes.
        sentence: All of this for people.
    """

    outcome: str
    reason: str
    model_digest: str | None
    version: int | None
    champion_version: int | None
    champion_digest: str | None
    evidence_digest: str
    sentence: str


def run(
    config: DeployConfig,
    *,
    model: Path,
    decision: Path,
    out: Path,
    workspace: Workspace,
    at: Callable[[str], None] = ignore,
) -> KeepingReport:
    """Record a rejection or a hold.

    Args:
        config: Section ``deploy``.
        model: The challenger's package.
        decision: The gate's decision: ``reject`` or ``hold``.
        out: Scratch folder of this step.
        workspace: Places of the loop.
        at: Called with the name of each stage reached, for tests.

    Raises:
        LeaseHeldError: Another run of the loop is at work.
        StateError: The decision says something else, was changed since the gate wrote it, is held and not one of the store, or the champion is not served or stored as the ledger says.
    """
    report = read_decision(decision)
    outcome = report.get("outcome")
    if outcome not in {"reject", "hold"}:
        raise StateError(f"the decision says {outcome!r}, expected 'reject' or 'hold'")
    version = None
    with exclusive(open_state(workspace.state), workspace, "keep"):
        recover(workspace, config)
        if outcome == "hold":
            version = _hold(report, model, decision, workspace, at)
            follow(workspace, config)
            at("projected")
    champion = open_state(workspace.state).ledger.champion(workspace.loop)
    if champion is not None:
        Store.of(workspace).require("models", champion.model_digest)
        default, _ = served(workspace.repository, workspace.loop)
        if default != champion.version:
            raise StateError(
                f"version {champion.version} is champion by the ledger, but the repository serves {default}",
                hint="run any kfloop command again: it lets the repository follow the ledger",
            )
    stays = f"Version {champion.version} stays champion." if champion else "There is still no champion."
    word = "rejected" if outcome == "reject" else "held"
    result = KeepingReport(
        outcome=word,
        reason=str(report.get("reason", "")),
        model_digest=report.get("challenger_digest"),
        version=version,
        champion_version=champion.version if champion else None,
        champion_digest=champion.model_digest if champion else None,
        evidence_digest=str(report["evidence_digest"]),
        sentence=f"The challenger was {word}: {report.get('reason', '')}. {stays}",
    )
    write_report(out, result)
    return result


def _hold(report: dict[str, Any], model: Path, decision: Path, workspace: Workspace, at: Callable[[str], None]) -> int:
    """Register the challenger and say in the ledger that it waits. A repeated step of one run says it once."""
    digest, evidence = challenger_of(report, model), str(report["evidence_digest"])
    blob = published(workspace, decision)  # approval takes it from the store, where nobody changes it unnoticed
    registry = Registry(workspace.mlflow, workspace.loop)
    store = Store.of(workspace)
    store.require("models", digest)
    version = registry.register(digest, store.uri("models", digest), tags={"kfloop.evidence": evidence})
    at("registered")
    ledger = open_state(workspace.state).ledger
    last = pending_hold(ledger.history(workspace.loop))
    if last is None or (last.evidence_digest, last.run_id) != (evidence, run_id()):
        end_rollout(workspace, getpass.getuser(), f"a newer challenger, version {version}, waits for a person")
        ledger.note(
            workspace.loop,
            action="hold",
            actor=getpass.getuser(),
            reason=str(report.get("reason", "")),
            version=version,
            model_digest=digest,
            evidence_digest=evidence,
            run_id=run_id(),
            details={"decision": blob},
        )
    at("noted")
    return version
