"""Recovery: what every command does first, so that a crash never needs a person.

An open intent is finished when its version verifies on a server and withdrawn when it does not; a promotion whose server is away stays open.
Then registry, repository and server follow the ledger; a roll-out that is going on goes on. All of it under the loop's lease: while another live
run holds that, its work is left alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.components.deploy.changing import finish
from kfloop.components.deploy.exclusion import exclusive
from kfloop.components.deploy.following import follow
from kfloop.components.deploy.projecting import standing, wanted_policy
from kfloop.components.deploy.verifying import target_of
from kfloop.core.sections import DeployConfig
from kfloop.core.state import open_state
from kfloop.core.state.anchor import anchor, verified
from kfloop.core.state.database import exists
from kfloop.errors import KfloopError, LeaseHeldError

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
        TransientError: A promotion is open, and the server or the store that it needs are away; it stays open.
    """
    state = open_state(workspace.state) if exists(workspace.state) else None
    rows = verified(workspace)
    if state is None or (rows == 0 and not full):
        return Recovery(word="clean")
    anchor(workspace)
    try:
        with exclusive(state, workspace, "recover"):
            return _recovered(state, workspace, config or DeployConfig(), full=full)
    except LeaseHeldError:
        return Recovery(word="busy")


def _recovered(state: State, workspace: Workspace, config: DeployConfig, *, full: bool) -> Recovery:
    """The same under the lease: what is open now was left by a crash, and nobody else is finishing it."""
    rows = verified(workspace)
    intent = state.ledger.open_intent(workspace.loop)
    if intent is not None:
        recovery = _settle(intent, workspace, config)
        if recovery.word == "finished":
            _mark(workspace, rows + 1)
        return recovery
    now = standing(state.ledger, workspace.loop)
    if not full and _marked(workspace, config, now, rows):
        return Recovery(word="clean")
    events = follow(workspace, config, now)
    _mark(workspace, rows)
    return Recovery(word="projected" if events else "clean", events=tuple(events))


def _settle(intent: Entry, workspace: Workspace, config: DeployConfig) -> Recovery:
    """Finish or withdraw an open intent.

    Raises:
        TransientError: It stays open.
    """
    name = f"the {intent.action} of version {intent.version} that was left open"
    try:
        _, _, events = finish(intent, workspace, config, note=" (finished later)")
    except KfloopError as error:
        history = open_state(workspace.state).ledger.history(workspace.loop)
        if not any(row.intent == intent.seq and row.phase == "withdrawn" for row in history):
            raise  # it is open still, or it is champion and what lags behind follows with the next command
        return Recovery(word="withdrawn", events=(f"{name} was withdrawn: {error}",))
    return Recovery(word="finished", events=(f"{name} was finished", *events))


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
