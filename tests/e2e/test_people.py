"""People and the gate through the real command line: a rule that fails is overridden, the challenger held, approved, and on record."""

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.triton]

LOOP = """\
name: small
about: {intended_use: reads digits, owner: the tests}
data: {limit: 700}
train: {epochs: 8}
evaluate: {bootstrap: 300}
bless: {requests: 40}
gate:
  approval: manual
  rules:
    - {metric: accuracy, at_least: 0.5}
    - {metric: p95_ms, source: bless, at_most: 0.001}
"""


def test_an_override_a_hold_and_an_approval(shell: Any) -> None:
    (shell.folder / "loop.yaml").write_text(LOOP)
    first = shell.run("run")
    assert first.returncode == 3, first.stderr
    refused = shell.run("override", "blessed", "--reason", "why", "--until", "7d")
    assert (refused.returncode, "is a condition of every decision" in refused.stderr) == (2, True)
    granted = shell.json("override", "p95_ms", "--reason", "a busy machine", "--until", "7d", "--by", "ann")
    assert [item["rule"] for item in granted["overrides"]] == ["p95_ms <= 0.001"]
    held = shell.json("run")
    assert (held["status"], held["exit_code"]) == ("held", 4)
    statuses = {step["name"]: step["status"] for step in held["steps"]}
    assert {statuses[name] for name in ("train", "package", "evaluate", "bless")} == {"cached"}
    assert statuses["gate"] == "succeeded"
    page = Path(held["report"]).read_text()
    assert "p95_ms &lt;= 0.001 does not block until" in page
    waiting = shell.json("status")["waiting"]
    assert (waiting["version"], waiting["run_id"]) == (1, held["run_id"])
    done = shell.json("approve", held["run_id"], "--reason", "looked at it", "--by", "bob")
    assert (done["champion"], done["outcome"]) == (1, "promoted")
    again = shell.json("run")
    assert (again["status"], again["exit_code"]) == ("nothing_new", 0)
    rows = shell.json("status", "--ledger")["ledger"]
    assert [(row["action"], row["phase"], row["actor"]) for row in rows if row["phase"] != "intent"][::2] == [
        ("override", "noted", "ann"),
        ("promote", "done", "bob"),
    ]
    decision = json.loads(
        (shell.folder / ".kfloop/store/decisions" / rows[-1]["details"]["decision"] / "report.json").read_text()
    )
    assert decision["evidence_digest"] == rows[-1]["evidence_digest"]
    card = json.loads(Path(shell.json("report", "--card", "1")["card"]).read_text())
    assert [person["who"] for person in card["people"]][-1] == "bob"
    assert [line["rule"] for line in card["overrides"]] == ["p95_ms <= 0.001"]
    assert (card["about"]["intended_use"], card["status"]) == ("reads digits", "champion")
    ended = shell.json("override", "--end", "p95_ms", "--reason", "the migration is over")
    assert ended["overrides"] == []
