"""The real monitor on a real request log, in a workspace of its own and with the clock of the replay.

After each window the workspace is as a served loop would have left it: the rows of the window stand in the request log as the collector
writes them, and the labels that are known by then in the file of ground truth. The state of window k is a database of its own, begun as a copy
of that of window k - 1: a replay that is killed in the middle of a window plays it again from what the window before it left.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.monitor.monitoring import after_publish, run
from kfloop.core.ground_truth import truth_file
from kfloop.core.sections import REQUESTS
from kfloop.core.state import open_state
from kfloop.core.store import Store
from kfloop.core.workspace import RUN_ID_VARIABLE
from kfloop.serving.packets import as_table, parquet_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.components.monitor.reporting import MonitorReport
    from kfloop.core.config import LoopConfig
    from kfloop.core.state import State
    from kfloop.core.workspace import Workspace
    from kfloop.pipelines.simulating.answers import Answers
    from kfloop.pipelines.simulating.settings import Settings
    from kfloop.pipelines.simulating.stream import Stream

BEFORE = -1  # what stands before the first window: the first champion
ACTOR = "kfloop simulate"


class Watched:
    """A served loop as its monitor sees it.

    Args:
        config: The loop.
        settings: The replay.
        stream: Its rows.
        workspace: Places of the replay; the monitor finds its packages in the same store.
        root: Folder of state, request log and ground truth.
    """

    def __init__(
        self, config: LoopConfig, settings: Settings, stream: Stream, workspace: Workspace, root: Path
    ) -> None:
        self._settings, self._stream = settings, stream
        self._root = root
        self._root.mkdir(parents=True, exist_ok=True)
        self._workspace = replace(workspace, root=self._root)
        self._truth = truth_file(None, self._root)
        known = {"fresh": REQUESTS, "feedback": str(self._truth), "window_days": None}
        self._section = config.monitor.model_copy(update=known)

    def begin(self, window: int) -> None:
        """Make the state of a window, from that of the window before it.

        Args:
            window: Its number; -1 for the time before the first.
        """
        if window > BEFORE:
            self._state(window - 1).engine.dispose()
        open_state.cache_clear()  # a window that is played again has another file under the same name
        place = self._database(window)
        for leftover in self._root.glob(f"{place.name}*"):
            leftover.unlink()
        earlier = self._database(window - 1)
        if window > BEFORE:
            with closing(sqlite3.connect(earlier)) as source, closing(sqlite3.connect(place)) as target:
                source.backup(target)

    def forget(self, window: int) -> None:
        """Remove the state of a window that no other will be begun from."""
        for old in self._root.glob(f"{self._database(window).name}*"):
            old.unlink()

    def promote(self, window: int, digest: str, *, at: float, reason: str) -> int:
        """Make a package champion.

        Args:
            window: Window whose state says so.
            digest: The package.
            at: When, seconds since 1970.
            reason: Why.

        Returns:
            Its version.
        """
        ledger = self._state(window).ledger
        champion = ledger.champion(self._workspace.loop)
        version = champion.version + 1 if champion else 1
        intent = ledger.intend(
            self._workspace.loop,
            action="promote",
            version=version,
            model_digest=digest,
            expected_champion=champion.model_digest if champion else None,
            actor=ACTOR,
            reason=reason,
            run_id=run_name(window),
            at=at,
        )
        ledger.close(intent, done=True, at=at)
        return version

    def log(self, window: int, version: int, rows: slice, answers: Answers) -> None:
        """Write the rows of a window into the request log.

        Args:
            window: The window.
            version: Version that answered.
            rows: Its rows in the stream.
            answers: What was answered.
        """
        import pyarrow.parquet as pq

        times = self._stream.times_ns[rows]
        named = {f"input.{name}": array for name, array in answers.inputs.items()}
        named |= {f"output.{name}": array for name, array in answers.outputs.items()}
        head: dict[str, Any] = {
            "ids": [request_id(row) for row in range(rows.start, rows.stop)],
            "ts_ns": times.tolist(),
            "model": self._workspace.loop,
            "version": version,
            "latency_us": 0,  # a replay says nothing of the time that a server takes
            "names": list(named),
        }
        table = as_table([(head, list(named.values()))])
        hour = datetime.fromtimestamp(times[-1] / 1e9, tz=UTC).strftime("%Y%m%dT%H")
        folder = self._workspace.request_log / self._workspace.loop / hour
        folder.mkdir(parents=True, exist_ok=True)
        staging = folder / f".{window:06d}.parquet"
        pq.write_table(table, staging, **parquet_options(table))
        staging.replace(folder / f"{window:06d}.parquet")

    def learn(self, now_ns: int, first: int, last: int) -> None:
        """Write into the file of ground truth what has become known of the answered rows, as far as it is new to the champion.

        What the champion was trained on was answered by the versions before it: nothing is learned from its truth again.

        Args:
            now_ns: Time of the look, nanoseconds since 1970.
            first: First row that the champion does not know.
            last: Row behind the last that was answered.
        """
        delay = int(self._settings.label_delay * 1e9)
        lines = []
        for row in range(first, last):
            label, known = self._stream.truth[row], int(self._stream.times_ns[row]) + delay
            if label is not None and known <= now_ns:
                at = datetime.fromtimestamp(known / 1e9, tz=UTC).isoformat(timespec="seconds")
                lines.append(json.dumps({"request_id": request_id(row), "label": label, "at": at}, ensure_ascii=False))
        staging = self._truth.with_suffix(".tmp")
        staging.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        staging.replace(self._truth)

    def look(self, window: int, now: float) -> MonitorReport:
        """One round of the monitor, with its trigger on record.

        Args:
            window: The window that has just ended.
            now: Time of the look, seconds since 1970.
        """
        workspace = self._at(window)
        with tempfile.TemporaryDirectory(prefix="look-", dir=self._root) as scratch, _run_of(run_name(window)):
            report = run(self._section, out=Path(scratch), workspace=workspace, now=now)
            after_publish(Store.of(workspace).publish(Path(scratch), "evidence"), workspace)
        return report

    def decided(self, window: int, *, promoted: bool) -> None:
        """Put on record how the retraining of a window ended: the monitor does not ask for the same one twice."""
        runs, name = self._state(window).runs, run_name(window)
        status = "succeeded" if promoted else "rejected"
        runs.start(name, self._workspace.loop, "training", "", {"status": "running"})
        runs.finish(name, status, {"status": status})

    def _at(self, window: int) -> Workspace:
        return replace(self._workspace, state=f"sqlite:///{self._database(window)}")

    def _state(self, window: int) -> State:
        return open_state(self._at(window).state)

    def _database(self, window: int) -> Path:
        return self._root / f"state-{window + 1:06d}.db"


@contextlib.contextmanager
def _run_of(name: str) -> Iterator[None]:
    """Let this process be part of a run, as the steps of a real round are."""
    before = os.environ.get(RUN_ID_VARIABLE)
    os.environ[RUN_ID_VARIABLE] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ[RUN_ID_VARIABLE]
        else:
            os.environ[RUN_ID_VARIABLE] = before


def run_name(window: int) -> str:
    """The run in which a window was looked at."""
    return f"window-{window}"


def request_id(row: int) -> str:
    """Id under which a row of the stream was asked."""
    return f"row-{row:09d}"


def log_e(report: MonitorReport) -> tuple[float, float]:
    """Evidence and threshold of a round, as powers of ten; no less than -3, so that nothing is drawn for what says nothing."""
    return tuple(float(np.log10(max(value, 1e-3))) for value in (report.e_value, report.threshold))  # type: ignore[return-value]
