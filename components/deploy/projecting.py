"""Projecting: registry aliases and the Triton repository follow the ledger; every function may be repeated at any
time.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kfloop.components.deploy.verifying import serve
from kfloop.core.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from kfloop.core.store import Store
from kfloop.serving.repository import add_version, served

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
    """

    champion: Entry | None
    previous: Entry | None
    versions: dict[int, str]


def standing(ledger: Ledger, loop: str) -> Standing:
    """Read the ledger once."""
    history = ledger.history(loop)
    return Standing(
        champion=ledger.champion(loop),
        previous=ledger.previous(loop),
        versions={entry.version: entry.model_digest for entry in history if entry.phase == "done"},
    )


def project(workspace: Workspace, config: DeployConfig, now: Standing, *, keep_challenger: bool = False) -> list[str]:
    """Make registry and repository say what the ledger says.

    Args:
        workspace: Places of the loop.
        config: Patience with a running server.
        now: What the ledger says.
        keep_challenger: Leave the alias ``challenger`` (a challenger on hold).

    Returns:
        One sentence per thing that was changed.
    """
    if now.champion is None:
        return sweep(workspace, now)
    return [
        *restore_versions(workspace, now),
        *_serving(workspace, config, now),
        *_aliases(workspace, now, keep_challenger=keep_challenger),
    ]


def restore_versions(workspace: Workspace, now: Standing) -> list[str]:
    """Register again what the ledger knows and the registry has lost (its file was put aside)."""
    registry, store = Registry(workspace.mlflow, workspace.loop), Store(workspace.store)
    changes = []
    for version, digest in sorted(now.versions.items()):
        if registry.restore(version, digest, store.path("models", digest)):
            changes.append(f"version {version} was registered again")
    return changes


def sweep(workspace: Workspace, now: Standing) -> list[str]:
    """Remove version folders that never became champion; those that did stay for a rollback."""
    folder = workspace.repository / workspace.loop
    changes = []
    for place in sorted(folder.glob("*")) if folder.is_dir() else []:
        orphan = place.name.isdigit() and int(place.name) not in now.versions
        if place.is_dir() and (orphan or place.name.startswith(".tmp-")):
            shutil.rmtree(place)
            changes.append(f"orphan '{place.name}' was removed from the repository")
    return changes


def _serving(workspace: Workspace, config: DeployConfig, now: Standing) -> list[str]:
    """The champion answers; the champion before it stays loaded when its number is lower.

    Triton answers an unpinned request with the highest version it holds, so nothing above the champion may stay loaded.
    """
    if now.champion is None:
        return []
    store = Store(workspace.store)
    wanted = [now.champion] + [entry for entry in (now.previous,) if entry and entry.version < now.champion.version]
    present = [entry for entry in wanted if entry is now.champion or store.has("models", entry.model_digest)]
    for entry in present:
        add_version(workspace.repository, workspace.loop, entry.version, store.require("models", entry.model_digest))
    target = (now.champion.version, sorted(entry.version for entry in present))
    before = served(workspace.repository, workspace.loop)
    changes = []
    if (before[0], sorted(before[1])) != target:
        serve(workspace, config, *target)
        changes.append(f"served version: {before[0] or 'none'} -> {target[0]}")
    return changes + sweep(workspace, now)


def _aliases(workspace: Workspace, now: Standing, *, keep_challenger: bool) -> list[str]:
    aliases: dict[str, int | None] = {
        CHAMPION: now.champion.version if now.champion else None,
        PREVIOUS: now.previous.version if now.previous else None,
    }
    if not keep_challenger:
        aliases[CHALLENGER] = None
    return Registry(workspace.mlflow, workspace.loop).project(aliases)
