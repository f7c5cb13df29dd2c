"""When a round is the same as one before, and what then stands."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kfloop.pipelines.rounds import Loop, _fingerprint, _same_round, open_loop


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
    repeated = _same_round(loop, "f")
    assert repeated is not None
    assert repeated.exit_code == 0
    assert _same_round(loop, "other") is None


def test_a_rejection_is_repeated_with_its_exit_status(loop: Loop) -> None:
    change(loop, 1, "old", None)
    decided(loop, "rejected", 3, {"version": 1, "digest": "old"})
    repeated = _same_round(loop, "f")
    assert repeated is not None
    assert repeated.exit_code == 3


@pytest.mark.parametrize("status", ["failed", "killed", "cancelled"])
def test_a_round_that_was_not_decided_is_run_again(loop: Loop, status: str) -> None:
    decided(loop, status, 1, None)
    assert _same_round(loop, "f") is None


def test_another_champion_means_another_decision(loop: Loop) -> None:
    change(loop, 1, "old", None)
    decided(loop, "rejected", 3, {"version": 1, "digest": "old"})
    change(loop, 2, "third", "old")
    assert _same_round(loop, "f") is None


def test_an_approved_challenger_is_not_judged_against_itself(loop: Loop) -> None:
    decided(loop, "held", 4, None)
    change(loop, 1, "new", None)
    repeated = _same_round(loop, "f")
    assert repeated is not None
    assert repeated.exit_code == 0
    assert "champion by now" in repeated.message


def test_what_a_person_rolled_back_does_not_come_back_by_itself(loop: Loop) -> None:
    change(loop, 1, "old", None)
    change(loop, 2, "new", "old")
    decided(loop, "succeeded", 0, {"version": 2, "digest": "new"})
    change(loop, 1, "old", "new", action="rollback")
    repeated = _same_round(loop, "f")
    assert repeated is not None
    assert repeated.exit_code == 3
    assert "ann rolled its challenger back (why)" in repeated.message


def test_a_fingerprint_sees_data_and_rules_but_not_who_is_told(loop: Loop) -> None:
    config = loop.config
    same = config.model_copy(update={"notify": config.notify.model_copy(update={"webhook_env": "HOOK"})})
    other = config.model_copy(update={"train": config.train.model_copy(update={"seed": 5})})
    before = _fingerprint(loop, "s")
    assert before == _fingerprint(replace(loop, config=same), "s")
    assert before != _fingerprint(replace(loop, config=other), "s")
    assert before != _fingerprint(loop, "t")


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
