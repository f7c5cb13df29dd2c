"""Deploy against a real ledger, a real MLflow and the real embedded Triton."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

import packages
from kfloop.components.deploy import deployment, keeping
from kfloop.components.deploy.changing import STAGES
from kfloop.components.deploy.recovery import recover
from kfloop.components.deploy.rollback import rollback
from kfloop.core.registry import Registry
from kfloop.core.sections import DeployConfig
from kfloop.core.state import open_state
from kfloop.core.workspace import Workspace
from kfloop.errors import LeaseHeldError, ServingError, StateError
from kfloop.serving.control import Control
from kfloop.serving.endpoint import publish
from kfloop.serving.repository import served
from kfloop.serving.server import start_server

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent


make_package: Callable[..., Path] = packages.make_package


@pytest.fixture
def workspace(tmp_path: Path, mlflow_db: str) -> Workspace:
    name = f"loop-{abs(hash(str(tmp_path))) % 10**9}"
    return Workspace(
        loop=name,
        root=tmp_path,
        state=f"sqlite:///{tmp_path / 'state.db'}",
        store=str(tmp_path / "store"),
        mlflow=mlflow_db,
    )


def _decision(workspace: Workspace, challenger: str, champion: str | None, outcome: str = "promote") -> Path:
    made: Path = packages.make_decision(Path(workspace.store), challenger, champion, outcome)
    return made


def _package(workspace: Workspace, digest: str, scale: float = 1.0, **options: float) -> Path:
    return make_package(Path(workspace.store), digest, scale, **options)


def _deploy(workspace: Workspace, digest: str, champion: str | None) -> deployment.DeploymentReport:
    done: deployment.DeploymentReport = packages.deploy(workspace, DeployConfig(), digest, champion)
    return done


def _consistent(workspace: Workspace, version: int | None, previous: int | None = None) -> None:
    """Ledger, aliases and repository tell the same."""
    ledger = open_state(workspace.state).ledger
    champion = ledger.champion(workspace.loop)
    assert ledger.open_intent(workspace.loop) is None
    assert ledger.verify(workspace.loop) >= 0
    assert (champion.version if champion else None) == version
    aliases = Registry(workspace.mlflow, workspace.loop).aliases()
    assert (aliases.get("champion"), aliases.get("previous")) == (version, previous)
    assert served(workspace.repository, workspace.loop)[0] == version
    digests = list(Registry(workspace.mlflow, workspace.loop).versions().values())
    assert len(digests) == len(set(digests))


@pytest.mark.triton
@pytest.mark.slow
def test_promote_again_reject_a_bad_one_roll_back_and_forward(workspace: Workspace) -> None:
    _package(workspace, "aaa")
    first = _deploy(workspace, "aaa", None)
    assert (first.outcome, first.version) == ("promoted", 1)
    _consistent(workspace, 1)
    assert _deploy(workspace, "aaa", None).outcome == "unchanged"

    _package(workspace, "bad", golden_error=0.1)
    with pytest.raises(ServingError, match="golden answers"):
        _deploy(workspace, "bad", "aaa")
    _consistent(workspace, 1)
    last = open_state(workspace.state).ledger.history(workspace.loop)[-1]
    assert last.phase == "withdrawn"
    assert "golden answers" in last.reason

    _package(workspace, "bbb", 2.0)
    second = _deploy(workspace, "bbb", "aaa")
    assert second.previous_version == 1
    _consistent(workspace, second.version, 1)
    back = rollback(workspace, actor="ann", reason="looks odd")
    assert back.version == 1
    _consistent(workspace, 1, second.version)
    assert rollback(workspace).version == second.version
    _consistent(workspace, second.version, 1)
    with pytest.raises(StateError, match="never was champion"):
        rollback(workspace, to=2)
    with pytest.raises(StateError, match="champion already"):
        rollback(workspace, to=second.version)
    (Path(workspace.store) / "models" / "aaa" / "model.onnx").write_bytes(b"rotten")
    with pytest.raises(StateError, match="other content"):
        rollback(workspace)
    _consistent(workspace, second.version, 1)


@pytest.mark.triton
@pytest.mark.slow
def test_tables_are_deployed_rolled_back_and_kept_apart_from_other_models(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Real packages with two inputs, a column of which may be missing; a model of another kind does not fit beside them."""
    make_any, digests = packages.make_any, []
    for width, task in ((8, "regression"), (16, "regression"), (8, "multiclass")):
        root = tmp_path_factory.mktemp("table")
        report, out = make_any(root, "table", task, options={"width": width, "depth": 1})
        shutil.copytree(out, Path(workspace.store) / "models" / report.digest)
        digests.append(report.digest)
    one, two, other = digests
    assert _deploy(workspace, one, None).version == 1
    second = _deploy(workspace, two, one)
    assert (second.outcome, second.previous_version) == ("promoted", 1)
    _consistent(workspace, second.version, 1)
    assert rollback(workspace, reason="odd prices").version == 1
    _consistent(workspace, 1, second.version)
    with pytest.raises(ServingError, match="side by side"):
        _deploy(workspace, other, one)
    _consistent(workspace, 1, second.version)
    assert rollback(workspace).version == second.version
    _consistent(workspace, second.version, 1)


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_stage_recovery_and_rerun_give_one_consistent_champion(workspace: Workspace, stage: str) -> None:
    _package(workspace, "aaa")
    decision = _decision(workspace, "aaa", None)
    command = [sys.executable, str(HERE / "deploy_child.py"), workspace.to_json(), "deploy", str(decision), stage]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, env=environment, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    mended = recover(workspace)
    expected = {"registered": "clean", "intended": "finished", "verified": "finished"}.get(stage)
    assert expected is None or mended.word == expected
    assert open_state(workspace.state).ledger.open_intent(workspace.loop) is None
    _deploy(workspace, "aaa", None)
    _consistent(workspace, 1)
    assert recover(workspace).word == "clean"


@pytest.mark.triton
@pytest.mark.slow
def test_running_server_keeps_answering_while_versions_change(workspace: Workspace) -> None:
    for digest, scale in (("aaa", 1.0), ("bbb", 2.0)):
        _package(workspace, digest, scale)
    _package(workspace, "bad", golden_error=0.1)
    wrong: list[str] = []
    with start_server(workspace.repository, workspace.kfloop_dir / "triton.log") as server:
        publish(workspace, server.endpoint)
        verification = _deploy(workspace, "aaa", None).verification
        assert verification.where == "running server"
        control = Control(server.endpoint)
        stop = threading.Event()

        def ask() -> None:
            golden = Path(workspace.store) / "models" / "aaa" / "golden.npz"
            asking = Control(server.endpoint)
            while not stop.is_set():
                try:
                    if not asking.golden(workspace.loop, 1, golden, tolerance=1e-3, protocol="grpc").passed:
                        wrong.append("wrong answer")
                except ServingError as error:
                    wrong.append(str(error))

        client = threading.Thread(target=ask)
        client.start()
        try:
            with pytest.raises(ServingError):
                _deploy(workspace, "bad", "aaa")
            second = _deploy(workspace, "bbb", "aaa")
        finally:
            stop.set()
            client.join()
        assert wrong == []
        ready = {int(item["version"]) for item in control.index() if item.get("state") == "READY"}
        assert ready == {1, second.version}
        assert rollback(workspace).version == 1
        ready = {int(item["version"]) for item in control.index() if item.get("state") == "READY"}
        assert ready == {1, second.version}  # the way forward needs no load either
    _consistent(workspace, 1, second.version)


def test_decision_that_does_not_promote_deploys_nothing(workspace: Workspace) -> None:
    package = _package(workspace, "aaa")
    for outcome in ("reject", "hold", "yes"):
        with pytest.raises(StateError, match="expected 'promote'"):
            deployment.run(
                DeployConfig(),
                model=package,
                decision=_decision(workspace, "aaa", None, outcome),
                out=workspace.root,
                workspace=workspace,
            )


@pytest.mark.parametrize(("file", "old", "new"), [("report.json", '"aaa"', '"bbb"'), ("evidence.json", "10", "11")])
def test_an_edited_decision_deploys_nothing(workspace: Workspace, file: str, old: str, new: str) -> None:
    package = _package(workspace, "aaa")
    decision = _decision(workspace, "aaa", None)
    edited = (decision / file).read_text().replace(old, new)
    (decision / file).write_text(edited)
    with pytest.raises(StateError, match=f"{file}' was changed after the gate wrote it"):
        deployment.run(DeployConfig(), model=package, decision=decision, out=workspace.root, workspace=workspace)
    assert open_state(workspace.state).ledger.history(workspace.loop) == []


def test_decision_about_another_package_deploys_nothing(workspace: Workspace) -> None:
    _package(workspace, "aaa")
    with pytest.raises(StateError, match="is about package 'bbb'"):
        deployment.run(
            DeployConfig(),
            model=Path(workspace.store) / "models" / "aaa",
            decision=_decision(workspace, "bbb", None),
            out=workspace.root,
            workspace=workspace,
        )


def test_decision_against_another_champion_deploys_nothing(workspace: Workspace) -> None:
    _package(workspace, "aaa")
    with pytest.raises(StateError, match="made against old"):
        _deploy(workspace, "aaa", "old")
    assert not (workspace.repository / workspace.loop).exists()


def test_a_deployment_in_another_pod_is_left_alone(workspace: Workspace) -> None:
    """On a cluster no engine holds the lease: an open intent of a pod at work must not be taken for one that a crash left."""
    _package(workspace, "aaa")
    _package(workspace, "bbb")
    state = open_state(workspace.state)
    with state.leases.acquire(workspace.loop, "deploy-of-another-run"):
        with state.engine.begin() as connection:
            connection.execute(text("update leases set host = 'another-pod'"))
        intent = state.ledger.intend(
            workspace.loop,
            action="promote",
            version=1,
            model_digest="bbb",
            expected_champion=None,
            actor="t",
            reason="t",
        )
        with pytest.raises(LeaseHeldError, match="deploy-of-another-run"):
            _deploy(workspace, "aaa", None)
        left = state.ledger.open_intent(workspace.loop)
        assert left is not None
        assert left.seq == intent.seq


def test_rejection_is_recorded_and_registers_nothing(workspace: Workspace) -> None:
    package = _package(workspace, "aaa")
    decision = _decision(workspace, "aaa", None, "reject")
    report = keeping.run(DeployConfig(), model=package, decision=decision, out=workspace.root, workspace=workspace)
    assert report.outcome == "rejected"
    assert "There is still no champion" in report.sentence
    assert Registry(workspace.mlflow, workspace.loop).versions() == {}


def test_rollback_without_history_is_refused(workspace: Workspace) -> None:
    with pytest.raises(StateError, match="no earlier champion"):
        rollback(workspace)


def test_corrupt_registry_changes_nothing(workspace: Workspace) -> None:
    _package(workspace, "aaa")
    path = workspace.root / "bad.db"
    path.write_bytes(b"no database" * 500)
    broken = Workspace(
        loop=workspace.loop,
        root=workspace.root,
        state=workspace.state,
        store=workspace.store,
        mlflow=f"sqlite:///{path}",
    )
    with pytest.raises(StateError, match=r"bad\.db"):
        _deploy(broken, "aaa", None)
    assert open_state(workspace.state).ledger.history(workspace.loop) == []
