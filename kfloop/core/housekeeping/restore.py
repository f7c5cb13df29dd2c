"""Restore: what a backup has, back into state and store, on whatever kind of database, after a check of it all; or blobs alone.

The leases of all loops, those that are there and those of the backup, are held meanwhile: no run mixes with it.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData, create_engine, delete, func, insert, select, text

from kfloop.core.addresses import redacted
from kfloop.core.housekeeping.backup import read_dump, tables
from kfloop.core.housekeeping.copying import STATE, copy_blobs, read_contents
from kfloop.core.housekeeping.holding import all_held
from kfloop.core.housekeeping.references import loops_of
from kfloop.core.state.database import POSTGRES, open_state, upgrade
from kfloop.core.state.schema import leases
from kfloop.core.store import Store
from kfloop.errors import LeaseHeldError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Table

    from kfloop.core.housekeeping.copying import Copies, Damaged
    from kfloop.core.state import State
    from kfloop.core.state.leases import Lease
    from kfloop.core.workspace import Workspace

NUMBERED = {"triggers": "id", "looks": "number"}  # columns that the database counts itself
BATCH = 1000  # rows


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What was restored.

    Attributes:
        name: The backup.
        rows: Rows of each table.
        ledgers: Rows of each loop's ledger, after a check of its hash chain.
        copied: Blobs that were copied now.
        present: Blobs that the store had already.
        damaged: Blobs that the backup has no good copy of; only where blobs alone were asked for.
    """

    name: str
    rows: dict[str, int]
    ledgers: dict[str, int]
    copied: int
    present: int
    damaged: tuple[Damaged, ...]


def restore(workspace: Workspace, source: str, *, at: str | None = None, replace: bool = False) -> Restored:
    """Bring a backup back into the loop's state and store.

    Args:
        workspace: Places of the loop.
        source: Folder or fsspec URL of the backups.
        at: Name of the backup; null means the latest.
        replace: Whether state that is there may be replaced.

    Raises:
        StateError: There is no such backup, it or a blob of it is damaged, its ledger is broken, or there is state already.
        LeaseHeldError: A run is at work on the state that would be replaced, or one began meanwhile.
    """
    with _scratch(workspace) as made:
        there = Store(source, made / "mirror")
        names = _names(there, source)
        if at is not None and at not in names:
            raise _no_backup(source, names, at)
        name = at or names[-1]
        saved = there.require(STATE, name)
        rows, ledgers = _checked(saved, made / "check.db")
        contents = read_contents(saved)
        state = open_state(workspace.state)
        with all_held(state, {*loops_of(state), *ledgers, workspace.loop}, "restore") as mine:
            _refuse_if_used(state, replace=replace)
            # Blobs before the rows that name them; a kill in between leaves blobs that nobody names, and the old state.
            copies = copy_blobs(there, Store.of(workspace), made / "blob", contents)
            _refuse_damaged(copies, source)
            _write(state, rows, mine, replace=replace)
    counts = {table: len(found) for table, found in rows.items()}
    return Restored(name=name, rows=counts, ledgers=ledgers, **vars(copies))


def restore_blobs(workspace: Workspace, source: str) -> Restored:
    """Bring back the blobs that the store has lost, or that do not hold what was backed up; state is left as it is.

    Args:
        workspace: Places of the loop.
        source: Folder or fsspec URL of the backups.

    Raises:
        StateError: There is no backup.
    """
    with _scratch(workspace) as made:
        there = Store(source, made / "mirror")
        contents = read_contents(there.require(STATE, _names(there, source)[-1]))
        copies = copy_blobs(there, Store.of(workspace), made / "blob", contents, mend=True)
    return Restored(name="", rows={}, ledgers={}, **vars(copies))


@contextlib.contextmanager
def _scratch(workspace: Workspace) -> Iterator[Path]:
    scratch = workspace.kfloop_dir / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="restore-", dir=scratch) as made:
        yield Path(made)


def _names(there: Store, source: str) -> list[str]:
    """Names of the backups, the latest last."""
    names = sorted(there.digests(STATE))
    if not names:
        raise _no_backup(source, names)
    return names


def _no_backup(source: str, names: list[str], at: str | None = None) -> StateError:
    return StateError(
        f"there is no backup{f' {at!r}' if at else ''} in '{redacted(source)}'",
        hint=f"there are: {', '.join(names) or 'none'}; make one with: kfloop backup {redacted(source)}",
    )


def _refuse_damaged(copies: Copies, source: str) -> None:
    if copies.damaged:
        told = "; ".join(f"{blob.kind} '{blob.digest}': {blob.reason}" for blob in copies.damaged)
        raise StateError(
            f"{len(copies.damaged)} blobs of the backup '{redacted(source)}' are damaged, so state was left as it was: {told}",
            hint="put good copies there, or remove them from the backup to go on without them",
            damaged=[vars(blob) for blob in copies.damaged],
        )


def _checked(folder: Path, place: Path) -> tuple[dict[str, list[dict[str, Any]]], dict[str, int]]:
    """Rows of a backup in the present schema, and the length of each ledger, whose chain is whole.

    They go through a database of the backup's own schema, which is migrated as a loop's would be.
    """
    schema, rows = read_dump(folder)
    url = f"sqlite:///{place}"
    engine = create_engine(url)
    with engine.begin() as connection:
        upgrade(connection, schema)
        found = MetaData()
        found.reflect(connection)
        for name, lines in rows.items():
            for start in range(0, len(lines), BATCH):
                connection.execute(insert(found.tables[name]), lines[start : start + BATCH])
    engine.dispose()
    state = open_state(url)
    try:
        ledgers = {loop: state.ledger.verify(loop) for loop in loops_of(state)}
        with state.engine.connect() as connection:
            present = {
                table.name: [dict(row) for row in connection.execute(select(table)).mappings()] for table in tables()
            }
    finally:
        state.engine.dispose()
    return present, ledgers


def _refuse_if_used(state: State, *, replace: bool) -> None:
    loops = loops_of(state, leased=False)
    if loops and not replace:
        raise StateError(
            f"there is state already, of {', '.join(loops)}",
            hint="name another database in the loop file, or replace all of it with: --replace",
            loops=loops,
        )


def _write(state: State, rows: dict[str, list[dict[str, Any]]], mine: list[Lease], *, replace: bool) -> None:
    """All tables in one transaction that keeps every other writer out."""
    with state.begin() as connection:
        if state.engine.dialect.name == POSTGRES:
            connection.execute(text(f"lock table {', '.join(table.name for table in tables())} in exclusive mode"))
        _refuse_if_begun(connection, mine)
        for table in tables():
            if connection.execute(select(func.count()).select_from(table)).scalar():
                if not replace:
                    raise StateError("somebody wrote to the state meanwhile; nothing was changed", hint="run it again")
                connection.execute(delete(table))
            lines = rows[table.name]
            for start in range(0, len(lines), BATCH):
                connection.execute(insert(table), lines[start : start + BATCH])
            if table.name in NUMBERED and state.engine.dialect.name == POSTGRES:
                _count_on(connection, table, NUMBERED[table.name])


def _refuse_if_begun(connection: Connection, mine: list[Lease]) -> None:
    """Copying may have taken hours: a lease may have been taken over, and a loop that nobody knew may have begun its first run."""
    for lease in mine:
        lease.check(connection)
    held = {lease.loop for lease in mine}
    for row in connection.execute(select(leases)):
        if row.loop not in held:
            raise LeaseHeldError(
                f"run '{row.run_id}' of loop '{row.loop}' began meanwhile (pid {row.pid} on {row.host}); nothing was changed",
                hint="wait for it to end, or end it and run the command again",
            )


def _count_on(connection: Connection, table: Table, column: str) -> None:
    """Let PostgreSQL's own numbers go on after the ones that were written."""
    name = f"pg_get_serial_sequence('{table.name}', '{column}')"
    highest = select(func.setval(text(name), func.coalesce(func.max(table.c[column]), 0) + 1, False)).select_from(table)
    connection.execute(highest)
