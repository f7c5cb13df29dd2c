"""A look reads what is new, and comes to what a look at everything comes to, whatever happened in between."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfloop.components.deploy.advancing import advance, look
from kfloop.components.deploy.gathering import forget
from kfloop.components.deploy.looking import looks_file
from kfloop.core.sections import MarginConfig, RolloutConfig
from kfloop.core.state.standing import active_rollout
from kfloop.core.statistics.paired_bets import findings
from kfloop.core.workspace import Workspace
from kfloop.serving.evidence import evidence_files, read_evidence, samples
from loading import load

ROLLOUT = load(Path(__file__).parent / "test_rollout.py")
workspace = ROLLOUT.workspace
CONFIG = RolloutConfig(strategy="canary", min_requests=50, margin=MarginConfig(quality=0.02))


def begin(workspace: Workspace) -> Path:
    feedback = workspace.root / "feedback.jsonl"
    ROLLOUT.deploy(workspace, "new", "old", CONFIG, feedback=str(feedback))
    return feedback


def some_traffic(workspace: Workspace, n: int, seed: int, prefix: str = "") -> None:
    rng = np.random.default_rng(seed)
    failed, slow, other = rng.random(n) < 0.01, rng.random(n) < 0.2, rng.random(n) < 0.1
    fields: dict[str, Any] = {
        "champion_error": lambda k: bool(failed[k] and k % 2),
        "challenger_us": lambda k: 400 if slow[k] else 100,
        "difference": lambda k: [float(other[k])],
        "challenger_answer": lambda k: ["light" if other[k] else "dark"],
    }
    if prefix:
        fields["request_id"] = lambda k: f"{prefix}{k}"
    ROLLOUT.traffic(workspace, n, **fields)


def told(workspace: Workspace) -> dict[str, Any]:
    """What a look says, without the time."""
    found = asdict(look(workspace))
    return {name: found[name] for name in ("requests", "dropped", "findings", "advice")}


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    findings = [one.pop("findings") for one in (first, second)]
    assert first == second
    for one, other in zip(*findings, strict=True):
        assert one["question"] == other["question"]
        assert figures(one) == pytest.approx(figures(other), rel=1e-9)
    return True


def figures(finding: dict[str, Any]) -> dict[str, Any]:
    return {name: -1 if value is None else value for name, value in finding.items() if name != "question"}


def test_two_halves_come_to_the_same_as_the_whole(workspace: Workspace) -> None:
    feedback = begin(workspace)
    entry = active_rollout(ROLLOUT.history(workspace))
    assert entry is not None
    some_traffic(workspace, 400, 1, "a")
    part = told(workspace)
    assert part["requests"] == 400
    some_traffic(workspace, 300, 2, "b")
    some_traffic(workspace, 20, 3, "a")  # ids that were used before
    labels = [{"request_id": f"{name}{k}", "label": "dark"} for name in "ab" for k in range(0, 150, 3)]
    feedback.write_text("".join(json.dumps(label) + "\n" for label in labels))
    halves = told(workspace)
    assert halves["requests"] == 720
    forget(workspace)
    assert not list((workspace.kfloop_dir / "rollouts").glob("*.db"))
    whole = told(workspace)
    rows = read_evidence(workspace.request_log, workspace.loop, entry.details["salt"])
    numbers = samples(rows, ratio=CONFIG.margin.latency or 1.0, close=CONFIG.close)
    bounds = CONFIG.bounds()
    by_hand = findings(numbers | {"quality": np.zeros(0)}, bounds, CONFIG.alpha)
    for one, other in zip(whole["findings"], by_hand, strict=True):
        if other.question != "quality":
            assert figures(one) == pytest.approx(figures(asdict(other)), rel=1e-9)
    (asked,) = (one for one in whole["findings"] if one["question"] == "quality")
    first = {row["request_id"]: row for row in reversed(rows)}
    known = [first[label["request_id"]] for label in labels if label["request_id"] in first]
    expected = [float(row["challenger_answer"] != ["dark"]) for row in known if not row["champion_error"]]
    assert (asked["n"], asked["mean"]) == (len(expected), pytest.approx(np.mean(expected)))
    assert same(halves, whole)


def test_a_look_does_not_read_what_was_read_before(workspace: Workspace) -> None:
    begin(workspace)
    entry = active_rollout(ROLLOUT.history(workspace))
    assert entry is not None
    some_traffic(workspace, 100, 1)
    assert told(workspace)["requests"] == 100
    for path in evidence_files(workspace.request_log, workspace.loop, entry.details["salt"]):
        path.write_bytes(b"nobody may look here any more")
    some_traffic(workspace, 50, 2)
    assert told(workspace)["requests"] == 150


@pytest.mark.parametrize("damage", ["garbage", "another", "locked"])
def test_what_is_kept_may_be_lost_damaged_or_busy(
    workspace: Workspace, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(workspace)
    some_traffic(workspace, 100, 1)
    before = told(workspace)
    entry = active_rollout(ROLLOUT.history(workspace))
    assert entry is not None
    path = looks_file(workspace, entry.seq).with_suffix(".db")
    if damage == "garbage":
        path.write_bytes(b"SQLite format 3\0" + b"nonsense" * 999)
        assert same(told(workspace), before)
        return
    other = sqlite3.connect(path, isolation_level=None)
    if damage == "another":
        other.execute("UPDATE state SET about = 'other versions', value = '{}'")
        other.close()
        assert same(told(workspace), before)
        return
    monkeypatch.setattr("kfloop.components.deploy.gathering.WAIT_SECONDS", 0.1)
    other.execute("BEGIN EXCLUSIVE")
    assert same(told(workspace), before)
    other.close()


@pytest.mark.parametrize("damage", ["empty", "cut", "column", "times"])
def test_a_damaged_file_of_evidence_keeps_no_bad_challenger(workspace: Workspace, damage: str) -> None:
    """A power cut, or the mirror's place holder for what arrived damaged: every look used to end there, and the challenger stayed."""
    begin(workspace)
    some_traffic(workspace, 60, 1)
    entry = active_rollout(ROLLOUT.history(workspace))
    assert entry is not None
    (path,) = evidence_files(workspace.request_log, workspace.loop, entry.details["salt"])
    whole = path.read_bytes()
    if damage in ("empty", "cut"):
        path.write_bytes(b"" if damage == "empty" else whole[:200])
    else:
        table = pq.read_table(path).drop_columns(["dropped" if damage == "column" else "ts_ns"])
        pq.write_table(table if damage == "column" else table.append_column("ts_ns", pa.array(["now"] * 60)), path)
    seen = look(workspace)
    assert (seen.requests, seen.damaged) == (0, 1)
    ROLLOUT.traffic(workspace, 200, challenger_error=True, difference=[], challenger_answer=[])
    path.write_bytes(whole)  # it came back: nothing of it was lost, and nothing counts twice
    seen = look(workspace)
    assert (seen.requests, seen.damaged) == (260, 0)
    path.write_bytes(b"")
    assert look(workspace).requests == 260
    assert advance(workspace).outcome == "withdrawn"


def test_what_was_kept_goes_with_the_end(workspace: Workspace) -> None:
    begin(workspace)
    ROLLOUT.traffic(workspace, 200, challenger_error=True, difference=[], challenger_answer=[])
    assert advance(workspace).outcome == "withdrawn"
    assert advance(workspace).outcome == "none"
    assert not list((workspace.kfloop_dir / "rollouts").glob("*.db"))
