"""Rollback: an earlier champion comes back, after it has proved that it still loads and answers."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

from kfloop.components.deploy.changing import Change, Changed, change_champion, finish, ignore
from kfloop.components.deploy.deployment import DeploymentReport, described
from kfloop.components.deploy.exclusion import exclusive
from kfloop.components.deploy.projecting import standing
from kfloop.components.deploy.recovery import recover
from kfloop.components.deploy.rolling import withdraw
from kfloop.components.deploy.verifying import target_of
from kfloop.core.sections import DeployConfig
from kfloop.core.state import open_state
from kfloop.core.store import Store
from kfloop.core.workspace import run_id
from kfloop.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfloop.core.workspace import Workspace


def rollback(
    workspace: Workspace,
    to: int | None = None,
    *,
    actor: str = "",
    reason: str = "",
    config: DeployConfig | None = None,
    at: Callable[[str], None] = ignore,
) -> DeploymentReport:
    """Bring an earlier champion back. Rolling back twice goes forward again.

    Args:
        workspace: Places of the loop.
        to: Version that was champion before; null means the one before the present champion.
        actor: Who asks; the user's name when empty.
        reason: Why.
        config: Section ``deploy``; defaults when the caller has none.
        at: Called with the name of each stage reached, for tests.

    Raises:
        StateError: There is nothing to go back to, or the version never was champion.
        ServingError: The old version does not load or answers wrongly; the present champion keeps serving.
        LeaseHeldError: A run of this loop is at work.
    """
    config = config or DeployConfig()
    state = open_state(workspace.state)
    with exclusive(state, workspace, "rollback"):
        recover(workspace, config)
        now = standing(state.ledger, workspace.loop)
        version = to if to is not None else now.previous.version if now.previous else None
        if now.champion is None or version is None:
            raise StateError(
                f"loop '{workspace.loop}' has no earlier champion to go back to",
                hint="see the history with: kfloop status",
            )
        if version not in now.versions:
            known = ", ".join(map(str, sorted(now.versions)))
            raise StateError(
                f"version {version} never was champion of '{workspace.loop}'", hint=f"versions that were: {known}"
            )
        if version == now.champion.version:
            raise StateError(f"version {version} is champion already", hint="name another version")
        change = Change(
            action="rollback",
            digest=now.versions[version],
            expected=now.champion.model_digest,
            actor=actor or getpass.getuser(),
            reason=reason or f"back to version {version}",
        )
        if now.rollout is not None:
            withdraw(workspace, now.rollout, change.actor, f"rolled back to version {version}: {change.reason}")
        done = _at_once(change, version, workspace, config, at)
        return described(done or change_champion(change, workspace, config, at))


def _at_once(
    change: Change, version: int, workspace: Workspace, config: DeployConfig, at: Callable[[str], None]
) -> Changed | None:
    """Let a version that is loaded answer first, and see to everything else then.

    Returns:
        What was done; null where the version is not held by a running server, so that the ordinary way is to be gone.
    """
    target = target_of(workspace, config)
    if not target.holds(version):
        return None
    package = Store.of(workspace).require("models", change.digest)
    intent = open_state(workspace.state).ledger.intend(
        workspace.loop,
        action=change.action,
        version=version,
        model_digest=change.digest,
        expected_champion=change.expected,
        actor=change.actor,
        reason=change.reason,
        run_id=run_id(),
    )
    at("intended")
    if target.switch(version, package):
        at("switched")
    closed, verification, events = finish(intent, workspace, config, at)
    return Changed(entry=closed, verification=verification, repeated=False, events=tuple(events))
