"""The state machine of a roll-out on a real ledger, registry, store and evidence; ``test_rollout_serving`` has the real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import packages
from kfloop.components.deploy import changing, deployment, keeping, rolling
from kfloop.components.deploy.advancing import ADVANCE_STAGES, advance, look, withdraw_by_hand
from kfloop.components.deploy.approval import approve, reject
from kfloop.components.deploy.recovery import recover
from kfloop.components.deploy.rollback import rollback
from kfloop.components.deploy.rolling import ROLLOUT_STAGES
from kfloop.components.deploy.truth import read_truth
from kfloop.components.deploy.verifying import Verification
from kfloop.core.registry import Registry
from kfloop.core.sections import DeployConfig, RolloutConfig
from kfloop.core.signature import Port, Signature
from kfloop.core.state import open_state
from kfloop.core.state.leases import began
from kfloop.core.state.standing import active_rollout, turned_down
from kfloop.core.workspace import Workspace
from kfloop.errors import InputError, LeaseHeldError, ServerUnavailable, ServingError, StateError
from kfloop.serving.evidence import write_evidence
from kfloop.serving.repository import policy_path, read_policy

HERE = Path(__file__).parent


CANARY = RolloutConfig(strategy="canary", share=0.2, min_requests=50, max_requests=5000)


@pytest.fixture
def workspace(tmp_path: Path, mlflow_db: str, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A loop whose version 1 ("old") is champion; packages "new" and "next" wait in the store."""
    seen = Verification(version=1, where="stub", n=1, max_abs_diff=0.0, tolerance=1.0)
    for module in (changing, rolling):
        monkeypatch.setattr(module, "verify_version", lambda *_: seen)
    name = f"loop-{abs(hash(str(tmp_path))) % 10**9}"
    state = f"sqlite:///{tmp_path / 'state.db'}"
    made = Workspace(loop=name, root=tmp_path, state=state, store=str(tmp_path / "store"), mlflow=mlflow_db)
    for number, digest in enumerate(("old", "new", "next")):
        packages.make_package(Path(made.store), digest, 1.0 + number)
    assert deploy(made, "old", None).outcome == "promoted"  # the first one, whatever the strategy
    return made


def deploy(
    workspace: Workspace, digest: str, champion: str | None, rollout: RolloutConfig = CANARY, **more: Any
) -> deployment.DeploymentReport:
    done: deployment.DeploymentReport = packages.deploy(
        workspace, DeployConfig(rollout=rollout, **more), digest, champion
    )
    return done


def hold(workspace: Workspace, digest: str, champion: str) -> str:
    decision = packages.make_decision(Path(workspace.store), digest, champion, "hold")
    model = Path(workspace.store) / "models" / digest
    (workspace.root / "out").mkdir(exist_ok=True)
    done = keeping.run(DeployConfig(), model=model, decision=decision, out=workspace.root / "out", workspace=workspace)
    return done.evidence_digest


def history(workspace: Workspace) -> list[Any]:
    return open_state(workspace.state).ledger.history(workspace.loop)


def traffic(workspace: Workspace, n: int, **fields: Any) -> None:
    """Evidence of ``n`` requests that both answered alike, but for ``fields`` (values, or functions of the number)."""
    entry = active_rollout(history(workspace))
    assert entry is not None
    start = time.time_ns()
    heads = []
    for number in range(n):
        record = {
            "request_id": f"r{start}-{number}",
            "ts_ns": start + number,
            "champion_version": entry.previous_version,
            "challenger_version": entry.version,
            "champion_error": False,
            "challenger_error": False,
            "champion_us": 100,
            "challenger_us": 100,
            "rows": 1,
            "difference": [0.0],
            "champion_answer": ["dark"],
            "challenger_answer": ["dark"],
        }
        record |= {name: value(number) if callable(value) else value for name, value in fields.items()}
        heads.append({"model": workspace.loop, "rollout": entry.details["salt"], "dropped": 0, "record": record})
    write_evidence(workspace.request_log, heads)


def consistent(workspace: Workspace, champion: int, challenger: int | None = None) -> None:
    """Ledger, aliases and policy tell the same."""
    told = read_policy(workspace.repository, workspace.loop)
    assert told is not None
    assert told["default"] == champion
    assert (told["rollout"] or {}).get("challenger") == challenger
    assert "beside" not in told
    ledger = open_state(workspace.state).ledger
    assert ledger.open_intent(workspace.loop) is None
    ledger.verify(workspace.loop)
    entry = ledger.champion(workspace.loop)
    assert entry is not None
    assert entry.version == champion
    aliases = Registry(workspace.mlflow, workspace.loop).aliases()
    assert (aliases.get("champion"), aliases.get("challenger")) == (champion, challenger)
    folders = {int(p.name) for p in (workspace.repository / workspace.loop).iterdir() if p.name.isdigit()}
    assert {champion, *([challenger] if challenger else [])} <= folders


def test_a_canary_begins_and_the_champion_stays(workspace: Workspace) -> None:
    report = deploy(workspace, "new", "old")
    assert (report.outcome, report.version, report.model_digest) == ("rolling_out", 1, "old")
    assert report.rollout == {"version": 2, "model_digest": "new", "mode": "canary", "share": 0.2}
    assert "Version 1 stays champion" in report.sentence
    consistent(workspace, 1, 2)
    row = history(workspace)[-1]
    assert (row.action, row.phase, row.version, row.details["mode"]) == ("rollout", "noted", 2, "canary")
    again = deploy(workspace, "new", "old")
    assert (again.outcome, again.ledger_row) == ("rolling_out", row.seq)
    assert len(history(workspace)) == row.seq
    assert recover(workspace).word == "clean"
    assert look(workspace).advice == "continue"


def test_a_restart_of_anything_comes_back_to_the_same_roll_out(workspace: Workspace) -> None:
    deploy(workspace, "new", "old")
    before = read_policy(workspace.repository, workspace.loop)
    policy_path(workspace.repository, workspace.loop).unlink()
    assert recover(workspace).word == "projected"
    assert read_policy(workspace.repository, workspace.loop) == before
    policy_path(workspace.repository, workspace.loop).write_text(
        '{"default": 1, "versions": [1], "rollout": {"challenger": 2}}'
    )
    with pytest.raises(StateError, match="is damaged"):
        read_policy(workspace.repository, workspace.loop)
    assert recover(workspace).word == "projected"
    assert read_policy(workspace.repository, workspace.loop) == before
    consistent(workspace, 1, 2)


def test_good_evidence_promotes_by_the_decision_that_began_it(workspace: Workspace) -> None:
    begun = deploy(workspace, "new", "old")
    traffic(workspace, 40)
    assert advance(workspace).outcome == "rolling_out"  # too few
    traffic(workspace, 900)
    told = advance(workspace, actor="ann")
    assert (told.outcome, told.requests) == ("promoted", 940)
    consistent(workspace, 2)
    row = history(workspace)[-1]
    assert (row.action, row.phase, row.evidence_digest, row.actor) == ("promote", "done", begun.evidence_digest, "ann")
    assert "after 940 requests it is worse in nothing" in row.reason
    assert advance(workspace).outcome == "none"
    assert deploy(workspace, "new", "old").outcome == "unchanged"


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"challenger_error": lambda n: n % 10 == 0}, "fails on"),
        ({"challenger_us": 400}, "1.5 times the champion's time"),
        ({"difference": [1.0]}, "another answer"),
    ],
)
def test_bad_evidence_withdraws_and_says_why(workspace: Workspace, fields: dict[str, Any], word: str) -> None:
    begun = deploy(workspace, "new", "old")
    traffic(workspace, 400, **fields)
    told = advance(workspace)
    assert told.outcome == "withdrawn"
    assert word in told.reason
    consistent(workspace, 1)
    row = history(workspace)[-1]
    assert (row.action, row.evidence_digest) == ("withdraw", begun.evidence_digest)
    assert row.details["figures"]["requests"] == 400
    assert turned_down(history(workspace), "new") is not None
    with pytest.raises(StateError, match="was withdrawn on"):
        deploy(workspace, "new", "old")
    consistent(workspace, 1)


def test_quality_withdraws_where_people_gave_labels(workspace: Workspace) -> None:
    feedback = workspace.root / "feedback.jsonl"
    deploy(workspace, "new", "old", feedback=str(feedback))
    traffic(workspace, 400, challenger_answer=lambda n: ["light" if n % 4 == 0 else "dark"])
    assert advance(workspace).outcome == "rolling_out"  # it may differ, as long as nobody says who is right
    entry = active_rollout(history(workspace))
    assert entry is not None
    from kfloop.serving.evidence import read_evidence

    rows = read_evidence(workspace.request_log, workspace.loop, entry.details["salt"])
    lines = [json.dumps({"request_id": row["request_id"], "label": "dark"}) for row in rows]
    feedback.write_text("\n".join(lines) + '\n{"request_id": "torn')
    told = advance(workspace)
    assert told.outcome == "withdrawn"
    assert "is wrong on +25.00% of the labelled rows more" in told.reason


def test_labels_that_are_none_of_the_models_are_no_evidence(workspace: Workspace) -> None:
    """Both versions are wrong by a misspelt label: hundreds of those used to prove that a challenger that is often wrong is as good as the champion."""
    feedback = workspace.root / "feedback.jsonl"
    deploy(workspace, "new", "old", feedback=str(feedback))
    traffic(workspace, 800, challenger_answer=lambda number: ["light" if number % 4 == 0 else "dark"])
    entry = active_rollout(history(workspace))
    assert entry is not None
    from kfloop.serving.evidence import read_evidence

    names = [row["request_id"] for row in read_evidence(workspace.request_log, workspace.loop, entry.details["salt"])]
    strange = ["Dark", "drak", 0, 3.5, True, ["dark"], {"dark": 1}, ""]
    lines = [{"request_id": name, "label": strange[i % len(strange)]} for i, name in enumerate(names)]
    feedback.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    quality = {finding.question: finding for finding in look(workspace).findings}["quality"]
    assert (quality.n, quality.fine_at) == (0, None)
    lines = [{"request_id": name, "label": " dark "} for name in names]  # spelled as ingest takes it
    feedback.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    quality = {finding.question: finding for finding in look(workspace).findings}["quality"]
    assert (quality.n, quality.mean) == (800, 0.25)
    assert quality.worse_at is not None


@pytest.mark.parametrize(
    ("objective", "classes", "label", "known"),
    [
        ("classification", ("2", "3"), 3.0, "3"),
        ("classification", ("2", "3"), 3, "3"),
        ("classification", ("2", "3"), "3.0", None),
        ("classification", ("True", "False"), True, "True"),
        ("multilabel", ("a", "b"), ["b", "a", "b"], ("a", "b")),
        ("classification", ("3.5", "4"), 3.5, "3.5"),
        ("multilabel", ("a", "b"), "a", ("a",)),
        ("multilabel", ("a", "b"), [], ()),
        ("multilabel", ("a", "b"), ["a", "c"], None),
        ("regression", (), "2.5", "2.5"),
        ("regression", (), 2.5, 2.5),
        ("regression", (), "nan", None),
        ("regression", (), ["2.5"], None),
        ("regression", (), "much", None),
        ("regression", (), None, None),
    ],
)
def test_labels_are_spelled_as_the_model_has_them(
    tmp_path: Path, objective: Any, classes: tuple[str, ...], label: Any, known: Any
) -> None:
    port = Port(name="x", dtype="float32", shape=(1,))
    signature = Signature(
        objective=objective,
        modality="vector",
        family="mlp",
        inputs=(port,),
        outputs=(port,),
        labels=classes,
        max_batch_size=1,
    )
    place = tmp_path / "feedback.jsonl"
    place.write_text(json.dumps({"request_id": "r", "label": label}) + '\nno JSON\n[1]\n{"request_id": "r"}\n')
    assert read_truth(str(place), signature) == ({} if known is None else {"r": known})
    assert read_truth(str(tmp_path / "none"), signature) == {}


def test_a_label_is_one_bet_and_what_both_failed_on_tells_nothing(workspace: Workspace) -> None:
    feedback = workspace.root / "feedback.jsonl"
    feedback.write_text('{"request_id": "same", "label": "dark"}')
    deploy(workspace, "new", "old", feedback=str(feedback))
    traffic(workspace, 40, request_id="same", challenger_answer=["light"])
    told = advance(workspace)
    assert (told.outcome, [f.n for f in told.findings if f.question == "quality"]) == ("rolling_out", [1])
    traffic(workspace, 1500, champion_error=True, challenger_error=True)
    told = advance(workspace)
    assert (told.outcome, told.requests) == ("rolling_out", 40)


def test_a_withdrawal_that_comes_after_a_promotion_says_so(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person asks while the supervisor promotes: the lease is waited for, and by then the version is champion."""
    from contextlib import contextmanager

    from kfloop.components.deploy import advancing

    deploy(workspace, "new", "old")
    traffic(workspace, 940)
    real = advancing.exclusive

    @contextmanager
    def slow(*told: Any) -> Any:
        monkeypatch.setattr(advancing, "exclusive", real)
        assert advance(workspace).outcome == "promoted"
        yield

    monkeypatch.setattr(advancing, "exclusive", slow)
    with pytest.raises(StateError, match="ended meanwhile"):
        withdraw_by_hand(workspace, "complaints")
    consistent(workspace, 2)
    assert turned_down(history(workspace), "new") is None


def test_a_withdrawal_during_the_promotion_is_the_only_one(workspace: Workspace) -> None:
    """A person withdraws while the challenger is verified: their reason stands, once, and nobody is champion by it."""
    deploy(workspace, "new", "old")
    traffic(workspace, 940)

    def complain(stage: str) -> None:
        if stage == "verified":
            assert withdraw_by_hand(workspace, "complaints", actor="ann").outcome == "withdrawn"

    told = advance(workspace, at=complain)
    assert (told.outcome, "complaints" in told.sentence) == ("none", True)
    rows = [(row.actor, row.reason) for row in history(workspace) if row.action == "withdraw"]
    assert rows == [("ann", "complaints")]
    consistent(workspace, 1)


def test_what_became_champion_meanwhile_is_not_withdrawn(workspace: Workspace) -> None:
    """Whoever looked before the promotion and withdraws after it changes neither ledger nor routing."""
    deploy(workspace, "new", "old")
    traffic(workspace, 940)
    seen = active_rollout(history(workspace))
    assert seen is not None
    assert advance(workspace).outcome == "promoted"
    rows = len(history(workspace))
    assert rolling.withdraw(workspace, seen, "ann", "complaints", down=True) is None
    assert len(history(workspace)) == rows
    assert turned_down(history(workspace), "new") is None
    consistent(workspace, 2)


def test_what_fails_after_the_promotion_is_no_withdrawal(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from kfloop.components.deploy import changing
    from kfloop.errors import ServingError

    deploy(workspace, "new", "old")
    traffic(workspace, 940)

    def fails(*_: Any) -> Any:
        raise ServingError("the server is busy")

    monkeypatch.setattr(changing, "follow", fails)
    with pytest.raises(ServingError, match="busy"):
        advance(workspace)
    monkeypatch.undo()
    assert history(workspace)[-1].action == "promote"
    recover(workspace)
    consistent(workspace, 2)


def test_a_kill_between_the_withdrawal_and_the_policy_is_mended_by_the_next_look(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfloop.components.deploy import rolling

    deploy(workspace, "new", "old")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rolling, "stop_routing", killed)
    with pytest.raises(KeyboardInterrupt):
        withdraw_by_hand(workspace, "odd")
    monkeypatch.undo()
    told = read_policy(workspace.repository, workspace.loop)
    assert told is not None
    assert told["rollout"]
    assert advance(workspace).outcome == "none"
    consistent(workspace, 1)


def test_time_that_is_over_withdraws_with_too_few_requests_and_else_waits_for_a_person(workspace: Workspace) -> None:
    hurry = CANARY.model_copy(update={"max_hours": 1e-9})
    deploy(workspace, "new", "old", hurry)
    traffic(workspace, 49)
    told = advance(workspace)
    assert told.outcome == "withdrawn"
    assert "at least 50 are needed" in told.reason
    deploy(workspace, "next", "old", hurry)
    traffic(workspace, 50)
    told = advance(workspace)
    assert (told.outcome, told.advice) == ("rolling_out", "hold")
    assert "not shown to be as good in errors, and its time is over" in told.reason
    assert "kfloop rollout --promote" in told.sentence
    consistent(workspace, 1, 3)
    assert advance(workspace, by_hand="it is fine").outcome == "promoted"
    consistent(workspace, 3)


def test_what_was_promised_at_the_start_holds_until_the_end(workspace: Workspace) -> None:
    deploy(workspace, "new", "old")
    deploy(workspace, "new", "old", CANARY.model_copy(update={"min_requests": 1, "alpha": 0.5}))
    traffic(workspace, 40)
    assert look(workspace).advice == "continue"


def test_evidence_of_another_roll_out_counts_for_nothing(workspace: Workspace) -> None:
    deploy(workspace, "new", "old")
    traffic(workspace, 400, challenger_version=7)
    assert look(workspace).requests == 0


def test_a_newer_challenger_a_hold_a_rejection_and_a_rollback_end_it(workspace: Workspace) -> None:
    deploy(workspace, "new", "old")
    report = deploy(workspace, "next", "old")
    assert report.rollout is not None
    assert report.rollout["version"] == 3
    assert "a newer challenger is rolled out" in next(r for r in history(workspace) if r.action == "withdraw").reason
    consistent(workspace, 1, 3)
    evidence = hold(workspace, "new", "old")
    assert active_rollout(history(workspace)) is None
    assert (read_policy(workspace.repository, workspace.loop) or {})["rollout"] is None
    reject(workspace, evidence, reason="no")

    again = deploy(workspace, "next", "old")  # nobody turned that one down
    assert again.outcome == "rolling_out"
    done = reject(workspace, again.evidence_digest[:12], actor="ann", reason="odd")
    assert "stays champion" in done.sentence
    consistent(workspace, 1)
    assert turned_down(history(workspace), "next") is not None


def test_a_rollback_ends_a_roll_out(workspace: Workspace) -> None:
    deploy(workspace, "new", "old", RolloutConfig())
    deploy(workspace, "next", "new")
    consistent(workspace, 2, 3)
    assert rollback(workspace, reason="complaints").version == 1
    consistent(workspace, 1)
    assert any("rolled back to version 1: complaints" in row.reason for row in history(workspace))
    assert advance(workspace).outcome == "none"


def test_people_withdraw_and_promote_only_what_evidence_allows(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="no roll-out"):
        withdraw_by_hand(workspace, "why")
    with pytest.raises(InputError, match="no roll-out"):
        advance(workspace, by_hand="why")
    deploy(workspace, "new", "old")
    traffic(workspace, 30)
    with pytest.raises(StateError, match="at least 50 are needed"):
        advance(workspace, by_hand="in a hurry")
    consistent(workspace, 1, 2)
    traffic(workspace, 30)
    assert advance(workspace).outcome == "rolling_out"
    assert advance(workspace, actor="ann", by_hand="in a hurry").outcome == "promoted"
    assert history(workspace)[-1].reason.endswith("in a hurry")
    deploy(workspace, "next", "new")
    assert withdraw_by_hand(workspace, "odd", actor="ann").outcome == "withdrawn"
    consistent(workspace, 2)


def test_an_approved_challenger_is_rolled_out_too_and_promoted_by_that_approval(workspace: Workspace) -> None:
    evidence = hold(workspace, "new", "old")
    config = DeployConfig(rollout=CANARY)
    assert approve(workspace, evidence, actor="ann", reason="fine", config=config).outcome == "rolling_out"
    assert approve(workspace, evidence, config=config).outcome == "rolling_out"
    consistent(workspace, 1, 2)
    traffic(workspace, 900)
    assert advance(workspace).outcome == "promoted"
    consistent(workspace, 2)


def test_a_run_at_work_delays_a_promotion_and_not_a_withdrawal(workspace: Workspace) -> None:
    deploy(workspace, "new", "old")
    traffic(workspace, 900)
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    state = open_state(workspace.state)
    try:
        with state.leases.acquire(workspace.loop, "some-run"):
            _hand_over(workspace, sleeper.pid)
            with pytest.raises(LeaseHeldError):
                state.leases.acquire(workspace.loop, "x")
            assert advance(workspace).outcome == "busy"
            consistent(workspace, 1, 2)
            traffic(workspace, 900, challenger_error=True)
            told = advance(workspace)
            assert told.outcome == "withdrawn"
            assert (read_policy(workspace.repository, workspace.loop) or {})["rollout"] is None
    finally:
        sleeper.kill()
        sleeper.wait()


def _hand_over(workspace: Workspace, pid: int) -> None:
    """Let the lease be another live process's."""
    import sqlite3

    with sqlite3.connect(workspace.state.removeprefix("sqlite:///")) as base:
        base.execute("update leases set pid = ?, born = ?", (pid, began(pid)))
    base.close()


def test_a_decision_that_holds_no_more_promotes_nobody(workspace: Workspace) -> None:
    deploy(workspace, "new", "old")
    traffic(workspace, 900)
    blob = history(workspace)[-1].details["decision"]
    path = Path(workspace.store) / "decisions" / blob / "report.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace("a test", "a tale"))
    told = advance(workspace)
    assert told.outcome == "withdrawn"
    assert "cannot be promoted" in told.reason
    consistent(workspace, 1)


def test_a_challenger_that_does_not_verify_gets_no_traffic(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise ServingError("it answers wrongly")

    with monkeypatch.context() as patched:
        patched.setattr(rolling, "verify_version", refuse)
        with pytest.raises(ServingError):
            deploy(workspace, "new", "old")
    assert active_rollout(history(workspace)) is None
    deploy(workspace, "new", "old")
    traffic(workspace, 900)

    def away(*_: Any) -> None:
        raise ServerUnavailable("it is away")

    with monkeypatch.context() as patched:
        patched.setattr(changing, "verify_version", away)
        with pytest.raises(ServerUnavailable):
            advance(workspace)
    assert history(workspace)[-1].phase == "intent"  # the next look goes on with it
    with monkeypatch.context() as patched:
        patched.setattr(changing, "verify_version", away)
        with pytest.raises(ServerUnavailable):
            advance(workspace)
    assert sum(row.phase == "intent" for row in history(workspace)) == 2  # that of the first champion, and this one
    monkeypatch.setattr(changing, "verify_version", refuse)
    assert advance(workspace).outcome == "withdrawn"
    consistent(workspace, 1)


CHILD = """
import os, signal, sys
from pathlib import Path
from kfloop.components.deploy import changing, rolling
from kfloop.components.deploy.advancing import advance
from kfloop.components.deploy.deployment import run
from kfloop.components.deploy.truth import read_truth
from kfloop.components.deploy.verifying import Verification
from kfloop.core.sections import DeployConfig, RolloutConfig
from kfloop.core.signature import Port, Signature
from kfloop.core.workspace import Workspace
_, text, action, what, wanted = sys.argv
for module in (changing, rolling):
    module.verify_version = lambda *_: Verification(version=1, where="stub", n=1, max_abs_diff=0.0, tolerance=1.0)
def at(stage):
    if stage == wanted:
        os.kill(os.getpid(), signal.SIGKILL)
workspace = Workspace.from_json(text)
if action == "deploy":
    config = DeployConfig(rollout=RolloutConfig(strategy="canary", share=0.2, min_requests=50, max_requests=5000))
    model = Path(workspace.store) / "models" / "new"
    run(config, model=model, decision=Path(what), out=workspace.root / "out", workspace=workspace, at=at)
else:
    advance(workspace, at=at)
"""


def _killed(workspace: Workspace, action: str, what: str, stage: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", CHILD, workspace.to_json(), action, what, stage]
    done = subprocess.run(command, env=environment, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("stage", ROLLOUT_STAGES)
def test_killed_while_it_begins_the_rerun_begins_it_once(workspace: Workspace, stage: str) -> None:
    decision = packages.make_decision(Path(workspace.store), "new", "old")
    _killed(workspace, "deploy", str(decision), stage)
    recover(workspace)
    consistent(workspace, 1, 2 if stage in {"begun", "projected"} else None)
    assert deploy(workspace, "new", "old").outcome == "rolling_out"
    consistent(workspace, 1, 2)
    assert sum(row.action == "rollout" for row in history(workspace)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("end", ["promoted", "withdrawn"])
@pytest.mark.parametrize("stage", ADVANCE_STAGES)
def test_killed_while_it_advances_the_next_look_comes_to_the_same_end(
    workspace: Workspace, stage: str, end: str
) -> None:
    if (stage == "withdrawn") != (end == "withdrawn") and stage not in {"looked", "projected"}:
        pytest.skip("this end has no such stage")
    deploy(workspace, "new", "old")
    traffic(workspace, 900, challenger_error=end == "withdrawn")
    _killed(workspace, "advance", "", stage)
    recover(workspace)
    advance(workspace)
    consistent(workspace, 2 if end == "promoted" else 1)
    assert look(workspace).outcome == "none"
    assert sum(row.action == "withdraw" for row in history(workspace)) == (end == "withdrawn")
