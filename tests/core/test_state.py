"""State: ledger, leases, runs, monitors; what a crash, a rival or a vandal can do to them."""

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from kfloop.components.deploy.exclusion import exclusive
from kfloop.components.deploy.recovery import recover
from kfloop.core.state import State, open_state
from kfloop.core.state.anchor import anchor, verified
from kfloop.core.state.database import HEAD
from kfloop.core.state.entries import Entry
from kfloop.core.state.leases import began
from kfloop.core.state.schema import metadata
from kfloop.core.workspace import Workspace
from kfloop.errors import LeaseHeldError, StateError


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind; that of the first also names the tests' place of it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state.db"
    return str(request.getfixturevalue("postgres").database())


@pytest.fixture
def state(url: str) -> Iterator[State]:
    opened = open_state(url)
    yield opened
    opened.engine.dispose()


def vandal(state: State, statement: str, **values: Any) -> None:
    """Change the database behind kfloop's back."""
    with state.engine.begin() as connection:
        connection.execute(text(statement), values)


def promote(state: State, version: int, digest: str, expected: str | None, action: str = "promote") -> None:
    intent = state.ledger.intend(
        "a", action=action, version=version, model_digest=digest, expected_champion=expected, actor="t", reason="r"
    )
    state.ledger.close(intent, done=True)


def roll_out(state: State, version: int, digest: str) -> Entry:
    return state.ledger.note("a", action="rollout", actor="t", reason="r", version=version, model_digest=digest)


def test_a_challenger_that_was_withdrawn_while_it_was_promoted_is_no_champion(state: State) -> None:
    """The last look before the intent is closed and the closing are one transaction: no withdrawal comes between them."""
    promote(state, 1, "old", None)
    rollout = roll_out(state, 2, "new")
    intent = state.ledger.intend(
        "a", action="promote", version=2, model_digest="new", expected_champion="old", actor="t", reason="r"
    )
    assert state.ledger.withdraw(rollout, actor="ann", reason="complaints") is not None
    closed = state.ledger.close(intent, done=True)
    assert (closed.phase, closed.intent) == ("withdrawn", intent.seq)
    champion = state.ledger.champion("a")
    assert champion is not None
    assert champion.version == 1
    assert state.ledger.open_intent("a") is None
    # A new roll-out of the same package is another one, and so is its promotion.
    roll_out(state, 2, "new")
    promote(state, 2, "new", "old")
    assert state.ledger.verify("a") == 9


def test_only_a_roll_out_that_goes_on_can_be_withdrawn(state: State) -> None:
    promote(state, 1, "old", None)
    first = roll_out(state, 2, "new")
    second = roll_out(state, 3, "next")
    assert state.ledger.withdraw(first, actor="ann", reason="late") is None
    ended = state.ledger.withdraw(second, actor="ann", reason="complaints", details={"down": True})
    assert ended is not None
    assert (ended.action, ended.version, ended.details) == ("withdraw", 3, {"rollout": second.seq, "down": True})
    assert state.ledger.withdraw(second, actor="ann", reason="again") is None
    third = roll_out(state, 2, "new")
    promote(state, 2, "new", "old")
    assert state.ledger.withdraw(third, actor="ann", reason="it is champion") is None


def test_a_database_another_program_is_creating_is_waited_for(tmp_path: Path) -> None:
    """SQLite does not wait for the lock that the write-ahead log needs: two first commands of a loop at once, one used to end with "locked"."""
    rival = sqlite3.connect(tmp_path / "state.db", isolation_level=None, check_same_thread=False)
    rival.execute("create table something (word text)")
    rival.execute("begin immediate")
    done = threading.Timer(0.5, rival.rollback)
    done.start()
    assert open_state(f"sqlite:///{tmp_path}/state.db").ledger.history("a") == []
    done.join()
    rival.close()


def test_the_champion_is_what_the_last_closed_row_says(state: State) -> None:
    assert state.ledger.champion("a") is None
    promote(state, 1, "d1", None)
    promote(state, 2, "d2", "d1")
    champion, previous = state.ledger.champion("a"), state.ledger.previous("a")
    assert champion is not None
    assert previous is not None
    assert (champion.version, champion.previous_version, previous.version) == (2, 1, 1)
    assert state.ledger.champion("b") is None
    assert state.ledger.verify("a") == 4


def test_an_open_intent_changes_nothing_until_it_is_closed(state: State) -> None:
    promote(state, 1, "d1", None)
    intent = state.ledger.intend(
        "a", action="promote", version=2, model_digest="d2", expected_champion="d1", actor="t", reason="r"
    )
    champion = state.ledger.champion("a")
    assert champion is not None
    assert champion.version == 1
    with pytest.raises(StateError, match="under way"):
        promote(state, 3, "d3", "d1")
    state.ledger.close(intent, done=False, reason="the server refused it")
    assert state.ledger.open_intent("a") is None
    champion = state.ledger.champion("a")
    assert champion is not None
    assert champion.version == 1
    with pytest.raises(StateError, match="not open"):
        state.ledger.close(intent, done=True)


def test_a_decision_made_against_another_champion_is_refused(state: State) -> None:
    promote(state, 1, "d1", None)
    with pytest.raises(StateError, match="the champion is d1"):
        promote(state, 2, "d2", None)
    with pytest.raises(StateError, match="against d0"):
        promote(state, 2, "d2", "d0")


def test_a_changed_row_breaks_the_chain(state: State) -> None:
    promote(state, 1, "d1", None)
    promote(state, 2, "d2", "d1")
    vandal(state, "update ledger set body = replace(body, '\"d1\"', '\"dx\"') where seq = 2")
    with pytest.raises(StateError, match="broken at row 2"):
        state.ledger.verify("a")


def test_a_removed_row_breaks_the_chain(state: State) -> None:
    promote(state, 1, "d1", None)
    promote(state, 2, "d2", "d1")
    vandal(state, "delete from ledger where seq = 1")
    with pytest.raises(StateError, match="broken at row 1"):
        state.ledger.verify("a")


def looped(tmp_path: Path, url: str) -> Workspace:
    return Workspace(loop="a", root=tmp_path, state=url, store="", mlflow="")


@pytest.mark.parametrize("kept", [2, 0])
def test_a_ledger_that_was_cut_off_is_noticed(state: State, url: str, tmp_path: Path, kept: int) -> None:
    """Its chain is whole: only the anchor knows that there were more rows."""
    workspace = looped(tmp_path, url)
    promote(state, 1, "d1", None)
    promote(state, 2, "d2", "d1")
    assert verified(workspace) == 4
    anchor(workspace)
    assert verified(workspace) == 4
    vandal(state, "delete from ledger where seq > :kept", kept=kept)
    state.ledger.verify("a")
    with pytest.raises(StateError, match=r"it has \d rows, and 4 rows were seen") as caught:
        verified(workspace)
    assert "restore a backup" in caught.value.hint
    assert "ledger.json" in caught.value.hint
    # Other rows in their place are another ledger, also where they are more.
    state.ledger.note("a", action="override", actor="eve", reason="r", details={"rule": "x", "until": 1})
    anchor(workspace)
    for number in range(4):
        state.ledger.note("a", action="override", actor="eve", reason=str(number), details={"rule": "x", "until": 1})
    with pytest.raises(StateError, match="its row 4 is another one, and 4 rows were seen"):
        verified(workspace)
    with pytest.raises(StateError, match="were seen"):
        recover(workspace)
    (workspace.kfloop_dir / "ledger.json").unlink()
    assert verified(workspace) >= 5


def test_a_state_that_is_gone_is_noticed_and_another_one_is_not_compared(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    promote(open_state(url), 1, "d1", None)
    anchor(looped(tmp_path, url))
    assert verified(looped(tmp_path, f"sqlite:///{tmp_path}/other.db")) == 0
    (tmp_path / "state.db").unlink()
    with pytest.raises(StateError, match="it has 0 rows, and 2 rows were seen"):
        verified(looped(tmp_path, url))


def test_a_pid_is_ours_on_our_host_only(state: State, url: str, tmp_path: Path) -> None:
    with state.leases.acquire("a", "r1"):
        holder = state.leases.holder("a")
        assert holder is not None
        assert holder.is_us("")
        vandal(state, "update leases set host = 'elsewhere'")
        holder = state.leases.holder("a")
        assert holder is not None
        assert not holder.is_us("")
        assert not holder.is_us("r2")
        assert holder.is_us("r1")  # a step of that run, in another pod
        with pytest.raises(LeaseHeldError), exclusive(state, looped(tmp_path, url), "approve"):
            pass


def test_a_lease_keeps_a_second_run_out_and_is_free_afterwards(state: State) -> None:
    with state.leases.acquire("a", "r1") as lease:
        lease.check()
        with pytest.raises(LeaseHeldError, match="r1"):
            state.leases.acquire("a", "r2")
        with state.leases.acquire("b", "r3"):
            pass
    assert state.leases.holder("a") is None
    with state.leases.acquire("a", "r2"):
        pass


def test_the_lease_of_a_killed_run_is_taken_over_at_once(state: State, url: str) -> None:
    code = f"import os\nfrom kfloop.core.state import open_state\nopen_state({url!r}).leases.acquire('a', 'r1').__enter__()\nos._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    with state.leases.acquire("a", "r2") as lease:
        lease.check()


OF_A_PID = "update leases set pid = :pid, born = :born"


@pytest.mark.parametrize("who", ["ours", "of root"])
def test_a_lease_of_a_dead_process_whose_pid_another_one_got_is_free(state: State, who: str) -> None:
    """As after a crash on a busy host, or in a container, where pids are few."""
    another = os.getppid() if who == "ours" else 1
    if began(another) is None:
        pytest.skip("this system hides processes of others")
    lease = state.leases.acquire("a", "r1")
    vandal(state, OF_A_PID, pid=another, born=(began(another) or 0) + 1)
    assert state.leases.holder("a") is None
    with state.leases.acquire("a", "r2"), pytest.raises(StateError, match="took over"):
        lease.check()


def test_a_lease_of_a_process_that_lives_is_held_and_so_is_one_of_old(state: State) -> None:
    state.leases.acquire("a", "r1")
    holder = state.leases.holder("a")
    assert holder is not None
    assert holder.born == began(os.getpid())
    for born in (began(os.getppid()), None):
        vandal(state, OF_A_PID, pid=os.getppid(), born=born)
        with pytest.raises(LeaseHeldError):
            state.leases.acquire("a", "r2")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="clock ticks are told by Linux")
def test_the_beginning_of_a_process_is_that_of_the_system(tmp_path: Path) -> None:
    """Against psutil, whose unix seconds are of another clock: what lies between two processes is the same by both."""
    import psutil

    program = tmp_path / "odd ) name (1 2"
    program.symlink_to(sys.executable)
    with subprocess.Popen([program, "-c", "input()"], stdin=subprocess.PIPE) as child:
        ticks = [began(pid) or 0.0 for pid in (os.getpid(), child.pid)]
        seconds = [psutil.Process(pid).create_time() for pid in (os.getpid(), child.pid)]
        child.communicate(b"\n")
    per_second = os.sysconf("SC_CLK_TCK")
    assert (ticks[1] - ticks[0]) / per_second == pytest.approx(seconds[1] - seconds[0], abs=0.02)
    assert began(child.pid) is None


def test_a_lease_that_was_taken_over_is_noticed(state: State) -> None:
    lease = state.leases.acquire("a", "r1")
    vandal(state, "update leases set token = 'other'")
    with pytest.raises(StateError, match="took over"):
        lease.check()


def test_a_silent_holder_on_another_host_is_dead_after_a_while(state: State) -> None:
    state.leases.acquire("a", "r1")
    vandal(state, "update leases set host = 'elsewhere'")
    assert state.leases.holder("a") is not None
    vandal(state, "update leases set heartbeat = heartbeat - 60")
    assert state.leases.holder("a") is None


def test_monitor_state_is_saved_by_compare_and_set(state: State) -> None:
    assert state.monitors.load("a", "d1") == (None, 0)
    assert state.monitors.save("a", "d1", {"x": 1}, 0) == 1
    with pytest.raises(StateError, match="same moment"):
        state.monitors.save("a", "d1", {"x": 2}, 0)
    assert state.monitors.save("a", "d1", {"x": 2}, 1) == 2
    with pytest.raises(StateError, match="same moment"):
        state.monitors.save("a", "d1", {"x": 3}, 1)
    assert state.monitors.load("a", "d1") == ({"x": 2}, 2)


def test_runs_that_never_ended_are_marked_as_killed(state: State) -> None:
    state.runs.start("r1", "a", "training", "f", {"status": "running"})
    state.runs.step("r1", "train", "started", {"pid": os.getpid()})
    assert state.runs.active("a") == ["r1"]
    assert state.runs.abandon("a") == ["r1"]
    record = state.runs.get("r1")
    assert record is not None
    assert record["status"] == "killed"
    assert state.runs.active("a") == []


def test_triggers_are_kept_in_order(state: State) -> None:
    for trigger in ("none", "retrain", "cooldown"):
        state.triggers.add("a", run_id="r", trigger=trigger, reason="why", champion_digest="d", fingerprint="f")
    last = state.triggers.last("a")
    assert last is not None
    assert last.trigger == "cooldown"
    assert [trigger.trigger for trigger in state.triggers.history("a", "retrain")] == ["retrain"]


def test_a_corrupt_database_is_named_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    file.write_bytes(b"this is not a database" * 100)
    before = file.read_bytes()
    with pytest.raises(StateError, match="corrupt"):
        open_state(f"sqlite:///{file}")
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("version", "told"), [("9999", "schema 9999, this kfloop"), ("cfd24bdc0731", "another program")]
)
def test_a_database_of_a_newer_kfloop_or_of_mlflow_is_refused(url: str, version: str, told: str) -> None:
    state = open_state(url)
    vandal(state, "update alembic_version set version_num = :version", version=version)
    state.engine.dispose()
    open_state.cache_clear()
    with pytest.raises(StateError, match=told):
        open_state(url)


def test_the_migrations_give_the_schema_that_the_code_uses(state: State) -> None:
    from sqlalchemy import inspect

    found = inspect(state.engine)
    for table in metadata.sorted_tables:
        assert {column["name"] for column in found.get_columns(table.name)} == set(table.columns.keys())
    with state.engine.begin() as connection:
        assert connection.execute(text("select version_num from alembic_version")).scalar() == HEAD


def test_what_is_noted_changes_no_champion_and_disturbs_no_change(state: State) -> None:
    promote(state, 1, "d1", None)
    intent = state.ledger.intend(
        "a", action="promote", version=2, model_digest="d2", expected_champion="d1", actor="t", reason="r"
    )
    state.ledger.note("a", action="override", actor="ann", reason="why", details={"rule": "x", "until": 1.0})
    opened, champion = state.ledger.open_intent("a"), state.ledger.champion("a")
    assert opened is not None
    assert champion is not None
    assert (opened.seq, champion.version) == (intent.seq, 1)
    with pytest.raises(StateError, match="under way"):
        promote(state, 3, "d3", "d1")
    state.ledger.close(intent, done=True)
    champion, previous = state.ledger.champion("a"), state.ledger.previous("a")
    assert champion is not None
    assert previous is not None
    assert (champion.version, previous.version, state.ledger.open_intent("a")) == (2, 1, None)
    assert state.ledger.verify("a") == 5


def test_rows_of_before_that_had_no_details_are_read_and_verified(state: State) -> None:
    promote(state, 1, "d1", None)
    with state.engine.begin() as connection:
        bodies = connection.execute(text("select seq, body from ledger order by seq")).all()
    before = "0" * 64
    for seq, body in bodies:
        old = json.dumps({key: value for key, value in json.loads(body).items() if key != "details"}, sort_keys=True)
        digest = hashlib.sha256(f"{before}\n{old}".encode()).hexdigest()
        changed = "update ledger set body = :old, previous_hash = :before, hash = :digest where seq = :seq"
        vandal(state, changed, old=old, before=before, digest=digest, seq=seq)
        before = digest
    assert state.ledger.verify("a") == 2
    champion = state.ledger.champion("a")
    assert champion is not None
    assert champion.details == {}


def test_runs_are_found_by_the_beginning_of_their_id(state: State) -> None:
    for name in ("2026-a", "2026-b", "2025%"):
        state.runs.start(name, "a", "training", "f", {})
    assert state.runs.beginning("a", "2026") == ["2026-a", "2026-b"]
    assert state.runs.beginning("a", "2025%") == ["2025%"]
    assert state.runs.beginning("a", "%") == []
    assert state.runs.beginning("b", "2026") == []
