"""Collectors that publish what they write: the threads, the command in processes of its own, a place that is away, and a real S3 server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kfloop.cli.traffic import bring_log, traffic_facts, traffic_lines
from kfloop.core.config import load_config
from kfloop.core.sections import LogConfig
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, TransientError
from kfloop.serving import collector as collecting
from kfloop.serving.collector import Collector
from kfloop.serving.evidence import write_evidence
from kfloop.serving.log_mirror import bring, read_mirrored
from kfloop.serving.options import open_collector
from kfloop.serving.retention import read_counts
from loading import load
from logged_requests import read_requests
from publishing_pod import EVIDENCE, Pod, Watcher
from seaweed import free_ports

LOGS = load(Path(__file__).parent / "test_request_log.py")
PATIENCE = 120.0


def workspace(home: Path, url: str) -> Workspace:
    home.mkdir(exist_ok=True)
    return Workspace(loop="m", root=home, state="", store="", mlflow="", requests=url)


def ids(place: Workspace) -> Counter[str]:
    """What readers find, by how often."""
    return Counter(read_requests(bring(place), "m").ids.tolist())


def until(asked: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not asked():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_collector_that_ends_has_published_everything(tmp_path: Path) -> None:
    place, reader = (
        workspace(tmp_path / "a", str(tmp_path / "shared")),
        workspace(tmp_path / "r", str(tmp_path / "shared")),
    )
    collector = open_collector(place, LogConfig())
    collector.start()
    LOGS.send(collector, *[LOGS.packet([f"r{number}"]) for number in range(50)])
    collector.stop()
    assert ids(reader) == Counter({f"r{number}": 1 for number in range(50)})
    told = read_mirrored(reader)
    assert told is not None
    (writer,) = told.writers.values()
    assert (writer.counts["written"], writer.silent, bool(writer.done)) == (50, 0.0, True)
    assert not list(place.collected.rglob("*.parquet"))
    assert read_counts(reader.request_log).written == 50


def test_a_reader_knows_of_a_collector_before_its_first_row(tmp_path: Path) -> None:
    place = workspace(tmp_path / "a", str(tmp_path / "shared"))
    collector = open_collector(place, LogConfig())
    collector.start()
    try:
        until(lambda: list((tmp_path / "shared" / "m" / "_writers").glob("*.json")))
    finally:
        collector.stop()


def test_while_the_place_is_away_nothing_is_deleted_and_the_folder_is_bounded(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.write_text("a file where the folder should be")
    place, reader = workspace(tmp_path / "a", str(shared)), workspace(tmp_path / "r", str(shared))
    collector = open_collector(place, LogConfig(max_bytes=1, days=1e-9))
    collector.start()
    LOGS.send(collector, LOGS.packet(["a", "b"]))
    until(lambda: collector.counts.failed_uploads)
    collector.tidy()
    LOGS.send(collector, LOGS.packet(["c"]))
    write_evidence(place.collected, [{"model": "m", "rollout": "salt", "dropped": 0, "record": EVIDENCE}])
    collector.tidy()
    assert len(list(place.collected.glob("m/rollout/salt/*.parquet"))) == 1
    shutil.rmtree(place.collected / "m" / "rollout")
    assert len(list(place.collected.rglob("*.parquet"))) == 1
    assert (collector.counts.written, collector.counts.full) == (2, 1)
    shared.unlink()
    collector.publish(ended=True)
    LOGS.send(collector, LOGS.packet(["d"]))  # there is room again
    collector.stop()
    assert ids(reader) == {"a": 1, "b": 1, "d": 1}
    assert read_counts(reader.request_log).dropped == 1


def test_a_collector_ends_in_time_where_the_place_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shared = tmp_path / "shared"
    shared.write_text("a file where the folder should be")
    place = workspace(tmp_path / "a", str(shared))
    collector = open_collector(place, LogConfig())
    collector.start()
    LOGS.send(collector, LOGS.packet(["a"]))
    collector.stop()
    said = capfd.readouterr().err
    assert "not published, and tried again: request log" in said
    assert "1 files" in said
    assert "the next start goes on" in said
    shared.unlink()
    again = open_collector(place, LogConfig())
    monkeypatch.setattr(collecting, "LAST_PUBLISH_SECONDS", PATIENCE)
    again.start()
    again.stop()
    assert ids(workspace(tmp_path / "r", str(shared))) == {"a": 1}


def test_a_log_without_a_place_is_not_published(tmp_path: Path) -> None:
    collector = Collector(tmp_path)
    collector.start()
    try:
        with pytest.raises(ConfigError, match="not published anywhere"):
            collector.publish()
    finally:
        collector.stop()


class Server:
    """`kfloop collect` beside a server: a folder of its own, and a loop file that names a place for all."""

    def __init__(self, home: Path, url: str) -> None:
        self.home, self.address, self.process = home, home / "s" / "log.sock", None
        home.mkdir()
        (home / "loop.yaml").write_text(f"name: m\ndata: {{source: digits}}\nrequests: {url}\n")

    def start(self) -> None:
        command = [sys.executable, "-m", "kfloop", "collect", "--socket", "s/log.sock", "--json"]
        self.process: subprocess.Popen[str] | None = subprocess.Popen(
            command, cwd=self.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        until(self._listens)

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
            return link.connect_ex(str(self.address)) == 0

    def send(self, *packets: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
            link.connect(str(self.address))
            for packet in packets:
                link.send(packet)

    def written(self) -> int:
        return read_counts(self.home / ".kfloop" / "requests").written

    def end(self, sign: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(sign)
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode


@pytest.fixture
def servers(tmp_path: Path, url: str) -> Iterator[tuple[Server, Server]]:
    both = Server(tmp_path / "one", url), Server(tmp_path / "two", url)
    yield both
    for server in both:
        if server.process is not None and server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "shared")
    request.getfixturevalue("s3")
    return f"s3://ready/{tmp_path.name}"


@pytest.mark.slow
def test_two_servers_one_of_them_killed(servers: tuple[Server, Server], url: str, tmp_path: Path) -> None:
    one, two = servers
    one.start()
    two.start()
    one.send(*[LOGS.packet([f"one-{number}"]) for number in range(40)])
    two.send(*[LOGS.packet([f"two-{number}"]) for number in range(40)])
    until(lambda: one.written() + two.written() == 80)
    one.end(signal.SIGKILL)
    one.start()
    one.send(LOGS.packet(["one-40"]))
    assert (one.end(), two.end()) == (0, 0)
    reader = tmp_path / "reader"
    reader.mkdir()
    (reader / "loop.yaml").write_text((one.home / "loop.yaml").read_text())
    names = {f"{name}-{number}" for name in ("one", "two") for number in range(40)} | {"one-40"}
    assert ids(load_config(reader / "loop.yaml").workspace(reader)) == Counter(dict.fromkeys(names, 1))
    command = [sys.executable, "-m", "kfloop", "status", "--json"]
    done = subprocess.run(command, cwd=reader, capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout)
    assert len(facts["published"]["writers"]) == 2
    assert (facts["published"]["place"], facts["published"]["problem"]) == (url, "")
    assert facts["log"]["written"] == 81
    done = subprocess.run(
        [sys.executable, "-m", "kfloop", "feedback", "two-7", "1", "--json"],
        cwd=reader,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["unknown"] == []


@pytest.mark.slow
def test_an_s3_server_that_is_away_for_a_while(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"s3://ready/{tmp_path.name}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    pod, watcher = Pod(tmp_path, url, "one"), Watcher(tmp_path, url)
    pod.write(["a"], 0)
    with pytest.raises(TransientError, match="cannot be written now"):
        pod.publish(31)
    with pytest.raises(TransientError, match="cannot be listed now"):
        watcher.round()
    assert pod.publisher.waiting() == 1
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    pod.start()
    pod.publish(61)
    assert watcher.round() == ()
    assert watcher.counted == ["a"]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    pod.start()
    pod.write(["b"], 70)
    with pytest.raises(Exception, match=r"request log 's3://ready/.*' cannot be written"):
        pod.publish(91)
    assert pod.publisher.waiting() == 1
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "wrong"


def test_the_status_says_who_is_behind_who_is_silent_and_what_is_garbage(tmp_path: Path) -> None:
    url, home = str(tmp_path / "shared"), tmp_path / "watcher"
    behind, ahead, watcher = Pod(tmp_path, url, "one"), Pod(tmp_path, url, "two"), Watcher(tmp_path, url)
    behind.publish(0)
    ahead.write(["a"], 0)
    ahead.publish(3600)
    (tmp_path / "shared" / "m" / "m").mkdir(exist_ok=True)
    (next((tmp_path / "shared" / "m" / "m").iterdir()) / "mine.parquet").write_bytes(b"garbage")
    home.mkdir()
    told = lines_of(watcher.workspace)
    assert any(f"wait for writer {behind.publisher.writer}" in line for line in told)
    assert any("a server that lives published up to" in line for line in told)
    assert any("1 files are none of kfloop's" in line for line in told)
    os.utime(tmp_path / "shared" / "m" / "_writers" / f"{behind.publisher.writer}.json", (1, 1))
    told = lines_of(watcher.workspace)
    assert not any("wait for writer" in line for line in told)
    assert any(f"not waited for: {behind.publisher.writer}" in line for line in told)
    (tmp_path / "shared").rename(tmp_path / "away")
    (tmp_path / "shared").write_text("no folder")
    assert any("as of the last look; now request log" in line for line in lines_of(watcher.workspace))


def lines_of(place: Workspace) -> list[str]:
    problem = bring_log(place, every=0.0)
    facts = traffic_facts(place, None)
    assert facts["published"] is not None
    facts["published"]["problem"] = problem
    return traffic_lines(facts)
