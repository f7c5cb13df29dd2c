"""People decide: approve and reject exactly what was held, whatever happens meanwhile and wherever the process dies."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import packages
from kfloop.components.deploy import deployment, keeping
from kfloop.components.deploy.approval import approve, reject
from kfloop.components.deploy.changing import STAGES
from kfloop.components.deploy.recovery import recover
from kfloop.core.cards import find_card
from kfloop.core.config import LoopConfig
from kfloop.core.registry import Registry
from kfloop.core.sections import DeployConfig, GateConfig
from kfloop.core.state import open_state
from kfloop.core.state.standing import pending_hold
from kfloop.core.workspace import RUN_ID_VARIABLE, Workspace
from kfloop.errors import InputError, StateError
from kfloop.pipelines.arguments import pipeline_arguments
from kfloop.pipelines.local import run_pipeline
from kfloop.serving.repository import served

HERE = Path(__file__).parent


@pytest.fixture
def workspace(tmp_path: Path, mlflow_db: str) -> Workspace:
    return Workspace(
        loop=f"loop-{abs(hash(str(tmp_path))) % 10**9}",
        root=tmp_path,
        state=f"sqlite:///{tmp_path / 'state.db'}",
        store=str(tmp_path / "store"),
        mlflow=mlflow_db,
    )


def _hold(workspace: Workspace, digest: str, champion: str | None = None, scale: float = 1.0, **more: Any) -> str:
    """A challenger on hold; its evidence digest."""
    store = Path(workspace.store)
    package = store / "models" / digest
    if not package.is_dir():
        packages.make_package(store, digest, scale)
    decision = packages.make_decision(store, digest, champion, "hold", **more)
    out = workspace.root / "out"
    out.mkdir(exist_ok=True)
    report = keeping.run(DeployConfig(), model=package, decision=decision, out=out, workspace=workspace)
    assert report.outcome == "held"
    return report.evidence_digest


def _promoted(workspace: Workspace, version: int, digest: str, expected: str | None, action: str = "promote") -> None:
    """A change of champion in the ledger alone."""
    ledger = open_state(workspace.state).ledger
    intent = ledger.intend(
        workspace.loop,
        action=action,
        version=version,
        model_digest=digest,
        expected_champion=expected,
        actor="bob",
        reason="r",
    )
    ledger.close(intent, done=True)


def _aliases(workspace: Workspace) -> dict[str, int]:
    return Registry(workspace.mlflow, workspace.loop).aliases()


def _aged(workspace: Workspace, days: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``days`` pass, for the clock that approvals look at."""
    later = time.time() + days * 86400
    monkeypatch.setattr("kfloop.components.deploy.approval.time.time", lambda: later)


def test_a_hold_stands_in_the_ledger_once_for_each_run(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_ID_VARIABLE, "20260101-000000-aaaaaa")
    evidence = _hold(workspace, "aaa")
    _hold(workspace, "aaa")
    ledger = open_state(workspace.state).ledger
    (row,) = ledger.history(workspace.loop)
    assert (row.action, row.phase, row.version, row.evidence_digest) == ("hold", "noted", 1, evidence)
    assert ledger.champion(workspace.loop) is None
    assert _aliases(workspace) == {"challenger": 1}
    monkeypatch.setenv(RUN_ID_VARIABLE, "20260102-000000-bbbbbb")
    _hold(workspace, "aaa")
    assert ledger.verify(workspace.loop) == 2


def test_a_rejected_hold_is_closed_and_says_who_and_why(workspace: Workspace) -> None:
    evidence = _hold(workspace, "aaa")
    done = reject(workspace, evidence[:8], actor="ann", reason="weak on sevens")
    assert (done.version, done.ledger_row) == (1, 2)
    assert "rejected by ann: weak on sevens" in done.sentence
    assert "There is still no champion" in done.sentence
    ledger = open_state(workspace.state).ledger
    assert (ledger.verify(workspace.loop), ledger.champion(workspace.loop)) == (2, None)
    assert _aliases(workspace) == {}
    for again in (approve, reject):
        with pytest.raises(StateError, match=r"was rejected by ann on .*: weak on sevens"):
            again(workspace, evidence)
    card = find_card(workspace, 1)
    assert card is not None
    assert json.loads((card / "card.json").read_text())["status"] == "rejected"


def test_what_is_not_on_hold_cannot_be_approved(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="no decision on hold is called 'nonsense'"):
        approve(workspace, "nonsense")
    with pytest.raises(InputError, match="called ''"):
        approve(workspace, "")
    runs = open_state(workspace.state).runs
    runs.start("run-1", workspace.loop, "training", "f", {"status": "rejected", "decision": {"outcome": "reject"}})
    with pytest.raises(InputError, match="run 'run-1' holds nothing: it ended with 'reject'") as caught:
        approve(workspace, "run-1")
    assert "kfloop override RULE" in caught.value.hint


def test_a_run_is_named_by_its_beginning_and_a_repeated_run_means_the_first(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_ID_VARIABLE, "20260101-000000-aaaaaa")
    _hold(workspace, "aaa")
    monkeypatch.setenv(RUN_ID_VARIABLE, "20260102-000000-bbbbbb")
    _hold(workspace, "bbb", scale=2.0)
    monkeypatch.delenv(RUN_ID_VARIABLE)
    with pytest.raises(InputError, match="2 decisions on hold are called '2026'"):
        reject(workspace, "2026")
    runs = open_state(workspace.state).runs
    runs.start("20260103-x", workspace.loop, "training", "", {"repeated_of": "20260102-000000-bbbbbb"})
    assert reject(workspace, "20260103").model_digest == "bbb"


def test_a_newer_challenger_supersedes_an_older_one(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_ID_VARIABLE, "run-old")
    old = _hold(workspace, "aaa")
    monkeypatch.setenv(RUN_ID_VARIABLE, "run-new")
    new = _hold(workspace, "bbb", scale=2.0)
    monkeypatch.delenv(RUN_ID_VARIABLE)
    assert _aliases(workspace) == {"challenger": 2}
    for refused in (approve, reject):
        with pytest.raises(StateError, match="run run-old is superseded by run run-new") as caught:
            refused(workspace, old)
        assert new[:12] in caught.value.hint
    # Rejecting the newer one does not bring the older one back: it was judged before.
    reject(workspace, new, reason="no")
    with pytest.raises(StateError, match="superseded by run run-new"):
        approve(workspace, old)


def test_a_changed_champion_supersedes_what_was_judged_against_another(workspace: Workspace) -> None:
    evidence = _hold(workspace, "aaa")
    packages.make_package(Path(workspace.store), "bbb", 2.0)
    _promoted(workspace, 2, "bbb", None)
    assert pending_hold(open_state(workspace.state).ledger.history(workspace.loop)) is None
    with pytest.raises(StateError, match="superseded by the promote of version 2 by bob"):
        approve(workspace, evidence)


def test_an_approval_expires(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = _hold(workspace, "aaa")
    _aged(workspace, 3.5, monkeypatch)
    with pytest.raises(StateError, match=r"3\.5 days: an approval expires after 3") as caught:
        approve(workspace, evidence, gate=GateConfig(approval_days=3))
    assert "kfloop run --force" in caught.value.hint
    assert open_state(workspace.state).ledger.champion(workspace.loop) is None


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [("report.json", '"a test"', '"a fine model"'), ("report.json", '"aaa"', '"bbb"'), ("evidence.json", "10", "99")],
)
def test_an_edited_decision_is_not_approved(workspace: Workspace, file: str, old: str, new: str) -> None:
    evidence = _hold(workspace, "aaa")
    (row,) = open_state(workspace.state).ledger.history(workspace.loop)
    place = Path(workspace.store) / "decisions" / row.details["decision"] / file
    place.write_text(place.read_text().replace(old, new))
    with pytest.raises(StateError, match="was changed after"):
        approve(workspace, evidence)
    assert open_state(workspace.state).ledger.champion(workspace.loop) is None


def test_the_report_of_another_run_in_its_place_is_not_approved(workspace: Workspace) -> None:
    packages.make_package(Path(workspace.store), "bbb", 2.0)
    stale = packages.make_decision(Path(workspace.store), "bbb", None, "hold")
    evidence = _hold(workspace, "aaa")
    (row,) = open_state(workspace.state).ledger.history(workspace.loop)
    place = Path(workspace.store) / "decisions" / row.details["decision"]
    shutil.rmtree(place)
    with pytest.raises(StateError, match="not in the store"):
        approve(workspace, evidence)
    shutil.copytree(stale, place)
    with pytest.raises(StateError, match=f"expected evidence '{evidence}'"):
        approve(workspace, evidence)


def test_a_forged_decision_without_a_hold_is_not_approved(workspace: Workspace) -> None:
    packages.make_package(Path(workspace.store), "aaa")
    forged = packages.make_decision(Path(workspace.store), "aaa", None, "hold")
    evidence = json.loads((forged / "report.json").read_text())["evidence_digest"]
    with pytest.raises(InputError, match="no decision on hold"):
        approve(workspace, evidence)


@pytest.mark.slow
def test_a_hold_is_found_again_after_the_registry_was_lost(workspace: Workspace) -> None:
    _hold(workspace, "aaa")
    other = dataclasses.replace(workspace, mlflow=f"sqlite:///{workspace.root / 'other.db'}")
    recover(other, full=True)
    assert _aliases(other) == {"challenger": 1}
    assert Registry(other.mlflow, other.loop).versions() == {1: "aaa"}


def _child(workspace: Workspace, action: str, what: str, stage: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, str(HERE / "deploy_child.py"), workspace.to_json(), action, what, stage]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _killed(workspace: Workspace, action: str, what: str, stage: str) -> None:
    child = _child(workspace, action, what, stage)
    child.communicate(timeout=180)
    assert child.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["held", "noted", "projected"])
def test_a_reject_killed_anywhere_is_completed_or_repeated(workspace: Workspace, stage: str) -> None:
    evidence = _hold(workspace, "aaa")
    _killed(workspace, "reject", evidence, stage)
    recover(workspace)
    ledger = open_state(workspace.state).ledger
    assert ledger.champion(workspace.loop) is None
    if stage == "held":
        assert _aliases(workspace) == {"challenger": 1}
        reject(workspace, evidence, actor="ann", reason="why")
    with pytest.raises(StateError, match="rejected by ann"):
        approve(workspace, evidence)
    assert (_aliases(workspace), ledger.verify(workspace.loop)) == ({}, 2)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["registered", "noted", "projected"])
def test_a_hold_killed_anywhere_waits_after_the_next_command(workspace: Workspace, stage: str) -> None:
    packages.make_package(Path(workspace.store), "aaa")
    decision = packages.make_decision(Path(workspace.store), "aaa", None, "hold")
    _killed(workspace, "keep", str(decision), stage)
    recover(workspace)
    evidence = _hold(workspace, "aaa")
    assert _aliases(workspace) == {"challenger": 1}
    assert open_state(workspace.state).ledger.verify(workspace.loop) == 1
    assert reject(workspace, evidence).ledger_row == 2


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.parametrize("stage", ["held", *STAGES])
def test_an_approval_killed_anywhere_leaves_one_champion(workspace: Workspace, stage: str) -> None:
    evidence = _hold(workspace, "aaa")
    _killed(workspace, "approve", evidence, stage)
    recover(workspace)
    done = approve(workspace, evidence, actor="ann", reason="why")
    assert done.outcome == ("promoted" if stage in {"held", "registered"} else "unchanged")
    _one_champion(workspace, 1, "aaa", None)
    entry = open_state(workspace.state).ledger.champion(workspace.loop)
    assert entry is not None
    assert (entry.actor, entry.evidence_digest) == ("ann", evidence)
    assert json.loads((_card(workspace, 1) / "card.json").read_text())["status"] == "champion"


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_rollback_killed_anywhere_leaves_one_champion(workspace: Workspace, stage: str) -> None:
    for digest, champion, scale in (("aaa", None, 1.0), ("bbb", "aaa", 2.0)):
        package = packages.make_package(Path(workspace.store), digest, scale)
        decision = packages.make_decision(Path(workspace.store), digest, champion)
        out = workspace.root / digest
        out.mkdir()
        deployment.run(DeployConfig(), model=package, decision=decision, out=out, workspace=workspace)
    _killed(workspace, "rollback", "-", stage)
    recover(workspace)
    if stage == "registered":  # nothing was announced yet, so nothing is finished: the same command again
        _one_champion(workspace, 2, "bbb", 1)
        child = _child(workspace, "rollback", "-", "never")
        child.communicate(timeout=180)
    _one_champion(workspace, 1, "aaa", 2)


def _one_champion(workspace: Workspace, version: int, digest: str, previous: int | None) -> None:
    ledger = open_state(workspace.state).ledger
    ledger.verify(workspace.loop)
    assert ledger.open_intent(workspace.loop) is None
    champion = ledger.champion(workspace.loop)
    assert champion is not None
    assert (champion.version, champion.model_digest) == (version, digest)
    aliases = _aliases(workspace)
    assert (aliases["champion"], aliases.get("previous"), aliases.get("challenger")) == (version, previous, None)
    assert served(workspace.repository, workspace.loop)[0] == version


def _card(workspace: Workspace, version: int) -> Path:
    folder = find_card(workspace, version)
    assert folder is not None
    return folder


@pytest.mark.triton
@pytest.mark.slow
def test_two_people_approve_at_once_and_one_is_told(workspace: Workspace) -> None:
    evidence = _hold(workspace, "aaa")
    start = f"start:{time.time() + 6}"  # both have imported everything by then
    children = [_child(workspace, "approve", evidence, start) for _ in range(2)]
    told = [child.communicate(timeout=180)[0] for child in children]
    codes = sorted(child.returncode for child in children)
    ledger = open_state(workspace.state).ledger
    assert [entry.phase for entry in ledger.history(workspace.loop)] == ["noted", "intent", "done"]
    _one_champion(workspace, 1, "aaa", None)
    assert "Version 1 is champion" in "".join(told)
    # The second either found the first at work, or came when all was done and changed nothing.
    assert codes == [0, 1], told
    assert any("lease_held: run 'approve-" in line for line in told), told


@pytest.mark.triton
@pytest.mark.slow
def test_two_challengers_promoted_at_once_give_one_champion(workspace: Workspace) -> None:
    """As two steps on two machines: the second finds the loop's lease held, or, where it comes between, the ledger's compare-and-set refuses it."""
    for digest, scale in (("aaa", 1.0), ("bbb", 2.0)):
        packages.make_package(Path(workspace.store), digest, scale)
    decisions = [packages.make_decision(Path(workspace.store), digest, None) for digest in ("aaa", "bbb")]
    start = f"start:{time.time() + 6}"
    children = [_child(workspace, "deploy", str(decision), start) for decision in decisions]
    told = [child.communicate(timeout=240)[0] for child in children]
    # The second is refused; or it took the first for crashed, finished its promotion, and the first is told that somebody did.
    assert 1 in [child.returncode for child in children], told
    ledger = open_state(workspace.state).ledger
    done = [entry for entry in ledger.history(workspace.loop) if entry.phase == "done"]
    assert len(done) == 1
    recover(workspace, full=True)
    _one_champion(workspace, done[0].version, done[0].model_digest, None)
    assert any(
        "lease_held: run 'deploy-" in line
        or ("state: " in line and ("under way" in line or "made against" in line or "not open" in line))
        for line in told
    ), told


@pytest.mark.triton
@pytest.mark.slow
def test_a_person_approves_what_was_held(workspace: Workspace) -> None:
    evidence = _hold(workspace, "aaa")
    assert approve(workspace, evidence[:10], actor="ann", reason="looked at it").outcome == "promoted"
    entry = open_state(workspace.state).ledger.champion(workspace.loop)
    assert entry is not None
    assert (entry.actor, entry.reason, entry.evidence_digest) == ("ann", "looked at it", evidence)
    assert entry.details["decision"]
    _one_champion(workspace, 1, "aaa", None)
    assert approve(workspace, evidence).outcome == "unchanged"
    with pytest.raises(StateError, match="was approved by ann and is champion"):
        reject(workspace, evidence)
    shutil.rmtree(workspace.repository)
    assert recover(workspace, full=True).word == "projected"
    _one_champion(workspace, 1, "aaa", None)


@pytest.mark.triton
@pytest.mark.slow
def test_the_pipeline_approves_on_the_local_engine_and_tells_its_end(workspace: Workspace) -> None:
    evidence = _hold(workspace, "aaa")
    state = open_state(workspace.state)
    sections = pipeline_arguments("approval", LoopConfig(name=workspace.loop), workspace)
    told = {}
    for run, named in (("r1", "nonsense"), ("r2", evidence)):
        state.runs.start(run, workspace.loop, "approval", "", {})
        arguments = sections | {"evidence": named, "actor": "ann", "reason": "looked at it"}
        done = run_pipeline("approval", arguments, workspace, state, run)
        told[run] = json.loads((workspace.kfloop_dir / "runs" / run / "notification.json").read_text())["text"]
        wanted = "failed" if run == "r1" else "succeeded"
        assert {step.name: step.status for step in done.steps} == {"approve": wanted, "notify": "succeeded"}
    assert "no decision on hold is called 'nonsense'" in told["r1"]
    assert "approve says promoted: Version 1 is champion" in told["r2"]
    entry = state.ledger.champion(workspace.loop)
    assert entry is not None
    assert (entry.actor, entry.reason, entry.run_id) == ("ann", "looked at it", "r2")
    _one_champion(workspace, 1, "aaa", None)


def test_a_broken_chain_stops_every_decision(workspace: Workspace) -> None:
    evidence = _hold(workspace, "aaa")
    with sqlite3.connect(workspace.root / "state.db") as connection:
        connection.execute("update ledger set body = replace(body, '\"aaa\"', '\"abc\"')")
    with pytest.raises(StateError, match="broken at row 1"):
        approve(workspace, evidence)
