"""Many servers publish their request logs in one place: each row is counted once, in the order of time, whatever happens on the way."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from kfloop.core.request_files import MERGED
from kfloop.errors import ConfigError, KfloopError
from kfloop.serving import compaction
from kfloop.serving.evidence import read_evidence, write_evidence
from kfloop.serving.log_mirror import PATIENCE_SECONDS, bring, read_mirrored
from kfloop.serving.requests import logged_ids
from kfloop.serving.retention import read_counts
from kfloop.serving.shared_log import Head, SharedLog
from publishing_pod import EVIDENCE, KILLED, SECOND, START, Pod, Watcher

STAGES = ("written", "named", "merged", "sealed", "published", "deleted", "kept")


@pytest.fixture(params=["folder", "memory", pytest.param("s3", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder, an object store in memory, and a real S3 server."""
    if request.param == "folder":
        yield str(tmp_path / "shared")
    elif request.param == "memory":
        import fsspec

        yield f"memory://{tmp_path.name}"
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)
    else:
        request.getfixturevalue("s3")
        yield f"s3://ready/{tmp_path.name}"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "shared")


def published(url: str) -> list[str]:
    shared = SharedLog(url, "m")
    return [file.key for place in shared.folders() for file in shared.files(place)[0]]


def test_rows_of_two_servers_are_read_in_the_order_of_time(url: str, tmp_path: Path) -> None:
    one, two, watcher = Pod(tmp_path, url, "one"), Pod(tmp_path, url, "two"), Watcher(tmp_path, url)
    for second in range(10):
        one.write([f"one-{second}"], second)
        two.write([f"two-{second}"], second, ts=second + 0.5)
    assert one.publish(9.1) == two.publish(9.1) == 0  # the slot is not over
    assert one.publish(31) == two.publish(31) == 1  # ten small files are one
    assert watcher.round() == ()
    assert watcher.counted == [f"{name}-{second}" for second in range(10) for name in ("one", "two")]
    assert len(published(url)) == 2
    assert list(one.workspace.collected.glob("m/*/*.parquet")) == []
    # Nothing new: nothing is published, nothing is counted.
    assert one.publish(61) == two.publish(61) == 0
    assert watcher.round() == ()
    assert len(watcher.counted) == 20
    # The other readers see the same.
    assert logged_ids(bring(watcher.workspace), "m") == set(watcher.counted)


def test_a_server_that_is_behind_is_waited_for(url: str, tmp_path: Path) -> None:
    one, two, watcher = Pod(tmp_path, url, "one"), Pod(tmp_path, url, "two"), Watcher(tmp_path, url)
    one.publish(0)
    two.publish(0)
    one.write(["a"], 100)
    two.write(["b"], 50)
    one.publish(700)
    assert watcher.round() == ()
    assert watcher.counted == []
    told = read_mirrored(watcher.workspace)
    assert told is not None
    assert told.waits_for == two.publisher.writer
    two.publish(90)
    assert watcher.round() == ()
    assert watcher.counted == ["b"]
    two.publish(700)
    assert watcher.round() == ()
    assert watcher.counted == ["b", "a"]
    told = read_mirrored(watcher.workspace)
    assert told is not None
    assert (told.waits_for, told.late_files) == ("", 0)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_each_row_is_counted_once_in_any_order_of_publishing(folder: str, tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311 - no secret
    pods = [Pod(tmp_path, folder, name) for name in ("one", "two", "three")]
    watcher = Watcher(tmp_path, folder)
    for pod in pods:
        pod.publish(0)
    wrote: list[str] = []
    for second in range(3450, 3750, 5):  # over the end of an hour
        for pod in pods:
            if draw.random() < 0.7:
                wrote.append(f"{pod.workspace.root.name}-{second}")
                pod.write([wrote[-1]], second + draw.random(), width=draw.choice([4, 7]))
            if draw.random() < 0.2:
                pod.publish(second + 2)
            if draw.random() < 0.1:
                pod.start()  # ended and began anew
        if draw.random() < 0.3:
            assert watcher.round() == ()
    for pod in pods:
        pod.publish(5400, ended=True)
    assert watcher.round() == ()
    assert Counter(watcher.counted) == Counter(wrote)
    assert watcher.times == sorted(watcher.times)


@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_at_any_stage_loses_nothing_and_doubles_nothing(folder: str, tmp_path: Path, stage: str) -> None:
    pod, watcher, reached = Pod(tmp_path, folder, "one"), Watcher(tmp_path, folder), Counter[str]()

    def kill(name: str) -> None:
        reached[name] += 1
        if name == stage:
            raise RuntimeError(KILLED)  # nothing of ours catches it

    for second in range(4):
        pod.write([f"a-{second}"], second)
    pod.write(["alone"], 2.5, width=7)
    pod.start(at=kill)
    with pytest.raises(RuntimeError, match=KILLED):
        pod.publish(35)
    assert reached[stage] == 1
    watcher.round()
    pod.write(["b-0"], 36)
    pod.write(["b-1"], 37)
    pod.start()
    pod.publish(38, ended=True)
    assert watcher.round() == ()
    expected = {"a-0", "a-1", "a-2", "a-3", "alone", "b-0", "b-1"}
    assert Counter(watcher.counted) == Counter(expected)
    late = Watcher(tmp_path, folder, "another")  # who comes later sees the same
    assert late.round() == ()
    assert Counter(late.counted) == Counter(expected)
    assert pod.publish(39, ended=True) == 0


def test_a_clock_that_was_ahead_for_a_while_holds_nothing_back(url: str, tmp_path: Path) -> None:
    """An hour ahead, then set right: the server's files used to wait for that hour, and its rows came too late to count."""
    one, two, watcher = Pod(tmp_path, url, "one"), Pod(tmp_path, url, "two"), Watcher(tmp_path, url)
    one.write(["one-1"], 1)
    assert one.publish(31) == 1
    two.publish(31)
    one.write(["far"], 3640)  # ahead
    assert one.publish(3661) == 1
    before = one.publisher.writer
    wrote = ["one-1"]
    for second in range(70, 400, 60):  # right again
        one.write([f"one-{second}"], second)
        two.write([f"two-{second}"], second, ts=second + 0.5)
        wrote += [f"one-{second}", f"two-{second}"]
        assert one.publish(second + 31) == two.publish(second + 31) == 1
        assert watcher.round() == ()
        assert watcher.counted == wrote
    told = read_mirrored(watcher.workspace)
    assert told is not None
    assert (told.late_files, told.waits_for) == (0, "")
    assert one.publisher.writer != before
    one.start()  # it knows its new name, and which totals the old one has told
    one.publish(3700)
    two.publish(3700)
    assert watcher.round() == ()
    assert watcher.counted == [*wrote, "far"]
    total = read_counts(watcher.workspace.request_log).published_files
    assert total == one.counts.published_files + two.counts.published_files == 14


def test_what_was_published_before_a_kill_and_a_changed_clock_is_there_once(folder: str, tmp_path: Path) -> None:
    """The file is there, the collector's copy of it as well, and the clock is set back before the next look."""
    pod, watcher = Pod(tmp_path, folder, "one"), Watcher(tmp_path, folder)

    def kill(name: str) -> None:
        if name == "published":
            raise RuntimeError(KILLED)

    pod.write(["a"], 1)
    pod.publish(31)
    pod.publish(3661)  # ahead
    pod.start(at=kill)
    pod.write(["b"], 3670)
    with pytest.raises(RuntimeError, match=KILLED):
        pod.publish(3700)
    pod.start()
    pod.write(["c"], 70)  # right again
    assert pod.publish(101) == 2
    assert len(published(folder)) == 3
    pod.publish(3760)
    assert watcher.round() == ()
    assert Counter(watcher.counted) == Counter("abc")


def test_while_the_place_is_away_files_wait(tmp_path: Path) -> None:
    away = tmp_path / "shared"
    pod, watcher = Pod(tmp_path, str(away), "one"), Watcher(tmp_path, str(away))
    away.write_text("a file where the folder should be")
    for second in range(3):
        pod.write([f"a-{second}"], 30 * second)
        with pytest.raises(KfloopError, match="request log"):
            pod.publish(30 * second + 31)
    assert pod.publisher.waiting() == 3
    with pytest.raises(KfloopError):
        watcher.round()
    away.unlink()
    pod.publish(100)
    assert pod.publisher.waiting() == 0
    assert watcher.round() == ()
    assert watcher.counted == ["a-0", "a-1", "a-2"]


def test_what_arrived_in_part_is_put_again(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pod, watcher = Pod(tmp_path, folder, "one"), Watcher(tmp_path, folder)
    pod.write(["a"], 0)
    whole = SharedLog.put

    def cut(self: SharedLog, path: Path, key: str) -> None:
        whole(self, path, key)
        os.truncate(Path(folder) / "m" / key, 10)
        SharedLog.verify(self, key, path.stat().st_size)

    monkeypatch.setattr(SharedLog, "put", cut)
    with pytest.raises(KfloopError, match="10 bytes there"):
        pod.publish(31)
    assert pod.publisher.waiting() == 1
    monkeypatch.undo()
    assert watcher.round() == ()  # its writer did not say that it is there
    assert watcher.counted == []
    pod.publish(61)
    assert watcher.round() == ()
    assert watcher.counted == ["a"]


def test_a_writer_that_fell_silent_is_waited_for_an_hour(folder: str, tmp_path: Path) -> None:
    dead, alive, watcher = Pod(tmp_path, folder, "dead"), Pod(tmp_path, folder, "alive"), Watcher(tmp_path, folder)

    def kill(name: str) -> None:
        if name == "deleted":
            raise RuntimeError(KILLED)

    dead.publish(0)
    dead.start(at=kill)
    dead.write(["last"], 10)
    with pytest.raises(RuntimeError, match=KILLED):
        dead.publish(35)  # the file is there, and nobody said so
    alive.write(["a"], 60)
    alive.publish(3600)
    now = time.time()
    assert watcher.round(now) == ()
    assert watcher.counted == []
    head = Path(folder) / "m" / "_writers" / f"{dead.publisher.writer}.json"
    os.utime(head, (now - PATIENCE_SECONDS - 1,) * 2)
    assert watcher.round(now) == ()
    assert watcher.counted == ["last", "a"]
    told = read_mirrored(watcher.workspace)
    assert told is not None
    assert told.writers[dead.publisher.writer].silent > PATIENCE_SECONDS
    # It comes back with more: that is brought, once, and the monitor says that it was too late to count.
    dead.write(["late"], 25)
    dead.start()
    dead.publish(3700)
    alive.publish(3700)
    (problem,) = watcher.round(now)
    assert problem.startswith("1 rows came with a time more than 10 s before")
    assert watcher.counted == ["last", "a"]
    assert logged_ids(watcher.workspace.request_log, "m") == {"last", "a", "late"}
    told = read_mirrored(watcher.workspace)
    assert told is not None
    assert (told.late_files, told.writers[dead.publisher.writer].silent) == (1, 0.0)


def test_a_clock_that_was_set_back_hides_no_file(folder: str, tmp_path: Path) -> None:
    pod, watcher = Pod(tmp_path, folder, "one"), Watcher(tmp_path, folder)
    pod.write(["a"], 3700)
    pod.publish(3721)
    watcher.round()
    pod.write(["b"], 100, ts=3702)  # an hour back: its own folder is that of the hour before
    pod.publish(121)
    pod.start()
    pod.write(["c"], 122, ts=3703)
    pod.publish(151)
    assert watcher.round() == ()
    assert watcher.counted == ["a", "b", "c"]  # their own times are right, and nothing waits for the clock
    assert pod.publish(3781) == 0
    assert watcher.round() == ()
    assert watcher.counted == ["a", "b", "c"]


def test_hours_become_one_file_here_and_are_not_brought_again(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod, watcher = Pod(tmp_path, folder, "one"), Watcher(tmp_path, folder)
    for minute in range(6):
        pod.write([f"a-{minute}"], 60 * minute)
        pod.publish(60 * minute + 31)
    watcher.round()
    hours = [path for path in watcher.workspace.request_log.glob("m/*") if path.is_dir()]
    assert len(hours) == 1
    assert len(compaction.hour_files(hours[0])) == 6  # the hour is not over for the writer
    pod.publish(3600 + compaction.SETTLE_SECONDS + 1)
    monkeypatch.setattr(compaction, "KEEP_SECONDS", 0.0)
    for _ in range(3):  # merged; then the parts go; then nothing
        assert watcher.round() == ()
        pod.publish(5000)
    assert [path.name.endswith(MERGED) for path in hours[0].glob("*.parquet")] == [True]
    assert len(published(folder)) == 6
    assert watcher.counted == [f"a-{minute}" for minute in range(6)]
    assert len(logged_ids(watcher.workspace.request_log, "m")) == 6
    # A mirror that cannot be trusted is made anew, without what was there.
    (watcher.workspace.request_log / ".mirror.json").write_text("garbage")
    assert watcher.round() == ()
    assert len(watcher.counted) == 6
    assert len(logged_ids(watcher.workspace.request_log, "m")) == 6


def test_garbage_is_named_and_the_rest_is_read(url: str, tmp_path: Path) -> None:
    pod, watcher = Pod(tmp_path, url, "one"), Watcher(tmp_path, url)
    pod.write(["a"], 0)
    pod.publish(31)
    pod.write(["b"], 40)
    pod.publish(61)
    junk = tmp_path / "junk"
    junk.write_bytes(b"PAR1 nonsense")
    shared = SharedLog(url, "m")
    first, second = sorted(published(url))
    place = first.rpartition("/")[0]
    shared.put(junk, f"{place}/mine.parquet")
    shared.put(junk, "_writers/garbage.json")
    shared.put(junk, second)  # somebody wrote over it
    (problem,) = watcher.round()
    assert second.rpartition("/")[2] in problem
    assert watcher.counted == ["a"]
    told = read_mirrored(watcher.workspace)
    assert told is not None
    assert told.damaged == [second]
    assert sorted(told.strange) == sorted(["_writers/garbage.json", f"{place}/mine.parquet"])
    pod.write(["c"], 70)
    pod.publish(91)
    assert len(watcher.round()) == 1  # in every round
    assert watcher.counted == ["a", "c"]


@pytest.mark.parametrize("url", ["folder", pytest.param("s3", marks=pytest.mark.slow)], indirect=True)
def test_old_files_go_when_they_are_read_on_both_sides(url: str, tmp_path: Path) -> None:
    pod, watcher, hour = Pod(tmp_path, url, "one"), Watcher(tmp_path, url), 1 / 24
    pod.start(days=hour)
    pod.write(["old"], 0)
    pod.publish(31)
    pod.write(["unread"], 60)
    pod.publish(91)
    now = (time.time_ns() - START) / SECOND
    pod.write(["young"], now - 60)
    pod.publish(now)
    watcher.round()
    pod.read_until = 0  # state cannot be asked
    pod.publisher.expire(pod.counts)
    assert len(published(url)) == 3
    pod.start(days=hour)
    pod.read_until = START + 30 * SECOND
    pod.publisher.expire(pod.counts)
    pod.publisher.expire(pod.counts)  # not again within the hour
    assert pod.counts.deleted_files == 1
    later = Watcher(tmp_path, url, "later")
    assert later.round() == ()
    assert later.counted == ["unread", "young"]
    pod.start(days=hour)
    pod.read_until = START + round(now * SECOND)
    pod.publisher.expire(pod.counts)
    assert len(published(url)) == 1
    pod.write(["new"], now + 40)
    pod.publish(now + 80)
    assert watcher.round() == ()
    assert watcher.counted == ["old", "unread", "young", "new"]
    assert logged_ids(watcher.workspace.request_log, "m") == {"young", "new"}


def test_heads_of_writers_that_are_long_gone_go(folder: str, tmp_path: Path) -> None:
    gone, pod = Pod(tmp_path, folder, "gone"), Pod(tmp_path, folder, "one")
    gone.publish(0, ended=True)
    pod.publish(0)
    for head in (Path(folder) / "m" / "_writers").iterdir():
        os.utime(head, (1, 1))
    pod.publisher.expire(pod.counts)
    assert [path.stem for path in (Path(folder) / "m" / "_writers").iterdir()] == [pod.publisher.writer]


def test_totals_are_those_of_all_servers_and_never_fall(folder: str, tmp_path: Path) -> None:
    one, two, watcher = Pod(tmp_path, folder, "one"), Pod(tmp_path, folder, "two"), Watcher(tmp_path, folder)
    one.counts.written, two.counts.written, two.counts.dropped = 5, 7, 2
    one.publish(1)
    two.publish(1)
    watcher.round()
    counts = read_counts(watcher.workspace.request_log)
    assert (counts.written, counts.dropped) == (12, 2)
    shutil.rmtree(Path(folder) / "m" / "_writers")
    one.publish(2)
    watcher.round()
    assert read_counts(watcher.workspace.request_log).written == 12


def test_evidence_of_a_roll_out_comes_from_every_server(url: str, tmp_path: Path) -> None:
    one, two, watcher = Pod(tmp_path, url, "one"), Pod(tmp_path, url, "two"), Watcher(tmp_path, url)
    record = EVIDENCE | {"ts_ns": START}
    for number, pod in enumerate((one, two)):
        head = {"model": "m", "rollout": "salt", "dropped": 0, "record": record | {"request_id": f"r{number}"}}
        write_evidence(pod.workspace.collected, [head])
        now = (time.time_ns() - START) / SECOND
        pod.publish(now + 1, ended=True)
    assert {row["request_id"] for row in read_evidence(bring(watcher.workspace), "m", "salt")} == {"r0", "r1"}


def test_loops_share_a_place_and_never_mix(folder: str, tmp_path: Path) -> None:
    pod, watcher = Pod(tmp_path, folder, "one"), Watcher(tmp_path, folder)
    pod.write(["a"], 0)
    pod.publish(31)
    watcher.workspace = dataclasses.replace(watcher.workspace, loop="other", root=tmp_path / "other")
    watcher.round()
    assert watcher.counted == []
    assert list(watcher.workspace.request_log.glob("m")) == []


def test_a_mirror_is_not_brought_up_to_date_more_often_than_asked(folder: str, tmp_path: Path) -> None:
    pod, watcher = Pod(tmp_path, folder, "one"), Watcher(tmp_path, folder)
    pod.publish(0)
    bring(watcher.workspace)
    pod.write(["a"], 1)
    pod.publish(31)
    assert logged_ids(bring(watcher.workspace, every=3600), "m") == frozenset()
    assert logged_ids(bring(watcher.workspace), "m") == {"a"}


def test_what_was_collected_before_there_was_a_place_is_published(folder: str, tmp_path: Path) -> None:
    pod, watcher = Pod(tmp_path, folder, "one"), Watcher(tmp_path, folder)
    (pod.workspace.collected / ".writer.json").unlink()  # a log of before: it has no name yet
    for second in (0, 10, 20, 3700):
        pod.write([f"a-{second}"], second)
    compaction.merge_hour(min(pod.workspace.collected.glob("m/*")))
    mine = pod.write(["mine"], 3701)
    mine.rename(mine.with_name("mine.parquet"))
    os.utime(mine.with_name("mine.parquet"), ns=(START + 3701 * SECOND,) * 2)
    pod.start()
    pod.publish(3800)
    assert watcher.round() == ()
    assert watcher.counted == ["a-0", "a-10", "a-20", "a-3700", "mine"]
    assert not list(pod.workspace.collected.rglob("*.parquet"))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2}', json.dumps({"format": 1, "writer": "a", "counts": []})]
)
def test_a_head_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Head.from_json(text)


def test_a_place_that_nothing_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"request log 'nothing://x'"):
        Pod(tmp_path, "nothing://x", "one")


def test_a_place_that_was_emptied_does_not_empty_the_mirror(folder: str, tmp_path: Path) -> None:
    pod, watcher = Pod(tmp_path, folder, "one"), Watcher(tmp_path, folder)
    pod.write(["a"], 0)
    pod.publish(31)
    watcher.round()
    for path in Path(folder).rglob("*.parquet"):
        path.unlink()
    pod.publish(61)
    assert watcher.round() == ()
    assert logged_ids(watcher.workspace.request_log, "m") == {"a"}


def test_a_file_that_came_in_part_is_brought_again(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod, watcher = Pod(tmp_path, folder, "one"), Watcher(tmp_path, folder)
    pod.write(["a"], 0)
    pod.publish(31)
    whole, asked = SharedLog.get, list[int]()

    def cut(self: SharedLog, keys: list[str], places: list[Path]) -> None:
        whole(self, keys, places)
        asked.append(len(keys))
        if len(asked) == 1:
            os.truncate(places[0], 10)

    monkeypatch.setattr(SharedLog, "get", cut)
    assert watcher.round() == ()
    assert watcher.counted == ["a"]
    assert asked == [1, 1]


def test_a_writer_with_much_to_publish_says_that_it_is_there(folder: str, tmp_path: Path) -> None:
    pod, heads = Pod(tmp_path, folder, "one"), list[int]()

    def look(stage: str) -> None:
        if stage == "published":
            heads.extend(head.until_ns for head, _ in SharedLog(folder, "m").heads().values() if head)

    for second in (0, 31, 62):
        pod.write([f"a-{second}"], second)
    pod.start(at=look)
    assert pod.publish(100) == 3
    assert heads == [START - 1] * 3  # and promises nothing yet


def test_a_writer_whose_head_was_damaged_is_waited_for_as_it_was_seen_last(folder: str, tmp_path: Path) -> None:
    one, two, watcher = Pod(tmp_path, folder, "one"), Pod(tmp_path, folder, "two"), Watcher(tmp_path, folder)
    one.publish(31)
    two.publish(31)
    watcher.round()
    two.write(["a"], 70)
    two.publish(91)
    (Path(folder) / "m" / "_writers" / f"{one.publisher.writer}.json").write_text("garbage")
    assert watcher.round() == ()
    assert watcher.counted == []
    one.write(["b"], 40)
    one.publish(91)
    assert watcher.round() == ()
    assert watcher.counted == ["b", "a"]
