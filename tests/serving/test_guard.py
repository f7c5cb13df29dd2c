"""The guard without Triton: nothing outlives its owner, however that ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from kfloop.serving import guard

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - that is where Triton keeps its regions
OWNER = """
import subprocess, sys, time
guard = subprocess.Popen([sys.executable, "-S", sys.argv[1], sys.argv[2]], start_new_session=True)
print(guard.pid, flush=True)
time.sleep(60)
"""
# Stands for the server: ignores SIGTERM, and has a child of its own that does too.
STUBBORN = "import signal,subprocess,sys,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
STUBBORN += "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)"


def start(tmp_path: Path, grace: float = 0.3) -> tuple[subprocess.Popen[str], psutil.Process, list[psutil.Process]]:
    """An owner, its guard, and the guard's family."""
    region = SHARED_MEMORY / f"kfloop-test-{os.getpid()}-region"
    region.write_text("x")
    spec = {
        "command": [sys.executable, "-c", STUBBORN],
        "environment": dict(os.environ),
        "log": str(tmp_path / "log"),
        "grace": grace,
        "folder": str(tmp_path / "servers-own"),
        "owners_folder": "",
        "shm_prefix": f"kfloop-test-{os.getpid()}-",
    }
    owner_file, spec_file = tmp_path / "owner.py", tmp_path / "spec.json"
    owner_file.write_text(OWNER)
    owner = subprocess.Popen(
        [sys.executable, str(owner_file), guard.__file__, str(spec_file)], stdout=subprocess.PIPE, text=True
    )
    spec_file.write_text(json.dumps(spec | {"owner": owner.pid}))
    assert owner.stdout is not None
    watcher = psutil.Process(int(owner.stdout.readline()))
    deadline = time.monotonic() + 10
    while len(watcher.children(recursive=True)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    return owner, watcher, watcher.children(recursive=True)


@pytest.mark.parametrize("how", ["owner", "guard-stopped"])
def test_the_server_and_its_children_end_with_their_owner(tmp_path: Path, how: str) -> None:
    owner, watcher, family = start(tmp_path)
    assert len(family) == 2
    if how == "owner":
        owner.kill()
        owner.wait()
    else:
        watcher.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs([watcher, *family], timeout=4)
    owner.kill()
    owner.wait()
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert not list(SHARED_MEMORY.glob(f"kfloop-test-{os.getpid()}-*"))


def test_the_server_ends_also_when_the_guard_is_killed(tmp_path: Path) -> None:
    owner, watcher, family = start(tmp_path)
    server = family[0]
    watcher.kill()
    gone, _ = psutil.wait_procs([server], timeout=4)
    owner.kill()
    owner.wait()
    for process in family:  # the stand-in's child has no parent watch of its own, unlike the served model
        if process.is_running():
            process.kill()
    for region in SHARED_MEMORY.glob(f"kfloop-test-{os.getpid()}-*"):
        region.unlink()
    assert server in gone
