"""Which blobs of the store must stay, and which ones this state has ever named.

Everything is read for all loops of a state at once: loops that share a store must share its state.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from kfloop.core.decisions import find_decision
from kfloop.core.state.entries import open_intent_of
from kfloop.core.state.runs import RUNNING
from kfloop.core.state.schema import leases, ledger, monitors, runs, steps, triggers
from kfloop.core.state.standing import active_rollout, pending_hold
from kfloop.core.workspace import Workspace

if TYPE_CHECKING:
    from kfloop.core.state import State
    from kfloop.core.state.ledger import Entry
    from kfloop.core.store import Store

Blob = tuple[str, str]  # kind, digest
DIGEST = re.compile(r"\b[0-9a-f]{32}\b")
ASKING = ("needs_labels", "retrain")  # triggers whose evidence somebody may still be working through
LONGEST_RUN_S = 7 * 86_400.0
# A card of a dataset names its ancestors, which are history and nothing that is needed to use it.
ENDS_HERE = ("datasets",)


def loops_of(state: State, *, leased: bool = True) -> list[str]:
    """Names of all loops that the state knows; with ``leased`` also of those that have nothing but a lease."""
    with state.engine.connect() as connection:
        found = {
            name
            for table in (runs, ledger, triggers, monitors, *([leases] if leased else []))
            for (name,) in connection.execute(select(table.c.loop).distinct())
        }
    return sorted(found)


def named_by(state: State) -> dict[str, set[Blob]]:
    """By run the blobs that its steps gave: whatever else lies in the store was put there by others."""
    found: dict[str, set[Blob]] = {}
    with state.engine.connect() as connection:
        for run_id, text in connection.execute(select(steps.c.run_id, steps.c.payload)):
            found.setdefault(run_id, set()).update(_blobs(json.loads(text)))
        for run_id, text in connection.execute(select(runs.c.run_id, runs.c.record)):
            record = json.loads(text)
            found.setdefault(run_id, set()).update(
                blob for step in record.get("steps") or [] for blob in _blobs(step.get("artifact") or {})
            )
            found[run_id].add(("runs", run_id))
        told = select(triggers.c.run_id, triggers.c.evidence_digest).where(triggers.c.evidence_digest != "")
        for run_id, digest in connection.execute(told):
            found.setdefault(run_id, set()).add(("evidence", digest))
    return found


def kept_runs(state: State, loop: str, last: int) -> set[str]:
    """Runs of a loop all of whose blobs stay: the last ones, those at work, and those behind what is live in the ledger."""
    query = select(runs.c.run_id, runs.c.status).where(runs.c.loop == loop).order_by(runs.c.started.desc())
    told = select(triggers.c.run_id).where(triggers.c.loop == loop, triggers.c.evidence_digest != "")
    asked = told.where(triggers.c.trigger.in_(ASKING))
    with state.engine.connect() as connection:
        found = connection.execute(query).all()
        watched = {
            run_id
            for which, count in ((told, max(last, 1)), (asked, 1))
            for (run_id,) in connection.execute(which.order_by(triggers.c.id.desc()).limit(count))
        }
    kept = {row.run_id for row in found[:last]} | {row.run_id for row in found if row.status == RUNNING}
    return kept | watched | _unended(state) | _behind(state, loop)


def kept_blobs(state: State, store: Store, workspace: Workspace, last: int) -> set[Blob]:
    """Every blob that must stay, of all loops of the state.

    That is: what each row of a ledger names (its package, its decision); all that the kept runs gave; and what any of these names in turn.

    Args:
        state: State of the loops.
        store: Their store.
        workspace: Places of one of them.
        last: Number of runs of each loop, the newest first, whose blobs stay.
    """
    named, kept = named_by(state), set[Blob]()
    for loop in loops_of(state):
        for run_id in kept_runs(state, loop, last):
            kept |= named.get(run_id, set())
        for entry in state.ledger.history(loop):
            kept |= _of_row(entry, workspace)
    return _closed(kept, store)


def _unended(state: State) -> set[str]:
    """Runs on a cluster that may be at work: no engine holds a lease for them, and they have a record only once they end."""
    ended = select(runs.c.run_id)
    young = func.max(steps.c.at) > time.time() - LONGEST_RUN_S
    query = select(steps.c.run_id).where(steps.c.run_id.not_in(ended)).group_by(steps.c.run_id).having(young)
    with state.engine.connect() as connection:
        return {run_id for (run_id,) in connection.execute(query)}


def _behind(state: State, loop: str) -> set[str]:
    """Runs of every row about a model that is live: a row that an approval, a roll-out or a rollback closed is not of the run that trained it."""
    live = {entry.model_digest for entry in _live(state, loop)}
    return {entry.run_id for entry in state.ledger.history(loop) if entry.model_digest in live and entry.run_id}


def _live(state: State, loop: str) -> list[Entry]:
    """Rows of the ledger that the loop may need all evidence of: champion, previous, hold, roll-out, open intent."""
    history = state.ledger.history(loop)
    found = [
        state.ledger.champion(loop),
        state.ledger.previous(loop),
        pending_hold(history),
        active_rollout(history),
        open_intent_of(history),
    ]
    return [entry for entry in found if entry is not None]


def _of_row(entry: Entry, workspace: Workspace) -> set[Blob]:
    found = {("models", entry.model_digest)} if entry.model_digest else set()
    if entry.previous_digest:
        found.add(("models", entry.previous_digest))
    blob = entry.details.get("decision")
    if blob:
        found.add(("decisions", str(blob)))
    elif entry.evidence_digest:  # rows of old do not name the blob
        decision = find_decision(workspace, entry.evidence_digest)
        found |= {("decisions", decision[0].name)} if decision else set()
    return found


def _closed(kept: set[Blob], store: Store) -> set[Blob]:
    """The blobs, and those that their reports name by digest, and so on."""
    kinds: dict[str, set[str]] = {}
    for kind, digest in store.everything():
        kinds.setdefault(digest, set()).add(kind)
    done, todo = set[Blob](), list(kept)
    while todo:
        blob = todo.pop()
        if blob in done or blob[0] not in kinds.get(blob[1], ()):
            continue
        done.add(blob)
        if blob[0] not in ENDS_HERE:
            todo += [(kind, digest) for digest in _digests_in(store.path(*blob)) for kind in kinds.get(digest, ())]
    return done


def _digests_in(folder: Path) -> set[str]:
    """Whatever looks like a digest in the JSON files of a blob."""
    found: set[str] = set()
    for path in folder.glob("*.json"):
        found.update(DIGEST.findall(path.read_text(encoding="utf-8", errors="replace")))
    return found


def _blobs(payload: dict[str, Any]) -> Iterable[Blob]:
    if payload.get("kind") and payload.get("digest"):
        yield str(payload["kind"]), str(payload["digest"])
