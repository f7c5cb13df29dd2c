"""Labelled requests of the loop's own log, counted while the log forgets its oldest rows."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from kfloop.components.monitor.policy.freshness import Labels, count_fresh_labels
from kfloop.core.artifacts import write_report
from kfloop.core.ground_truth import keep
from kfloop.core.sections import REQUESTS, MonitorConfig
from kfloop.core.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400
START = 1_760_000_000


def test_labels_are_counted_with_the_time_at_which_they_were_told(tmp_path: Path) -> None:
    workspace = Workspace(loop="m", root=tmp_path, state="", store=str(tmp_path / "store"), mlflow="")
    version = tmp_path / "store" / "datasets" / "data"
    version.mkdir(parents=True)
    table = pa.table({"id": ["fresh/old-0", "1"], "origin": ["fresh", "base"]})
    for split in ("train", "validation", "test"):
        with pa.OSFile(str(version / f"{split}.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    package = tmp_path / "package"
    package.mkdir()
    write_report(package, {"dataset_digest": "data"})
    feedback = tmp_path / "feedback.jsonl"
    for name, day in (("old", 0), ("new", 40)):
        at = START + day * DAY
        hour = workspace.request_log / "m" / datetime.fromtimestamp(at, tz=UTC).strftime("%Y%m%dT%H")
        hour.mkdir(parents=True)
        ids = [f"{name}-{place}" for place in range(3)]
        pq.write_table(pa.table({"request_id": ids, "ts_ns": [at * 10**9] * 3}), hour / "a.parquet")
        told = datetime.fromtimestamp(at + DAY, tz=UTC).isoformat()
        answers = [{"request_id": identity, "label": "yes"} for identity in (*ids, f"{name}-never")]
        keep(feedback, answers, known=ids, at=told)
    with feedback.open("a") as stream:
        stream.write('{"request_id": "old-1", "la')  # somebody is writing: no reason to end the round
    config = MonitorConfig(fresh=REQUESTS, feedback=str(feedback))
    early, late = float(START + DAY), float(START + 41 * DAY)
    found = count_fresh_labels(config, package, workspace)
    assert found == Labels(fresh=5, known=6, told=(early, early, late, late, late))
    assert [found.since(at) for at in (0.0, early, late)] == [5, 3, 0]
    shutil.rmtree(min((workspace.request_log / "m").iterdir()))  # serve.log.days
    found = count_fresh_labels(config, package, workspace)
    assert found == Labels(fresh=3, known=4, told=(late, late, late))
    assert found.since(early) == 3
