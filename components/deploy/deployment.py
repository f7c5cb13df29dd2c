"""Deployment: carries out a decision to promote."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.components.deploy.changing import Change, Changed, change_champion, ignore
from kfloop.components.deploy.recovery import recover
from kfloop.core.artifacts import read_report, write_report
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
        outcome: ``promoted``, or ``unchanged`` when the package was champion already.
        version: Version of the champion.
        model_digest: Its package.
        previous_version: Champion before; 0 when there was none.
        ledger_row: Number of the closing row.
        evidence_digest: Decision that allowed it.
        verification: Golden answers: where, n, max_abs_diff, tolerance; None when unchanged.
        events: What was changed, in order.
        sentence: All of this for people.
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


def run(
    config: DeployConfig,
    *,
    model: Path,
    decision: Path,
    out: Path,
    workspace: Workspace,
    at: Callable[[str], None] = ignore,
) -> DeploymentReport:
    """Promote the challenger of a decision.

    Args:
        config: Section ``deploy``.
        model: The challenger's package; must be the one the decision is about.
        decision: The gate's decision; must say ``promote``.
        out: Scratch folder of this step.
        workspace: Places of the loop.
        at: Called with the name of each stage reached, for tests.

    Raises:
        StateError: The decision does not say ``promote``, is about another package, or the champion has changed since.
        ServingError: The version did not verify; the champion keeps serving.
    """
    report = read_decision(decision)
    if report.get("outcome") != "promote":
        raise StateError(
            f"the decision says {report.get('outcome')!r}, expected 'promote'", hint="nothing is deployed without one"
        )
    digest = challenger_of(report, model)
    recover(workspace, config)
    change = Change(
        action="promote",
        digest=digest,
        expected=report.get("champion_digest"),
        actor=getpass.getuser(),
        reason=str(report.get("reason", "")),
        evidence_digest=str(report["evidence_digest"]),
    )
    result = described(change_champion(change, workspace, config, at))
    write_report(out, result)
    return result


def described(changed: Changed) -> DeploymentReport:
    """The report of a change."""
    entry = changed.entry
    before = f" instead of version {entry.previous_version}" if entry.previous_version else ""
    if changed.verification is None:
        sentence = f"Version {entry.version} is champion already; nothing was deployed."
    else:
        seen = changed.verification
        sentence = (
            f"Version {entry.version} is champion{before}: its {seen.n} golden answers on the {seen.where} are within "
            f"{seen.max_abs_diff:.2g} (allowed {seen.tolerance:g})."
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


def read_decision(folder: Path) -> dict[str, Any]:
    """The gate's report.

    Raises:
        StateError: It is missing, unreadable, or names no evidence.
    """
    try:
        report = read_report(folder)
    except (OSError, ValueError, TypeError) as error:
        raise StateError(f"there is no readable decision in '{folder}': {error}", hint="run the loop again") from error
    if not report.get("evidence_digest"):
        raise StateError(f"the decision in '{folder}' names no evidence", hint="run the loop again")
    return report


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
