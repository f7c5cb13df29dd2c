"""Opening the state database: one URL, one schema, every change one transaction."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, OperationalError

from kfloop.core.addresses import hidden, redacted, resolved
from kfloop.core.state.failures import is_away, told
from kfloop.core.state.leases import Leases
from kfloop.core.state.ledger import Ledger
from kfloop.core.state.looks import Looks
from kfloop.core.state.monitors import Monitors, Triggers
from kfloop.core.state.runs import Runs
from kfloop.errors import ConfigError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection, Engine

HEAD = "0004"
SQLITE = "sqlite:///"
POSTGRES = "postgresql"
PATIENCE_S = 15
SILENCE_S = 60  # a writer that stopped in the middle of a transaction loses it, so that it does not keep all others out
PATIENCE = f"select set_config('lock_timeout', '{PATIENCE_S}s', true), set_config('idle_in_transaction_session_timeout', '{SILENCE_S}s', true)"
LOCK = (
    "select pg_advisory_xact_lock(hashtextextended(:name, 0))"  # ends with the transaction, also when its process dies
)
# Read committed, so that the first statement after the lock sees what its last holder wrote.
POSTGRES_OPTIONS: dict[str, Any] = {
    "isolation_level": "READ COMMITTED",
    "pool_pre_ping": True,
    "connect_args": {
        "connect_timeout": 10,
        "application_name": "kfloop",
        "prepare_threshold": None,  # a pooler in transaction mode hands each transaction to another session
        "keepalives_idle": 30,
        "tcp_user_timeout": 30_000,
    },
}


@dataclass(frozen=True, kw_only=True)
class State:
    """The parts of state, over one engine.

    Attributes:
        engine: The database.
        begin: Opens one transaction; a ``lock`` that it is given keeps out whoever names the same.
        runs: Run records and step events.
        ledger: Promotions, rollbacks, holds and overrides: the authority over which version is champion.
        leases: Who may run a loop now.
        monitors: Evidence that the monitor carries from round to round.
        triggers: What each monitoring round concluded.
        looks: Which challenger was judged on which test rows.
    """

    engine: Engine
    begin: Callable[..., AbstractContextManager[Connection]]
    runs: Runs
    ledger: Ledger
    leases: Leases
    monitors: Monitors
    triggers: Triggers
    looks: Looks


def exists(url: str) -> bool:
    """Whether there is any state at ``url``; a local file that is not there has none, a server is taken to have."""
    opened = resolved(url)
    return not opened.startswith(SQLITE) or Path(opened.removeprefix(SQLITE)).is_file()


@lru_cache(maxsize=8)
def open_state(url: str) -> State:
    """Open (and create or migrate) the state at ``url``.

    Raises:
        ConfigError: It is no URL of a database, its driver is not installed, or a variable that it refers to is not set.
        StateError: The database is corrupt, from a newer kfloop, or refuses us.
        TransientError: The database cannot be reached or is locked for long.
    """
    engine = _engine(url)
    try:
        with translated(url):
            _migrate(engine, url)
    except BaseException:
        engine.dispose()
        raise
    begin = _Begin(engine, url)
    return State(
        engine=engine,
        begin=begin,
        runs=Runs(begin),
        ledger=Ledger(begin),
        leases=Leases(begin),
        monitors=Monitors(begin),
        triggers=Triggers(begin),
        looks=Looks(begin),
    )


def _engine(url: str) -> Engine:
    """The engine, with what its kind of database needs; nothing is opened yet."""
    opened = resolved(url)
    if opened.startswith(SQLITE):
        Path(opened.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    try:
        place = make_url(opened)
        if place.drivername in {POSTGRES, "postgres"}:
            place = place.set(drivername="postgresql+psycopg")
        engine = create_engine(place, **(POSTGRES_OPTIONS if place.get_backend_name() == POSTGRES else {}))
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ConfigError(
            f"state '{redacted(url)}' cannot be opened: {hidden(str(error), url)}",
            hint='expected sqlite:///FILE or postgresql://USER:${VARIABLE}@HOST/DATABASE (pip install "kfloop[postgres]")',
        ) from None
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    return engine


class _Begin:
    """Callable that opens one transaction, with driver errors turned into kfloop's.

    A writer whose rows depend on rows that it read names a ``lock``, the loop or the run: those with the same one follow each other. On
    SQLite every transaction excludes every other writer anyway.
    """

    def __init__(self, engine: Engine, url: str) -> None:
        self._engine = engine
        self._url = url

    @contextlib.contextmanager
    def __call__(self, lock: str = "") -> Iterator[Connection]:
        with translated(self._url), self._connect() as connection, connection.begin():
            if lock and self._engine.dialect.name == POSTGRES:
                _wait_for(connection, f"kfloop:{lock}")
            yield connection

    def _connect(self) -> Connection:
        """A connection; a server that restarts is waited for, because nothing was asked of it yet."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._engine.connect()
            except OperationalError as error:
                if not is_away(error) or time.monotonic() > until:
                    raise
                time.sleep(0.2)


def _wait_for(connection: Connection, name: str) -> None:
    """Hold the lock called ``name`` until the end of the transaction (PostgreSQL)."""
    connection.execute(text(PATIENCE))
    connection.execute(text(LOCK), {"name": name})


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn driver errors into kfloop's own, which say what to do and hold no secret of the URL.

    A row that is there already is left to the caller, who knows what it means.
    """
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as error:
        raise told(error, url) from error


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
    """Bring the schema to ``HEAD``, all of it or nothing; Alembic is imported only when there is something to do."""
    with engine.begin() as connection:
        if _found(connection, url) == HEAD:
            return
        if engine.dialect.name == POSTGRES:  # several processes may open an empty or an old database at once
            _wait_for(connection, "kfloop schema")
            if _found(connection, url) == HEAD:
                return
        upgrade(connection)


def upgrade(connection: Connection, revision: str = HEAD) -> None:
    """Run the migrations up to ``revision`` within the transaction of ``connection``."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _found(connection: Connection, url: str) -> str | None:
    """The schema's version; null for an empty database.

    Raises:
        StateError: It is a newer one, or that of another program.
    """
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("select version_num from alembic_version")).scalar()
    if found is not None and not re.fullmatch(r"[0-9]{4}", found):
        raise StateError(
            f"the database of state '{redacted(url)}' has the schema of another program ('{found}')",
            hint="give state a database of its own: MLflow's tables have the same names",
        )
    if found is not None and found > HEAD:
        raise StateError(
            f"state '{redacted(url)}' has schema {found}, this kfloop knows {HEAD}",
            hint="update kfloop, or point 'state:' at another database",
        )
    return None if found is None else str(found)
