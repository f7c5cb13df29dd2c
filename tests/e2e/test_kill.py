"""A run killed with -9 at its worst moments, while the champion answers: nothing stays alive, nothing is lost."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from kfloop.core.config import load_config
from kfloop.core.registry import Registry
from kfloop.core.state import State, open_state
from kfloop.core.store import Store
from kfloop.core.workspace import Workspace
from kfloop.errors import KfloopError
from kfloop.serving.client import infer
from kfloop.serving.endpoint import require
from kfloop.serving.repository import served as served_versions

pytestmark = [pytest.mark.slow, pytest.mark.triton]


# A challenger as good as the champion, up to chance, must get through here: what is tried is the kill.
LENIENT = """
evaluate: {bootstrap: 300}
bless: {requests: 40}
gate:
  rules:
    - {metric: accuracy, at_least: 0.5}
    - {metric: accuracy, versus: champion, at_least: -0.2}
    - {metric: p95_ms, source: bless, at_most: 1000}
"""


class Traffic(threading.Thread):
    """Asks the champion all the time, pinned to its version, and compares each answer by value."""

    def __init__(self, workspace: Workspace, version: int, package: Path) -> None:
        super().__init__(daemon=True)
        self._endpoint = require(workspace)
        self._model, self._version = workspace.loop, version
        with np.load(package / "golden.npz") as golden:
            self._images, self._expected = golden["input.image"], golden["output.probabilities"]
        self._ending = threading.Event()
        self.failures: list[str] = []
        self.answers = 0

    def run(self) -> None:
        while not self._ending.wait(0.02):
            try:
                answer = infer(self._endpoint, self._model, self._images, version=self._version, request_id="traffic")
            except KfloopError as error:
                self.failures.append(repr(error))
                continue
            self.answers += 1
            if not np.allclose(answer["probabilities"], self._expected, atol=1e-3):
                self.failures.append("wrong answer")

    def end(self) -> None:
        self._ending.set()
        self.join()


def wait_for_step(state: State, loop: str, step: str, run: Any, seconds: float = 120) -> str:
    """Id of the present run, once ``step`` of it has started."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert run.poll() is None, "the run ended before it could be killed"
        for run_id in state.runs.active(loop):
            if any(event.step == step and event.event == "started" for event in state.runs.events(run_id)):
                return run_id
        time.sleep(0.05)
    pytest.fail(f"step {step} did not start")


def of_run(run_id: str) -> list[psutil.Process]:
    """Every process whose environment names the run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("KFLOOP_RUN_ID") == run_id:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(("seed", "step", "delay"), [(11, "train", 1.5), (12, "package", 0.5), (13, "deploy", 1.0)])
def test_a_killed_run_leaves_nothing_and_the_same_command_completes(
    served: Any, seed: int, step: str, delay: float
) -> None:
    base = (served.folder / "loop.yaml").read_text().split("train:")[0]
    served.write(f"{base}train: {{epochs: 8, seed: {seed}}}\n{LENIENT}")
    config = load_config(served.folder / "loop.yaml")
    workspace = config.workspace(served.folder)
    state = open_state(workspace.state)
    champion = state.ledger.champion("small")
    assert champion is not None
    traffic = Traffic(workspace, champion.version, Store(workspace.store).require("models", champion.model_digest))
    traffic.start()
    try:
        run = served.start("run")
        run_id = wait_for_step(state, "small", step, run)
        time.sleep(delay)
        family = of_run(run_id)
        assert family, "the step is not there to be killed"
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        _, alive = psutil.wait_procs(family, timeout=2.0)
        assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
        assert traffic.failures == []
        again = served.run("run")
        assert again.returncode in {0, 3}, again.stderr
    finally:
        traffic.end()
    assert traffic.failures == []
    assert traffic.answers > 100
    consistent(workspace, state)


def consistent(workspace: Workspace, state: State) -> None:
    """Ledger, registry, repository and server tell the same story."""
    state.ledger.verify("small")
    assert state.ledger.open_intent("small") is None
    champion = state.ledger.champion("small")
    assert champion is not None
    registry = Registry(workspace.mlflow, "small")
    assert registry.aliases()["champion"] == champion.version
    assert registry.versions()[champion.version] == champion.model_digest
    assert served_versions(workspace.repository, "small")[0] == champion.version
    ever = {entry.version for entry in state.ledger.history("small") if entry.phase == "done"}
    folders = {path.name for path in (workspace.repository / "small").iterdir() if path.is_dir()}
    assert folders <= {str(version) for version in ever}
    with np.load(workspace.repository / "small" / str(champion.version) / "golden.npz") as golden:
        answer = infer(require(workspace), "small", golden["input.image"])
        assert answer["version"] == champion.version
        assert np.allclose(answer["probabilities"], golden["output.probabilities"], atol=1e-3)
    assert state.runs.active("small") == []
