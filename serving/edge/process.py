"""The edge's process as the supervisor owns it: started, looked at, started again when it died, stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from kfloop.errors import ServingError
from kfloop.serving.endpoint import process_started

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.workspace import Workspace
    from kfloop.serving.endpoint import Endpoint
    from kfloop.serving.options import ServeOptions

START_SECONDS = 30.0
STOP_SECONDS = 5.0
AGAIN_SECONDS = 2.0


class Edge:
    """The edge of one loop; does nothing where none is wanted.

    Args:
        workspace: The loop's places.
        options: Whether there is an edge, where, and its limits.
    """

    def __init__(self, workspace: Workspace, options: ServeOptions) -> None:
        self._workspace, self._options = workspace, options
        self._process: subprocess.Popen[bytes] | None = None
        self._triton = ""
        self._port = 0
        self._started = 0.0

    def start(self, endpoint: Endpoint) -> None:
        """Start it and wait until it listens.

        Args:
            endpoint: The server behind it.

        Raises:
            ServingError: It does not come up; its own words are in the message.
        """
        place = self._options.edge
        state_file(self._workspace).unlink(missing_ok=True)
        if place is None:
            return
        self._triton, self._port = endpoint.http, place.port
        self._launch({})
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            state = read_state(self._workspace)
            if state is not None and self._process is not None and state["pid"] == self._process.pid:
                self._port = int(state["address"].rsplit(":", 1)[1])  # started again, it is found where it was
                return
            if self._process is None or self._process.poll() is not None:
                break
            time.sleep(0.05)
        said = self._log().read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        self.stop()
        raise ServingError(
            f"the edge at {place.host}:{place.port} did not start: {' '.join(said) or 'it did not listen in time'}",
            hint="choose another port with --edge-port, or leave it out for a free one",
        )

    def look(self) -> None:
        """Start it again when it died; not more often than every two seconds."""
        if self._process is None or self._process.poll() is None:
            return
        if time.monotonic() - self._started < AGAIN_SECONDS:
            return
        sys.stderr.write(f"the edge ended with status {self._process.returncode}; it is started again\n")
        self._launch((read_raw(self._workspace) or {}).get("answers", {}))

    def stop(self) -> None:
        """Stop it; safe to call twice."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
            state_file(self._workspace).unlink(missing_ok=True)

    def _launch(self, answers: dict[str, int]) -> None:
        place = self._options.edge
        if place is None:
            return
        spec = {
            "owner": os.getpid(),
            "host": place.host,
            "port": self._port,
            "triton": self._triton,
            "repository": str(self._workspace.repository),
            "model": self._workspace.loop,
            "config": self._options.serve.edge.model_dump(mode="json"),
            "state": str(state_file(self._workspace)),
            "answers": answers,
        }
        self._started = time.monotonic()
        with self._log().open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kfloop.serving.edge", json.dumps(spec)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _log(self) -> Path:
        folder = self._workspace.kfloop_dir / "triton"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "edge.log"


def state_file(workspace: Workspace) -> Path:
    """Where the edge says where it is and how often it answered with which status."""
    return workspace.kfloop_dir / "triton" / "edge.json"


def read_state(workspace: Workspace) -> dict[str, Any] | None:
    """Address, process and answers by status of the running edge; null when there is none."""
    state = read_raw(workspace)
    return state if state is not None and process_started(int(state["pid"])) is not None else None


def read_raw(workspace: Workspace) -> dict[str, Any] | None:
    """The same, of an edge that may have ended."""
    try:
        state: Any = json.loads(state_file(workspace).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) and "pid" in state else None


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write it by rename."""
    staging = path.with_name(f".{path.name}.tmp")
    staging.write_text(json.dumps(state) + "\n", encoding="utf-8")
    staging.replace(path)
