"""Approval and override: a person turns a decision into a promotion, on record."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any

from kfloop.components.deploy.changing import Change, change_champion
from kfloop.components.deploy.deployment import DeploymentReport, described
from kfloop.components.deploy.recovery import recover
from kfloop.components.deploy.rollback import exclusive
from kfloop.core.artifacts import read_report
from kfloop.core.sections import DeployConfig
from kfloop.core.state import open_state
from kfloop.core.store import Store
from kfloop.errors import ConfigError, InputError, StateError

if TYPE_CHECKING:
    from kfloop.core.workspace import Workspace


def approve(
    workspace: Workspace, evidence: str, *, actor: str = "", reason: str = "", config: DeployConfig | None = None
) -> DeploymentReport:
    """Promote the challenger of a decision that is on hold.

    Args:
        workspace: Places of the loop.
        evidence: Evidence digest of the decision, or a beginning of it that names one.
        actor: Who approves; the user's name when empty.
        reason: Why.
        config: Section ``deploy``.

    Raises:
        InputError: No decision, or several, has that evidence.
        StateError: The decision is not on hold, or the champion has changed since it was made.
    """
    return _promote(workspace, evidence, "promote", {"hold"}, actor, reason or "approved", config)


def override(
    workspace: Workspace, evidence: str, *, actor: str = "", reason: str, config: DeployConfig | None = None
) -> DeploymentReport:
    """Promote the challenger of a decision that rejected it, against the gate and on record; see ``approve``.

    Raises:
        ConfigError: There is no reason.
    """
    if not reason.strip():
        raise ConfigError("an override needs a reason", hint="say why: kfloop override DIGEST --reason '...'")
    return _promote(workspace, evidence, "override", {"hold", "reject"}, actor, reason, config)


def find_decision(workspace: Workspace, evidence: str) -> dict[str, Any]:
    """The decision with an evidence digest that begins with ``evidence``.

    Raises:
        InputError: There is none, or more than one.
    """
    folder = Store(workspace.store).root / "decisions"
    reports = [read_report(place.parent) for place in sorted(folder.glob("*/report.json"))]
    found = {
        report["evidence_digest"]: report
        for report in reports
        if evidence and report["evidence_digest"].startswith(evidence)
    }
    if len(found) != 1:
        problem = "no decision has" if not found else f"{len(found)} decisions have"
        raise InputError(f"{problem} an evidence digest that begins with '{evidence}'", hint="see: kfloop status")
    return next(iter(found.values()))


def _promote(
    workspace: Workspace,
    evidence: str,
    action: str,
    allowed: set[str],
    actor: str,
    reason: str,
    config: DeployConfig | None,
) -> DeploymentReport:
    config = config or DeployConfig()
    report = find_decision(workspace, evidence)
    if report["outcome"] not in allowed or not report.get("challenger_digest"):
        raise StateError(
            f"the decision says '{report['outcome']}', so there is nothing to {action}",
            hint="a rejected challenger needs: kfloop override" if report["outcome"] == "reject" else "",
        )
    state = open_state(workspace.state)
    with exclusive(state, workspace, action):
        recover(workspace, config)
        change = Change(
            action=action,
            digest=report["challenger_digest"],
            expected=report.get("champion_digest"),
            actor=actor or getpass.getuser(),
            reason=reason,
            evidence_digest=report["evidence_digest"],
        )
        return described(change_champion(change, workspace, config))
