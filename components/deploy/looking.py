"""What the looks at a roll-out found, one line each, and the story of one roll-out for people: from its beginning to how it ended."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kfloop.core.sections import DeployConfig
from kfloop.core.state import open_state

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kfloop.components.deploy.advancing import Progress
    from kfloop.core.state.ledger import Entry
    from kfloop.core.workspace import Workspace

FOLDER = "rollouts"
MOST_SHOWN = 120  # looks in one story
TAIL_BYTES = 8192  # more than a line has
TOLD = ("requests", "hours", "dropped", "advice", "reason")


def looks_file(workspace: Workspace, row: int) -> Path:
    """Where the looks at the roll-out of a ledger row stand, one JSON object a line."""
    return workspace.kfloop_dir / FOLDER / f"{row}.jsonl"


def remember(workspace: Workspace, told: Progress) -> None:
    """Add a look, where it found more than the one before."""
    path = looks_file(workspace, told.ledger_row)
    look: dict[str, Any] = {name: getattr(told, name) for name in TOLD}
    look["findings"] = [asdict(finding) for finding in told.findings]
    last = _last(path)
    if last is not None and all(last.get(name) == look[name] for name in ("requests", "findings")):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:  # one write: two looks at once do not mix
        stream.write(json.dumps({"at": time.time()} | look) + "\n")


def read_looks(path: Path) -> list[dict[str, Any]]:
    """The looks, oldest first; a line that a kill cut off is left out."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    return [look for line in lines if (look := _parsed(line)) is not None]


def story(workspace: Workspace, row: int | None = None) -> dict[str, Any] | None:
    """Everything about one roll-out, as plain JSON values.

    Args:
        workspace: Places of the loop.
        row: The ledger row that began it, or ended it; null for the latest one.

    Returns:
        ``version``, ``champion_version``, ``mode``, ``share``, ``began``, ``ended`` (unix time; null while it goes on), ``outcome`` (``rolling_out``,
        ``promoted``, ``withdrawn`` or ``replaced``), ``reason``, ``actor``, ``promised`` (section ``deploy.rollout`` with its ``bounds``), ``requests``,
        ``hours``, ``dropped``, ``findings`` and ``looks`` (at most 120 of them, the last one included); null where there was none.
    """
    history = open_state(workspace.state).ledger.history(workspace.loop)
    begun = [entry for entry in history if entry.action == "rollout" and (row is None or entry.seq <= row)]
    if not begun:
        return None
    entry = begun[-1]
    end, outcome = _end(history, entry)
    looks = read_looks(looks_file(workspace, entry.seq))
    figures: dict[str, Any] = (end.details.get("figures") if end else None) or (looks[-1] if looks else {})
    config = promised(entry).rollout
    return {
        "ledger_row": entry.seq,
        "version": entry.version,
        "champion_version": entry.previous_version,
        "mode": entry.details["mode"],
        "share": entry.details["share"],
        "began": entry.at,
        "ended": None if end is None else end.at,
        "outcome": outcome,
        "reason": end.reason if end else figures.get("reason", ""),
        "actor": (end or entry).actor,
        "promised": config.model_dump(mode="json") | {"bounds": config.bounds()},
        "requests": figures.get("requests", 0),
        "hours": ((end.at if end else time.time()) - entry.at) / 3600,
        "dropped": looks[-1].get("dropped", 0) if looks else 0,
        "findings": figures.get("findings", []),
        "looks": _thinned(looks),
    }


def promised(entry: Entry) -> DeployConfig:
    """Section ``deploy`` as it was when the roll-out began."""
    return DeployConfig.model_validate(entry.details["config"])


def _end(history: Sequence[Entry], begun: Entry) -> tuple[Entry | None, str]:
    """The row that ended it, and how; as ``standing.active_rollout`` sees it."""
    for entry in history:
        if entry.seq <= begun.seq:
            continue
        if entry.action == "withdraw" and entry.details.get("rollout") == begun.seq:
            return entry, "withdrawn"
        if entry.phase == "done":
            return entry, "promoted" if entry.model_digest == begun.model_digest else "replaced"
        turned_down = entry.action == "reject" and entry.evidence_digest == begun.evidence_digest
        if turned_down or entry.action in ("hold", "rollout"):
            return entry, "replaced"
    return None, "rolling_out"


def _thinned(looks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    step = max(1, -(-len(looks) // MOST_SHOWN))
    return looks[::-step][::-1]  # the last one is always there


def _last(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - TAIL_BYTES))
            lines = stream.read().decode("utf-8", "replace").rstrip("\n").rsplit("\n", 1)
    except FileNotFoundError:
        return None
    return _parsed(lines[-1])


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        look = json.loads(line)
    except ValueError:
        return None
    return look if isinstance(look, dict) else None
