"""Projecting: registry aliases and the Triton repository follow the ledger; every function may be repeated at any
time.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.components.deploy.targets.embedded import policy_now
from kfloop.components.deploy.verifying import target_of
from kfloop.core.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from kfloop.core.state.standing import active_rollout, pending_hold
from kfloop.core.store import Store
from kfloop.serving.repository import add_version, policy

if TYPE_CHECKING:
    from kfloop.core.sections import DeployConfig
    from kfloop.core.state.ledger import Entry, Ledger
    from kfloop.core.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the ledger says.

    Attributes:
        champion: Row that made the champion; None before the first promotion.
        previous: Row of the champion before it.
        versions: Package digest of every version that ever was champion.
        pending: Row of the challenger that waits for a person; None for nobody.
        rejected: Row of the last challenger that a person rejected.
        rollout: Row of the roll-out that is going on; None for none.
    """

    champion: Entry | None
    previous: Entry | None
    versions: dict[int, str]
    pending: Entry | None
    rejected: Entry | None
    rollout: Entry | None = None


def standing(ledger: Ledger, loop: str) -> Standing:
    """Read the ledger once."""
    history = ledger.history(loop)
    return Standing(
        champion=ledger.champion(loop),
        previous=ledger.previous(loop),
        versions={entry.version: entry.model_digest for entry in history if entry.phase == "done"},
        pending=pending_hold(history),
        rejected=next((entry for entry in reversed(history) if entry.action == "reject"), None),
        rollout=active_rollout(history),
    )


def project(workspace: Workspace, config: DeployConfig, now: Standing) -> list[str]:
    """Make registry and repository say what the ledger says.

    Args:
        workspace: Places of the loop.
        config: Patience with a running server.
        now: What the ledger says.

    Returns:
        One sentence per thing that was changed.
    """
    serving = _serving(workspace, config, now) if now.champion else sweep(workspace, now)
    return [*restore_versions(workspace, now), *serving, *_aliases(workspace, now)]


def restore_versions(workspace: Workspace, now: Standing) -> list[str]:
    """Register again what the ledger knows and the registry has lost (its file was put aside)."""
    registry, store = Registry(workspace.mlflow, workspace.loop), Store.of(workspace)
    changes = []
    held = {entry.version: entry.model_digest for entry in (now.pending, now.rollout) if entry}
    for version, digest in sorted((now.versions | held).items()):
        if registry.restore(version, digest, store.uri("models", digest)):
            changes.append(f"version {version} was registered again")
    return changes


def sweep(workspace: Workspace, now: Standing) -> list[str]:
    """Remove version folders that never became champion and are not rolled out; champions stay for a rollback."""
    folder = workspace.repository / workspace.loop
    changes = []
    known = {*now.versions, *([now.rollout.version] if now.rollout else [])}
    for place in sorted(folder.glob("*")) if folder.is_dir() else []:
        orphan = place.name.isdigit() and int(place.name) not in known
        if place.is_dir() and (orphan or place.name.startswith(".tmp-")):
            shutil.rmtree(place)
            changes.append(f"orphan '{place.name}' was removed from the repository")
    return changes


def wanted(workspace: Workspace, now: Standing) -> list[Entry]:
    """What is held: the champion, the one before it, so that a rollback needs no load, and a challenger that is rolled out."""
    store = Store.of(workspace)
    others = [entry for entry in (now.previous, now.rollout) if entry is not None]
    return [
        *([now.champion] if now.champion else []),
        *(entry for entry in others if entry is now.rollout or store.has("models", entry.model_digest)),
    ]


def wanted_policy(workspace: Workspace, now: Standing) -> dict[str, Any] | None:
    """What ``served.json`` must say; null without a champion."""
    if now.champion is None:
        return None
    rollout = None if now.rollout is None else rollout_policy(now.rollout)
    return policy([entry.version for entry in wanted(workspace, now)], now.champion.version, rollout)


def rollout_policy(entry: Entry) -> dict[str, Any]:
    """Section ``rollout`` of ``served.json``, from the row that began it."""
    told = entry.details
    return {
        "mode": told["mode"],
        "challenger": entry.version,
        "share": told["share"],
        "salt": told["salt"],
        "look_seconds": told["config"]["rollout"]["look_seconds"],
    }


def _serving(workspace: Workspace, config: DeployConfig, now: Standing) -> list[str]:
    """The champion answers; every process of the model follows ``served.json``, whatever else is loaded beside it."""
    target = wanted_policy(workspace, now)
    if target is None:
        return []
    store = Store.of(workspace)
    for entry in wanted(workspace, now):
        add_version(workspace.repository, workspace.loop, entry.version, store.require("models", entry.model_digest))
    server = target_of(workspace, config)
    before = policy_now(workspace) or {}
    changes = []
    if server.told() != target:
        server.serve(target)
        told = [_told(before), _told(target)]
        changes += [f"served version: {told[0]} -> {told[1]}"] if told[0] != told[1] else []
    return changes + sweep(workspace, now)


def _told(policy: dict[str, Any]) -> str:
    """A policy in words."""
    rollout = policy.get("rollout")
    return f"{policy.get('default') or 'none'}" + (
        f" ({rollout['mode']} of {rollout['challenger']})" if rollout else ""
    )


def _aliases(workspace: Workspace, now: Standing) -> list[str]:
    waiting = now.pending or now.rollout
    aliases: dict[str, int | None] = {
        CHAMPION: now.champion.version if now.champion else None,
        PREVIOUS: now.previous.version if now.previous else None,
        CHALLENGER: waiting.version if waiting else None,
    }
    return Registry(workspace.mlflow, workspace.loop).project(aliases)
