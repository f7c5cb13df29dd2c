"""A week of hourly rounds that are killed at random between any two writes: no cause is retrained for twice, and none is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from kfloop.components.monitor.monitoring import after_publish
from kfloop.components.monitor.policy.causes import DRIFT, Cause
from kfloop.components.monitor.policy.circumstances import judge
from kfloop.core.artifacts import write_report
from kfloop.core.sections import MonitorConfig
from kfloop.core.state import open_state
from kfloop.core.statistics.estimate import Estimate
from kfloop.core.store import Store
from kfloop.core.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOOP = "week"
START = 1_800_000_000.0
HOUR = 3600.0
HOURS = 7 * 24
DRIFTED = (20, 110)  # hours at which drift begins for the first and for the second champion
LABELLED = {0: 0, 30: 70, 60: 100, 130: 260}  # labelled files from that hour on; the first 70 do not convince the gate


class Killed(BaseException):
    """The process ended here."""


@dataclass(kw_only=True)
class Week:
    """A loop in real state and a real store. Its training is a stand-in that decides what the script says.

    Attributes:
        decided: Champion and labels of each retraining whose gate decided.
        crash: Called between any two writes; may raise ``Killed``.
    """

    workspace: Workspace
    root: Path
    crash: Callable[[str], None]
    decided: list[tuple[str, int]]

    def round(self, number: int, hour: int, monkeypatch: pytest.MonkeyPatch) -> str:
        """One monitoring round, write by write in the order of the engine."""
        state, now, run = open_state(self.workspace.state), START + hour * HOUR, f"run-{number:04d}"
        monkeypatch.setenv("KFLOOP_RUN_ID", run)
        state.runs.abandon(LOOP)
        intent = state.ledger.open_intent(LOOP)
        if intent is not None:  # what ``recover`` does with a version that was verified
            state.ledger.close(intent, done=True)
        state.runs.start(run, LOOP, "monitoring", "", {})
        self.crash("round began")
        champion = state.ledger.champion(LOOP)
        assert champion is not None
        payload, version = state.monitors.load(LOOP, champion.model_digest)
        before = payload or {"newest": -1, "drift": None}
        begins = DRIFTED[champion.version - 1]
        drift = before["drift"] if before["drift"] is not None else (hour if hour >= begins else None)
        state.monitors.save(LOOP, champion.model_digest, {"newest": hour, "drift": drift}, version)
        self.crash("evidence saved")
        size = Estimate(value=0.9, low=0.8, high=0.95, n=200)
        cause = Cause(
            kind=DRIFT, declared=drift is not None, matters=drift is not None, size=size, key=str(drift), reason="drift"
        )
        told = judge(
            config(self.root),
            causes=(cause,),
            problem=None,
            champion=champion,
            state=state,
            workspace=self.workspace,
            now=now,
        )
        out = self.root / f"out-{number}"
        out.mkdir()
        write_report(out, told | {"champion_digest": champion.model_digest})
        self.crash("report written")
        evidence = Store(self.workspace.store).publish(out, "evidence")
        self.crash("report published")
        after_publish(evidence, self.workspace)
        self.crash("trigger written")
        retrain = told["outcome"] == "retrain"
        decision = self._train(run, champion, told["known_labels"]) if retrain else None
        ended = {"status": "succeeded", "trigger": {"outcome": told["outcome"]}}
        state.runs.finish(run, "succeeded", ended | {"decision": decision})
        return str(told["outcome"])

    def _train(self, run: str, champion: Any, labels: int) -> dict[str, str]:
        state = open_state(self.workspace.state)
        state.runs.step(run, "ingest", "started", {})
        self.crash("training began")
        state.runs.step(run, "ingest", "succeeded", {})
        self.crash("data ready")
        good = champion.version == 1 and labels >= 100
        state.runs.step(run, "gate", "succeeded", {"outcome": "promote" if good else "reject"})
        key = (champion.model_digest, labels)
        if not (good and key in self.decided):  # what was trained and not promoted is in the cache
            self.decided.append(key)
        self.crash("gate decided")
        if good:
            intent = state.ledger.intend(
                LOOP,
                action="promote",
                version=2,
                model_digest="champion-2",
                expected_champion=champion.model_digest,
                actor="test",
                reason="better",
                run_id=run,
            )
            self.crash("promotion intended")
            state.ledger.close(intent, done=True)
            self.crash("promoted")
        return {"outcome": "promote" if good else "reject"}


def config(root: Path) -> MonitorConfig:
    """A budget that the kills do not exhaust: attempts that came to nothing are paid for, too."""
    return MonitorConfig(
        fresh=str(root / "fresh"),
        cooldown_minutes=90,
        cooldown_after_success_minutes=600,
        max_retrains_per_month=40,
    )


def package(root: Path, workspace: Workspace, name: str, taken: int) -> None:
    """A champion whose dataset took so many of the labelled rows."""
    folder = root / f"data-{name}"
    folder.mkdir()
    ids = [str(row) for row in range(taken + 5)]
    table = pa.table({"id": ids, "origin": ["fresh"] * taken + ["base"] * 5})
    for split in ("train", "validation", "test"):
        with pa.ipc.new_stream(str(folder / f"{split}.arrow"), table.schema) as writer:
            writer.write_table(table if split == "train" else table.slice(0, 0))
    digest = Store(workspace.store).publish(folder, "datasets").name
    model = root / name
    model.mkdir()
    write_report(model, {"dataset_digest": digest})
    Store(workspace.store).publish(model, "models", name)


def play(root: Path, monkeypatch: pytest.MonkeyPatch, crash: Callable[[str], None]) -> tuple[Week, int]:
    """A week; gives it and the number of kills."""
    root.mkdir()
    workspace = Workspace(loop=LOOP, root=root, state=f"sqlite:///{root}/state.db", store=str(root / "s"), mlflow="")
    package(root, workspace, "champion-1", 0)
    package(root, workspace, "champion-2", 100)
    ledger = open_state(workspace.state).ledger
    first = ledger.intend(
        LOOP, action="promote", version=1, model_digest="champion-1", expected_champion=None, actor="t", reason="first"
    )
    ledger.close(first, done=True)
    week = Week(workspace=workspace, root=root, crash=crash, decided=[])
    written = kills = 0
    for number, hour in enumerate(range(HOURS)):
        for name in range(written, LABELLED.get(hour, written)):
            (root / "fresh").mkdir(exist_ok=True)
            (root / "fresh" / f"{name}.png").touch()
        written = LABELLED.get(hour, written)
        try:
            week.round(number, hour, monkeypatch)
        except Killed:
            kills += 1
    return week, kills


EXPECTED = [("champion-1", 70), ("champion-1", 100), ("champion-2", 260)]


def never(place: str) -> None:
    del place


def test_an_undisturbed_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    week, kills = play(tmp_path / "week", monkeypatch, never)
    assert kills == 0
    assert week.decided == EXPECTED
    triggers = open_state(week.workspace.state).triggers
    assert [item.labels for item in triggers.history(LOOP, "retrain")] == [70, 100, 260]
    assert len(triggers.history(LOOP)) == HOURS  # every decision is recorded, those against a retraining too
    assert all(item.reason for item in triggers.history(LOOP))


def settled(week: Week) -> None:
    """Every cause was retrained for once, and the champion is the one that it ought to be."""
    assert week.decided == EXPECTED
    champion = open_state(week.workspace.state).ledger.champion(LOOP)
    assert champion is not None
    assert champion.model_digest == "champion-2"


@pytest.mark.parametrize("seed", range(3))
def test_a_week_of_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def crash(place: str) -> None:
        del place
        if rng.random() < 0.1:
            raise Killed

    week, kills = play(tmp_path / "week", monkeypatch, crash)
    assert kills > 20
    settled(week)


def test_kills_at_each_place_of_a_retraining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first three times that a round comes by a place it ends there."""
    passed: dict[str, int] = {}

    def crash(place: str) -> None:
        passed[place] = passed.get(place, 0) + 1
        if passed[place] <= 3:
            raise Killed

    week, kills = play(tmp_path / "week", monkeypatch, crash)
    assert len(passed) == 9  # the promotion that was intended is finished by the round after
    assert kills == 3 * 8 + 1
    settled(week)
