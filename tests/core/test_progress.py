"""Progress of a long step: told to the run's folder, read by who follows, never in the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kfloop.core.progress import PROGRESS, Progress, ProgressTeller, duration, read_progress, render
from kfloop.core.records import step_records
from kfloop.core.state.runs import StepEvent
from kfloop.core.workspace import RUN_ID_VARIABLE, Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(loop="x", root=tmp_path, state="", store="", mlflow="")


def test_what_is_told_inside_a_run_can_be_read(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_ID_VARIABLE, "r1")
    folder = workspace.kfloop_dir / "runs" / "r1"
    folder.mkdir(parents=True)
    teller = ProgressTeller(workspace, "train")
    assert teller.due
    teller.tell(3, 12, rate=1234.6, seconds_left=75, text="epoch 1 of 4")
    assert not teller.due
    found = read_progress(folder)
    assert found == Progress(step="train", done=3, total=12, rate=1234.6, seconds_left=75, text="epoch 1 of 4")
    assert render(found) == "[#####...............]  25%  epoch 1 of 4  1,235 samples/s  1:15 left"
    teller.close()
    assert read_progress(folder) is None
    assert not list(folder.iterdir())


def test_a_missing_folder_or_file_is_no_error(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_ID_VARIABLE, "gone")
    ProgressTeller(workspace, "train").tell(1, 2)
    assert read_progress(workspace.kfloop_dir / "runs" / "gone") is None


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"step": "train"}), json.dumps({"other": 1})])
def test_garbage_is_no_progress(tmp_path: Path, content: str) -> None:
    (tmp_path / PROGRESS).write_text(content)
    assert read_progress(tmp_path) is None


def test_outside_a_run_nothing_is_written(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUN_ID_VARIABLE, raising=False)
    teller = ProgressTeller(workspace, "train")
    teller.tell(1, 2)
    teller.close()
    assert not workspace.kfloop_dir.exists()


def test_only_the_running_step_shows_it() -> None:
    plan = [{"name": "ingest", "branch": []}, {"name": "train", "branch": []}]
    events = [
        StepEvent(number=1, step="ingest", event="started", at=1.0, payload={}),
        StepEvent(number=2, step="ingest", event="succeeded", at=2.0, payload={}),
        StepEvent(number=3, step="train", event="started", at=3.0, payload={}),
    ]
    told = Progress(step="train", done=1, total=2)
    shown = {record.name: record.progress for record in step_records(plan, events, ended=False, progress=told)}
    assert shown == {"ingest": None, "train": render(told)}
    stale = Progress(step="ingest", done=1, total=2)
    assert not any(record.progress for record in step_records(plan, events, ended=False, progress=stale))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (42.4, "0:42"), (725, "12:05"), (3750, "1:02:30"), (-3, "0:00")]
)
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_total_of_nothing_is_no_division() -> None:
    assert render(Progress(step="train", done=0, total=0)).startswith("[....................]   0%")
