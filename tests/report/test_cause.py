"""What a training was for, on the page: side by side where requests moved to and on all other rows; and whatever may be wrong with it."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from kfloop.core.artifacts import write_report
from kfloop.report import render_run
from kfloop.report.values import MISSING
from tests.report.test_html import EVIL, parsed


def estimate(value: float, n: int = 90) -> dict[str, Any]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02, "n": n, "level": 0.975}


def part(name: str, where: str, text: str) -> dict[str, Any]:
    names = {"drifted": f"drifted:{name}={where}", "old": f"old:{name}=all but {where}"}
    return names | {"column": name, "text": text, "reference": 0.08, "current": 0.75, "n": 90, "n_old": 270}


PARTS = [part("age", "60 or more", "age 60 or more"), part("city", "unknown", "city unknown to the champion")]
DRIFTED, OLD = ([one[kind] for one in PARTS] for kind in ("drifted", "old"))
EVALUATION: dict[str, Any] = {
    "n_test": 360,
    "objective": "classification",
    "primary": "accuracy",
    "challenger": {"digest": "new", "overall": {}, "slices": {name: {"accuracy": estimate(0.91)} for name in DRIFTED}},
    "champion": {"digest": "old", "overall": {}, "slices": {name: {"accuracy": estimate(0.42)} for name in DRIFTED}},
    "differences": {"champion": {"slices": {name: {"accuracy": estimate(0.49)} for name in DRIFTED}}},
    "cause": {"kind": "drift", "reason": "drift since row 450", "evidence": "ab" * 16, "parts": PARTS, "problems": []},
}
VERDICTS = [
    {"rule": f"accuracy[{DRIFTED[0]}] vs champion >= 0.001 (interval)", "verdict": "fail", "mode": "warn"},
    {"rule": f"accuracy[{DRIFTED[0]}] vs champion >= -0.02 (unless refuted)", "verdict": "pass", "mode": "enforce"},
    {"rule": f"accuracy[{OLD[0]}] vs champion >= -0.05 (interval)", "verdict": "not_evaluated", "mode": "enforce"},
]


def page(evaluation: dict[str, Any], folder: Path, verdicts: Any = VERDICTS) -> str:
    reports = {"evaluate": evaluation, "gate": {"outcome": "promote", "reason": "r", "verdicts": verdicts}}
    steps = []
    for name, report in reports.items():
        (folder / name).mkdir(parents=True)
        write_report(folder / name, report)
        steps.append({"name": name, "status": "succeeded", "seconds": 1.0, "artifact": {"kind": name, "digest": "ab"}})
    record = {"loop": "l", "run_id": "r", "pipeline": "training", "status": "succeeded", "steps": steps}
    places = {name: folder / name for name in reports}
    return render_run(record, places, folder / "page.html").read_text(encoding="utf-8")


def lines(shown: str) -> list[list[str]]:
    """The cells of the table of the cause."""
    table = shown.partition("where requests moved to, and on all other rows: the old distribution</caption>")[
        2
    ].partition("</table>")[0]
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in table.partition("<tbody>")[2].split("<tr>")]
    return [line for line in cells if line]


def test_champion_and_challenger_stand_side_by_side_with_the_verdict(tmp_path: Path) -> None:
    shown = page(EVALUATION, tmp_path)
    parsed(shown)
    assert "The monitor asked for it (drift): drift since row 450 (evidence abababababab)." in shown
    assert lines(shown) == [
        ["age 60 or more", "8.0 %", "75.0 %", "90", "0.420 (0.400 to 0.440)", "0.910 (0.890 to 0.930)", "0.490 (0.470 to 0.510)", "pass", "fail"],
        ["all but age 60 or more", "92.0 %", "25.0 %", "270", MISSING, MISSING, MISSING, "not evaluated", "no rule"],
        ["city unknown to the champion", "8.0 %", "75.0 %", "90", "0.420 (0.400 to 0.440)", "0.910 (0.890 to 0.930)", "0.490 (0.470 to 0.510)", "no rule", "no rule"],
        ["all but city unknown to the champion", "92.0 %", "25.0 %", "270", MISSING, MISSING, MISSING, "no rule", "no rule"],
    ]  # fmt: skip


def test_a_cause_without_columns_says_what_stands_for_it(tmp_path: Path) -> None:
    told = EVALUATION["cause"] | {"parts": []}
    shown = page(EVALUATION | {"cause": told}, tmp_path)
    assert "No column of the requests tells by itself where they moved" in shown
    assert lines(shown) == []


def test_a_person_s_training_has_no_cause(tmp_path: Path) -> None:
    assert "What this training was for" not in page(EVALUATION | {"cause": None}, tmp_path / "a")
    older = {name: value for name, value in EVALUATION.items() if name != "cause"}
    assert "What this training was for" not in page(older, tmp_path / "b")


def test_what_cannot_be_judged_is_told(tmp_path: Path) -> None:
    told = EVALUATION["cause"] | {"problems": ["the cause names the column 'x', which the dataset does not have"]}
    assert "which the dataset does not have" in page(EVALUATION | {"cause": told}, tmp_path)


@pytest.mark.parametrize(
    "cause",
    [
        "drift",
        ["drift"],
        {"parts": "age", "problems": "all"},
        {"parts": [None, {"column": EVIL, "drifted": EVIL, "text": EVIL, "reference": "a", "current": True, "n": []}]},
        {"kind": EVIL, "reason": EVIL, "evidence": 7, "parts": [{}], "problems": [EVIL, None]},
    ],
)
def test_an_odd_cause_leaves_a_page_that_opens(cause: Any, tmp_path: Path) -> None:
    shown = page(copy.deepcopy(EVALUATION) | {"cause": cause}, tmp_path, [{"rule": 7}, None, {"rule": EVIL}])
    parsed(shown)
    assert "<script>" not in shown
    assert "could not be read" not in shown
    assert "What this training was for" in shown


def test_where_requests_moved_to_stands_on_the_monitoring_page(tmp_path: Path) -> None:
    drifted = {
        "column": "age",
        "kind": "number",
        "low": 60.0,
        "high": None,
        "values": [],
        "reference": 0.08,
        "current": 0.75,
    }
    odd = [drifted | {"low": "x", "column": EVIL}, {"column": "city"}, None, "age"]
    (tmp_path / "monitor").mkdir()
    write_report(tmp_path / "monitor", {"outcome": "retrain", "reason": "r", "drifted": [drifted, *odd]})
    step = {"name": "monitor", "status": "succeeded", "seconds": 1.0, "artifact": {"kind": "evidence", "digest": "ab"}}
    record = {"loop": "l", "run_id": "r", "pipeline": "monitoring", "status": "succeeded", "steps": [step]}
    file = render_run(record, {"monitor": tmp_path / "monitor"}, tmp_path / "page.html")
    shown = file.read_text(encoding="utf-8")
    parsed(shown)
    assert "<script>" not in shown
    assert "Where requests moved to: age 60 or more from 8 % to 75 %" in shown
