"""The ledger: append-only, hash-chained history of which version is champion, and why.

A change is two rows: an ``intent`` before anything is touched, and ``done`` or ``withdrawn`` after. The champion is the
version of the last ``done`` row. Two writers cannot both append the same row, because its number is part of the primary key.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from kfloop.core.state.schema import ledger
from kfloop.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

ROOT_HASH = "0" * 64


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the ledger.

    Attributes:
        loop: The loop.
        seq: Number of the row, from 1.
        at: Unix time in seconds.
        phase: ``intent``, ``done`` or ``withdrawn``.
        intent: Number of the intent that a closing row answers; 0 for an intent.
        action: ``promote``, ``rollback`` or ``override``.
        version: Version that becomes (or became) champion; also its Triton and MLflow version.
        model_digest: Digest of its package.
        previous_version: Champion before, 0 when there was none.
        previous_digest: Package of the champion before, empty when there was none.
        actor: Who did it.
        reason: Why, in one sentence.
        evidence_digest: Digest of the decision that allowed it.
        run_id: The run, if any.
    """

    loop: str
    seq: int
    at: float
    phase: str
    intent: int
    action: str
    version: int
    model_digest: str
    previous_version: int
    previous_digest: str
    actor: str
    reason: str
    evidence_digest: str
    run_id: str


class Ledger:
    """Reads and appends; never updates."""

    def __init__(self, begin: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._begin = begin

    def history(self, loop: str) -> list[Entry]:
        """All rows of a loop, oldest first."""
        with self._begin() as connection:
            return _entries(connection, loop)

    def champion(self, loop: str) -> Entry | None:
        """The closing row that made the present champion; null before the first promotion."""
        return _champion(self.history(loop))

    def previous(self, loop: str) -> Entry | None:
        """The row of the last champion that is another version than the present one."""
        history = [entry for entry in self.history(loop) if entry.phase == "done"]
        if not history:
            return None
        return next((entry for entry in reversed(history) if entry.version != history[-1].version), None)

    def open_intent(self, loop: str) -> Entry | None:
        """An intent that no row has closed; a crash left it, or its writer is still at work."""
        return _open_intent(self.history(loop))

    def intend(
        self,
        loop: str,
        *,
        action: str,
        version: int,
        model_digest: str,
        expected_champion: str | None,
        actor: str,
        reason: str,
        evidence_digest: str = "",
        run_id: str = "",
    ) -> Entry:
        """Announce a change of champion (compare-and-set).

        Args:
            loop: The loop.
            action: ``promote``, ``rollback`` or ``override``.
            version: Version that is to become champion.
            model_digest: Its package.
            expected_champion: Package digest of the champion the decision was made against; null for none.
            actor: Who asks for it.
            reason: Why.
            evidence_digest: Decision that allows it.
            run_id: The run, if any.

        Raises:
            StateError: The champion is another one by now, or another change is under way.
        """
        with self._begin() as connection:
            entries = _entries(connection, loop)
            opened = _open_intent(entries)
            if opened is not None:
                raise StateError(
                    f"a {opened.action} of version {opened.version} is under way since ledger row {opened.seq}",
                    hint="run any kfloop command again: it first finishes or withdraws what a crash left open",
                )
            champion = _champion(entries)
            present = champion.model_digest if champion else None
            if present != expected_champion:
                raise StateError(
                    f"the champion is {present or 'none'}, but the decision was made against {expected_champion or 'none'}",
                    hint="run the loop again: the challenger must be compared with the present champion",
                )
            entry = Entry(
                loop=loop,
                seq=len(entries) + 1,
                at=time.time(),
                phase="intent",
                intent=0,
                action=action,
                version=version,
                model_digest=model_digest,
                previous_version=champion.version if champion else 0,
                previous_digest=champion.model_digest if champion else "",
                actor=actor,
                reason=reason,
                evidence_digest=evidence_digest,
                run_id=run_id,
            )
            return _append(connection, entry)

    def close(self, intent: Entry, *, done: bool, reason: str = "") -> Entry:
        """Close an intent as ``done`` or ``withdrawn``.

        Raises:
            StateError: The intent is not open (somebody else closed it).
        """
        with self._begin() as connection:
            entries = _entries(connection, intent.loop)
            opened = _open_intent(entries)
            if opened is None or opened.seq != intent.seq:
                raise StateError(f"ledger row {intent.seq} of loop '{intent.loop}' is not open any more")
            entry = replace(
                intent,
                seq=len(entries) + 1,
                at=time.time(),
                phase="done" if done else "withdrawn",
                intent=intent.seq,
                reason=reason or intent.reason,
            )
            return _append(connection, entry)

    def verify(self, loop: str) -> int:
        """Check the hash chain.

        Returns:
            Number of rows.

        Raises:
            StateError: A row was changed, removed or put in between.
        """
        with self._begin() as connection:
            rows = connection.execute(select(ledger).where(ledger.c.loop == loop).order_by(ledger.c.seq)).all()
        before = ROOT_HASH
        for number, row in enumerate(rows, start=1):
            if row.seq != number or row.previous_hash != before or row.hash != _hash(before, row.body):
                raise StateError(
                    f"ledger of loop '{loop}' is broken at row {number}",
                    hint="somebody changed the database by hand; restore a backup",
                )
            before = row.hash
        return len(rows)


def _entries(connection: Connection, loop: str) -> list[Entry]:
    rows = connection.execute(select(ledger.c.body).where(ledger.c.loop == loop).order_by(ledger.c.seq))
    return [Entry(**json.loads(body)) for (body,) in rows]


def _champion(entries: list[Entry]) -> Entry | None:
    return next((entry for entry in reversed(entries) if entry.phase == "done"), None)


def _open_intent(entries: list[Entry]) -> Entry | None:
    return entries[-1] if entries and entries[-1].phase == "intent" else None


def _append(connection: Connection, entry: Entry) -> Entry:
    before = connection.execute(
        select(ledger.c.hash).where(ledger.c.loop == entry.loop).order_by(ledger.c.seq.desc()).limit(1)
    ).scalar()
    body = json.dumps(asdict(entry), sort_keys=True)
    row = {
        "loop": entry.loop,
        "seq": entry.seq,
        "body": body,
        "previous_hash": before or ROOT_HASH,
        "hash": _hash(before or ROOT_HASH, body),
    }
    try:
        connection.execute(insert(ledger).values(**row))
    except IntegrityError as error:
        raise StateError(
            f"somebody else wrote ledger row {entry.seq} of loop '{entry.loop}' at the same moment",
            hint="run the command again",
        ) from error
    return entry


def _hash(before: str, body: str) -> str:
    return hashlib.sha256(f"{before}\n{body}".encode()).hexdigest()
