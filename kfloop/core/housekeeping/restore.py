"""Restore: what a backup has, back into state and store, on whatever kind of database, after a check of it all."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData, create_engine, delete, func, insert, select, text

from kfloop.core.addresses import redacted
from kfloop.core.housekeeping.backup import read_dump, tables
from kfloop.core.housekeeping.copying import KIND, copy_blobs, read_contents
from kfloop.core.housekeeping.references import loops_of
from kfloop.core.state.database import POSTGRES, open_state, upgrade
from kfloop.core.store import Store
from kfloop.errors import LeaseHeldError, StateError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    from kfloop.core.state import State
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
    """

    name: str
    rows: dict[str, int]
    ledgers: dict[str, int]
    copied: int
    present: int


def restore(workspace: Workspace, source: str, *, at: str | None = None, replace: bool = False) -> Restored:
    """Bring a backup back into the loop's state and store.

    Args:
        workspace: Places of the loop.
        source: Folder or fsspec URL of the backups.
        at: Name of the backup; null means the latest.
        replace: Whether state that is there may be replaced.

    Raises:
        StateError: There is no such backup, it is damaged, its ledger is broken, or there is state already.
        LeaseHeldError: A run is at work on the state that would be replaced.
    """
    scratch = workspace.kfloop_dir / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="restore-", dir=scratch) as made:
        there = Store(source, Path(made) / "mirror")
        names = sorted(there.digests(KIND))
        if not names or (at is not None and at not in names):
            raise StateError(
                f"there is no backup{f' {at!r}' if at else ''} in '{redacted(source)}'",
                hint=f"there are: {', '.join(names) or 'none'}; make one with: kfloop backup {redacted(source)}",
            )
        name = at or names[-1]
        saved = there.require(KIND, name)
        rows, ledgers = _checked(saved, Path(made) / "check.db")
        contents = read_contents(saved)
        state = open_state(workspace.state)
        _refuse_if_used(state, replace=replace)
        # Blobs before the rows that name them; a kill in between leaves blobs that nobody names, and the old state.
        copied, present = copy_blobs(there, Store.of(workspace), Path(made) / "blob", contents)
        _refuse_if_used(state, replace=replace)  # copying may have taken hours
        _write(state, rows, replace=replace)
    counts = {table: len(found) for table, found in rows.items()}
    return Restored(name=name, rows=counts, ledgers=ledgers, copied=copied, present=present)


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
    loops = loops_of(state)
    for loop in loops:
        holder = state.leases.holder(loop)
        if holder is not None:
            raise LeaseHeldError(
                f"run '{holder.run_id}' of loop '{loop}' is at work (pid {holder.pid} on {holder.host})",
                hint="wait for it to end, or end it and run the command again",
            )
    if loops and not replace:
        raise StateError(
            f"there is state already, of {', '.join(loops)}",
            hint="name another database in the loop file, or replace all of it with: --replace",
            loops=loops,
        )


def _write(state: State, rows: dict[str, list[dict[str, Any]]], *, replace: bool) -> None:
    """All tables in one transaction that keeps every other writer out."""
    with state.begin() as connection:
        if state.engine.dialect.name == POSTGRES:
            connection.execute(text(f"lock table {', '.join(table.name for table in tables())} in exclusive mode"))
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


def _count_on(connection: Connection, table: Table, column: str) -> None:
    """Let PostgreSQL's own numbers go on after the ones that were written."""
    name = f"pg_get_serial_sequence('{table.name}', '{column}')"
    highest = select(func.setval(text(name), func.coalesce(func.max(table.c[column]), 0) + 1, False)).select_from(table)
    connection.execute(highest)
