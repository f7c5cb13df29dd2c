"""Runs the server so that it never outlives its owner: ``python guard.py SPEC.json``. Standard library only.

The guard watches its owner by pidfd. When the owner is gone, also by ``kill -9``, or when the guard is told to stop, the server gets
SIGTERM, then SIGKILL for its whole group, and its shared-memory regions (and no others) are removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
LOOK_MS = 500


def main(spec_path: str) -> int:
    """Start the server and wait for the end of the owner, the server, or for a signal."""
    spec = json.loads(Path(spec_path).read_text(encoding="utf-8"))
    stop = []
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.append(True))
    try:
        owner = os.pidfd_open(spec["owner"])
    except ProcessLookupError:
        return 1
    with Path(spec["log"]).open("ab") as log:
        server = subprocess.Popen(
            spec["command"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=spec["environment"]
            | {name: os.environ[name] for name in spec.get("inherited", []) if name in os.environ},
            start_new_session=True,
            preexec_fn=_die_with_guard,  # noqa: PLW1509 - safe: the guard has one thread
        )
        poller = select.poll()
        poller.register(owner, select.POLLIN)
        try:
            while not stop and server.poll() is None:
                with contextlib.suppress(InterruptedError):
                    if poller.poll(LOOK_MS):
                        break
        finally:
            _end(server, spec["grace"], spec["shm_prefix"])
            _clean(spec, owner_is_gone=bool(poller.poll(0)))
    return server.returncode or 0


def _clean(spec: dict[str, object], *, owner_is_gone: bool) -> None:
    """Remove the folder with the key, and what a dead owner cannot remove any more."""
    shutil.rmtree(str(spec["folder"]), ignore_errors=True)
    if owner_is_gone and spec["owners_folder"]:
        shutil.rmtree(str(spec["owners_folder"]), ignore_errors=True)


def _die_with_guard() -> None:
    """In the child, before exec: the kernel ends the server when the guard dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(server: subprocess.Popen[bytes], grace: float, shm_prefix: str) -> None:
    with contextlib.suppress(ProcessLookupError):
        server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(grace)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)  # the server, or backends it left
    server.wait()
    for region in Path("/dev/shm").glob(f"{shm_prefix}*"):  # noqa: S108 - that is where Triton keeps them
        region.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
