"""Opening the state database: one URL, one schema, every change one transaction."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event, inspect, text
from sqlalchemy.exc import DatabaseError, OperationalError

from kfloop.core.state.leases import Leases
from kfloop.core.state.ledger import Ledger
from kfloop.core.state.looks import Looks
from kfloop.core.state.monitors import Monitors, Triggers
from kfloop.core.state.runs import Runs
from kfloop.errors import StateError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

HEAD = "0003"
SQLITE = "sqlite:///"
PATIENCE_S = 15


@dataclass(frozen=True, kw_only=True)
class State:
    """The parts of state, over one engine.

    Attributes:
        runs: Run records and step events.
        ledger: Promotions, rollbacks, holds and overrides: the authority over which version is champion.
        leases: Who may run a loop now.
        monitors: Evidence that the monitor carries from round to round.
        triggers: What each monitoring round concluded.
        looks: Which challenger was judged on which test rows.
    """

    engine: Engine
    runs: Runs
    ledger: Ledger
    leases: Leases
    monitors: Monitors
    triggers: Triggers
    looks: Looks


def exists(url: str) -> bool:
    """Whether there is any state at ``url``; a local file that is not there has none, a server is taken to have."""
    return not url.startswith(SQLITE) or Path(url.removeprefix(SQLITE)).is_file()


@lru_cache(maxsize=8)
def open_state(url: str) -> State:
    """Open (and create or migrate) the state at ``url``.

    Raises:
        StateError: The database is corrupt, or from a newer kfloop.
        TransientError: The database cannot be reached or is locked for long.
    """
    if url.startswith(SQLITE):
        Path(url.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    with translated(url):
        _migrate(engine, url)
    begin = _Begin(engine, url)
    return State(
        engine=engine,
        runs=Runs(begin),
        ledger=Ledger(begin),
        leases=Leases(begin),
        monitors=Monitors(begin),
        triggers=Triggers(begin),
        looks=Looks(begin),
    )


class _Begin:
    """Callable that opens one transaction, with driver errors turned into kfloop's."""

    def __init__(self, engine: Engine, url: str) -> None:
        self._engine = engine
        self._url = url

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Connection]:
        with translated(self._url), self._engine.begin() as connection:
            yield connection


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn driver errors into kfloop's own, which say what to do."""
    try:
        yield
    except OperationalError as error:
        reason = str(error.orig)
        if "disk is full" in reason or "disk I/O" in reason:
            raise StateError(
                f"no space left for state '{url}': {reason}", hint="free some space, then run the same command again"
            ) from error
        raise TransientError(
            f"state '{url}' cannot be used now: {reason}", hint="is another program holding it? try again"
        ) from error
    except DatabaseError as error:
        if "UNIQUE constraint" in str(error.orig) or "duplicate key" in str(error.orig):
            raise
        raise StateError(
            f"state '{url}' is corrupt: {error.orig}",
            hint="put the file aside and restore a backup; nothing was changed",
        ) from error


def _prepare_sqlite(engine: Engine) -> None:
    """Write-ahead log, patience with other writers, and write locks taken at the start of a transaction."""

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy emits BEGIN itself, below
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={PATIENCE_S * 1000}")
        _write_ahead(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _write_ahead(cursor: Any) -> None:
    """Turn the write-ahead log on. Two programs that create one database meet here, and SQLite does not wait for this lock by itself."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def _migrate(engine: Engine, url: str) -> None:
    """Bring the schema to ``HEAD``; Alembic is imported only when there is something to do."""
    with engine.begin() as connection:
        found = None
        if inspect(connection).has_table("alembic_version"):
            found = connection.execute(text("select version_num from alembic_version")).scalar()
        if found == HEAD:
            return
        if found is not None and found > HEAD:
            raise StateError(
                f"state '{url}' has schema {found}, this kfloop knows {HEAD}",
                hint="update kfloop, or point 'state:' at another database",
            )
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, HEAD)
