"""A promotion whose server is away for a moment stays open; the next command finishes it, and a person may give it up."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import packages
from kfloop.components.deploy import changing
from kfloop.components.deploy.approval import reject
from kfloop.components.deploy.recovery import recover
from kfloop.components.deploy.rollback import rollback
from kfloop.components.deploy.targets.protocol import Verification
from kfloop.core.config import LoopConfig
from kfloop.core.records import RunRecord
from kfloop.core.registry import Registry
from kfloop.core.sections import DeployConfig
from kfloop.core.state import open_state
from kfloop.core.workspace import Workspace
from kfloop.errors import ServerUnavailable, ServingError, StateError, TransientError
from kfloop.pipelines.rounds import Loop, _held
from kfloop.serving.repository import served

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = DeployConfig()


@pytest.fixture
def away(tmp_path: Path) -> Iterator[DeployConfig]:
    """A target at a port that is taken and answers nobody."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        target = {
            "kind": "triton",
            "url": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "repository": str(tmp_path / "theirs"),
        }
        yield DeployConfig.model_validate({"target": target})


@pytest.fixture
def workspace(tmp_path: Path, mlflow_db: str) -> Workspace:
    name = f"loop-{abs(hash(str(tmp_path))) % 10**9}"
    state = f"sqlite:///{tmp_path / 'state.db'}"
    made = Workspace(loop=name, root=tmp_path, state=state, store=str(tmp_path / "store"), mlflow=mlflow_db)
    for number, digest in enumerate(("old", "new")):
        packages.make_package(Path(made.store), digest, 1.0 + number)
    return made


def verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded server answers rightly; that the real one does is tested beside this file."""
    seen = Verification(version=1, where="stub", n=1, max_abs_diff=0.0, tolerance=1.0)
    monkeypatch.setattr(changing, "verify_version", lambda *_: seen)


def told(workspace: Workspace) -> list[tuple[str, str]]:
    return [(row.phase, row.action) for row in open_state(workspace.state).ledger.history(workspace.loop)]


def test_it_stays_open_and_the_next_command_finishes_it(
    workspace: Workspace, away: DeployConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):  # as KFP repeats the step
        with pytest.raises(ServerUnavailable, match="promotion of version 1 is not finished: no answer") as caught:
            packages.deploy(workspace, away, "old", None)
        assert "stays open" in caught.value.hint
        assert told(workspace) == [("intent", "promote")]
    with pytest.raises(ServerUnavailable):
        recover(workspace, away)
    verified(monkeypatch)
    assert recover(workspace, HERE).word == "finished"
    assert told(workspace) == [("intent", "promote"), ("done", "promote")]
    assert Registry(workspace.mlflow, workspace.loop).aliases() == {"champion": 1}
    assert packages.deploy(workspace, HERE, "old", None).outcome == "unchanged"
    assert recover(workspace, HERE).word == "clean"


@pytest.mark.parametrize("error", [ServingError("answers wrongly"), StateError("damaged"), FileNotFoundError("golden")])
def test_a_reason_that_stays_withdraws_it(
    workspace: Workspace, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: Any) -> None:
        raise error

    monkeypatch.setattr(changing, "verify_version", wrong)
    with pytest.raises(type(error)):
        packages.deploy(workspace, HERE, "old", None)
    assert told(workspace) == [("intent", "promote"), ("withdrawn", "promote")]


def test_a_store_that_hangs_up_is_no_reason_either(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def dropped(*_: Any) -> None:
        raise ConnectionResetError("peer")

    monkeypatch.setattr(changing, "verify_version", dropped)
    with pytest.raises(TransientError, match="is not finished: peer"):
        packages.deploy(workspace, HERE, "old", None)
    assert told(workspace) == [("intent", "promote")]


def test_a_person_gives_it_up(workspace: Workspace, away: DeployConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerUnavailable) as caught:
        packages.deploy(workspace, away, "old", None)
    name = caught.value.hint.rpartition(" ")[2]
    done = reject(workspace, name, actor="ann", reason="it kills the server", config=away)
    assert "was rejected by ann: it kills the server" in done.sentence
    assert told(workspace) == [("intent", "promote"), ("withdrawn", "promote"), ("noted", "reject")]
    assert Registry(workspace.mlflow, workspace.loop).aliases() == {}
    verified(monkeypatch)
    with pytest.raises(StateError, match="ann"):
        packages.deploy(workspace, HERE, "old", None)


def test_a_rollback_does_not_stay_open(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked for it asks again; finished by a later command and asked for again it would go forward."""

    def gone(*_: Any) -> None:
        raise ServerUnavailable("it is away")

    verified(monkeypatch)
    packages.deploy(workspace, HERE, "old", None)
    packages.deploy(workspace, HERE, "new", "old")
    monkeypatch.setattr(changing, "verify_version", gone)
    with pytest.raises(ServerUnavailable):
        rollback(workspace)
    assert told(workspace)[-2:] == [("intent", "rollback"), ("withdrawn", "rollback")]
    assert served(workspace.repository, workspace.loop)[0] == 2


def test_a_round_that_trains_waits_for_it_and_one_that_watches_does_not(
    workspace: Workspace, away: DeployConfig
) -> None:
    with pytest.raises(ServerUnavailable):
        packages.deploy(workspace, away, "old", None)
    config = LoopConfig.model_validate({"name": workspace.loop, "deploy": away.model_dump(mode="json")})
    loop = Loop(config=config, workspace=workspace, state=open_state(workspace.state))
    training, watching = (
        RunRecord(run_id=name, loop=workspace.loop, pipeline=name, config_digest="")
        for name in ("training", "monitoring")
    )
    with pytest.raises(ServerUnavailable), _held(loop, training):
        pass
    with _held(loop, watching):
        assert "version 1 is not finished" in watching.substitutes[0]
    assert told(workspace) == [("intent", "promote")]
    assert loop.state.leases.holder(workspace.loop) is None


def test_followers_that_lag_are_not_taken_for_a_withdrawal(
    workspace: Workspace, away: DeployConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The promotion is closed, and the server goes away before it could be told."""
    with pytest.raises(ServerUnavailable):
        packages.deploy(workspace, away, "old", None)
    verified(monkeypatch)
    with pytest.raises(ServerUnavailable):
        recover(workspace, away)
    assert told(workspace) == [("intent", "promote"), ("done", "promote")]
    assert recover(workspace, HERE).word == "projected"


def test_recovery_holds_the_lease_and_leaves_a_run_at_work_alone(
    workspace: Workspace, away: DeployConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ServerUnavailable):
        packages.deploy(workspace, away, "old", None)
    leases = open_state(workspace.state).leases
    held: list[str] = []

    def seen(*_: Any) -> Verification:
        holder = leases.holder(workspace.loop)
        held.append(holder.run_id if holder else "nobody")
        return Verification(version=1, where="stub", n=1, max_abs_diff=0.0, tolerance=1.0)

    monkeypatch.setattr(changing, "verify_version", seen)
    with leases.acquire(workspace.loop, "a-run"):
        with open_state(workspace.state).engine.begin() as connection:
            connection.exec_driver_sql("update leases set host = 'another-pod'")
        assert recover(workspace, HERE).word == "busy"
    assert held == []
    assert recover(workspace, HERE).word == "finished"
    assert [name.partition("-")[0] for name in held] == ["recover"]
    assert leases.holder(workspace.loop) is None
