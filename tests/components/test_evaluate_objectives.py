"""The whole evaluate step for tables, series, graphs and sets of labels, on real packages that have learned nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

import packages
from kfloop.components.evaluate.evaluation import EvaluationReport, run
from kfloop.core.artifacts import read_report, write_report
from kfloop.core.scoring import PackagedModel
from kfloop.core.sections import EvaluateConfig
from kfloop.core.store import Store
from kfloop.core.versions import read_version
from kfloop.core.workspace import Workspace
from kfloop.errors import TerminalError

QUICK = EvaluateConfig(bootstrap=200, latency_seconds=0.02)
SMALL = {"options": {"width": 8, "depth": 1}}


def make(root: Path, modality: str, task: str, **train: Any) -> Path:
    """A package in ``root/package``, its dataset version in ``root/dataset``."""
    _, out = packages.make_any(root, modality, task, **train)
    assert isinstance(out, Path)
    return out


def evaluate(root: Path, model: Path, champion: Path | None = None) -> EvaluationReport:
    """The step, and what it wrote is what it gives."""
    workspace = Workspace(loop="any", root=root, state="", store=str(root / "store"), mlflow="")
    incumbent, out = root / "incumbent", root / "out"
    incumbent.mkdir()
    out.mkdir()
    digest = None
    if champion is not None:
        digest = read_report(champion)["digest"]
        Store(workspace.store).publish(champion, "models", digest)
    write_report(incumbent, {"champion_digest": digest, "champion_version": 1 if digest else None})
    report = run(
        QUICK, dataset=model.parent / "dataset", model=model, incumbent=incumbent, out=out, workspace=workspace
    )
    written = json.loads((out / "report.json").read_text())
    assert (written["objective"], written["n_test"]) == (report.objective, report.n_test)
    assert all(facts["severities"] or facts["problem"] for facts in report.robustness.values())
    assert json.loads((out / "explanations.json").read_text())["problem"] == ""
    return report


def scores(package: Path, objective: str) -> tuple[np.ndarray, np.ndarray]:
    """Truth and answers of the test rows."""
    model = PackagedModel(package)
    test = model.encoder.examples(read_version(package.parent / "dataset"), "test", objective)
    return test.target, model.score(test)[model.signature.answer]


def value(side: dict[str, Any] | None, metric: str) -> float:
    assert side is not None
    return float(side["overall"][metric].value)


@pytest.mark.slow
def test_a_table_is_compared_with_its_champion(tmp_path: Path) -> None:
    ours = make(tmp_path / "ours", "table", "regression", **SMALL)
    theirs = make(tmp_path / "theirs", "table", "regression", options={"width": 16, "depth": 1})
    report = evaluate(tmp_path, ours, theirs)
    assert (report.objective, report.modality, report.primary, report.n_test) == ("regression", "table", "rmse", 14)
    for side, package in ((report.challenger, ours), (report.champion, theirs)):
        target, answer = scores(package, "regression")
        assert value(side, "mae") == pytest.approx(metrics.mean_absolute_error(target, answer), rel=1e-5)
        assert value(side, "r2") == pytest.approx(metrics.r2_score(target, answer), rel=1e-4)
    assert report.champion is not None
    assert report.champion["digest"] == read_report(theirs)["digest"] != report.challenger["digest"]
    difference = value(report.differences["champion"], "mae")
    assert difference == pytest.approx(value(report.challenger, "mae") - value(report.champion, "mae"))
    assert difference != 0
    assert report.baseline is not None
    assert report.baseline["kind"] == "ridge"
    assert report.overlap == {"challenger": 0, "champion": 0}
    assert report.confusion is None
    assert set(report.direction.values()) == {"higher", "lower"}


@pytest.mark.slow
def test_a_series_is_compared_with_a_champion_of_another_family(tmp_path: Path) -> None:
    ours = make(tmp_path / "ours", "series", "forecasting", family="rnn")
    theirs = make(tmp_path / "theirs", "series", "forecasting", family="transformer")
    report = evaluate(tmp_path, ours, theirs)
    assert (report.objective, report.primary) == ("forecasting", "mse")
    assert report.block > 1
    train = read_version(ours.parent / "dataset").table("train", ["load", "temperature"])
    std = np.array([train[name].to_numpy().std() for name in train.column_names])
    for side, package in ((report.challenger, ours), (report.champion, theirs)):
        target, answer = scores(package, "forecasting")
        assert value(side, "mse") == pytest.approx((((answer - target) / std) ** 2).mean(), rel=1e-4)
        assert value(side, "mae") == pytest.approx(np.abs((answer - target) / std).mean(), rel=1e-4)
    assert {"channel:load", "channel:temperature"} <= set(report.challenger["slices"])
    assert set(report.differences["champion"]["slices"]) == set(report.challenger["slices"])
    assert report.baseline is not None
    assert report.baseline["kind"] == "ridge"


def test_sets_of_labels(tmp_path: Path) -> None:
    ours = make(tmp_path / "ours", "table", "multilabel", **SMALL)
    report = evaluate(tmp_path, ours)
    target, answer = scores(ours, "multilabel")
    told = answer >= 0.5
    assert (report.objective, report.champion, report.confusion) == ("multilabel", None, None)
    assert value(report.challenger, "accuracy") == pytest.approx((told == target).mean())
    expected = metrics.f1_score(target, told, average="micro", zero_division=0)
    assert value(report.challenger, "micro_f1") == pytest.approx(expected)
    assert {"class:north", "class:east"} & set(report.challenger["slices"])
    assert report.baseline is not None
    assert report.baseline["kind"] == "logistic_regression"
    assert value(report.differences["baseline"], "micro_f1") == pytest.approx(
        value(report.challenger, "micro_f1") - value(report.baseline, "micro_f1")
    )


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["nodes", "graphs"])
def test_graphs_are_scored_one_answer_for_each_test_row(tmp_path: Path, modality: str) -> None:
    ours = make(tmp_path / "ours", modality, "multiclass")
    report = evaluate(tmp_path, ours, ours)
    target, answer = scores(ours, "classification")
    assert report.n_test == len(target) == len(answer) == 14
    assert value(report.challenger, "accuracy") == pytest.approx((answer.argmax(1) == target).mean())
    assert value(report.challenger, "log_loss") == pytest.approx(metrics.log_loss(target, answer), rel=1e-4)
    assert value(report.differences["champion"], "log_loss") == 0
    assert report.confusion is not None
    assert np.sum(report.confusion) == 14
    assert report.baseline is not None
    assert report.baseline["kind"] == "logistic_regression"


@pytest.mark.slow
def test_a_champion_of_another_objective_is_refused(tmp_path: Path) -> None:
    ours = make(tmp_path / "ours", "table", "multiclass", **SMALL)
    theirs = make(tmp_path / "theirs", "table", "multiclass", family="autoencoder", normal="north")
    with pytest.raises(TerminalError, match="challenger's objective is classification, the champion's anomaly"):
        evaluate(tmp_path, ours, theirs)
