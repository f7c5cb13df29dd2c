"""State on a real PostgreSQL: rivals in processes of their own, a server that restarts, connections that drop, and what is said about it."""

from __future__ import annotations

import json
import math
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from kfloop.core.state import State, open_state
from kfloop.core.state.database import translated
from kfloop.errors import ConfigError, KfloopError, LeaseHeldError, StateError, TransientError
from postgres import PASSWORD, QUOTED, Postgres, postgres_server


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.database()


@pytest.fixture
def state(url: str) -> Iterator[State]:
    opened = open_state(url)
    yield opened
    opened.engine.dispose()


def rivals(url: str, work: str, count: int, folder: Path) -> list[list[str]]:
    """What ``count`` processes said that did ``work`` at the same moment; in it ``state`` is open and ``me`` is the number of the process.

    Each repeats nothing: an error of kfloop ends it, and is the last thing it says.
    """
    code = (
        "import pathlib, sys, time\n"
        "from kfloop.core.state import open_state\n"
        "from kfloop.errors import KfloopError\n"
        "state, me = open_state(sys.argv[1]), int(sys.argv[3])\n"
        "print('ready', flush=True)\n"
        "while not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.001)\n"
        "try:\n" + "".join(f"    {line}\n" for line in work.splitlines()) + "except KfloopError as error:\n"
        "    print(f'{type(error).__name__}: {error.message}')\n"
    )
    go = folder / "go"
    go.unlink(missing_ok=True)
    started = [
        subprocess.Popen([sys.executable, "-c", code, url, str(go), str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(count)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    go.touch()
    said = [process.communicate(timeout=60)[0].splitlines() for process in started]
    assert [process.returncode for process in started] == [0] * count
    return said


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_of_several_promotions_at_once_one_wins_and_the_chain_is_whole(url: str, state: State, tmp_path: Path) -> None:
    work = (
        "intent = state.ledger.intend('a', action='promote', version=me + 1, model_digest=f'd{me}', expected_champion=None, actor='t', reason='r')\n"
        "print('mine')\n"
        "state.ledger.close(intent, done=True)"
    )
    said = rivals(url, work, 4, tmp_path)
    assert sorted(len(lines) for lines in said) == [1, 1, 1, 1]
    winners = [number for number, lines in enumerate(said) if lines == ["mine"]]
    assert len(winners) == 1
    for lines in said:
        assert lines == ["mine"] or "under way" in lines[0] or "the champion is" in lines[0], lines
    champion = state.ledger.champion("a")
    assert champion is not None
    assert champion.model_digest == f"d{winners[0]}"
    assert state.ledger.verify("a") == 2


@pytest.mark.slow
def test_writers_of_one_ledger_follow_each_other_and_lose_nothing(url: str, state: State, tmp_path: Path) -> None:
    work = (
        "for number in range(15):\n"
        "    state.ledger.note('a', action='override', actor=str(me), reason=str(number), details={'rule': 'x', 'until': 1})\n"
        "    state.runs.step('r1', str(me), 'started', {'number': number})"
    )
    assert rivals(url, work, 4, tmp_path) == [[]] * 4
    assert state.ledger.verify("a") == 60
    history = state.ledger.history("a")
    events = state.runs.events("r1")
    assert [event.number for event in events] == list(range(1, 61))
    for me in map(str, range(4)):
        assert [entry.reason for entry in history if entry.actor == me] == [str(number) for number in range(15)]
        assert [event.payload["number"] for event in events if event.step == me] == list(range(15))


@pytest.mark.slow
def test_of_several_saves_of_one_row_version_one_wins(url: str, state: State, tmp_path: Path) -> None:
    work = "print(state.monitors.save('a', 'd', {'by': me}, EXPECTED))"
    for expected in (0, 1):
        said = rivals(url, work.replace("EXPECTED", str(expected)), 4, tmp_path)
        winners = [number for number, lines in enumerate(said) if lines == [str(expected + 1)]]
        assert len(winners) == 1
        assert sum("same moment" in lines[0] for lines in said) == 3
        assert state.monitors.load("a", "d") == ({"by": winners[0]}, expected + 1)


@pytest.mark.slow
def test_a_lease_has_one_holder_and_one_heir(url: str, state: State, tmp_path: Path) -> None:
    hold = "lease = state.leases.acquire('a', f'r{me}')\nprint('mine')\nimport os; sys.stdout.flush(); lease.__enter__(); lease.check(); os._exit(0)"
    wait = hold.replace("os._exit(0)", "time.sleep(2); lease.__exit__(None, None, None)")
    said = rivals(url, wait, 3, tmp_path)
    assert sorted(lines[0][:14] for lines in said) == ["LeaseHeldError", "LeaseHeldError", "mine"]
    assert state.leases.holder("a") is None
    # A holder in another pod, silent for long by the server's clock, has one heir.
    state.leases.acquire("a", "r9")
    with state.engine.begin() as connection:
        connection.execute(text("update leases set host = 'elsewhere'"))
    with pytest.raises(LeaseHeldError, match="on elsewhere"):
        state.leases.acquire("a", "r10")
    with state.engine.begin() as connection:
        connection.execute(text("update leases set heartbeat = heartbeat - 31"))
    said = rivals(url, wait, 3, tmp_path)
    assert sorted(lines[0][:14] for lines in said) == ["LeaseHeldError", "LeaseHeldError", "mine"]


def test_runs_that_no_engine_watches_are_known_by_their_steps_until_their_record_stands(state: State) -> None:
    def at_work(after: float = 0.0) -> list[str]:
        return state.runs.without_record("a", "ingest", after=after, until=math.inf)

    for run, loop, step in (("r1", "a", "ingest"), ("r2", "b", "ingest"), ("r3", "a", "monitor")):
        state.runs.step(run, step, "started", {"loop": loop})
    assert at_work() == ["r1"]
    assert at_work(state.runs.events("r1")[-1].at) == []
    state.runs.step("r1", "train", "started", {"loop": "a"})
    assert at_work(state.runs.events("r1")[0].at) == ["r1"]
    state.runs.add_ended("r1", "a", "training", "failed", {"started": 0.0})
    assert at_work() == []


def test_a_clock_that_is_wrong_takes_no_lease(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats are by the server's clock: that of a node may be minutes ahead."""
    state.leases.acquire("a", "r1")
    with state.engine.begin() as connection:
        connection.execute(text("update leases set host = 'elsewhere'"))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    with pytest.raises(LeaseHeldError):
        state.leases.acquire("a", "r2")
    monkeypatch.undo()


def test_a_connection_that_drops_within_a_transaction_changes_nothing(state: State, postgres: Postgres) -> None:
    def dropped() -> None:
        with state.ledger._begin("a") as connection:
            connection.execute(text("update ledger set body = 'lost'"))
            pid = connection.execute(text("select pg_backend_pid()")).scalar_one()
            postgres.sql(f"select pg_terminate_backend({pid})")
            connection.execute(text("select 1"))

    state.ledger.note("a", action="override", actor="t", reason="1", details={"rule": "x", "until": 1})
    with pytest.raises(TransientError, match="terminating connection") as caught:
        dropped()
    assert "try again" in caught.value.hint
    assert PASSWORD not in str(caught.value.as_dict())
    assert state.ledger.verify("a") == 1
    # Whoever waited for the lock of the one that dropped goes on.
    state.ledger.note("a", action="override", actor="t", reason="2", details={"rule": "x", "until": 1})
    assert state.ledger.verify("a") == 2


def test_idle_connections_that_were_dropped_are_opened_again(state: State, postgres: Postgres) -> None:
    state.ledger.history("a")
    postgres.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'kfloop'")
    assert state.ledger.history("a") == []


def test_the_lock_of_a_killed_writer_is_free_at_once(url: str, state: State) -> None:
    code = (
        "import sys, time\n"
        "from kfloop.core.state import open_state\n"
        "with open_state(sys.argv[1]).ledger._begin('a') as connection:\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(600)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "locked\n"
    # Another loop on the same server does not wait for it.
    state.ledger.note("b", action="override", actor="t", reason="1", details={"rule": "x", "until": 1})
    writer.kill()
    writer.communicate()
    state.ledger.note("a", action="override", actor="t", reason="1", details={"rule": "x", "until": 1})
    assert state.ledger.verify("a") == 1


def test_a_lock_that_is_held_for_long_is_transient(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    from kfloop.core.state import database

    monkeypatch.setattr(database, "PATIENCE", database.PATIENCE.replace("15s", "100ms"))
    with state.ledger._begin("a"), pytest.raises(TransientError, match="lock timeout"):
        state.ledger.note("a", action="override", actor="t", reason="1", details={"rule": "x", "until": 1})


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_server_that_restarts_or_crashes_is_waited_for(how: signal.Signals) -> None:
    with postgres_server() as server:
        url = server.database()
        state = open_state(url)
        with state.leases.acquire("a", "r1") as lease:
            state.ledger.note("a", action="override", actor="t", reason="1", details={"rule": "x", "until": 1})
            server.stop(how)
            back = threading.Timer(1.0, server.start)
            back.start()
            state.ledger.note("a", action="override", actor="t", reason="2", details={"rule": "x", "until": 1})
            back.join()
            lease.check()
        assert state.ledger.verify("a") == 2
        state.engine.dispose()


def test_a_server_that_stays_away_is_transient(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from kfloop.core.state import database

    monkeypatch.setattr(database, "PATIENCE_S", 0.3)
    with postgres_server() as server:
        gone = server.database()
        state = open_state(gone)
        server.stop()
        with pytest.raises(TransientError, match=r"refused|server closed") as caught:
            state.ledger.history("a")
        assert PASSWORD not in json.dumps(caught.value.as_dict())
        assert QUOTED not in json.dumps(caught.value.as_dict())
        state.engine.dispose()


def test_serialization_failures_and_deadlocks_are_transient(url: str, state: State) -> None:
    for code in ("40001", "40P01"):
        raising = f"do $$ begin raise exception 'x' using errcode = '{code}'; end $$"
        with pytest.raises(TransientError), translated(url), state.engine.begin() as connection:
            connection.execute(text(raising))


def test_a_full_disk_and_a_missing_right_are_told_apart(url: str, state: State, postgres: Postgres) -> None:
    raising = "do $$ begin raise exception 'could not extend file' using errcode = '53100'; end $$"
    with pytest.raises(StateError, match="no space left"), translated(url), state.engine.begin() as connection:
        connection.execute(text(raising))
    name = state.engine.url.database
    postgres.sql(f"create role reader_{name} login password '{PASSWORD}'")
    postgres.sql(
        f"revoke create on schema public from public; grant usage on schema public to reader_{name}", str(name)
    )
    with pytest.raises(StateError, match="permission denied") as caught:
        open_state(url.replace("//kfloop:", f"//reader_{name}:")).ledger.history("a")
    assert "own the database" in caught.value.hint
    assert QUOTED not in str(caught.value.as_dict())


@pytest.mark.parametrize("wrong", ["password", "database", "host", "driver", "no url"])
def test_no_message_holds_the_password(postgres: Postgres, wrong: str, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as probe:  # a port that nobody listens on
        probe.bind(("127.0.0.1", 0))
        urls = {
            "password": postgres.url(password="another-secret"),
            "database": postgres.url("nowhere"),
            "host": postgres.url().replace(str(postgres.port), str(probe.getsockname()[1])),
            "driver": postgres.url().replace("postgresql:", "nosuchdb:"),
            "no url": postgres.url().replace("://", ":/").replace("postgresql", "?"),
        }
        with pytest.raises(KfloopError) as caught:
            open_state(urls[wrong])
    said = json.dumps(caught.value.as_dict()) + str(caught.value) + caplog.text
    for secret in (PASSWORD, QUOTED, "another-secret"):
        assert secret not in said, said
    assert caught.value.transient == (wrong == "host")


def test_a_password_comes_from_the_environment(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgres.database().replace(QUOTED, "${KFLOOP_TEST_PASSWORD}")
    monkeypatch.delenv("KFLOOP_TEST_PASSWORD", raising=False)
    with pytest.raises(ConfigError, match="KFLOOP_TEST_PASSWORD, which is not set"):
        open_state(url)
    monkeypatch.setenv("KFLOOP_TEST_PASSWORD", PASSWORD)  # as it is: kfloop quotes it
    state = open_state(url)
    assert state.ledger.verify("a") == 0
    with (
        pytest.raises(StateError, match=r"KFLOOP_TEST_PASSWORD.*undefined|undefined") as caught,
        state.ledger._begin() as connection,
    ):
        connection.execute(text("select undefined"))
    assert PASSWORD not in str(caught.value.as_dict())
    state.engine.dispose()


def test_two_loops_on_one_server_do_not_mix(state: State) -> None:
    for loop in ("one", "two"):
        intent = state.ledger.intend(
            loop, action="promote", version=1, model_digest=f"d-{loop}", expected_champion=None, actor="t", reason="r"
        )
        state.ledger.close(intent, done=True)
        state.monitors.save(loop, "d", {"of": loop}, 0)
        state.triggers.add(loop, run_id="same", trigger="none", reason=loop, champion_digest="d", fingerprint="")
        state.looks.add(loop, challenger_digest="c", test_digest="t", sketch=(loop,), evidence_digest="e")
    with state.leases.acquire("one", "same"), state.leases.acquire("two", "same"):
        pass
    for loop in ("one", "two"):
        champion = state.ledger.champion(loop)
        assert champion is not None
        assert champion.model_digest == f"d-{loop}"
        assert state.ledger.verify(loop) == 2
        assert state.monitors.load(loop, "d") == ({"of": loop}, 1)
        assert [item.reason for item in state.triggers.history(loop)] == [loop]
        assert [look.sketch for look in state.looks.before(loop, "other", "t")] == [(loop,)]


def test_a_run_id_that_another_loop_has_is_refused(state: State) -> None:
    state.runs.start("same", "one", "training", "f", {"of": "one"})
    with pytest.raises(StateError, match="there is a run 'same' already"):
        state.runs.start("same", "two", "training", "f", {"of": "two"})
    assert state.runs.get("same") == {"of": "one"}
    assert state.runs.active("two") == []
