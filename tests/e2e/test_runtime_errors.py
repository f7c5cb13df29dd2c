"""What goes wrong while a run is at work: exit 1, one clear message with what to do, and the next run goes on."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from kfloop.core.config import load_config
from kfloop.core.state import State, open_state

ROOT = 0
DISK_MB = 4


def state_of(shell: Any) -> State:
    return open_state(load_config(shell.folder / "loop.yaml").workspace(shell.folder).state)


def wait_for_step(shell: Any, step: str, run: subprocess.Popen[bytes], seconds: float = 120) -> str:
    """Id of the run that is at work, once ``step`` of it has started."""
    database = shell.folder / ".kfloop" / "state.db"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert run.poll() is None, "the run ended before its step"
        if database.is_file():
            state = state_of(shell)
            for run_id in state.runs.active("small"):
                if any((event.step, event.event) == (step, "started") for event in state.runs.events(run_id)):
                    return run_id
        time.sleep(0.1)
    pytest.fail(f"step {step} did not start")


def of_run(run_id: str) -> list[psutil.Process]:
    """Every live process whose environment names the run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("KFLOOP_RUN_ID") == run_id and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def failed(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """The command ended with exit 1 and one message that holds ``words``."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.fixture
def loop(shell: Any) -> Any:
    shell.write(shell.small)
    return shell


@pytest.mark.triton
@pytest.mark.parametrize("option", ["--http-port", "--grpc-port"])
@pytest.mark.parametrize("detach", [(), ("--detach",)], ids=["foreground", "detached"])
def test_a_port_in_use_is_named(loop: Any, option: str, detach: tuple[str, ...]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = loop.run("serve", option, str(port), *detach, timeout=60)
    failed(done, f"port {port} is in use on 127.0.0.1", "choose another port")
    assert done.stderr.count("error:") == 1
    assert loop.json("status")["server"] is None
    assert not (loop.folder / ".kfloop" / "serve.json").exists()


@pytest.mark.parametrize("command", ["run", "status", "monitor", "rollback"])
def test_a_corrupt_state_is_named_and_left_as_it_is(loop: Any, command: str) -> None:
    (loop.folder / ".kfloop").mkdir()
    database = loop.folder / ".kfloop" / "state.db"
    database.write_bytes(b"this is no database " * 500)
    before = database.read_bytes()
    done = loop.run(command, timeout=60)
    failed(done, "state.db' is corrupt: file is not a database", "restore a backup")
    assert database.read_bytes() == before


@pytest.mark.slow
def test_a_corrupt_registry_is_named_and_putting_it_aside_is_enough(loop: Any) -> None:
    loop.write(
        re.sub(r"train: .*", "train: {epochs: 3}\ngate: {rules: [{metric: accuracy, at_least: 0.1}]}", loop.small)
    )
    (loop.folder / ".kfloop").mkdir()
    registry = loop.folder / ".kfloop" / "mlflow.db"
    registry.write_bytes(b"this is no database " * 500)
    before = registry.read_bytes()
    failed(loop.run("run"), f"'{registry}' cannot be used", "not a database", f"move '{registry}' away")
    assert registry.read_bytes() == before
    assert loop.json("status")["champion"] is None
    registry.rename(registry.with_suffix(".aside"))
    again = loop.run("run")
    assert again.returncode == 0, again.stderr
    assert re.search(r"cached +check_labels", again.stderr)
    assert loop.json("status")["champion"]["version"] == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of a few megabytes."""
    if os.geteuid() != ROOT:
        pytest.skip("only root may mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(("free_kb", "step"), [(64, ""), (1500, "train")], ids=["from the start", "in the middle"])
def test_no_space_left_is_said_and_with_more_space_the_same_command_goes_on(
    one_shell: Any, small_disk: Path, free_kb: int, step: str
) -> None:
    shell = one_shell(small_disk)
    shell.write(shell.small)
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * (DISK_MB * 1024 - free_kb) * 1024)
    failed(
        shell.run("run"), "no space left", "space, ", f"Step {step} failed" if step else "run the same command again"
    )
    if step:
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
        assert shell.run("run").returncode == 0
        assert shell.json("status")["champion"]["version"] == 1


@pytest.mark.slow
def test_a_second_run_at_once_ends_and_an_interrupted_one_leaves_nothing(loop: Any) -> None:
    first = loop.start("run", start_new_session=True)
    try:
        run_id = wait_for_step(loop, "train", first)
        second = loop.run("run")
        assert first.poll() is None  # it did not wait for the first
        failed(second, f"run '{run_id}' of loop 'small' is at work (pid {first.pid} on ", "wait for it to end")
        watching = loop.json("monitor")
        assert (watching["trigger"]["outcome"], watching["exit_code"]) == ("in_flight", 0)
        assert first.poll() is None

        family = of_run(run_id)
        assert family
        first.send_signal(signal.SIGINT)
        assert first.wait(120) == 1
        psutil.wait_procs(family, timeout=2)
        assert of_run(run_id) == []
    finally:
        first.kill()
        first.wait()
    assert {run["run_id"]: run["status"] for run in loop.json("status")["runs"]}[run_id] == "cancelled"
    again = loop.run("run", "--json")
    assert again.returncode == 0, again.stderr
    assert re.search(r"cached +ingest|cached +validate_data", again.stderr)
    assert state_of(loop).ledger.verify("small") == 2
    assert state_of(loop).runs.active("small") == []
