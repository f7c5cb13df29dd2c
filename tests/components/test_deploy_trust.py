"""What a decision must be to make a champion. Only the look at a server is left out here; ``test_deploy`` has that."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import packages
from kfloop.components.deploy import changing, deployment, keeping
from kfloop.components.deploy.approval import approve, reject
from kfloop.components.deploy.rollback import rollback
from kfloop.components.deploy.verifying import Verification
from kfloop.components.gate import deciding
from kfloop.components.gate.evidence import KINDS
from kfloop.core.decisions import evidence_digest
from kfloop.core.execution import StepResult, perform
from kfloop.core.sections import DeployConfig, GateConfig, Rule
from kfloop.core.state import open_state
from kfloop.core.store import Store
from kfloop.core.workspace import Workspace
from kfloop.errors import StateError
from loading import load

reports = load(Path(__file__).parent / "test_gate.py").reports
PASS = {"rule": "accuracy >= 0.8", "verdict": "pass", "mode": "enforce", "overridden_by": None}
FAIL = PASS | {"rule": "ece <= 0.1", "verdict": "fail"}


@pytest.fixture
def workspace(tmp_path: Path, mlflow_db: str, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    seen = Verification(version=1, where="stub", n=1, max_abs_diff=0.0, tolerance=1.0)
    monkeypatch.setattr(changing, "verify_version", lambda *_: seen)
    state = f"sqlite:///{tmp_path / 'state.db'}"
    name = f"loop-{abs(hash(str(tmp_path))) % 10**9}"
    made = Workspace(loop=name, root=tmp_path, state=state, store=str(tmp_path / "store"), mlflow=mlflow_db)
    packages.make_package(Path(made.store), "old", 2.0)
    packages.make_package(Path(made.store), "new")
    return made


def decision(
    workspace: Workspace, champion: str | None, outcome: str = "promote", name: str = "new", **more: Any
) -> Path:
    made: Path = packages.make_decision(Path(workspace.store), name, champion, outcome, **more)
    return made


def deploy(workspace: Workspace, folder: Path, name: str = "new") -> deployment.DeploymentReport:
    out = workspace.root / "out"
    out.mkdir(exist_ok=True)
    model = Path(workspace.store) / "models" / name
    return deployment.run(DeployConfig(), model=model, decision=folder, out=out, workspace=workspace)


def hold(workspace: Workspace, folder: Path, name: str = "new") -> str:
    out = workspace.root / "out"
    out.mkdir(exist_ok=True)
    model = Path(workspace.store) / "models" / name
    return keeping.run(DeployConfig(), model=model, decision=folder, out=out, workspace=workspace).evidence_digest


def edited(folder: Path, place: Path, **changes: Any) -> Path:
    """A copy of a decision with some fields replaced and its evidence digest recomputed."""
    if folder != place:
        shutil.copytree(folder, place)
    report = json.loads((place / "report.json").read_text()) | changes
    report["evidence_digest"] = evidence_digest(report)
    (place / "report.json").write_text(json.dumps(report))
    return place


def champion(workspace: Workspace) -> str | None:
    entry = open_state(workspace.state).ledger.champion(workspace.loop)
    return entry.model_digest if entry else None


def test_a_decision_is_for_one_promotion(workspace: Workspace) -> None:
    deploy(workspace, decision(workspace, None, name="old"), "old")
    first = decision(workspace, "old")
    assert deploy(workspace, first).outcome == "promoted"
    assert deploy(workspace, first).outcome == "unchanged"  # the same step again
    rollback(workspace, actor="ann", reason="complaints")
    with pytest.raises(StateError, match=r"made version 2 champion before .* a decision is for one promotion"):
        deploy(workspace, first)
    assert champion(workspace) == "old"
    # Decided again it is another decision, but a person has turned this challenger down.
    with pytest.raises(StateError, match=r"ann rolled back from this very model .*: complaints: only a person"):
        deploy(workspace, decision(workspace, "old", champion_row=6))
    assert champion(workspace) == "old"


def test_what_another_challenger_replaced_may_come_back_by_a_new_decision(workspace: Workspace) -> None:
    first = decision(workspace, None, name="old")
    deploy(workspace, first, "old")
    deploy(workspace, decision(workspace, "old"))
    with pytest.raises(StateError, match=r"made against none|for one promotion"):
        deploy(workspace, first, "old")
    assert deploy(workspace, decision(workspace, "new", name="old", champion_row=4), "old").outcome == "promoted"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_decision_that_no_step_made_deploys_nothing(workspace: Workspace, *, elsewhere: bool) -> None:
    made = decision(workspace, None, "reject", verdicts=[PASS, FAIL])
    forged = edited(made, workspace.root / "mine" if elsewhere else made, outcome="promote", verdicts=[PASS])
    with pytest.raises(StateError, match="was not made by the gate of this loop"):
        deploy(workspace, forged)
    assert champion(workspace) is None


def test_a_true_decision_is_taken_from_a_copy_of_its_folder(workspace: Workspace) -> None:
    copied = workspace.root / "artifacts" / "decision"
    shutil.copytree(decision(workspace, None), copied)
    assert deploy(workspace, copied).outcome == "promoted"


@pytest.mark.parametrize(
    ("verdicts", "told"),
    [
        ([], "has no verdicts"),
        ([PASS, FAIL], "ece <= 0.1 is 'fail'"),
        ([PASS, FAIL | {"verdict": "not_evaluated"}], "ece <= 0.1 is 'not_evaluated'"),
    ],
)
def test_a_decision_against_its_own_verdicts_deploys_nothing(
    workspace: Workspace, verdicts: list[dict[str, Any]], told: str
) -> None:
    with pytest.raises(StateError, match=told):
        deploy(workspace, decision(workspace, None, verdicts=verdicts))
    held = hold(workspace, decision(workspace, None, "hold", verdicts=verdicts))
    with pytest.raises(StateError, match=told):
        approve(workspace, held)
    assert champion(workspace) is None


def test_a_rule_that_only_warns_forbids_nothing(workspace: Workspace) -> None:
    verdicts = [PASS, FAIL | {"mode": "warn"}]
    assert deploy(workspace, decision(workspace, None, verdicts=verdicts)).outcome == "promoted"


def test_a_hold_edited_to_promote_needs_a_person_still(workspace: Workspace) -> None:
    made = decision(workspace, None, "hold", code="approval_needed")
    hold(workspace, made)
    with pytest.raises(StateError, match="was not made by the gate"):
        deploy(workspace, edited(made, workspace.root / "mine", outcome="promote"))
    with pytest.raises(StateError, match="was held"):  # in the store too
        deploy(workspace, decision(workspace, None, code="approval_needed"))
    with pytest.raises(StateError, match="was not made by the gate"):
        hold(workspace, edited(made, workspace.root / "other", reason="a", notes=["b"]))
    assert champion(workspace) is None


def test_a_rejected_challenger_is_not_deployed(workspace: Workspace) -> None:
    reject(workspace, hold(workspace, decision(workspace, None, "hold")), actor="ann", reason="weak on sevens")
    with pytest.raises(StateError, match=r"ann rejected this very model .*: weak on sevens"):
        deploy(workspace, decision(workspace, None))
    again = hold(workspace, decision(workspace, None, "hold", champion_row=9))
    assert approve(workspace, again, actor="bob").outcome == "promoted"


def resting(workspace: Workspace, until: float) -> list[dict[str, Any]]:
    """Verdicts of which one was let through by an override that is in the ledger."""
    row = open_state(workspace.state).ledger.note(
        workspace.loop, action="override", actor="ann", reason="busy", details={"rule": FAIL["rule"], "until": until}
    )
    by = {"rule": FAIL["rule"], "who": "ann", "why": "busy", "until": until, "ends": "soon", "row": row.seq}
    return [PASS, FAIL | {"overridden_by": by}]


@pytest.mark.parametrize("how", ["ended", "over", "replaced"])
def test_what_rests_on_an_override_that_lasts_no_more_is_refused(workspace: Workspace, how: str) -> None:
    verdicts = resting(workspace, time.time() + (-1 if how == "over" else 3600))
    held = hold(workspace, decision(workspace, None, "hold", verdicts=verdicts))
    if how == "ended":
        ledger = open_state(workspace.state).ledger
        ledger.note(workspace.loop, action="end_override", actor="bob", reason="r", details={"rule": FAIL["rule"]})
    elif how == "replaced":
        resting(workspace, time.time() + 60)
    told = r"rests on the override of 'ece <= 0.1' by ann \(until soon, ledger row 1\), which lasts no more"
    with pytest.raises(StateError, match=told):
        approve(workspace, held)
    with pytest.raises(StateError, match=told):
        deploy(workspace, decision(workspace, None, verdicts=verdicts))
    assert champion(workspace) is None


def test_what_rests_on_an_override_that_lasts_is_approved(workspace: Workspace) -> None:
    verdicts = resting(workspace, time.time() + 3600)
    assert (
        approve(workspace, hold(workspace, decision(workspace, None, "hold", verdicts=verdicts))).outcome == "promoted"
    )


def gated(workspace: Workspace) -> StepResult:
    """The gate's step on sound reports of the store."""
    folders, names = {}, {"validate": "validation", "labels": "labels", "evaluate": "evaluation", "bless": "blessing"}
    for source, report in reports(0.97, 0.96).items():
        folder = workspace.root / "reports" / source
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(report))
        folders[names[source]] = Store(workspace.store).publish(folder, KINDS[source])
    return perform("gate", deciding.run, workspace, GateConfig(rules=(Rule(metric="accuracy", at_least=0.8),)), folders)


def test_what_was_rolled_back_comes_back_by_a_person_only(workspace: Workspace) -> None:
    """The gate's own decisions, from the first promotion to the approval of what was held."""
    deploy(workspace, decision(workspace, None, name="old"), "old")
    first = gated(workspace)
    assert (first.value, deploy(workspace, first.path).outcome) == ("promote", "promoted")
    rollback(workspace, actor="ann", reason="complaints")
    with pytest.raises(StateError, match="a decision is for one promotion"):
        deploy(workspace, first.path)
    again = gated(workspace)
    assert (again.value, gated(workspace).digest) == ("hold", again.digest)  # the same past, the same decision
    assert "ann rolled back from this very model (version 2)" in again.report.reason
    assert approve(workspace, hold(workspace, again.path), actor="bob", reason="mended").model_digest == "new"
    assert open_state(workspace.state).ledger.history(workspace.loop)[-1].actor == "bob"
