"""Run records: built from a plan and step events, whatever happened."""

from kfloop.core.records import RunRecord, step_records
from kfloop.core.state.runs import StepEvent

PLAN = [
    {"name": "train", "branch": [], "final": False},
    {"name": "deploy", "branch": ["promoted"], "final": False},
    {"name": "notify", "branch": [], "final": True},
]


def event(number: int, step: str, name: str, **payload: object) -> StepEvent:
    return StepEvent(number=number, step=step, event=name, at=100.0 + number, payload=payload)


def test_a_branch_not_taken_is_skipped_when_all_went_well() -> None:
    events = [event(1, "train", "started"), event(2, "train", "succeeded", seconds=1.5, digest="d", kind="k", path="p")]
    steps = step_records(PLAN, events, ended=True)
    assert [step.status for step in steps] == ["succeeded", "skipped", "not_run"]
    assert steps[0].seconds == 1.5
    assert steps[0].artifact == {"digest": "d", "kind": "k", "path": "p"}


def test_nothing_is_called_skipped_after_a_failure_or_while_the_run_is_at_work() -> None:
    events = [event(1, "train", "started"), event(2, "train", "failed", error={"message": "m"})]
    assert [step.status for step in step_records(PLAN, events, ended=True)] == ["failed", "not_run", "not_run"]
    assert [step.status for step in step_records(PLAN, events[:1], ended=False)] == ["running", "waiting", "waiting"]


def test_a_step_that_ended_without_a_word_failed() -> None:
    steps = step_records(PLAN, [event(1, "train", "started")], ended=True)
    assert [step.status for step in steps] == ["failed", "not_run", "not_run"]
    assert steps[0].error is not None
    assert "without a word" in steps[0].error["message"]


def test_an_outcome_is_kept_and_a_digest_is_not_mistaken_for_one() -> None:
    plain = step_records(PLAN, [event(1, "train", "succeeded", digest="d", outcome="d")], ended=True)[0]
    decided = step_records(PLAN, [event(1, "train", "succeeded", digest="d", outcome="promote")], ended=True)[0]
    assert plain.outcome is None
    assert decided.outcome == "promote"


def test_a_record_is_json_with_every_field() -> None:
    record = RunRecord(run_id="r", loop="x", pipeline="training", config_digest="c").as_dict()
    assert {"run_id", "status", "steps", "decision", "champion", "digests", "versions", "exit_code"} <= set(record)
