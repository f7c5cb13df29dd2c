"""What the report tells a person to do about a decision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kfloop.report.sections.following import following
from kfloop.report.sources import Context


@pytest.mark.parametrize(
    ("outcome", "commands"),
    [
        ("hold", ["kfloop approve r7 --reason '...'", "kfloop reject r7 --reason '...'"]),
        ("reject", [""]),
        ("promote", []),
        (None, []),
    ],
)
def test_a_decision_comes_first_in_what_to_do(tmp_path: Path, outcome: Any, commands: list[str]) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"outcome": outcome}))
    steps = [{"name": "gate", "status": "succeeded", "artifact": {"digest": "d", "path": str(tmp_path)}}]
    context = Context(record={"run_id": "r7", "steps": steps}, folders={"gate": tmp_path})
    found = following(context)
    assert [line["command"] for line in found] == commands
    assert {line["anchor"] for line in found} <= {"verdicts"}
