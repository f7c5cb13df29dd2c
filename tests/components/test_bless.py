"""Bless against the real embedded Triton."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from kfloop.components.bless.blessing import BlessingReport, run
from kfloop.core.sections import BlessConfig
from kfloop.core.workspace import Workspace

pytestmark = [pytest.mark.triton, pytest.mark.slow]


def _packages() -> Any:
    spec = importlib.util.spec_from_file_location("packages", Path(__file__).parent / "packages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _bless(tmp_path: Path, package: Path) -> BlessingReport:
    dataset, out = tmp_path / "dataset", tmp_path / "out"
    dataset.mkdir()
    out.mkdir()
    (dataset / "card.json").write_text('{"digest": "data"}')
    workspace = Workspace(loop="t", root=tmp_path, state="", store="", mlflow="")
    config = BlessConfig(requests=40, concurrency=4)
    report = run(config, dataset=dataset, model=package, out=out, workspace=workspace)
    assert json.loads((out / "report.json").read_text())["passed"] == report.passed
    return report


def test_sound_package_is_blessed_with_numbers(tmp_path: Path) -> None:
    report = _bless(tmp_path, _packages().make_package(tmp_path, "good"))
    assert report.passed, report.failures
    assert (report.model_digest, report.dataset_digest, report.triton_version) == ("good", "data", "2.51.0")
    assert set(report.odd_requests.values()) == {"refused"}
    assert report.latency_ms is not None
    assert report.latency_ms["n"] == 40
    assert 0 < report.latency_ms["p50"] <= report.latency_ms["p95"] <= report.latency_ms["p99"]
    assert report.memory_mb is not None
    assert report.memory_mb > 20


def test_wrong_answers_are_a_report_that_did_not_pass(tmp_path: Path) -> None:
    report = _bless(tmp_path, _packages().make_package(tmp_path, "wrong", golden_error=0.1))
    assert not report.passed
    assert "differ by 0.1" in report.failures[0]
    assert report.latency_ms is None


def test_model_that_does_not_load_is_a_report_with_the_servers_reason(tmp_path: Path) -> None:
    package = _packages().make_package(tmp_path, "junk")
    (package / "model.onnx").write_bytes(b"junk")
    report = _bless(tmp_path, package)
    assert not report.passed
    assert "load failed" in report.failures[0]
    assert report.load_seconds is None


@pytest.mark.parametrize(
    ("family", "modality", "task"),
    [
        ("mlp", "table", "regression"),
        ("rnn", "text", "multiclass"),
        ("rnn", "series", "forecasting"),
        ("gnn", "nodes", "multiclass"),
        ("gnn", "graphs", "multiclass"),
        ("gan", "image", "multiclass"),
    ],
)
def test_models_of_every_kind_are_blessed(tmp_path: Path, family: str, modality: str, task: str) -> None:
    _, package = _packages().make_any(tmp_path / "made", modality, task, family=family)
    report = _bless(tmp_path, package)
    assert report.passed, report.failures
    assert {"refused"} <= set(report.odd_requests.values()) <= {"refused", "survived"}


def test_a_package_of_the_old_format_is_a_report_that_did_not_pass(tmp_path: Path) -> None:
    package = _packages().make_package(tmp_path, "old")
    (package / "signature.json").write_text('{"format": 1}')
    report = _bless(tmp_path, package)
    assert not report.passed
    assert "format 1" in report.failures[0]
