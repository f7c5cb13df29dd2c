"""``kfloop collect``: the command itself in a process of its own, real packets, and the exported ensemble before the monitor."""

from __future__ import annotations

import importlib
import importlib.util
import json
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from kfloop.core.config import load_config
from kfloop.errors import ServingError
from kfloop.serving.owning import sole_owner
from kfloop.serving.requests import logged_ids
from kfloop.serving.retention import read_counts
from loading import load
from logged_requests import read_requests

# In Triton a log lives as long as its process.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
LOOP = "name: m\ndata: {source: digits}\n"
PATIENCE = 60.0


LOGS, CONFIGS = load(Path(__file__).parent / "test_request_log.py"), load(Path(__file__).parent / "test_log_config.py")


class Sidecar:
    """`kfloop collect` in a folder with a loop file."""

    def __init__(self, home: Path) -> None:
        self.home, self.address, self.process = home, home / "s" / "log.sock", None
        (home / "loop.yaml").write_text(LOOP)

    @property
    def log(self) -> Path:
        return self.home / ".kfloop" / "requests"

    def start(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "kfloop", "collect", "--socket", "s/log.sock", "--json", *words],
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.process = process
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < deadline and not self._listens():
            time.sleep(0.02)
        return process

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
            return link.connect_ex(str(self.address)) == 0

    def end(self, sign: int = signal.SIGTERM) -> tuple[int, dict[str, Any], str]:
        assert self.process is not None
        self.process.send_signal(sign)
        out, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, json.loads(out) if out else {}, said


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    found = Sidecar(tmp_path)
    yield found
    if found.process is not None and found.process.poll() is None:
        found.process.kill()
        found.process.communicate()


def send(address: Path, *packets: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.connect(str(address))
        for packet in packets:
            link.send(packet)


def test_everything_that_was_sent_before_the_end_is_on_disk(sidecar: Sidecar) -> None:
    process = sidecar.start()
    assert process.poll() is None
    send(sidecar.address, *[LOGS.packet([f"r{number}"]) for number in range(300)])
    status, told, said = sidecar.end()
    assert (status, told["written"], told["dropped"]) == (0, 300, 0)
    assert "300 rows written" in said
    assert len(read_requests(sidecar.log, "m")) == 300
    assert read_counts(sidecar.log).written == 300
    assert not sidecar.address.exists()
    settings = sidecar.address.with_name("settings.json")
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    sidecar.start("--out", "elsewhere")  # the totals go on where they were, in each folder
    send(sidecar.address, LOGS.packet(["a"]))
    status, told, _ = sidecar.end(signal.SIGINT)
    assert (status, told["written"], Path(told["out"]).name) == (0, 1, "elsewhere")
    assert read_requests(sidecar.home / "elsewhere", "m").ids.tolist() == ["a"]


def test_a_second_owner_is_refused_and_a_killed_one_is_no_hindrance(sidecar: Sidecar) -> None:
    first = sidecar.start()
    for words in ((), ("--out", "elsewhere")):  # the same folder; another folder, but the same socket
        second = subprocess.run(
            [sys.executable, "-m", "kfloop", "collect", "--socket", "s/log.sock", *words],
            cwd=sidecar.home,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert second.returncode == 1
        assert f"by process {first.pid} already" in second.stderr
    with pytest.raises(ServingError, match="already"), sole_owner(sidecar.log):  # as kfloop serve asks
        pass
    send(sidecar.address, LOGS.packet(["a"]))
    first.kill()
    first.communicate()
    assert sidecar.address.exists()
    sidecar.start()
    send(sidecar.address, LOGS.packet(["b"]))
    assert sidecar.end()[0] == 0
    assert "b" in logged_ids(sidecar.log, "m")


@pytest.mark.parametrize("address", ["s/" + "x" * 200, "loop.yaml"])
def test_what_is_no_place_for_a_socket_is_refused(sidecar: Sidecar, address: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kfloop", "collect", "--socket", address],
        cwd=sidecar.home,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert "--socket" in done.stderr
    assert (sidecar.home / "loop.yaml").read_text() == LOOP


def test_a_server_that_is_earlier_sends_nothing_before_it_knows_what_is_private(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is private may be another thing when the collector comes back."""
    monkeypatch.syspath_prepend(str(CONFIGS.MODEL_FILES))
    monkeypatch.setenv("KFLOOP_LOG_SOCKET", str(sidecar.address))
    folder = sidecar.home / "repository" / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "encoder.json").write_text(json.dumps({"modality": "table", "columns": CONFIGS.COLUMNS}))
    module = importlib.import_module("request_log")
    monkeypatch.setattr(module, "REPOSITORY", str(folder.parent))
    log = module.RequestLog("m", "1", CONFIGS.INPUTS, CONFIGS.OUTPUTS)
    try:
        log.add("early", CONFIGS.arrays(), 7)
        log.flush()
        for drop in ("income", "age"):
            (sidecar.home / "loop.yaml").write_text(f"{LOOP}serve: {{log: {{drop: [{drop}]}}}}\n")
            sidecar.start()
            log.add(drop, CONFIGS.arrays(), 7)
            log.flush()
            if not log._link.reach():  # a link to the collector before shows only in sending that it is broken
                log.flush()
            sidecar.end()
            log.add("between", CONFIGS.arrays(), 7)
            log.flush()
    finally:
        for name in ("request_log", "masking", "sending"):
            sys.modules.pop(name, None)
    files = sorted(sidecar.log.glob("m/*/*.parquet"))
    rows = {row["request_id"]: row["input.number"] for path in files for row in pq.ParquetFile(path).read().to_pylist()}
    assert set(rows) == {f"{name}#{row}" for name in ("income", "age") for row in range(3)}
    missing = {name: np.isnan(rows[f"{name}#0"]).tolist() for name in ("income", "age")}
    assert missing == {"income": [False, False, False, False, True], "age": [True, False, False, False, False]}
    assert read_counts(sidecar.log).dropped == 6  # early, and what came between; the last three are told by nobody


@pytest.mark.triton
@pytest.mark.slow
def test_the_monitor_reads_what_an_exported_ensemble_answered(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from kfloop.components.monitor.monitoring import run
    from kfloop.core.sections import MonitorConfig
    from kfloop.core.state import open_state
    from kfloop.core.store import Store
    from kfloop.serving.control import Control
    from kfloop.serving.server import start_server

    made = load(Path(__file__).parent / "test_production.py")
    monkeypatch.chdir(sidecar.home)
    workspace = load_config(Path("loop.yaml")).workspace(sidecar.home)
    package, rng = made.TINY.make_package(tmp_path / "package", 1), np.random.default_rng(0)
    session = made.open_session(package / "model.onnx")
    images = rng.integers(0, 256, (400, 8, 8, 1)).astype(np.uint8)
    found = made.run_session(session, made.read_signature(package), [images])
    np.savez(package / "reference.npz", embedding=found["embedding"], probabilities=found["probabilities"])
    Store(workspace.store).publish(package, "models", "first")
    ledger = open_state(workspace.state).ledger
    row: dict[str, Any] = {"version": 1, "model_digest": "first", "expected_champion": None}
    ledger.close(ledger.intend("m", action="promote", actor="test", reason="test", **row), done=True)
    repository = tmp_path / "repository"
    repository.mkdir()
    made.put_ensemble(repository, tmp_path, "m", package)
    with start_server(repository, tmp_path / "log.txt", log_socket=str(sidecar.address)) as server:
        Control(server.endpoint).load("m")  # before there is a collector
        assert sidecar.start().poll() is None
        sent = rng.integers(0, 256, (120, 8, 8, 1)).astype(np.uint8)
        for start in range(0, 120, 10):
            images = sent[start : start + 10]
            made.ask(server.endpoint, "m", {"image": images}, ("probabilities",), request_id=f"r{start}")
        deadline = time.monotonic() + PATIENCE
        while len(logged_ids(workspace.request_log, "m")) < 120 and time.monotonic() < deadline:
            time.sleep(0.1)
    assert sidecar.end()[0] == 0
    (tmp_path / "out").mkdir()
    report = run(MonitorConfig(), out=tmp_path / "out", workspace=workspace)
    assert (report.rows_seen, report.rows_unusable, report.data_quality) == (120, 0, ())
    assert report.outcome == "none", report.reason
    names = {f"r{start}#{place}" for start in range(0, 120, 10) for place in range(10)}
    assert logged_ids(workspace.request_log, "m") == names
