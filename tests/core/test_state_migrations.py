"""Schemas of every released version, with data in them, brought to the present one; and a database that two processes open first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from kfloop.core.state import ledger, open_state
from kfloop.core.state.database import HEAD, upgrade
from kfloop.core.state.schema import metadata
from postgres import Postgres

RELEASED = sorted(path.name[1:5] for path in Path(ledger.__file__).parent.glob("migrations/versions/r[0-9]*.py"))
# What a loop of those days wrote, table by table; a table is filled where its schema has it, and columns that came later are left out.
ENTRY = {
    "loop": "a", "seq": 1, "at": 5.0, "phase": "done", "intent": 0, "action": "promote", "version": 1, "model_digest": "d1", "previous_version": 0,
    "previous_digest": "", "actor": "ann", "reason": "größer", "evidence_digest": "e", "run_id": "r1",
}  # fmt: skip
ROWS = {
    "runs": {"run_id": "r1", "loop": "a", "pipeline": "training", "status": "succeeded", "fingerprint": "f", "started": 1.5, "finished": 2.5, "record": '{"x": "ä"}'},
    "steps": {"run_id": "r1", "number": 1, "step": "train", "event": "started", "at": 1.75, "payload": "{}"},
    "leases": {"loop": "a", "token": "t", "run_id": "r1", "host": "elsewhere", "pid": 1, "acquired": 1.0, "heartbeat": 1.0},
    "monitors": {"loop": "a", "champion_digest": "d1", "payload": '{"wealth": 1.25}', "row_version": 3},
    "triggers": {"loop": "a", "run_id": "r1", "trigger": "retrain", "reason": "drift", "champion_digest": "d1", "fingerprint": "f", "evidence_digest": "e", "at": 9.0},
    "looks": {"loop": "a", "challenger_digest": "c", "test_digest": "t", "sketch": '["0"]', "evidence_digest": "e", "at": 3.0},
}  # fmt: skip


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/old.db"
    return str(request.getfixturevalue("postgres").database())


def filled(url: str, revision: str) -> None:
    """A database of a released version, with a row in each table."""
    engine = create_engine(url)
    with engine.begin() as connection:
        upgrade(connection, revision)
        body = json.dumps(ENTRY, sort_keys=True)
        chained = {"loop": "a", "seq": 1, "body": body, "previous_hash": ledger.ROOT_HASH}
        rows = ROWS | {"ledger": chained | {"hash": ledger._hash(ledger.ROOT_HASH, body)}}
        tables = set(inspect(connection).get_table_names())
        for table, row in rows.items():
            if table in tables:
                names, values = ", ".join(f'"{name}"' for name in row), ", ".join(f":{name}" for name in row)
                connection.execute(text(f"insert into {table} ({names}) values ({values})"), row)  # noqa: S608
    engine.dispose()


@pytest.mark.parametrize("revision", RELEASED)
def test_a_database_of_every_released_schema_is_brought_to_the_present_one(url: str, revision: str) -> None:
    assert RELEASED[-1] == HEAD
    filled(url, revision)
    state = open_state(url)
    found = inspect(state.engine)
    for table in metadata.sorted_tables:
        assert {column["name"] for column in found.get_columns(table.name)} == set(table.columns.keys())
    champion = state.ledger.champion("a")
    assert champion is not None
    assert (champion.version, champion.reason, champion.details, state.ledger.verify("a")) == (1, "größer", {}, 1)
    assert state.runs.get("r1") == {"x": "ä"}
    assert [event.at for event in state.runs.events("r1")] == [1.75]
    assert state.leases.holder("a") is None  # silent since 1970
    assert state.monitors.load("a", "d1") == ({"wealth": 1.25}, 3)
    (trigger,) = state.triggers.history("a")
    assert (trigger.trigger, trigger.at, trigger.cause, trigger.labels) == ("retrain", 9.0, "", None)
    known = len(state.looks.before("a", "other", "t"))
    assert known == int(revision >= "0002")
    # It is written to as a new one is: numbers go on after those that are there.
    state.triggers.add("a", run_id="r2", trigger="none", reason="", champion_digest="d1", fingerprint="", labels=4)
    state.looks.add("a", challenger_digest="c2", test_digest="t", sketch=("0",), evidence_digest="e")
    assert [item.labels for item in state.triggers.history("a")] == [None, 4]
    assert len(state.looks.before("a", "other", "t")) == known + 1
    assert state.monitors.save("a", "d1", {}, 3) == 4
    state.engine.dispose()


def test_a_migration_that_fails_half_way_leaves_the_old_schema(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic import op

    filled(url, "0002")
    add, calls = op.add_column, []

    def failing(*given: object, **named: object) -> None:
        calls.append(given)
        if len(calls) == 2:
            raise RuntimeError("the power went")
        add(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(op, "add_column", failing)
        with pytest.raises(RuntimeError, match="power"):
            open_state(url)
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(text("select version_num from alembic_version")).scalar() == "0002"
    assert "cause" not in {column["name"] for column in inspect(engine).get_columns("triggers")}
    engine.dispose()
    state = open_state(url)
    assert state.ledger.verify("a") == 1
    state.engine.dispose()


@pytest.mark.slow
@pytest.mark.parametrize("before", [None, "0001"])
def test_processes_that_open_a_database_first_at_once_migrate_it_once(
    postgres: Postgres, tmp_path: Path, before: str | None
) -> None:
    url = postgres.database()
    if before:
        filled(url, before)
    go = tmp_path / "go"
    code = (
        "import pathlib, sys, time\n"
        "from kfloop.core.state import open_state\n"
        "import alembic.command\n"
        "print('ready', flush=True)\n"
        "while not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.001)\n"
        "print(open_state(sys.argv[1]).ledger.verify('a'))\n"
    )
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", code, url, str(go)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        for _ in range(4)
    ]
    for rival in rivals:
        assert rival.stdout is not None
        assert rival.stdout.readline() == "ready\n"
    go.touch()
    said = [rival.communicate(timeout=60)[0] for rival in rivals]
    assert [rival.returncode for rival in rivals] == [0] * 4
    assert said == [f"{int(bool(before))}\n"] * 4
    assert postgres.sql("select version_num from alembic_version", url.rpartition("/")[2]) == [(HEAD,)]
