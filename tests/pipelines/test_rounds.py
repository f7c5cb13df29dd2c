"""When a round is the same as one before, and what then stands."""

import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kfloop.core.records import StepRecord
from kfloop.pipelines.arguments import pipeline_arguments
from kfloop.pipelines.repeating import lapsed, same_round
from kfloop.pipelines.rounds import Loop, _fingerprint, open_loop, training_round
from kfloop.report import render_summary


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    (tmp_path / "loop.yaml").write_text("name: x\n")
    return open_loop(tmp_path / "loop.yaml")


def decided(loop: Loop, status: str, exit_code: int, after: dict[str, Any] | None, package: str = "new") -> None:
    record = {
        "run_id": "r1",
        "status": status,
        "exit_code": exit_code,
        "message": status,
        "champion": {"before": None, "after": after},
        "digests": {"package": package},
    }
    loop.state.runs.start("r1", "x", "training", "f", record)
    loop.state.runs.finish("r1", status, record)


def change(loop: Loop, version: int, digest: str, expected: str | None, action: str = "promote") -> None:
    intent = loop.state.ledger.intend(
        "x", action=action, version=version, model_digest=digest, expected_champion=expected, actor="ann", reason="why"
    )
    loop.state.ledger.close(intent, done=True)


def test_a_decided_round_stands_while_its_champion_does(loop: Loop) -> None:
    change(loop, 1, "new", None)
    decided(loop, "succeeded", 0, {"version": 1, "digest": "new"})
    repeated = same_round(loop, "f")
    assert repeated is not None
    assert repeated.exit_code == 0
    assert same_round(loop, "other") is None


def test_a_rejection_is_repeated_with_its_exit_status(loop: Loop) -> None:
    change(loop, 1, "old", None)
    decided(loop, "rejected", 3, {"version": 1, "digest": "old"})
    repeated = same_round(loop, "f")
    assert repeated is not None
    assert repeated.exit_code == 3


@pytest.mark.parametrize("status", ["failed", "killed", "cancelled"])
def test_a_round_that_was_not_decided_is_run_again(loop: Loop, status: str) -> None:
    decided(loop, status, 1, None)
    assert same_round(loop, "f") is None


def test_another_champion_means_another_decision(loop: Loop) -> None:
    change(loop, 1, "old", None)
    decided(loop, "rejected", 3, {"version": 1, "digest": "old"})
    change(loop, 2, "third", "old")
    assert same_round(loop, "f") is None


def test_an_approved_challenger_is_not_judged_against_itself(loop: Loop) -> None:
    decided(loop, "held", 4, None)
    change(loop, 1, "new", None)
    repeated = same_round(loop, "f")
    assert repeated is not None
    assert repeated.exit_code == 0
    assert "champion by now" in repeated.message


def test_what_a_person_rejected_stays_rejected_until_it_is_held_again(loop: Loop) -> None:
    decided(loop, "held", 4, None)
    record = loop.state.runs.get("r1")
    assert record is not None
    loop.state.runs.finish("r1", "held", record | {"decision": {"outcome": "hold", "evidence_digest": "e1"}})
    note = partial(loop.state.ledger.note, "x", actor="ann", version=1, model_digest="new", evidence_digest="e1")
    note(action="hold", reason="all pass")
    repeated = same_round(loop, "f")
    assert repeated is not None
    assert repeated.exit_code == 4
    note(action="reject", reason="weak on sevens")
    repeated = same_round(loop, "f")
    assert repeated is not None
    assert repeated.exit_code == 3
    assert "ann rejected its challenger (weak on sevens)" in repeated.message
    note(action="hold", reason="forced")
    repeated = same_round(loop, "f")
    assert repeated is not None
    assert repeated.exit_code == 4


def test_what_a_person_rolled_back_does_not_come_back_by_itself(loop: Loop) -> None:
    change(loop, 1, "old", None)
    change(loop, 2, "new", "old")
    decided(loop, "succeeded", 0, {"version": 2, "digest": "new"})
    change(loop, 1, "old", "new", action="rollback")
    repeated = same_round(loop, "f")
    assert repeated is not None
    assert repeated.exit_code == 3
    assert "ann rolled its challenger back (why)" in repeated.message


def held(loop: Loop, monkeypatch: pytest.MonkeyPatch, days: float = 0.0) -> None:
    """A run that held its challenger, and ``days`` that have passed since."""
    decided(loop, "held", 4, None)
    record = loop.state.runs.get("r1")
    assert record is not None
    loop.state.runs.finish("r1", "held", record | {"decision": {"outcome": "hold", "evidence_digest": "e1"}})
    note = partial(loop.state.ledger.note, "x", action="hold", actor="ann", reason="all pass")
    note(version=1, model_digest="new", evidence_digest="e1", run_id="r1")
    later = time.time() + days * 86400
    monkeypatch.setattr("kfloop.pipelines.repeating.time.time", lambda: later)


def test_a_hold_that_expired_is_decided_again(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    held(loop, monkeypatch, days=13.9)
    assert same_round(loop, "f") is not None
    assert lapsed(loop, "f") == ""
    held_at = time.time()
    monkeypatch.setattr("kfloop.pipelines.repeating.time.time", lambda: held_at + 0.2 * 86400)
    assert same_round(loop, "f") is None
    assert lapsed(loop, "f") == "the hold of run r1 expired after 14 days (gate.approval_days)"


def test_a_hold_that_another_superseded_is_decided_again(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    held(loop, monkeypatch)
    note = partial(loop.state.ledger.note, "x", action="hold", actor="ann", reason="all pass")
    note(version=2, model_digest="other", evidence_digest="e2", run_id="r2")
    assert same_round(loop, "f") is None
    assert lapsed(loop, "f") == "the hold of run r1 was superseded by the hold of version 2"


def test_what_was_approved_and_rolled_back_does_not_wait_any_more(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    change(loop, 1, "old", None)
    held(loop, monkeypatch)
    record = loop.state.runs.get("r1")
    assert record is not None
    loop.state.runs.finish("r1", "held", record | {"champion": {"after": {"version": 1, "digest": "old"}}})
    change(loop, 2, "new", "old")
    change(loop, 1, "old", "new", action="rollback")
    repeated = same_round(loop, "f")
    assert repeated is not None
    assert repeated.exit_code == 3
    assert "ann rolled its challenger back" in repeated.message


def test_the_gate_sees_the_champion_and_who_was_turned_down(loop: Loop) -> None:
    """A cached decision is neither of another promotion nor of a time before somebody turned the challenger down."""
    before = _fingerprint(loop, "s")
    found = []
    for step in (
        ("old", None, "promote"),
        ("new", "old", "promote"),
        ("old", "new", "rollback"),
        ("new", "old", "rollback"),
    ):
        change(loop, 1 if step[0] == "old" else 2, step[0], step[1], action=step[2])
        gate = json.loads(pipeline_arguments("training", loop.config, loop.workspace)["gate_config"])
        found.append((gate["champion_row"], gate["turned_down"]))
    assert found == [(2, []), (4, []), (6, [6]), (8, [8])]
    assert _fingerprint(loop, "s") == before


def test_a_fingerprint_sees_data_and_rules_but_not_who_is_told(loop: Loop) -> None:
    config = loop.config
    same = config.model_copy(update={"notify": config.notify.model_copy(update={"webhook_env": "HOOK"})})
    other = config.model_copy(update={"train": config.train.model_copy(update={"seed": 5})})
    before = _fingerprint(loop, "s")
    assert before == _fingerprint(replace(loop, config=same), "s")
    assert before != _fingerprint(replace(loop, config=other), "s")
    assert before != _fingerprint(loop, "t")


def test_fingerprint_and_gate_see_the_overrides_that_last(loop: Loop) -> None:
    before = _fingerprint(loop, "s")
    row = {"rule": "accuracy >= 0.8", "until": time.time() + 60}
    loop.state.ledger.note("x", action="override", actor="ann", reason="why", details=row)
    assert _fingerprint(loop, "s") != before
    arguments = pipeline_arguments("training", loop.config, loop.workspace)
    assert json.loads(arguments["gate_config"])["overrides"] == [{"rule": "accuracy >= 0.8", "row": 1}]
    loop.state.ledger.note("x", action="end_override", actor="ann", reason="done", details={"rule": "accuracy >= 0.8"})
    assert _fingerprint(loop, "s") == before
    loop.state.ledger.note("x", action="override", actor="ann", reason="why", details=row | {"until": time.time() - 1})
    assert _fingerprint(loop, "s") == before


def test_an_approval_takes_the_sections_that_it_needs(loop: Loop) -> None:
    found = pipeline_arguments("approval", loop.config, loop.workspace)
    assert set(found) == {"workspace", "deploy_config", "gate_config", "notify_config"}
    assert json.loads(found["gate_config"])["approval_days"] == 14.0


def test_a_fingerprint_sees_the_users_own_module(loop: Loop) -> None:
    train = loop.config.train.model_copy(update={"model": "mine_xyz:Net"})
    own = replace(loop, config=loop.config.model_copy(update={"train": train}))
    missing = _fingerprint(own, "s")
    source = loop.workspace.root / "mine_xyz.py"
    source.write_text("a = 1")
    first = _fingerprint(own, "s")
    assert first != missing
    source.write_text("a = 2")
    assert _fingerprint(own, "s") not in {first, missing}
    source.write_text("a = 1")
    assert _fingerprint(own, "s") == first


def test_an_interrupted_round_tells_the_steps_that_it_finished(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("name: d\ndata: {source: digits, limit: 600}\n")

    def interrupt(steps: list[StepRecord]) -> None:
        if steps[0].status == "succeeded":
            raise KeyboardInterrupt

    record = training_round(tmp_path / "loop.yaml", until="check_labels", progress=interrupt)

    assert record.status == "cancelled"
    assert (record.steps[0].name, record.steps[0].status) == ("ingest", "succeeded")
    assert {step.status for step in record.steps} <= {"succeeded", "not_run"}
    assert "1 succeeded" in render_summary(record.as_dict())
    kept = open_loop(tmp_path / "loop.yaml").state.runs.get(record.run_id)
    assert kept is not None
    assert kept["steps"][0]["status"] == "succeeded"
