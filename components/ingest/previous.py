"""The dataset versions that this loop ingested before: where cutoffs come from, and what skew is measured against."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kfloop.core.store import Store
from kfloop.core.tracking import tracked_digests
from kfloop.core.versions import CARD

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kfloop.core.workspace import Workspace

LOOKED_AT = 50  # latest runs


def earlier_cards(workspace: Workspace) -> list[dict[str, Any]]:
    """Cards of the loop's earlier versions as far as the store still has them: those of runs, newest first, then those of single steps."""
    store = Store.of(workspace)
    found = []
    for digest in dict.fromkeys([*_of_runs(workspace), *tracked_digests(workspace)]):
        if store.has("datasets", digest):
            card = json.loads((store.path("datasets", digest) / CARD).read_text(encoding="utf-8"))
            found += [card] if card["name"] == workspace.loop else []
    return found


def _of_runs(workspace: Workspace) -> Iterable[str]:
    if not workspace.state:
        return []
    from kfloop.core.state.database import exists, open_state

    runs = open_state(workspace.state).runs.last(workspace.loop, LOOKED_AT) if exists(workspace.state) else []
    return [record["digests"]["ingest"] for record in runs if record.get("digests", {}).get("ingest")]
