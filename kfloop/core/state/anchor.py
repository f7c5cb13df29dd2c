"""The anchor: how far the ledger had come, kept outside of its database, so that a ledger cut off at its end is noticed.

A hash chain shows a row that was changed, put in or taken out of the middle; without its last rows it is as good a chain as before. So
the number of rows and the hash of the last one stand in ``.kfloop/ledger.json`` too. Whoever may write there and in the database can
still cut off both: the anchor is a safeguard against accidents and single hands, not a signature.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from kfloop.core.state.database import exists, open_state
from kfloop.errors import StateError

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.workspace import Workspace

ANCHOR = "ledger.json"


def verified(workspace: Workspace) -> int:
    """Check the ledger's hash chain, and that it still has every row it was seen to have.

    Returns:
        Number of rows.

    Raises:
        StateError: A row was changed, removed or put in between, the end was cut off, or it is another ledger.
    """
    ledger = open_state(workspace.state).ledger if exists(workspace.state) else None
    rows = ledger.verify(workspace.loop) if ledger else 0
    seen = _read(workspace).get(workspace.loop)
    if seen is None or seen.get("state") != workspace.state:
        return rows
    known = int(seen["rows"])
    if ledger is None or ledger.head(workspace.loop, known)[1] != seen["hash"]:
        what = f"it has {rows} rows" if rows < known else f"its row {known} is another one"
        raise StateError(
            f"ledger of loop '{workspace.loop}' is not the one of before: {what}, and {known} rows were seen (last hash {seen['hash'][:12]})",
            hint=f"restore a backup of '{workspace.state}' that has them; if you went back on purpose, remove '{_place(workspace)}'",
        )
    return rows


def anchor(workspace: Workspace) -> None:
    """Note how far the ledger has come, never that it has gone back; ``verified`` comes first."""
    rows, last = open_state(workspace.state).ledger.head(workspace.loop)
    known = _read(workspace)
    now, seen = {"state": workspace.state, "rows": rows, "hash": last}, known.get(workspace.loop, {})
    if rows == 0 or (seen.get("state") == workspace.state and int(seen["rows"]) >= rows):
        return
    place = _place(workspace)
    place.parent.mkdir(parents=True, exist_ok=True)
    staging = place.with_name(f".{ANCHOR}.{uuid.uuid4().hex[:8]}.tmp")  # several processes may be at it
    staging.write_text(json.dumps(known | {workspace.loop: now}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    staging.replace(place)


def _place(workspace: Workspace) -> Path:
    return workspace.kfloop_dir / ANCHOR


def _read(workspace: Workspace) -> dict[str, Any]:
    """Anchor by loop; empty where there is none, or an unreadable one."""
    try:
        found = json.loads(_place(workspace).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        loop: seen for loop, seen in found.items() if isinstance(seen, dict) and {"state", "rows", "hash"} <= set(seen)
    }
