"""A column of a table moves: the real monitor starts a retraining, which is judged where requests moved to and on the old distribution."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from kfloop.core.artifacts import read_report
from kfloop.core.scoring import PackagedModel
from kfloop.core.state import open_state
from kfloop.core.store import Store
from kfloop.core.workspace import Workspace
from kfloop.pipelines.rounds import open_loop
from kfloop.serving.packets import as_table, parquet_options

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LOOP = """\
name: people
data: {source: people.csv, label: label, fresh: requests}
train: {epochs: 10, batch_size: 64, options: {width: 32, depth: 1}}
evaluate: {bootstrap: 300, baseline: logistic_regression, corrupted_rows: 0, explain: 0}
bless: {requests: 40}
monitor: {cooldown_minutes: 0, cooldown_after_success_minutes: 0}
"""
HOUR_NS = 3600 * 10**9


def people(seed: int, n: int, *, moved: bool) -> dict[str, Any]:
    """Age, score and label; of the old, whom nobody knew before the traffic moved to them, the score means the opposite."""
    dice = np.random.default_rng([19, seed])
    old = dice.random(n) < (0.85 if moved else 0.0)
    age = np.where(old, dice.uniform(61, 80, n), dice.uniform(20, 59, n)).round()
    score = dice.normal(size=n).round(4)
    label = np.where((score > 0) ^ old, "yes", "no")
    return {"age": age, "score": score, "label": label}


def answer(workspace: Workspace, digest: str, rows: dict[str, Any], now_ns: int) -> None:
    """The requests as the collector logs them, with what the champion answers, and the truth of them all as feedback."""
    model = PackagedModel(Store.of(workspace).path("models", digest))
    inputs = model.encoder.encode(pa.table({name: rows[name] for name in ("age", "score")}))
    outputs = model.run(inputs)
    n = len(rows["age"])
    arrays = {f"input.{port.name}": found for port, found in zip(model.signature.inputs, inputs, strict=True)}
    arrays |= {f"output.{name}": found for name, found in outputs.items()}
    head = {
        "ids": [f"request-{row:05d}" for row in range(n)],
        "ts_ns": [now_ns - HOUR_NS + row * (HOUR_NS // n) for row in range(n)],
        "model": workspace.loop,
        "version": 1,
        "latency_us": 800,
        "names": list(arrays),
    }
    table = as_table([(head, list(arrays.values()))])
    folder = workspace.request_log / workspace.loop / "20261122T10"
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "000000.parquet", **parquet_options(table))
    lines = [
        json.dumps({"request_id": name, "label": str(label)})
        for name, label in zip(head["ids"], rows["label"], strict=True)
    ]
    (workspace.root / "feedback.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_retraining_for_a_column_that_moved_is_judged_where_it_moved_to(shell: Any) -> None:
    pc.write_csv(pa.table(people(0, 2400, moved=False)), shell.folder / "people.csv")
    shell.write(LOOP)
    first = shell.json("run")
    assert first["decision"]["outcome"] == "promote", first["message"]
    loop = open_loop(shell.folder / "loop.yaml")
    champion = loop.state.ledger.champion("people")
    assert champion is not None
    answer(loop.workspace, champion.model_digest, people(1, 1200, moved=True), shell.folder.stat().st_mtime_ns)

    record = shell.json("monitor")

    assert record["trigger"]["outcome"] == "retrain", record["message"]
    report = report_of(record, "evaluate")
    cause = report["cause"]
    # The labels that came in tell of the fall, too; what moved is known from the drift all the same.
    assert cause["kind"] in {"realised", "drift"}
    assert (cause["evidence"], cause["problems"]) == (record["trigger"]["evidence_digest"], [])
    (part,) = [part for part in cause["parts"] if part["column"] == "age"]
    assert part["drifted"].startswith("drifted:age=")
    assert 0 < part["n"] < report["n_test"] == part["n"] + part["n_old"]
    ours, theirs = (report[name]["slices"][part["drifted"]]["accuracy"]["value"] for name in ("challenger", "champion"))
    assert ours > theirs
    verdicts = {line["rule"]: line["verdict"] for line in report_of(record, "gate")["verdicts"]}
    assert verdicts["cause can be judged"] == "pass"
    kinds = ("drifted", "old")
    assert sum(f"[{kind}:age=" in rule for rule in verdicts for kind in kinds) == 4
    page = Path(record["report"]).read_text(encoding="utf-8")
    assert "What this training was for" in page
    assert "Where requests moved to" in page
    open_state(loop.workspace.state).engine.dispose()


def report_of(record: dict[str, Any], name: str) -> dict[str, Any]:
    step = next(step for step in record["steps"] if step["name"] == name)
    return read_report(Path(step["artifact"]["path"]))
