"""One server's collector folder and its publisher, by a clock that the test sets."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kfloop.components.monitor.log.layout import Layout
from kfloop.components.monitor.log.traffic import Reader
from kfloop.components.monitor.log.watermark import Watermark
from kfloop.core.workspace import Workspace
from kfloop.serving.log_mirror import bring
from kfloop.serving.log_publisher import IDENTITY, Publisher
from kfloop.serving.retention import Counts
from kfloop.serving.shared_log import SharedLog, hour_of

SECOND = 10**9
START = (time.time_ns() // (3600 * SECOND) - 2) * 3600 * SECOND  # two whole hours ago
LAYOUT = Layout(answer="probabilities", answers=3, embedding=4)
KILLED = "killed here"
EVIDENCE = {  # of one request of a roll-out
    "request_id": "r",
    "ts_ns": 1,
    "champion_version": 1,
    "challenger_version": 2,
    "champion_error": False,
    "challenger_error": False,
    "champion_us": 5,
    "challenger_us": 5,
    "rows": 1,
    "difference": [0.0],
    "champion_answer": ["x"],
    "challenger_answer": ["x"],
}


class Pod:
    """A server of the loop ``m``; its own folder below ``home``."""

    def __init__(self, home: Path, url: str, name: str) -> None:
        self.workspace = Workspace(loop="m", root=home / name, state="", store="", mlflow="", requests=url)
        self.workspace.root.mkdir(parents=True, exist_ok=True)
        self.counts, self._files = Counts(), 0
        self.workspace.collected.mkdir(parents=True)
        told = {
            "writer": uuid.uuid4().hex[:12],
            "since_ns": START,
            "until_ns": START - 1,
        }  # it began then, by this clock
        (self.workspace.collected / IDENTITY).write_text(json.dumps(told))
        self.start()

    def start(self, at: Callable[[str], None] = lambda _: None, days: float = 30.0) -> None:
        """Begin, or begin anew after an end."""
        shared = SharedLog(self.workspace.requests, "m")
        self.publisher = Publisher(
            self.workspace.collected, shared, days=days, read_until=lambda: self.read_until, at=at
        )

    read_until: int | None = None

    def write(self, ids: list[str], at: float, *, ts: float | None = None, width: int = 4) -> Path:
        """A file as the collector writes it, at so many seconds after ``START``."""
        now = START + round(at * SECOND)
        stamp = now if ts is None else START + round(ts * SECOND)
        n = len(ids)
        table = pa.table(
            {
                "request_id": pa.array(ids, pa.string()),
                "ts_ns": pa.array([stamp + row for row in range(n)], pa.int64()),
                "version": pa.array([1] * n, pa.int64()),
                "probabilities": pa.array([np.full(3, 1 / 3, np.float32)] * n, pa.list_(pa.float32())),
                "embedding": pa.array([np.full(width, row, np.float32) for row in range(n)], pa.list_(pa.float32())),
                "latency_us": pa.array([5] * n, pa.int64()),
            }
        )
        folder = self.workspace.collected / "m" / hour_of(now)
        folder.mkdir(parents=True, exist_ok=True)
        self._files += 1
        path = folder / f"{now:020d}-1-{self._files:06d}.parquet"  # in every pod process 1: names are the same
        pq.write_table(table, path)
        return path

    def publish(self, at: float, *, ended: bool = False) -> int:
        """Publish everything that is finished at that time."""
        return self.publisher.publish(self.publisher.parts(), START + round(at * SECOND), self.counts, ended=ended)


class Watcher:
    """A monitor's rounds, as far as reading goes: what was counted, in its order."""

    def __init__(self, home: Path, url: str, name: str = "watcher") -> None:
        self.workspace = Workspace(loop="m", root=home / name, state="", store="", mlflow="", requests=url)
        self.mark, self.counted, self.times = Watermark(), list[str](), list[int]()

    def round(self, now: float | None = None) -> tuple[str, ...]:
        """One round; what was wrong with the log."""
        folder = bring(self.workspace, now=now)
        reader = Reader(folder, "m", 1, LAYOUT, time.time() + 3600)
        for chunk in reader.chunks(self.mark):
            self.counted += chunk.ids.tolist()
            self.times += chunk.ts_ns.tolist()
        self.mark = reader.watermark
        return reader.problems
