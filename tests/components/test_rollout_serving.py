"""A roll-out on the real embedded Triton, from the decision to the promotion that the supervisor makes by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

import packages
from kfloop.components.deploy import deployment
from kfloop.components.deploy.advancing import advance, look
from kfloop.components.deploy.rollback import rollback
from kfloop.core.sections import DeployConfig, MarginConfig, RolloutConfig
from kfloop.core.state import open_state
from kfloop.core.workspace import Workspace
from kfloop.serving import supervisor
from kfloop.serving.client import predict
from kfloop.serving.endpoint import attach, require
from kfloop.serving.repository import read_policy

pytestmark = [pytest.mark.triton, pytest.mark.slow]
HERE = Path(__file__).parent
IMAGE = np.full((1, 8, 8, 1), 200, np.uint8)
HURRY = RolloutConfig(
    strategy="canary",
    share=0.5,
    min_requests=20,
    max_requests=1000,
    look_seconds=1,
    # On a busy machine times say little; a wide margin for failures is shown to hold within a hundred requests.
    margin=MarginConfig(latency=None, errors=0.2),
)


@pytest.fixture
def workspace(tmp_path: Path, mlflow_db: str) -> Iterator[Workspace]:
    """A served loop: version 1 is champion, "alike" answers like it, "other" the opposite."""
    made = Workspace(
        loop=f"loop-{abs(hash(str(tmp_path))) % 10**9}",
        root=tmp_path,
        state=f"sqlite:///{tmp_path / 'state.db'}",
        store=str(tmp_path / "store"),
        mlflow=mlflow_db,
    )
    for digest, scale in (("old", 5.0), ("alike", 6.0), ("other", -5.0)):
        packages.make_package(Path(made.store), digest, scale)
    (tmp_path / "out").mkdir()
    supervisor.start_background(made, tied_to_parent=True)
    try:
        assert deploy(made, "old", None).outcome == "promoted"
        yield made
    finally:
        supervisor.stop(made)


def deploy(
    workspace: Workspace, digest: str, champion: str | None, rollout: RolloutConfig = HURRY
) -> deployment.DeploymentReport:
    done: deployment.DeploymentReport = packages.deploy(workspace, DeployConfig(rollout=rollout), digest, champion)
    return done


def ask(workspace: Workspace, until: Callable[[], bool], seconds: float = 60) -> list[int]:
    """Versions that answered, until something is so."""
    found: list[int] = []
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"not within {seconds} s; {look(workspace)}"
        found += [predict(require(workspace), workspace.loop, IMAGE).version for _ in range(20)]
    return found


def champion(workspace: Workspace) -> int:
    entry = open_state(workspace.state).ledger.champion(workspace.loop)
    assert entry is not None
    return entry.version


def test_the_supervisor_promotes_by_evidence_and_a_rollback_takes_it_back(workspace: Workspace) -> None:
    report = deploy(workspace, "alike", "old")
    assert report.verification.where == "running server"
    seen = ask(workspace, lambda: champion(workspace) == 2)
    assert set(seen) == {1, 2}
    row = open_state(workspace.state).ledger.champion(workspace.loop)
    assert row is not None
    assert row.actor == "kfloop serve"
    assert "canary: after" in row.reason
    ask(workspace, lambda: predict(require(workspace), workspace.loop, IMAGE).version == 2)
    stages: list[str] = []
    assert rollback(workspace, at=stages.append).version == 1
    assert stages[:2] == ["intended", "switched"]  # the answer changed before anything slow was done
    ask(workspace, lambda: predict(require(workspace), workspace.loop, IMAGE).version == 1)


def test_the_supervisor_withdraws_one_that_answers_otherwise(workspace: Workspace) -> None:
    deploy(workspace, "other", "old")
    ask(workspace, lambda: look(workspace).outcome == "none")
    assert champion(workspace) == 1
    row = open_state(workspace.state).ledger.history(workspace.loop)[-1]
    assert (row.action, row.actor) == ("withdraw", "kfloop serve")
    assert "gives another answer on 100.0% of the rows" in row.reason
    assert (read_policy(workspace.repository, workspace.loop) or {})["rollout"] is None
    ask(workspace, lambda: predict(require(workspace), workspace.loop, IMAGE).version == 1)


def test_a_killed_supervisor_comes_back_in_the_middle_and_a_rollback_ends_it(workspace: Workspace) -> None:
    deploy(workspace, "alike", "old", RolloutConfig())
    slow = HURRY.model_copy(update={"max_requests": 10000, "share": 0.5, "min_requests": 5000})
    assert deploy(workspace, "other", "alike", slow.model_copy(update={"margin": MarginConfig(disagreement=None)}))
    before = read_policy(workspace.repository, workspace.loop)
    ask(workspace, lambda: look(workspace).requests >= 20)
    endpoint = require(workspace)
    family = psutil.Process(endpoint.pid).children(recursive=True)
    os.kill(endpoint.pid, signal.SIGKILL)
    psutil.Process(endpoint.pid).wait(10)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    assert attach(workspace) is None
    supervisor.start_background(workspace, tied_to_parent=True)
    assert read_policy(workspace.repository, workspace.loop) == before
    kept = look(workspace).requests
    assert kept >= 20
    assert set(ask(workspace, lambda: look(workspace).requests > kept)) == {2, 3}
    assert rollback(workspace, reason="complaints").version == 1
    ask(workspace, lambda: predict(require(workspace), workspace.loop, IMAGE).version == 1)
    assert set(ask(workspace, _times(2))) == {1}


def test_a_look_that_is_killed_is_made_again(workspace: Workspace) -> None:
    """The child that advances dies at any moment; the next one comes to the same end."""
    calm = HURRY.model_copy(update={"look_seconds": 3600.0})
    deploy(workspace, "alike", "old", calm)
    ask(workspace, lambda: look(workspace).requests >= 100)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "kfloop", "rollout", "--advance", "--workspace", workspace.to_json()]
    for wait in (0.7, 1.2, 1.7, 2.2):
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(wait)
        child.kill()
        child.wait()
        assert predict(require(workspace), workspace.loop, IMAGE).version in {1, 2}
    advance(workspace)
    from kfloop.components.deploy.recovery import recover

    recover(workspace)
    assert champion(workspace) == 2
    policy = read_policy(workspace.repository, workspace.loop)
    assert policy == {"default": 2, "versions": [1, 2], "rollout": None}
    open_state(workspace.state).ledger.verify(workspace.loop)


def _times(n: int) -> Callable[[], bool]:
    left = [n]

    def done() -> bool:
        left[0] -= 1
        return left[0] < 0

    return done
