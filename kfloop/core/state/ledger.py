"""The ledger: append-only, hash-chained history of which version is champion, and why.

A change is two rows: an ``intent`` before anything is touched, and ``done`` or ``withdrawn`` after. The champion is the version of the last ``done``
row. What people say without changing the champion (a hold, its rejection, an override of a rule and its end) is one row ``noted``. Two writers
cannot both append the same row, because its number is part of the primary key; those of one loop follow each other, so that none has to try twice.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from kfloop.core.state.entries import Entry, champion_of, open_intent_of
from kfloop.core.state.schema import ledger
from kfloop.core.state.standing import active_rollout
from kfloop.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

__all__ = ["Entry", "Ledger"]

ROOT_HASH = "0" * 64


class Ledger:
    """Reads and appends; never updates."""

    def __init__(self, begin: Callable[..., AbstractContextManager[Connection]]) -> None:
        self._begin = begin

    def history(self, loop: str) -> list[Entry]:
        """All rows of a loop, oldest first."""
        with self._begin() as connection:
            return _entries(connection, loop)

    def champion(self, loop: str) -> Entry | None:
        """The closing row that made the present champion; null before the first promotion."""
        return champion_of(self.history(loop))

    def previous(self, loop: str) -> Entry | None:
        """The row of the last champion that is another version than the present one."""
        history = [entry for entry in self.history(loop) if entry.phase == "done"]
        if not history:
            return None
        return next((entry for entry in reversed(history) if entry.version != history[-1].version), None)

    def open_intent(self, loop: str) -> Entry | None:
        """An intent that no row has closed; a crash left it, or its writer is still at work."""
        return open_intent_of(self.history(loop))

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
        details: dict[str, Any] | None = None,
        at: float | None = None,
    ) -> Entry:
        """Announce a change of champion (compare-and-set).

        Args:
            loop: The loop.
            action: ``promote`` or ``rollback``.
            version: Version that is to become champion.
            model_digest: Its package.
            expected_champion: Package digest of the champion the decision was made against; null for none.
            actor: Who asks for it.
            reason: Why.
            evidence_digest: Decision that allows it.
            run_id: The run, if any.
            details: More facts of the row.
            at: When, seconds since 1970; now when left out. A replay has a clock of its own.

        Raises:
            StateError: The champion is another one by now, or another change is under way.
        """
        with self._begin(lock=loop) as connection:
            entries = _entries(connection, loop)
            opened = open_intent_of(entries)
            if opened is not None:
                raise StateError(
                    f"a {opened.action} of version {opened.version} is under way since ledger row {opened.seq}",
                    hint="run any kfloop command again: it first finishes or withdraws what a crash left open",
                )
            champion = champion_of(entries)
            present = champion.model_digest if champion else None
            if present != expected_champion:
                raise StateError(
                    f"the champion is {present or 'none'}, but the decision was made against {expected_champion or 'none'}",
                    hint="run the loop again: the challenger must be compared with the present champion",
                )
            return _append(
                connection,
                _first_row(
                    loop,
                    entries,
                    phase="intent",
                    action=action,
                    version=version,
                    model_digest=model_digest,
                    actor=actor,
                    reason=reason,
                    evidence_digest=evidence_digest,
                    run_id=run_id,
                    details=details,
                    at=at,
                ),
            )

    def note(
        self,
        loop: str,
        *,
        action: str,
        actor: str,
        reason: str,
        version: int = 0,
        model_digest: str = "",
        evidence_digest: str = "",
        run_id: str = "",
        details: dict[str, Any] | None = None,
    ) -> Entry:
        """Append a row that changes no champion; also while a change is under way.

        Args:
            loop: The loop.
            action: ``hold``, ``reject``, ``override``, ``end_override`` or ``rollout``.
            actor: Who says so.
            reason: Why.
            version: Version it is about; 0 for none.
            model_digest: Its package.
            evidence_digest: Decision it is about.
            run_id: The run, if any.
            details: More facts of the row.
        """
        with self._begin(lock=loop) as connection:
            entries = _entries(connection, loop)
            return _append(
                connection,
                _first_row(
                    loop,
                    entries,
                    phase="noted",
                    action=action,
                    version=version,
                    model_digest=model_digest,
                    actor=actor,
                    reason=reason,
                    evidence_digest=evidence_digest,
                    run_id=run_id,
                    details=details,
                ),
            )

    def withdraw(
        self, rollout: Entry, *, actor: str, reason: str, run_id: str = "", details: dict[str, Any] | None = None
    ) -> Entry | None:
        """Append the row by which a roll-out ends without a promotion; also while its promotion is under way, which then fails.

        Args:
            rollout: The row that began it.
            actor: Who says so.
            reason: Why.
            run_id: The run, if any.
            details: More facts of the row.

        Returns:
            The row; null where the roll-out has ended meanwhile, maybe by a promotion, so that there is nothing to withdraw.
        """
        with self._begin(lock=rollout.loop) as connection:
            entries = _entries(connection, rollout.loop)
            going = active_rollout(entries)
            if going is None or going.seq != rollout.seq:
                return None
            return _append(
                connection,
                _first_row(
                    rollout.loop,
                    entries,
                    phase="noted",
                    action="withdraw",
                    version=rollout.version,
                    model_digest=rollout.model_digest,
                    actor=actor,
                    reason=reason,
                    evidence_digest=rollout.evidence_digest,
                    run_id=run_id,
                    details={"rollout": rollout.seq, **(details or {})},
                ),
            )

    def close(self, intent: Entry, *, done: bool, reason: str = "", at: float | None = None) -> Entry:
        """Close an intent as ``done`` or ``withdrawn``; ``at`` as in ``intend``.

        One whose roll-out was withdrawn since it was written is closed as ``withdrawn``, whatever is asked: whoever withdrew it was told that it gets no traffic.

        Returns:
            The closing row; its ``phase`` says which it is.

        Raises:
            StateError: The intent is not open (somebody else closed it).
        """
        with self._begin(lock=intent.loop) as connection:
            entries = _entries(connection, intent.loop)
            opened = open_intent_of(entries)
            if opened is None or opened.seq != intent.seq:
                raise StateError(f"ledger row {intent.seq} of loop '{intent.loop}' is not open any more")
            if done and any(
                row.action == "withdraw" and row.model_digest == intent.model_digest for row in entries[intent.seq :]
            ):
                done, reason = False, "withdrawn: its roll-out was withdrawn meanwhile"
            entry = replace(
                intent,
                seq=len(entries) + 1,
                at=time.time() if at is None else at,
                phase="done" if done else "withdrawn",
                intent=intent.seq,
                reason=reason or intent.reason,
            )
            return _append(connection, entry)

    def head(self, loop: str, seq: int | None = None) -> tuple[int, str]:
        """Number and hash of the last row, or of row ``seq``; 0 and the root's hash where there is none."""
        query = select(ledger.c.seq, ledger.c.hash).where(ledger.c.loop == loop).order_by(ledger.c.seq.desc()).limit(1)
        with self._begin() as connection:
            found = connection.execute(query if seq is None else query.where(ledger.c.seq == seq)).first()
        return (int(found.seq), str(found.hash)) if found else (0, ROOT_HASH)

    def verify(self, loop: str) -> int:
        """Check the hash chain; whether its end was cut off ``anchor.verified`` tells.

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


def _first_row(
    loop: str,
    entries: list[Entry],
    *,
    phase: str,
    details: dict[str, Any] | None,
    at: float | None = None,
    **told: Any,
) -> Entry:
    """A row that answers no other one, after those that are there, with the champion that it finds."""
    champion = champion_of(entries)
    return Entry(
        loop=loop,
        seq=len(entries) + 1,
        at=time.time() if at is None else at,
        phase=phase,
        intent=0,
        previous_version=champion.version if champion else 0,
        previous_digest=champion.model_digest if champion else "",
        details=details or {},
        **told,
    )


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
