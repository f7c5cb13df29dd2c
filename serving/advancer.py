"""Advancing a roll-out from the supervisor: a child process now and then, because looking at evidence is the business of ``deploy``."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from kfloop.serving.repository import read_policy

if TYPE_CHECKING:
    from kfloop.core.workspace import Workspace

OWNER_VARIABLE = "KFLOOP_ROLLOUT_OWNER"  # the child ends when this process does, however that ends
LOOK_SECONDS = 15.0
GRACE_SECONDS = 5.0


class Advancer:
    """Runs ``kfloop rollout --advance`` while ``served.json`` has a roll-out, one at a time.

    Args:
        workspace: The loop's places.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._child: subprocess.Popen[bytes] | None = None
        self._next = 0.0

    def look(self) -> None:
        """Start a look when it is time for one; never waits."""
        if self._child is not None:
            if self._child.poll() is None:
                return
            self._child = None
        told = read_policy(self._workspace.repository, self._workspace.loop)
        rollout = told and told["rollout"]
        if not rollout or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + float(rollout.get("look_seconds", LOOK_SECONDS))
        log = self._workspace.kfloop_dir / "triton" / "rollout.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("KFLOOP_RUN_")}
        command = [sys.executable, "-m", "kfloop", "rollout", "--advance", "--by", "kfloop serve"]
        with log.open("wb") as stream:
            self._child = subprocess.Popen(
                [*command, "--workspace", self._workspace.to_json()],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment | {OWNER_VARIABLE: str(os.getpid())},
            )

    def stop(self) -> None:
        """End a look that is under way; the next one begins anew."""
        if self._child is None:
            return
        self._child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(GRACE_SECONDS)
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()
