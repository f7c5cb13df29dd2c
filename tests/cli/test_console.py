"""What a person reads while steps run, and when they are over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kfloop.cli.console import StepPrinter
from kfloop.cli.rounds import _log_of_failure, _set_aside
from kfloop.core.records import RunRecord, StepRecord
from kfloop.core.workspace import Workspace


@pytest.mark.parametrize(
    ("outcome", "shown"),
    [
        ("not_evaluated", "not evaluated"),
        ("promote", "promote"),
        ("cb6b371ba2c2385295f570e058e85b08", "cb6b371ba2c2"),
        ("cb6b371ba2c2385295f570e058e85b08+0f3c9a127b1d", "cb6b371ba2c2"),  # of a training with a cause
        ("none+0f3c9a127b1d", "none"),
    ],
)
def test_an_outcome_is_a_whole_word_or_the_beginning_of_a_digest(
    outcome: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    StepPrinter()([StepRecord(name="monitor", status="succeeded", seconds=0.3, started=1.0, outcome=outcome)])
    assert capsys.readouterr().err.rstrip().endswith(f"0.3 s  {shown}")


@pytest.mark.parametrize(
    ("card", "told"),
    [
        (json.dumps({"quarantined": 24, "n_rows": 876}), "24 of 900 rows were set aside"),
        (json.dumps({"quarantined": 0, "n_rows": 876}), ""),
        ('{"quarantined":', ""),
        ("[]", ""),
        ('{"quarantined": {}}', ""),
        (None, ""),
    ],
)
def test_rows_set_aside_are_told_where_the_run_ends(card: str | None, told: str, tmp_path: Path) -> None:
    if card is not None:
        (tmp_path / "card.json").write_text(card)
    step = StepRecord(name="ingest", status="succeeded", artifact={"path": str(tmp_path)})
    line = _set_aside(RunRecord(run_id="r", loop="l", pipeline="training", config_digest="", steps=[step]))
    assert (told in line) if told else line == ""


def test_a_run_without_an_ingest_tells_of_no_rows() -> None:
    assert _set_aside(RunRecord(run_id="r", loop="l", pipeline="training", config_digest="")) == ""


def test_a_failed_run_says_where_its_log_is(tmp_path: Path) -> None:
    workspace = Workspace(loop="l", root=tmp_path, state="", store="", mlflow="")
    record = RunRecord(run_id="r", loop="l", pipeline="training", config_digest="", status="failed")
    assert _log_of_failure(record, workspace) == ""  # none was written
    log = workspace.kfloop_dir / "runs" / "r" / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("Traceback")
    assert _log_of_failure(record, workspace) == f"\nLog: {log}"
    record.status = "rejected"
    assert _log_of_failure(record, workspace) == ""
