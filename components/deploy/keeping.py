"""Keeping: the branch of a decision that does not promote. It changes no champion; it records, and checks the
champion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kfloop.components.deploy.deployment import challenger_of, read_decision
from kfloop.components.deploy.recovery import recover
from kfloop.core.artifacts import write_report
from kfloop.core.registry import CHALLENGER, Registry
from kfloop.core.state import open_state
from kfloop.core.store import Store
from kfloop.errors import StateError
from kfloop.serving.repository import served

if TYPE_CHECKING:
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


def run(config: DeployConfig, *, model: Path, decision: Path, out: Path, workspace: Workspace) -> KeepingReport:
    """Record a rejection or a hold.

    Args:
        config: Section ``deploy``.
        model: The challenger's package.
        decision: The gate's decision: ``reject`` or ``hold``.
        out: Scratch folder of this step.
        workspace: Places of the loop.

    Raises:
        StateError: The decision says something else, or the champion is not served or stored as the ledger says.
    """
    report = read_decision(decision)
    outcome = report.get("outcome")
    if outcome not in {"reject", "hold"}:
        raise StateError(f"the decision says {outcome!r}, expected 'reject' or 'hold'")
    recover(workspace, config)
    version = None
    if outcome == "hold":
        digest = challenger_of(report, model)
        registry = Registry(workspace.mlflow, workspace.loop)
        tags = {"kfloop.decision": "hold", "kfloop.evidence": str(report["evidence_digest"])}
        version = registry.register(digest, Store(workspace.store).require("models", digest), tags=tags)
        registry.project({CHALLENGER: version})
    champion = open_state(workspace.state).ledger.champion(workspace.loop)
    if champion is not None:
        Store(workspace.store).require("models", champion.model_digest)
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
