"""Recovery: what every command does first, so that a crash never needs a person.

An open intent is finished when its version verifies on a server and withdrawn when it does not; then registry,
repository and server follow the ledger; a roll-out that is going on goes on. While another live run holds the loop's lease its work is left alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.components.deploy.changing import finish
from kfloop.components.deploy.following import follow
from kfloop.components.deploy.projecting import standing, wanted_policy
from kfloop.components.deploy.verifying import target_of
from kfloop.core.sections import DeployConfig
from kfloop.core.state import open_state
from kfloop.core.state.anchor import anchor, verified
from kfloop.core.state.database import exists
from kfloop.core.workspace import run_id
from kfloop.errors import KfloopError

if TYPE_CHECKING:
    from kfloop.components.deploy.projecting import Standing
    from kfloop.core.state import State
    from kfloop.core.state.ledger import Entry
    from kfloop.core.workspace import Workspace

MARK = "projected.json"
_SQLITE = "sqlite:///"


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """What was mended.

    Attributes:
        word: ``clean``, ``busy`` (another run is at work), ``finished``, ``withdrawn`` or ``projected``.
        events: What was changed, for people.
    """

    word: str
    events: tuple[str, ...] = ()


def recover(workspace: Workspace, config: DeployConfig | None = None, *, full: bool = False) -> Recovery:
    """Finish or withdraw an open intent; let registry, repository and server follow the ledger.

    Cheap when there is nothing to do: MLflow is asked only when the ledger has moved since the last time, or with
    ``full``.

    Args:
        workspace: Places of the loop.
        config: Section ``deploy``; defaults when the caller has none.
        full: Look at everything, also when the ledger has not moved.

    Raises:
        StateError: The ledger is broken or was cut off, or the registry is corrupt or contradicts it.
    """
    state = open_state(workspace.state) if exists(workspace.state) else None
    rows = verified(workspace)
    if state is None or (rows == 0 and not full):
        return Recovery(word="clean")
    anchor(workspace)
    if _busy(state, workspace):
        return Recovery(word="busy")
    config = config or DeployConfig()
    intent = state.ledger.open_intent(workspace.loop)
    if intent is not None:
        recovery = _settle(intent, workspace, config)
        _mark(workspace, rows + 1)
        return recovery
    now = standing(state.ledger, workspace.loop)
    if not full and _marked(workspace, config, now, rows):
        return Recovery(word="clean")
    events = follow(workspace, config, now)
    _mark(workspace, rows)
    return Recovery(word="projected" if events else "clean", events=tuple(events))


def _settle(intent: Entry, workspace: Workspace, config: DeployConfig) -> Recovery:
    """Finish or withdraw an open intent."""
    name = f"the {intent.action} of version {intent.version} that a crash left open"
    try:
        _, _, events = finish(intent, workspace, config, note=" (finished after a crash)")
    except KfloopError as error:
        return Recovery(word="withdrawn", events=(f"{name} was withdrawn: {error}",))
    return Recovery(word="finished", events=(f"{name} was finished", *events))


def _busy(state: State, workspace: Workspace) -> bool:
    """Whether another live process works on this loop; a step of the run that holds the lease is not another."""
    holder = state.leases.holder(workspace.loop)
    return holder is not None and not holder.is_us(run_id())


def _mark(workspace: Workspace, rows: int) -> None:
    staging = workspace.kfloop_dir / f".{MARK}.tmp"
    staging.parent.mkdir(parents=True, exist_ok=True)
    staging.write_text(json.dumps({"rows": rows, "mlflow": workspace.mlflow}), encoding="utf-8")
    staging.replace(workspace.kfloop_dir / MARK)


def _marked(workspace: Workspace, config: DeployConfig, now: Standing, rows: int) -> bool:
    """Whether the followers have seen the ledger's last row, and are still there."""
    try:
        mark = json.loads((workspace.kfloop_dir / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if mark != {"rows": rows, "mlflow": workspace.mlflow}:
        return False
    there = not workspace.mlflow.startswith(_SQLITE) or Path(workspace.mlflow.removeprefix(_SQLITE)).is_file()
    return there and target_of(workspace, config).told() == wanted_policy(workspace, now)
