"""What the report shows of answers and of a training, for every objective, and for damaged files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kfloop.core.artifacts import write_report
from kfloop.report import render_run

PNG = b"\x89PNG\r\n\x1a\n"
CURVE = {"false": [0.0, 0.1, 1.0], "true": [0.0, 0.9, 1.0]}
SHOWN: dict[str, dict[str, Any]] = {
    "scatter": {"scatter": {"true": [1.0, 2.0], "predicted": {"challenger": [1.1, 2.2], "baseline": [0.0, 1.0]}}},
    "roc": {"roc": {"positive": "odd", "curves": {"challenger": CURVE, "baseline": CURVE}}},
    "scores": {"scores": {"edges": [0.0, 1.0, 2.0], "normal": [5, 1], "odd": [0, 3]}},
    "by-step": {"errors_by_step": {"challenger": [0.1, 0.2], "baseline": [0.3, 0.3]}},
    "forecast-0-0": {
        "forecasts": [
            {"id": "w1", "channels": {"load": {"past": [1.0, 2.0], "true": [3.0], "forecast": {"challenger": [2.5]}}}}
        ]
    },
}


def page(tmp_path: Path, step: str, report: dict[str, Any], files: dict[str, bytes]) -> str:
    folder = tmp_path / step
    folder.mkdir()
    write_report(folder, report)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return render_run({}, {step: folder}, tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SHOWN)
def test_each_kind_of_answer_is_drawn(tmp_path: Path, name: str) -> None:
    found = page(tmp_path, "evaluate", {"objective": "regression"}, {"shown.json": json.dumps(SHOWN[name]).encode()})
    assert "<h3>Answers</h3>" in found
    assert found.count('<svg class="plot"') == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"scatter": {"true": [1], "predicted": {"challenger": [null]}}}']
)
def test_damaged_curves_cost_nothing_else(tmp_path: Path, content: bytes) -> None:
    found = page(tmp_path, "evaluate", {"objective": "regression", "n_test": 77}, {"shown.json": content})
    assert "<h3>Answers</h3>" not in found
    assert "<dd>77</dd>" in found
    assert "could not be read" not in found


def test_samples_stand_beside_real_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.zeros((2, 20, 8, 8, 1), np.uint8))
    shown = json.dumps({"samples": ["real", "challenger"]}).encode()
    files = {"shown.json": shown, "samples.npy": (tmp_path / "s.npy").read_bytes()}
    found = page(tmp_path, "evaluate", {"objective": "generation"}, files)
    assert found.count('<img class="sheet"') == 2
    assert "samples of the challenger" in found
    (tmp_path / "b").mkdir()
    assert "<h3>Samples</h3>" not in page(tmp_path / "b", "evaluate", {}, files | {"samples.npy": b"junk"})


def test_each_slice_shows_the_figure_it_has(tmp_path: Path) -> None:
    one = {"value": 0.61, "low": 0.5, "high": 0.7, "n": 9, "level": 0.95}
    parts = {"class:a": {"f1": one | {"value": 0.42}}, "origin:base": {"micro_f1": one}}
    report = {
        "objective": "multilabel",
        "resampling": {"by": "group", "units": 5, "fewest": 8},
        "challenger": {"digest": "c0ffee", "overall": {"micro_f1": one}, "slices": parts},
        "differences": {"champion": {"overall": {"micro_f1": one}, "slices": parts}},
    }
    found = page(tmp_path, "evaluate", report, {})
    for name, value in (("class a (f1)", "0.420"), ("origin base (micro f1)", "0.610")):
        row = found[found.index(f'<th scope="row">{name}</th>') :].split("</tr>")[0]
        assert row.count(value) == 2, row
    assert "groups of test rows, resampled as a whole" in found
    assert "no intervals: too few of these, they need" in found


def test_ranges_of_a_column_go_from_small_to_large(tmp_path: Path) -> None:
    one = {"value": 0.61, "low": 0.5, "high": 0.7, "n": 9, "level": 0.95}
    values = ("below 8.4", "[8.4, 10)", "[10, 11.3)", "11.3 or more")
    told = {f"column:h={value}": {"text": f"h {value}"} for value in values}
    rooms = {f"column:rooms={number}": {"text": f"rooms = {number}"} for number in (2, 10)}
    parts = {key: {"rmse": one} for key in sorted({**told, **rooms})}
    report = {"slice_facts": told | rooms, "challenger": {"digest": "c", "overall": {"rmse": one}, "slices": parts}}
    found = page(tmp_path, "evaluate", report, {})
    places = [
        found.index(f'<th scope="row">{name}</th>') for name in (*(f"h {v}" for v in values), "rooms = 2", "rooms = 10")
    ]
    assert places == sorted(places)


def test_slices_show_the_figure_that_decides(tmp_path: Path) -> None:
    one = {"value": 0.61, "low": 0.5, "high": 0.7, "n": 9, "level": 0.9833}
    parts = {
        name: {"mae": one, "mse": one | {"value": 0.42, "level": 0.98331}} for name in ("origin:base", "channel:a")
    }
    report = {"primary": "mse", "challenger": {"digest": "c0ffee", "overall": {"mse": one}, "slices": parts}}
    found = page(tmp_path, "evaluate", report, {})
    row = found[found.index('<th scope="row">channel a</th>') :].split("</tr>")[0]
    assert "0.420" in row
    assert "mse by slice" in found
    assert "intervals at 98.3 %, so" in found


def test_largest_errors_are_numbers_and_differences_are_shares(tmp_path: Path) -> None:
    one = {"value": 0.05, "low": 0.01, "high": 0.09, "n": 9, "level": 0.95}
    report = {
        "objective": "regression",
        "direction": {"rmse": "lower"},
        "challenger": {"digest": "c0ffee", "overall": {"rmse": one | {"value": 3.0}}},
        "differences": {"champion": {"overall": {"rmse": one}, "relative": {"overall": {"rmse": one}}}},
        "examples": [{"id": "r1", "label": 152.25, "predicted": 90.5, "error": 61.75}],
    }
    found = page(tmp_path, "evaluate", report, {})
    assert "<h3>Largest errors</h3>" in found
    assert "given <b>152.2</b>" in found
    assert "off by 61.75" in found
    assert "+5.0 % (+1.0 to +9.0)" in found
    assert "rmse (lower is better)" in found


def test_a_module_of_ones_own_is_shown_with_what_it_follows(tmp_path: Path) -> None:
    plan = {"learning_rate": 0.0033, "schedule": "one_cycle", "batch_size": 48}
    options = {"model": "mine:Net", "hyperparameters": {"width": 24}}
    found = page(tmp_path, "train", {"family": "custom", "plan": plan, "options": options}, {})
    shown = found[found.index("Hyper-parameters") :]
    assert all(said in shown for said in ("mine:Net", "width", "24", "batch size", "48"))
    assert "0.0033" not in shown
    assert "one_cycle" not in shown


def test_training_shows_whatever_its_history_has(tmp_path: Path) -> None:
    report = {
        "history": [
            {"epoch": k, "train_loss": 1.0 / (k + 1), "validation_loss": 1.1, "validation_mae": 0.4} for k in range(3)
        ],
        "plan": {"learning_rate": 0.0033, "batch_size": 48},
        "throughput": {"samples_per_second": 1234.4, "waiting_share": 0.021, "cost": None},
        "trials": [{"number": 0, "state": "pruned", "value": 0.5, "epochs": 2, "parameters": {"learning_rate": 0.01}}],
    }
    found = page(tmp_path, "train", report, {"samples.png": PNG})
    assert "validation loss ends at 1.100, validation mae ends at 0.400" in found
    assert '<th scope="col" class="number">validation mae</th>' in found
    for said in ("1,234", "2.1 %", "0.0033", "learning rate 0.01", "<h3>Drawn by the generator</h3>"):
        assert said in found
    assert "<dt>cost</dt>" not in found
