"""House-keeping: what a collection may remove, and what a backup brings back, from one kind of database to the other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from kfloop.core.artifacts import folder_digest, write_report
from kfloop.core.blobs import Blobs
from kfloop.core.housekeeping import backup as backing
from kfloop.core.housekeeping import copying
from kfloop.core.housekeeping import restore as restoring
from kfloop.core.housekeeping.backup import back_up
from kfloop.core.housekeeping.collecting import collect_garbage
from kfloop.core.housekeeping.restore import restore, restore_blobs
from kfloop.core.state import State, open_state
from kfloop.core.store import Store
from kfloop.core.workspace import Workspace
from kfloop.errors import LeaseHeldError, StateError

Make = Callable[..., tuple[State, Workspace]]


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes an empty loop; ``kind`` is its database."""
    opened: list[State] = []

    def made(name: str = "a", kind: str = "sqlite", store: str | None = None) -> tuple[State, Workspace]:
        root = tmp_path / f"{name}-{kind}-{len(opened)}"
        root.mkdir()
        url = f"sqlite:///{root}/state.db" if kind == "sqlite" else request.getfixturevalue("postgres").database()
        state = open_state(url)
        opened.append(state)
        return state, Workspace(loop=name, root=root, state=url, store=store or str(root / "store"), mlflow="")

    yield made
    for state in opened:
        state.engine.dispose()


def blob(workspace: Workspace, kind: str, digest: str, **report: Any) -> str:
    """Put a blob with a report into the store; its digest is made of 32 letters like a real one."""
    out = workspace.kfloop_dir / "made"
    out.mkdir(parents=True, exist_ok=True)
    write_report(out, report or {"of": digest})
    name = name_of(digest)
    Store.of(workspace).publish(out, kind, name)
    return name


def name_of(word: str) -> str:
    return (word.encode().hex() + "0" * 32)[:32]


def ran(state: State, loop: str, run_id: str, blobs: dict[str, str], status: str = "succeeded") -> None:
    """A run whose steps gave these blobs, by kind."""
    state.runs.start(run_id, loop, "training", "f", {})
    for kind, digest in blobs.items():
        state.runs.step(run_id, kind, "succeeded", {"kind": kind, "digest": digest})
    if status != "running":
        state.runs.finish(run_id, status, {"status": status})


def decided(state: State, loop: str, run_id: str, model: str, version: int, expected: str | None) -> None:
    intent = state.ledger.intend(
        loop, action="promote", version=version, model_digest=model, expected_champion=expected, actor="t", reason="größer", run_id=run_id,
    )  # fmt: skip
    state.ledger.close(intent, done=True)


def rounds(state: State, workspace: Workspace, count: int, first: int = 0) -> list[str]:
    """Runs that each gave a dataset, a checkpoint and a model, none of which was promoted; their numbers as words."""
    for number in range(first, first + count):
        dataset = blob(workspace, "datasets", f"d{number}", previous=name_of(f"d{number - 1}"))
        checkpoint = blob(workspace, "checkpoints", f"c{number}", dataset_digest=dataset)
        model = blob(workspace, "models", f"m{number}", checkpoint_digest=checkpoint, dataset_digest=dataset)
        ran(
            state,
            workspace.loop,
            f"{workspace.loop}-r{number}",
            {"datasets": dataset, "checkpoints": checkpoint, "models": model},
        )
    return [f"{workspace.loop}-r{number}" for number in range(first, first + count)]


def left(workspace: Workspace) -> set[str]:
    """What the store has, in the words of ``name_of``."""
    found = Store.of(workspace).everything()
    return {
        f"{kind}/{bytes.fromhex(digest.rstrip('0') + '0' * (len(digest.rstrip('0')) % 2)).decode()}"
        for kind, digest in found
    }


def test_a_collection_keeps_what_is_named_and_removes_the_rest(make: Make) -> None:
    state, workspace = make()
    rounds(state, workspace, 6)
    decided(state, "a", "a-r1", name_of("m1"), 1, None)
    decided(state, "a", "a-r2", name_of("m2"), 2, name_of("m1"))
    before = Store.of(workspace).everything()
    told = collect_garbage(state, workspace, runs=1, dry_run=True)
    assert Store.of(workspace).everything() == before
    # Runs 1 and 2 are behind the champion and the one before it, 5 is the last one.
    assert {digest for _, digest in told.removed} == {
        name_of(f"{kind}{number}") for kind in "dcm" for number in (0, 3, 4)
    }
    assert told.bytes == sum(before[found] for found in told.removed) > 0
    done = collect_garbage(state, workspace, runs=1)
    assert done == replace(told, dry_run=False)
    assert left(workspace) == {
        f"{kind}/{kind[0]}{number}" for kind in ("datasets", "checkpoints", "models") for number in (1, 2, 5)
    }
    assert collect_garbage(state, workspace, runs=1).removed == ()


def test_the_package_of_every_row_of_the_ledger_stays(make: Make) -> None:
    state, workspace = make()
    rounds(state, workspace, 5)
    expected = None
    for number in range(4):
        decided(state, "a", f"a-r{number}", name_of(f"m{number}"), number + 1, expected)
        expected = name_of(f"m{number}")
    state.ledger.note("a", action="hold", actor="t", reason="r", version=9, model_digest=name_of("m4"), run_id="a-r4")
    rounds(state, workspace, 1, first=5)
    collect_garbage(state, workspace, runs=1)
    models = {name for name in left(workspace) if name.startswith("models/")}
    assert models == {f"models/m{number}" for number in range(6)}
    # All evidence of the champion, the one before it and the hold; of older champions the package and what that names.
    assert {"datasets/d4", "checkpoints/c4", "datasets/d3", "datasets/d2"} <= left(workspace)


def test_what_a_kept_blob_names_stays_and_what_others_put_there_too(make: Make) -> None:
    state, workspace = make()
    rounds(state, workspace, 3)
    ran(state, "a", "a-last", {"evaluations": blob(workspace, "evaluations", "e", champion={"digest": name_of("m0")})})
    blob(workspace, "models", "by hand")
    found = collect_garbage(state, workspace, runs=1)
    assert found.foreign == 1
    assert left(workspace) == {"evaluations/e", "models/m0", "checkpoints/c0", "datasets/d0", "models/by hand"}


def test_a_run_at_work_keeps_its_blobs_and_a_lease_keeps_the_collector_out(make: Make) -> None:
    state, workspace = make()
    ran(state, "a", "a-now", {"datasets": blob(workspace, "datasets", "d")}, status="running")
    rounds(state, workspace, 2)
    collect_garbage(state, workspace, runs=1)
    assert "datasets/d" in left(workspace)
    before = left(workspace)
    with state.leases.acquire("a", "r9"), pytest.raises(LeaseHeldError):
        collect_garbage(state, workspace, runs=1)
    assert left(workspace) == before
    with state.leases.acquire("a", "r10"):  # nobody else holds it any more
        pass


def test_a_run_on_a_cluster_keeps_its_blobs_until_it_ends(make: Make) -> None:
    """No engine holds a lease for it, and it has a record only once it is over."""
    state, workspace = make()
    state.runs.step(
        "r-cluster", "ingest", "succeeded", {"kind": "datasets", "digest": blob(workspace, "datasets", "d")}
    )
    assert collect_garbage(state, workspace, runs=1).removed == ()
    state.runs.add_ended("r-cluster", "a", "training", "failed", {"started": 1.0})
    ran(state, "a", "later", {})
    assert {digest for _, digest in collect_garbage(state, workspace, runs=1).removed} == {name_of("d")}


def test_the_evidence_of_a_champion_that_a_person_approved_stays(make: Make) -> None:
    """The row that made it champion is not of the run that trained it."""
    state, workspace = make()
    model, seen = blob(workspace, "models", "m"), blob(workspace, "evaluations", "e")
    ran(state, "a", "r1", {"models": model, "evaluations": seen})
    state.ledger.note(
        "a", action="hold", version=1, model_digest=model, actor="t", reason="r", run_id="r1", evidence_digest="h"
    )
    decided(state, "a", "", model, 1, None)
    ran(state, "a", "r2", {})
    assert collect_garbage(state, workspace, runs=1).removed == ()


def test_evidence_that_asks_for_labels_outlives_rounds_that_found_nothing(make: Make) -> None:
    state, workspace = make()
    asked = blob(workspace, "evidence", "q")
    told = {"loop": "a", "reason": "r", "champion_digest": "c", "fingerprint": "f"}
    state.triggers.add(run_id="m0", trigger="needs_labels", evidence_digest=asked, **told)
    for number in range(1, 4):
        found = blob(workspace, "evidence", f"n{number}")
        state.triggers.add(run_id=f"m{number}", trigger="none", evidence_digest=found, **told)
    removed = {digest for _, digest in collect_garbage(state, workspace, runs=1).removed}
    assert removed == {name_of("n1"), name_of("n2")}


def test_a_collection_whose_lease_was_taken_over_removes_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    state, workspace = make()
    rounds(state, workspace, 3)
    before = Store.of(workspace).everything()
    sizes = Store.everything

    def cut_off(self: Store) -> Any:
        with state.engine.begin() as connection:
            connection.execute(text("update leases set token = token + 1"))
        return sizes(self)

    monkeypatch.setattr(Store, "everything", cut_off)
    with pytest.raises(StateError, match="took over"):
        collect_garbage(state, workspace, runs=1)
    monkeypatch.undo()
    assert Store.of(workspace).everything() == before


def test_loops_that_share_a_state_and_a_store_keep_each_others_blobs(make: Make) -> None:
    state, workspace = make("a")
    other = replace(workspace, loop="b")
    rounds(state, workspace, 3)
    shared = blob(workspace, "datasets", "shared")
    ran(state, "a", "a-old", {"datasets": shared})
    rounds(state, workspace, 1, first=7)
    ran(state, "b", "b-1", {"datasets": shared, "models": blob(other, "models", "of b")})
    collect_garbage(state, workspace, runs=1)
    assert {"datasets/shared", "models/of b"} <= left(workspace)
    with state.leases.acquire("b", "r"), pytest.raises(LeaseHeldError):
        collect_garbage(state, workspace, runs=1)


def test_leftovers_of_a_kill_go_when_they_are_old(make: Make) -> None:
    state, workspace = make()
    rounds(state, workspace, 1)
    young, old = (workspace.root / "store" / "models" / f".tmp-{word}" for word in ("young", "old"))
    for place in (young, old):
        place.mkdir()
        (place / "x").write_text("x" * 10)
    os.utime(old, (time.time() - 90_000,) * 2)
    found = collect_garbage(state, workspace)
    assert (found.leftovers, found.bytes) == (("models/.tmp-old",), 10)
    assert young.exists()
    assert not old.exists()


def test_the_folders_of_killed_steps_go_a_week_after_their_last_word(make: Make) -> None:
    state, workspace = make()
    rounds(state, workspace, 1)
    scratch = workspace.kfloop_dir / "scratch"
    places = [scratch / word for word in ("train-old", "train-new", "train-inside")]
    for place in places:
        place.mkdir(parents=True)
        (place / "x").write_text("x" * 10)
    week = (time.time() - 8 * 24 * 3600,) * 2
    for path in (places[0] / "x", *places[::2]):  # in the last one a file is young
        os.utime(path, week)
    assert collect_garbage(state, workspace, dry_run=True).leftovers == ("scratch/train-old",)
    assert places[0].exists()
    found = collect_garbage(state, workspace)
    assert (found.leftovers, found.bytes) == (("scratch/train-old",), 10)
    assert [place.exists() for place in places] == [False, True, True]


@pytest.mark.slow
def test_a_collection_in_an_object_store(make: Make, s3: str, tmp_path: Path) -> None:
    state, workspace = make(store=f"s3://ready/{tmp_path.name}")
    rounds(state, workspace, 3)
    found = collect_garbage(state, workspace, runs=1)
    assert len(found.removed) == 6
    assert left(workspace) == {"datasets/d2", "checkpoints/c2", "models/m2"}
    mirror = [path.name for path in Store.of(workspace).root.glob("*/*")]
    assert sorted(mirror) == sorted(name_of(word) for word in ("d2", "c2", "m2"))


def filled(make: Make, kind: str) -> tuple[State, Workspace]:
    """Two loops with something in each table."""
    state, workspace = make("a", kind)
    rounds(state, workspace, 2)
    decided(state, "a", "a-r1", name_of("m1"), 1, None)
    decided(state, "b", "", name_of("m0"), 1, None)
    state.monitors.save("a", name_of("m1"), {"wealth": 0.1 + 0.2}, 0)
    for number in range(3):
        state.triggers.add("a", run_id=f"t{number}", trigger="none", reason="ok", champion_digest="d", fingerprint="")
        state.looks.add("a", challenger_digest=str(number), test_digest="t", sketch=("x",), evidence_digest="e")
    state.leases.acquire("a", "r")
    with state.engine.begin() as connection:
        connection.execute(text("update leases set host = 'elsewhere', heartbeat = 0"))
    return state, workspace


def content(state: State) -> dict[str, list[Any]]:
    with state.engine.connect() as connection:
        return {table.name: [tuple(row) for row in connection.execute(table.select())] for table in backing.tables()}


@pytest.mark.parametrize("back", ["sqlite", "postgres"])
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_state_and_store_go_from_any_database_to_any_other(make: Make, tmp_path: Path, kind: str, back: str) -> None:
    state, workspace = filled(make, kind)
    saved = back_up(state, workspace, str(tmp_path / "backup"))
    assert (saved.loops, saved.copied, saved.present) == (("a", "b"), 6, 0)
    again, elsewhere = make("a", back)
    done = restore(elsewhere, str(tmp_path / "backup"))
    assert content(again) == content(state)
    assert (done.ledgers, done.rows, done.copied) == ({"a": 2, "b": 2}, saved.rows, 6)
    assert sorted(Store.of(elsewhere).everything()) == sorted(Store.of(workspace).everything())
    # It is used on as if nothing had happened: numbers go on, the chain too.
    again.triggers.add("a", run_id="t9", trigger="retrain", reason="", champion_digest="d", fingerprint="")
    again.looks.add("a", challenger_digest="9", test_digest="t", sketch=("x",), evidence_digest="e")
    assert [item.run_id for item in again.triggers.history("a")] == ["t0", "t1", "t2", "t9"]
    assert len(again.looks.before("a", "other", "t")) == 4
    decided(again, "a", "a-r0", name_of("m0"), 2, name_of("m1"))
    assert again.ledger.verify("a") == 4
    with again.leases.acquire("a", "r"):
        pass


def test_a_second_backup_copies_what_is_new_and_an_older_one_can_be_named(make: Make, tmp_path: Path) -> None:
    state, workspace = filled(make, "sqlite")
    first = back_up(state, workspace, str(tmp_path / "backup"))
    rounds(state, workspace, 1, first=5)
    time.sleep(max(0.0, 1.01 - time.time() % 1))  # names have whole seconds
    second = back_up(state, workspace, str(tmp_path / "backup"))
    assert (second.copied, second.present) == (3, 6)
    _, elsewhere = make("a")
    assert restore(elsewhere, str(tmp_path / "backup")).name == second.name
    old, older = make("a")
    assert restore(older, str(tmp_path / "backup"), at=first.name).name == first.name
    assert old.runs.get("a-r5") is None
    with pytest.raises(StateError, match="no backup 'nothing'") as caught:
        restore(older, str(tmp_path / "backup"), at="nothing", replace=True)
    assert first.name in caught.value.hint


def test_state_that_is_there_is_not_replaced_unless_told(make: Make, tmp_path: Path) -> None:
    state, workspace = filled(make, "sqlite")
    back_up(state, workspace, str(tmp_path / "backup"))
    there, used = make("c")
    there.runs.start("mine", "c", "training", "f", {})
    before = content(there)
    with pytest.raises(StateError, match="there is state already, of c") as caught:
        restore(used, str(tmp_path / "backup"))
    assert "--replace" in caught.value.hint
    assert content(there) == before
    assert Store.of(used).everything() == {}
    with there.leases.acquire("c", "r"), pytest.raises(LeaseHeldError):
        restore(used, str(tmp_path / "backup"), replace=True)
    assert content(there) == before
    restore(used, str(tmp_path / "backup"), replace=True)
    assert content(there) == content(state)


@pytest.mark.parametrize("replace_it", [True, False])
def test_no_run_begins_while_a_restore_is_at_work(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, replace_it: bool
) -> None:
    state, workspace = filled(make, "sqlite")
    back_up(state, workspace, str(tmp_path / "backup"))
    there, used = make("c")
    if replace_it:
        there.runs.start("mine", "c", "training", "f", {})
    refused: list[str] = []

    def while_copying(*given: Any) -> Any:
        for loop in ("a", "b", "c"):  # those of the backup, and the one that is there
            with pytest.raises(LeaseHeldError, match="run 'restore-"):
                there.leases.acquire(loop, "r")
            refused.append(loop)
        return copying.copy_blobs(*given)

    monkeypatch.setattr(restoring, "copy_blobs", while_copying)
    restore(used, str(tmp_path / "backup"), replace=replace_it)
    assert refused == ["a", "b", "c"]
    assert content(there) == content(state)
    for loop in refused:
        with there.leases.acquire(loop, "r"):
            pass


@pytest.mark.parametrize(
    ("what", "kind"),
    [("a loop nobody knew", "sqlite"), ("a loop nobody knew", "postgres"), ("a lease taken over", "sqlite")],
)
def test_a_run_that_began_all_the_same_is_not_mixed_with(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, what: str
) -> None:
    state, workspace = filled(make, "sqlite")
    back_up(state, workspace, str(tmp_path / "backup"))
    there, used = make("c", kind)
    there.runs.start("mine", "c", "training", "f", {})
    before = content(there)

    def while_copying(*given: Any) -> Any:
        if what == "a loop nobody knew":
            there.leases.acquire("new", "r")
        else:
            with there.engine.begin() as connection:
                connection.execute(text("update leases set token = 'other' where loop = 'c'"))
        return copying.copy_blobs(*given)

    monkeypatch.setattr(restoring, "copy_blobs", while_copying)
    with pytest.raises((LeaseHeldError, StateError), match=r"'new' began meanwhile|took over"):
        restore(used, str(tmp_path / "backup"), replace=True)
    assert content(there) == before


KILLED = """
import os, sys
from kfloop.core.housekeeping import restore
from kfloop.core.workspace import Workspace
restore.copy_blobs = lambda *_: os._exit(9)
restore.restore(Workspace.from_json(sys.argv[1]), sys.argv[2])
"""


def test_a_killed_restore_keeps_nobody_out(make: Make, tmp_path: Path) -> None:
    state, workspace = filled(make, "sqlite")
    back_up(state, workspace, str(tmp_path / "backup"))
    again, elsewhere = make("a")
    command = [sys.executable, "-c", KILLED, elsewhere.to_json(), str(tmp_path / "backup")]
    assert subprocess.run(command, check=False, timeout=120).returncode == 9
    restore(elsewhere, str(tmp_path / "backup"))  # its leases are no state that was there
    assert content(again) == content(state)


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


@pytest.mark.parametrize(
    "damage", ["a row", "a file", "the index", "the chain", "the schema", "a blob", "the list of blobs"]
)
def test_a_damaged_backup_changes_nothing(make: Make, tmp_path: Path, damage: str) -> None:
    state, workspace = filled(make, "sqlite")
    if damage == "the chain":
        with state.engine.begin() as connection:
            connection.execute(
                text("""update ledger set body = replace(body, '"actor": "t"', '"actor": "eve"') where seq = 2""")
            )
    back_up(state, workspace, str(tmp_path / "backup"))
    saved = only(tmp_path / "backup" / "state", "*")
    index = json.loads((saved / "backup.json").read_text())
    if damage == "a row":
        (saved / "runs.jsonl").write_text((saved / "runs.jsonl").read_text().replace("succeeded", "failed"))
    elif damage == "a file":
        (saved / "looks.jsonl").unlink()
    elif damage == "the index":
        (saved / "backup.json").write_text("{")
    elif damage == "the schema":
        (saved / "backup.json").write_text(json.dumps(index | {"schema": "9999"}))
    elif damage == "a blob":
        with next(path for path in tmp_path.glob("backup/models/*/*") if path.is_file()).open("ab") as stream:
            stream.write(b" ")
    elif damage == "the list of blobs":
        (saved / "blobs.json").write_text("[")
    again, elsewhere = make("a")
    told = {"the index": "no backup", "the chain": "broken at row 2", "the schema": "schema 9999"}
    told |= {"a blob": "does not hold what was backed up", "the list of blobs": "no list of blobs"}
    with pytest.raises(StateError, match=told.get(damage, "is not what the backup's list says")):
        restore(elsewhere, str(tmp_path / "backup"))
    assert not any(content(again).values())
    there = Store.of(elsewhere).everything()
    assert not there if damage != "a blob" else len([kind for kind, _ in there if kind == "models"]) < 2  # all others


def test_blobs_of_a_backup_that_had_no_list_are_restored_and_listed_by_the_next(make: Make, tmp_path: Path) -> None:
    state, workspace = filled(make, "sqlite")
    back_up(state, workspace, str(tmp_path / "backup"))
    only(tmp_path / "backup" / "state", "*/blobs.json").unlink()  # as kfloop 0.1 left it
    _, elsewhere = make("a")
    assert restore(elsewhere, str(tmp_path / "backup")).copied == 6
    time.sleep(max(0.0, 1.01 - time.time() % 1))  # names have whole seconds
    assert back_up(state, workspace, str(tmp_path / "backup")).present == 6
    with next(path for path in tmp_path.glob("backup/datasets/*/*") if path.is_file()).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(StateError, match=r"datasets .[0-9a-f]+.: it does not hold what was backed up"):
        restore(make("a")[1], str(tmp_path / "backup"))


def test_a_backup_of_an_older_schema_is_migrated(make: Make, tmp_path: Path) -> None:
    """As kfloop 0.1 would have written it, with no table of looks and no cause of a trigger."""
    state, workspace = filled(make, "sqlite")
    out = tmp_path / "dump"
    out.mkdir()
    backing.dump(state, out)
    lines = [json.loads(line) for line in (out / "triggers.jsonl").read_text().splitlines()]
    old = [{key: value for key, value in line.items() if key not in {"cause", "labels"}} for line in lines]
    (out / "triggers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    (out / "looks.jsonl").unlink()
    index = json.loads((out / "backup.json").read_text())
    del index["files"]["looks"]
    index["files"]["triggers"]["sha256"] = backing.file_sha256(out / "triggers.jsonl")
    (out / "backup.json").write_text(json.dumps(index | {"schema": "0001"}))
    Store(str(tmp_path / "backup")).publish(out, "state", "20200101-000000-abcdef")
    again, elsewhere = make("a", "postgres")
    restore(elsewhere, str(tmp_path / "backup"))
    assert [(item.cause, item.labels) for item in again.triggers.history("a")] == [("", None)] * 3
    assert again.ledger.verify("a") == 2
    assert workspace.loop == "a"


def spoiled(store: Store, word: str) -> None:
    """Other bytes in a file of the blob, behind kfloop's back."""
    if store.blobs is None:
        report = store.root / "models" / name_of(word) / "report.json"
        report.unlink()
        report.symlink_to("/proc/self/mem")  # reading its first byte is an input/output error, as on a disk that fails
        return
    victim = next(key for key in store.blobs._files() if name_of(word) in key and key.endswith("report.json"))
    store.blobs._fs.pipe_file(store.blobs._at(victim), b"something else")


ELSEWHERE = ["disk", "memory", pytest.param("s3", marks=pytest.mark.slow)]


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """A store of each kind: a folder, one of fsspec's own that needs no server, and a real S3."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return f"s3://ready/{tmp_path.name}"
    return f"memory://{tmp_path.name}" if request.param == "memory" else None


@pytest.mark.parametrize("address", ELSEWHERE, indirect=True)
def test_a_damaged_blob_is_named_and_all_others_are_backed_up(make: Make, tmp_path: Path, address: str | None) -> None:
    state, workspace = make(store=address)
    rounds(state, workspace, 2)
    store = Store.of(workspace)
    spoiled(store, "m0")
    saved = back_up(state, workspace, str(tmp_path / "backup"))
    (found,) = saved.damaged
    assert (found.kind, found.digest, saved.copied) == ("models", name_of("m0"), 5)
    assert ("damaged" if address else "Input/output error") in found.reason
    there = Store(str(tmp_path / "backup"))
    assert not there.has("models", name_of("m0"))
    assert there.digests("state") == [saved.name]
    again, elsewhere = make("a")
    restore(elsewhere, str(tmp_path / "backup"))
    assert content(again) == content(state)


@pytest.mark.parametrize("address", ELSEWHERE[1:], indirect=True)
@pytest.mark.parametrize("what", ["a blob", "state"])
def test_what_a_server_keeps_wrongly_is_noticed_at_once(
    make: Make, address: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is right and the bytes behind it are not: only reading them back tells."""
    state, workspace = make()
    rounds(state, workspace, 2)
    publish = Blobs.publish

    def losing(self: Blobs, folder: Path, kind: str, digest: str) -> bool:
        done = publish(self, folder, kind, digest)
        if digest == name_of("m0") or (kind, what) == ("state", "state"):
            victim = next(key for key in self._files() if f"{kind}/{digest}/" in key)
            self._fs.pipe_file(self._at(victim), b"less")
        return done

    with monkeypatch.context() as patched:
        patched.setattr(Blobs, "publish", losing)
        if what == "state":
            with pytest.raises(StateError, match="is damaged"):
                back_up(state, workspace, f"{address}-backup")
            return
        saved = back_up(state, workspace, f"{address}-backup")
    (found,) = saved.damaged
    assert (found.digest, saved.copied) == (name_of("m0"), 5)
    assert "its copy cannot be read" in found.reason
    assert back_up(state, workspace, f"{address}-backup").copied == 1  # nothing of it was left there
    again, elsewhere = make("a")
    assert restore(elsewhere, f"{address}-backup").copied == 6
    assert content(again) == content(state)


@pytest.mark.parametrize("address", ELSEWHERE, indirect=True)
def test_blobs_alone_come_back_and_state_stays(make: Make, tmp_path: Path, address: str | None) -> None:
    state, workspace = make(store=address)
    rounds(state, workspace, 2)
    back_up(state, workspace, str(tmp_path / "backup"))
    store = Store.of(workspace)
    store.remove("datasets", name_of("d1"))
    if address:
        spoiled(store, "m0")
    rounds(state, workspace, 1, first=7)  # later than the backup
    before = content(state)
    with state.leases.acquire("a", "at work"):  # it needs no pause: a blob appears whole and never changes
        done = restore_blobs(workspace, str(tmp_path / "backup"))
    assert (done.copied, done.present, done.damaged) == ((2, 4, ()) if address else (1, 5, ()))
    assert content(state) == before
    for word, kind in (("d1", "datasets"), ("m0", "models"), ("m7", "models")):
        assert store.require(kind, name_of(word)).is_dir()
    saved = Store(str(tmp_path / "backup")).path("models", name_of("m0"))
    assert folder_digest(store.path("models", name_of("m0"))) == folder_digest(saved)
    with pytest.raises(StateError, match="there is no backup in"):
        restore_blobs(workspace, str(tmp_path / "nothing"))


def test_a_damaged_blob_of_a_backup_is_named_and_state_is_left_alone(make: Make, tmp_path: Path) -> None:
    state, workspace = filled(make, "sqlite")
    backup = f"memory://{tmp_path.name}-backup"
    back_up(state, workspace, backup)
    there = Store(backup, tmp_path / "mirror")
    spoiled(there, "m0")
    again, elsewhere = make("a")
    with pytest.raises(StateError, match=f"1 blobs of the backup .* models '{name_of('m0')}'"):
        restore(elsewhere, backup)
    assert not any(content(again).values())
    done = restore_blobs(elsewhere, backup)  # those that are good are there by now
    assert (done.copied, done.present, [blob.digest for blob in done.damaged]) == (0, 5, [name_of("m0")])
    there.remove("models", name_of("m0"))
    restore(elsewhere, backup)
    assert content(again) == content(state)


@pytest.mark.slow
def test_a_backup_to_s3_and_back_to_a_folder(make: Make, s3: str, tmp_path: Path) -> None:
    state, workspace = filled(make, "sqlite")
    place = f"s3://ready/{tmp_path.name}-backup"
    back_up(state, workspace, place)
    again, elsewhere = make("a")
    restore(elsewhere, place)
    assert content(again) == content(state)
    for kind, digest in Store.of(workspace).everything():
        assert folder_digest(Store.of(elsewhere).path(kind, digest)) == folder_digest(
            Store.of(workspace).path(kind, digest)
        )


def test_a_blob_that_changed_in_its_folder_is_named_by_the_next_backup_and_brought_back(
    make: Make, tmp_path: Path
) -> None:
    state, workspace = filled(make, "sqlite")
    back_up(state, workspace, str(tmp_path / "backup"))
    store = Store.of(workspace)
    digest = next(name for kind, name in store.everything() if kind == "models")
    changed = next(path for path in store.require("models", digest).rglob("*") if path.is_file())
    before = changed.read_bytes()
    changed.chmod(0o644)
    changed.write_bytes(before + b" ")
    elsewhere = tmp_path / "backup" / "models" / digest
    shutil.rmtree(elsewhere)  # so that the next backup copies it again
    found = back_up(state, workspace, str(tmp_path / "backup")).damaged
    assert [(blob.kind, blob.digest, blob.reason) for blob in found] == [
        ("models", digest, "it does not hold what was backed up")
    ]
    changed.write_bytes(before)
    assert back_up(state, workspace, str(tmp_path / "backup")).copied == 1
    changed.write_bytes(before + b" ")
    assert restore_blobs(workspace, str(tmp_path / "backup")).copied == 1
    assert changed.read_bytes() == before
