"""What the package section shows of answers for a person to look at."""

from __future__ import annotations

from typing import Any

import pytest

from kfloop.report.answer_plots import risk_coverage
from kfloop.report.sections.reviewing import build

KNOWN = {"value": 0.9, "low": 0.85, "high": 0.95, "n": 100, "level": 0.9}
UNKNOWN = {"value": None, "low": None, "high": None, "n": 0, "level": 0.9}
REVIEW: dict[str, Any] = {
    "asked": 0.95,
    "level": 0.9,
    "n_validation": 200,
    "n_test": 300,
    "classes": [
        {"label": "<cat>", "threshold": 0.8123, "n_test": 150, "precision": KNOWN, "coverage": KNOWN},
        {"label": "dog", "threshold": None, "n_test": 150, "precision": UNKNOWN, "coverage": KNOWN},
    ],
    "precision": KNOWN,
    "coverage": KNOWN,
    "curve": [[0.5, 0.0], [1.0, 0.2]],
}


def test_every_class_and_all_together_have_a_line() -> None:
    view = build(REVIEW)
    assert [row[0] for row in view["rows"]] == ["<cat>", "dog", "all"]
    assert view["rows"][0][1:4] == ["0.812", "150", "0.900 (0.850 to 0.950)"]
    assert view["rows"][1][1] == "all are flagged"
    assert "95.0 % right" in view["note"]
    assert "<svg" in view["plot"]
    assert "20.0% wrong where all answers are accepted, 5.0% allowed" in view["plot"]


@pytest.mark.parametrize("damaged", [{}, {"asked": "much"}, {"asked": None, "classes": 3}])
def test_nothing_asked_shows_nothing(damaged: dict[str, Any]) -> None:
    assert build(damaged)["rows"] == []


def test_damaged_parts_cost_themselves_alone() -> None:
    view = build(REVIEW | {"curve": [1, [None, 2], "x"], "classes": [{"label": 3}, 7], "precision": None})
    assert view["plot"] == ""
    assert len(view["rows"]) == 2
    assert build(REVIEW | {"asked": 1e300})["plot"] == ""
    assert build(REVIEW | {"curve": [[0.5, -1e300], [1e300, 0.1]]})["plot"] == ""


def test_thresholds_that_accept_nothing_have_no_place_in_the_plot() -> None:
    drawn = risk_coverage([(0.5, 0.0), (1.0, 0.0)], 0.05, None)
    assert "the thresholds accept none" in drawn
    assert build(REVIEW | {"precision": UNKNOWN})["plot"].count("accept none") >= 1
