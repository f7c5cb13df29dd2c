"""What can go wrong while it runs: exit 1, what happened, what to do, and nothing lost."""

import os
import shutil
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

SMALL = "name: small\ndata: {limit: 700}\ntrain: {epochs: 8}\nevaluate: {bootstrap: 300}\nbless: {requests: 40}\n"


@pytest.mark.triton
def test_a_port_in_use_is_named(shell: Any) -> None:
    shell.write(SMALL)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = shell.run("serve", "--http-port", str(port), timeout=60)
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "in use" in done.stderr
    assert not (shell.folder / ".kfloop" / "serve.json").exists()


def test_a_corrupt_state_database_is_named_and_left_alone(shell: Any) -> None:
    shell.write(SMALL)
    file = shell.folder / ".kfloop" / "state.db"
    file.parent.mkdir()
    file.write_bytes(b"no database" * 500)
    for command in ("run", "status", "monitor"):
        done = shell.run(command, timeout=60)
        assert done.returncode == 1
        assert "state.db" in done.stderr
        assert "corrupt" in done.stderr
    assert file.read_bytes() == b"no database" * 500


@pytest.mark.slow
def test_a_corrupt_registry_is_named_and_the_rerun_completes_after_it_is_put_aside(shell: Any) -> None:
    shell.write(SMALL)
    file = shell.folder / ".kfloop" / "mlflow.db"
    file.parent.mkdir()
    file.write_bytes(b"no database" * 500)
    done = shell.run("run")
    assert done.returncode == 1
    assert "mlflow.db" in done.stderr
    assert file.read_bytes() == b"no database" * 500
    file.unlink()
    again = shell.run("run")
    assert again.returncode == 0, again.stderr
    assert "cached" in again.stderr


def opened(shell: Any) -> State:
    config = load_config(shell.folder / "loop.yaml")
    return open_state(config.workspace(shell.folder).state)


def started(shell: Any, step: str) -> tuple[subprocess.Popen[bytes], str]:
    """A run that is in the middle of ``step``."""
    run = shell.start("run")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert run.poll() is None
        if (shell.folder / ".kfloop" / "state.db").exists():
            state = opened(shell)
            for run_id in state.runs.active("small"):
                if any(event.step == step for event in state.runs.events(run_id)):
                    return run, run_id
        time.sleep(0.1)
    pytest.fail(f"{step} did not start")


@pytest.mark.slow
@pytest.mark.triton
def test_a_second_run_is_refused_and_ctrl_c_leaves_nothing(shell: Any) -> None:
    shell.write(SMALL)
    run, run_id = started(shell, "train")
    second = shell.run("run", timeout=60)
    assert second.returncode == 1
    assert str(run.pid) in second.stderr
    watching = shell.json("monitor")
    assert watching["trigger"]["outcome"] == "in_flight"
    assert watching["exit_code"] == 0
    family = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(signal.SIGINT)
    assert run.wait(30) == 1
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    record = opened(shell).runs.get(run_id)
    assert record is not None
    assert record["status"] == "cancelled"
    again = shell.run("run")
    assert again.returncode == 0, again.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB, where the system allows one."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], check=False, capture_output=True
    )
    if done.returncode != 0:
        pytest.skip(f"no small file system here: {done.stderr.decode()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_named_and_the_same_command_completes_with_space(shell: Any, small_disk: Path) -> None:
    shell.write(SMALL)
    hog = small_disk / "hog"
    hog.write_bytes(b"x" * (23 * 1024 * 1024))
    (shell.folder / ".kfloop").symlink_to(small_disk)
    done = shell.run("run")
    assert done.returncode == 1, done.stderr
    assert "space" in done.stderr
    assert "Traceback" not in done.stderr
    hog.unlink()
    again = shell.run("run")
    assert again.returncode in {0, 1}, again.stderr
