"""Cost, robustness and explanations in the report: drawn where they are, and left out where they are missing or damaged."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kfloop.report.html import render_run
from kfloop.report.sections.heat import overlay


def estimate(value: float | None) -> dict[str, Any]:
    ends = (None, None) if value is None else (value - 0.05, value + 0.05)
    return {"value": value, "low": ends[0], "high": ends[1], "n": 40, "level": 0.95}


def report() -> dict[str, Any]:
    models = {
        name: {"digest": name, "overall": {"accuracy": estimate(value)}, "slices": {}}
        for name, value in (("challenger", 0.9), ("champion", 0.85), ("baseline", 0.8))
    }
    cost = {
        name: {"parameters": 10**place, "size_mb": 0.01 * 10**place, "cpu_ms_1": 0.5 * place, "gpu_ms_1": None}
        for place, name in enumerate(models, start=1)
    }
    curve = [estimate(value) for value in (0.9, 0.8, None, 0.4)]
    return {
        "objective": "classification",
        "primary": "accuracy",
        "n_test": 40,
        **models,
        "cost": cost,
        "robustness": {
            "gaussian_noise": {
                "severities": [0, 1, 2, 3],
                "amounts": [0.1, 0.2, 0.4],
                "unit": "share",
                "metric": "accuracy",
                "n": 40,
                **dict.fromkeys(models, curve),
            },
            "swapped": {"severities": [], "problem": "no column holds <categories>"},
        },
    }


def page(folder: Path, told: Any = None, arrays: dict[str, Any] | None = None, evaluation: Any = None) -> str:
    out = folder / "evaluate"
    out.mkdir(parents=True)
    (out / "report.json").write_text(json.dumps(report() if evaluation is None else evaluation))
    if told is not None:
        (out / "explanations.json").write_text(told if isinstance(told, str) else json.dumps(told))
    if arrays is not None:
        np.savez(out / "explanations.npz", **arrays)
    record = {"loop": "l", "run_id": "r", "steps": [{"name": "evaluate", "status": "succeeded"}]}
    return render_run(record, {"evaluate": out}, folder / "report.html").read_text(encoding="utf-8")


def example(**more: Any) -> dict[str, Any]:
    about = {
        "id": "r1",
        "label": "cat",
        "predicted": "dog",
        "right": False,
        "output": "probability of dog",
        "value": 0.7,
    }
    return about | more


def test_cost_and_robustness_are_drawn_and_what_was_left_out_is_named(tmp_path: Path) -> None:
    html = page(tmp_path)
    assert html.count("<svg") >= 4
    assert "one answer on the CPU, ms" in html
    assert "one answer on the GPU" not in html  # known of no model
    assert "Without swapped: no column holds &lt;categories&gt;." in html
    assert "Figure by severity" not in html
    assert re.search(r'aria-label="gaussian noise: challenger from 0\.900', html)
    assert "mathdefault" not in html
    assert "Why the challenger answered so" not in html


EXAMPLES = {
    "text": example(kind="text", tokens=["an", "<b>awful</b>"], weights=[0.0, 0.4]),
    "bars": example(kind="bars", bars=[{"name": "age", "own": 61, "typical": 40, "weight": 0.3}]),
    "series": example(
        kind="series", channels=[{"name": "load", "values": [1.0, None, 2.0], "weights": [0, 0.1, -0.2]}]
    ),
    "audio": example(
        kind="audio", seconds=2.0, channels=[{"name": "loudness", "values": [1.0, 2.0], "weights": [0, 1]}]
    ),
    "graph": example(kind="graph", nodes=3, edges=[[0, 1], [1, 2]], weights=[0.1, -0.2, 0.0]),
    "image": example(kind="image", place=0),
}


@pytest.mark.parametrize("kind", list(EXAMPLES))
def test_each_kind_of_explanation_is_drawn(tmp_path: Path, kind: str) -> None:
    told = {"kind": kind, "caption": "How it was done.", "problem": "", "examples": [EXAMPLES[kind]]}
    arrays = {"pictures": np.zeros((1, 8, 8, 1), np.uint8), "heat": np.eye(8, dtype=np.float32)[None]}
    html = page(tmp_path, told, arrays if kind == "image" else None)
    assert "How it was done." in html
    assert 'predicted <b class="wrong">dog</b>' in html
    assert "probability of dog: 0.700" in html
    shown = {"text": "&lt;b&gt;awful&lt;/b&gt;</span>", "bars": "age = 61", "image": "data:image/png;base64,"}
    assert shown.get(kind, "<svg") in html
    assert "<b>awful" not in html


def test_what_a_table_relies_on_is_drawn_with_its_intervals(tmp_path: Path) -> None:
    columns = [
        {"name": "age", **estimate(0.3)},
        {"name": "town", **estimate(0.01)},
        {"name": "empty", **estimate(None)},
    ]
    told = {"kind": "bars", "examples": [], "problem": "", "importance": {"metric": "accuracy", "columns": columns}}
    html = page(tmp_path, told)
    assert "What the challenger relies on" in html
    assert 'aria-label="loss of accuracy: age 0.300 (0.250 to 0.350), town' in html


def test_an_explanation_that_failed_says_why(tmp_path: Path) -> None:
    html = page(tmp_path, {"problem": "no <graph>", "examples": []})
    assert "The answers could not be explained: no &lt;graph&gt;." in html


@pytest.mark.parametrize(
    "told", ["no json", "[]", '{"examples": 3}', '{"kind": "image", "examples": [{"kind": "image", "place": 7}]}', "{}"]
)
def test_damage_costs_the_explanations_and_no_more(tmp_path: Path, told: str) -> None:
    html = page(tmp_path, told, {"pictures": np.zeros((1, 8, 8, 1), np.uint8), "heat": np.zeros((1, 8, 8), np.float32)})
    assert "one answer on the CPU, ms" in html
    assert "Why the challenger answered so" not in html


@pytest.mark.parametrize("damage", [{"cost": 3}, {"cost": {"challenger": {"parameters": "x"}}}, {"robustness": [1]}])
def test_odd_figures_are_left_out(tmp_path: Path, damage: dict[str, Any]) -> None:
    html = page(tmp_path, evaluation=report() | damage)
    assert "Value and interval on the same test rows" in html
    old = {key: value for key, value in report().items() if key not in {"cost", "robustness"}}
    html = page(tmp_path / "old", evaluation=old)
    assert "<h3>Cost</h3>" not in html
    assert "<h3>Robustness</h3>" not in html


def test_heat_is_blue_for_and_red_against() -> None:
    picture = np.full((2, 2, 1), 100, np.uint8)
    found = overlay(picture, np.array([[1.0, -1.0], [0.0, np.nan]]))
    assert found[0, 0, 2] > found[0, 0, 0]
    assert found[0, 1, 0] > found[0, 1, 2]
    assert found[1].tolist() == [[100] * 3] * 2
