"""What a conclusion rests on beside evidence: schedule, a person's wish, what is under way, and what became of earlier attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kfloop.components.monitor.policy.causes import DRIFT, Cause
from kfloop.components.monitor.policy.circumstances import judge, past_attempts
from kfloop.components.monitor.standing import stand_back
from kfloop.core.sections import MonitorConfig
from kfloop.core.state import open_state
from kfloop.core.statistics.estimate import Estimate
from kfloop.core.store import Store
from kfloop.core.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.state import State

LOOP = "loop"
DAY = 86_400.0
DRIFTED = Cause(
    kind=DRIFT,
    declared=True,
    matters=True,
    size=Estimate(value=0.9, low=0.8, high=0.95, n=99),
    key="1",
    reason="drift",
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.delenv("KFLOOP_RUN_ID", raising=False)
    url = f"sqlite:///{tmp_path}/state.db"
    workspace = Workspace(loop=LOOP, root=tmp_path, state=url, store=str(tmp_path / "store"), mlflow="")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "any").touch()
    Store(workspace.store).publish(tmp_path / "package", "models", "m1")
    promote(open_state(url), "m1", 1, None)
    return workspace


def promote(state: State, digest: str, version: int, before: str | None, run: str = "") -> None:
    intent = state.ledger.intend(
        LOOP,
        action="promote",
        version=version,
        model_digest=digest,
        expected_champion=before,
        actor="test",
        reason="test",
        run_id=run,
    )
    state.ledger.close(intent, done=True)


def concluded(place: Workspace, later: float = 0.0, problem: str | None = None, *causes: Cause, **settings: Any) -> Any:
    state = open_state(place.state)
    champion = state.ledger.champion(LOOP)
    assert champion is not None
    config = MonitorConfig(**settings)
    now = champion.at + later
    return judge(config, causes=causes, problem=problem, champion=champion, state=state, workspace=place, now=now)


def attempt(place: Workspace, run: str, at: float, status: str = "", **record: Any) -> None:
    state = open_state(place.state)
    state.runs.start(run, LOOP, "monitoring", "", {})
    champion = state.ledger.champion(LOOP)
    assert champion is not None
    state.triggers.add(
        LOOP,
        run_id=run,
        trigger="retrain",
        reason="r",
        champion_digest=champion.model_digest,
        fingerprint="f",
        at=champion.at + at,
        cause="drift",
        labels=70,
    )
    if status:
        state.runs.finish(run, status, {"status": status} | record)


def test_a_schedule_is_due_by_the_clock_that_it_is_given(place: Workspace) -> None:
    quiet = "the log is empty"
    assert concluded(place, 6.9 * DAY, quiet, schedule_days=7)["outcome"] == "not_evaluated"
    told = concluded(place, 7.1 * DAY, quiet, schedule_days=7)
    assert (told["outcome"], told["cause"]) == ("retrain", "schedule")
    assert "every 7 days" in told["reason"]
    assert concluded(place, 7.1 * DAY, quiet)["outcome"] == "not_evaluated"  # no schedule
    assert concluded(place, -1 * DAY, quiet, schedule_days=7)["outcome"] == "not_evaluated"  # the clock was set back


def test_a_scheduled_retraining_that_was_decided_waits_a_period_and_one_that_was_killed_does_not(
    place: Workspace,
) -> None:
    attempt(place, "killed", 7.1 * DAY, "killed")
    due = concluded(place, 7.2 * DAY, None, schedule_days=7)
    assert due["outcome"] == "retrain"
    attempt(place, "decided", 7.2 * DAY, "rejected")
    assert concluded(place, 9 * DAY, None, schedule_days=7)["outcome"] == "none"
    again = concluded(place, 14.3 * DAY, None, schedule_days=7)
    assert again["outcome"] == "retrain"
    assert again["fingerprint"] != due["fingerprint"]


def test_a_person_who_asks_is_obeyed_but_not_while_a_run_is_at_work(place: Workspace) -> None:
    attempt(place, "before", 10.0, "rejected")
    told = concluded(place, 11.0, "no rows", retrain="a new camera")
    assert (told["outcome"], told["cause"]) == ("retrain", "manual")
    assert "a new camera" in told["reason"]
    attempt(place, "going", 12.0)
    with open_state(place.state).leases.acquire(LOOP, "going"):
        assert concluded(place, 13.0, None, retrain="a new camera")["outcome"] == "in_flight"
    # Its record says that it is at work, and nobody holds the loop: it was killed.
    assert concluded(place, 13.0, None, retrain="a new camera")["outcome"] == "retrain"


def test_a_roll_out_is_in_flight(place: Workspace) -> None:
    state = open_state(place.state)
    state.ledger.note(LOOP, action="rollout", version=2, model_digest="m2", actor="t", reason="r", evidence_digest="e")
    told = concluded(place, DAY, None, DRIFTED)
    assert told["outcome"] == "in_flight"
    assert "roll-out of version 2" in told["reason"]


def test_a_promotion_that_is_open_is_in_flight(place: Workspace) -> None:
    ledger = open_state(place.state).ledger
    opened = ledger.intend(
        LOOP, action="promote", version=2, model_digest="m2", expected_champion="m1", actor="t", reason="r"
    )
    told = concluded(place, 13.0, None, DRIFTED)
    assert (told["outcome"], "the promote of version 2" in told["reason"]) == ("in_flight", True)
    ledger.close(opened, done=False)
    assert concluded(place, 13.0, None, DRIFTED)["outcome"] != "in_flight"


def test_attempts_are_decided_by_their_record_or_else_by_their_gate(place: Workspace) -> None:
    state = open_state(place.state)
    for number, (status, gate) in enumerate(
        [
            ("rejected", ""),
            ("held", ""),
            ("failed", ""),
            ("killed", "reject"),
            ("killed", "promote"),
            ("killed", "hold"),
        ]
    ):
        attempt(place, f"r{number}", float(number), status)
        if gate:
            state.runs.step(f"r{number}", "gate", "succeeded", {"outcome": gate})
    assert [item.decided for item in past_attempts(state, LOOP)] == [True, True, False, True, False, False]
    attempt(place, "p", 9.0)
    promote(state, "m2", 2, "m1", run="p")
    last = past_attempts(state, LOOP)[-1]
    assert (last.champion, last.decided, last.promoted, last.labels) == ("m1", True, True, 70)


def test_labels_are_not_counted_where_nothing_calls_for_them(place: Workspace, tmp_path: Path) -> None:
    fresh = str(tmp_path / "fresh")  # counting would need the champion's dataset, which is not there
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "a.png").touch()
    told = concluded(place, DAY, None, Cause(kind=DRIFT, declared=False, matters=None, reason="no drift"), fresh=fresh)
    assert (told["outcome"], told["fresh_labels"]) == ("none", None)


def started(place: Workspace, training: str, until: float) -> None:
    """A monitoring round of a cluster: its trigger started ``training`` as a run of its own, and the round itself is over."""
    attempt(place, "round", 0.0)
    runs = open_state(place.state).runs
    runs.step("round", "submit_training", "started", {})
    runs.step("round", "submit_training", "succeeded", {"outcome": training, "until": until})
    runs.finish("round", "succeeded", {"status": "succeeded"})


def test_a_training_that_is_a_run_of_its_own_is_under_way_until_its_record_stands(place: Workspace) -> None:
    champion = open_state(place.state).ledger.champion(LOOP)
    assert champion is not None
    started(place, "training-1", until=champion.at + 5 * DAY)
    told = concluded(place, DAY, None, DRIFTED)
    assert (told["outcome"], "run training-1" in told["reason"]) == ("in_flight", True)
    runs = open_state(place.state).runs
    runs.start("training-1", LOOP, "training", "", {})
    runs.finish("training-1", "failed", {"status": "failed"})
    assert concluded(place, DAY, None, DRIFTED)["outcome"] != "in_flight"


def told(place: Workspace, run: str, loop: str = LOOP) -> None:
    """The first step of a training on a cluster, whoever started it: a schedule, a person, or a trigger."""
    open_state(place.state).runs.step(run, "ingest", "started", {"pid": 1, "loop": loop})


def test_a_training_of_a_schedule_is_under_way_until_its_record_stands(place: Workspace) -> None:
    assert concluded(place, 0.0, "no rows", retrain="now")["outcome"] == "retrain"
    told(place, "weekly-7")
    found = concluded(place, 0.0, "no rows", retrain="now")
    assert (found["outcome"], "run weekly-7 is under way" in found["reason"]) == ("in_flight", True)
    assert concluded(place, 8 * DAY, None, schedule_days=7)["outcome"] == "retrain"  # it has been silent for long
    open_state(place.state).runs.add_ended("weekly-7", LOOP, "training", "rejected", {"started": 0.0})
    assert concluded(place, 0.0, "no rows", retrain="now")["outcome"] == "retrain"


def test_a_training_of_another_loop_or_of_this_very_run_is_not_in_the_way(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(place, "other", loop="another")
    told(place, "own")
    monkeypatch.setenv("KFLOOP_RUN_ID", "own")
    assert concluded(place, 0.0, "no rows", retrain="now")["outcome"] == "retrain"


@pytest.mark.parametrize(("hours", "outcome"), [(24.5, "in_flight"), (25.5, "retrain"), (-25.5, "retrain")])
def test_a_training_that_tells_nothing_for_a_day_was_killed_and_blocks_nobody(
    place: Workspace, hours: float, outcome: str
) -> None:
    told(place, "silent")
    assert concluded(place, hours * 3600.0, "no rows", retrain="now")["outcome"] == outcome


def test_a_round_that_found_a_training_at_work_is_no_attempt(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt(place, "round", 0.0)
    monkeypatch.setenv("KFLOOP_RUN_ID", "round")
    reason = stand_back(place, "weekly-7")
    state = open_state(place.state)
    last = state.triggers.last(LOOP)
    assert last is not None
    assert (last.trigger, last.run_id, last.labels, last.reason) == ("in_flight", "round", 70, reason)
    assert "run weekly-7" in reason
    assert past_attempts(state, LOOP) == ()


def test_a_training_that_was_killed_is_not_waited_for_longer_than_it_may_take(place: Workspace) -> None:
    champion = open_state(place.state).ledger.champion(LOOP)
    assert champion is not None
    started(place, "training-1", until=champion.at + DAY)
    assert concluded(place, 0.9 * DAY, None, DRIFTED)["outcome"] == "in_flight"
    assert concluded(place, 1.1 * DAY, None, DRIFTED)["outcome"] != "in_flight"


@pytest.mark.parametrize(
    ("status", "decided"), [("succeeded", True), ("rejected", True), ("held", True), ("failed", False), ("", False)]
)
def test_an_attempt_is_decided_by_the_run_that_it_started(place: Workspace, status: str, *, decided: bool) -> None:
    """The round that started it succeeded, which says nothing of the training."""
    started(place, "training-1", until=0.0)
    if status:
        runs = open_state(place.state).runs
        runs.start("training-1", LOOP, "training", "", {})
        runs.finish("training-1", status, {"status": status})
    (found,) = past_attempts(open_state(place.state), LOOP)
    assert (found.decided, found.promoted) == (decided, False)


@pytest.mark.parametrize(("events", "outcome"), [(["failed"], "retrain"), ([], "over_budget")])
def test_a_training_that_could_not_be_started_costs_nothing_of_the_budget(
    place: Workspace, events: list[str], outcome: str
) -> None:
    """A round that was killed while it started one says nothing: it counts."""
    attempt(place, "round", 0.0)
    runs = open_state(place.state).runs
    for event in ("started", *events):
        runs.step("round", "submit_training", event, {})
    runs.finish("round", "failed", {"status": "failed"})
    told = concluded(place, 8 * DAY, None, schedule_days=7, max_retrains_per_month=1)
    assert told["outcome"] == outcome


def test_an_attempt_is_promoted_by_the_run_that_it_started(place: Workspace) -> None:
    started(place, "training-1", until=0.0)
    promote(open_state(place.state), "m2", 2, "m1", run="training-1")
    (found,) = past_attempts(open_state(place.state), LOOP)
    assert (found.decided, found.promoted) == (True, True)
