"""Which paired tests an evaluation makes, of what, and when it makes none."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from kfloop.components.evaluate.measuring import Task
from kfloop.components.evaluate.testing import PairedTest, paired_tests
from kfloop.core.artifacts import plain
from kfloop.core.statistics.paired_tests import delong, diebold_mariano

DICE = np.random.default_rng(3)


def task(objective: str, target: np.ndarray, **told: Any) -> Task:
    fields: dict[str, Any] = {"labels": ["no", "yes"], "channels": [], "std": np.empty(0), "block": 1} | told
    return Task(objective=objective, target=target, origin=np.full(len(target), "base"), **fields)


def answer(labels: np.ndarray, noise: float) -> np.ndarray:
    second = 1 / (1 + np.exp(-(4 * labels - 2 + DICE.normal(0, noise, len(labels)))))
    return np.stack([1 - second, second], axis=1)


def against(found: dict[str, list[PairedTest] | None], other: str) -> list[PairedTest]:
    tests = found[other]
    assert tests is not None
    return tests


def test_two_classes_have_mcnemar_and_delong() -> None:
    labels = DICE.integers(0, 2, 300)
    answers = {"challenger": answer(labels, 1.5), "champion": answer(labels, 3.0)}
    found = paired_tests(task("classification", labels), answers)
    assert found["baseline"] is None
    sign, areas = against(found, "champion")
    right = {name: item.argmax(1) == labels for name, item in answers.items()}
    alone = [int((right[a] & ~right[b]).sum()) for a, b in (("challenger", "champion"), ("champion", "challenger"))]
    assert (sign.test, sign.metric, sign.n) == ("mcnemar_exact", "accuracy", 300)
    assert sign.p_value == pytest.approx(stats.binomtest(alone[0], sum(alone), 0.5).pvalue)
    assert f"challenger alone is right on {alone[0]} and the champion alone on {alone[1]}" in sign.sentence
    expected = delong(labels == 1, answers["challenger"][:, 1], answers["champion"][:, 1])
    assert (areas.test, areas.metric, areas.p_value) == ("delong", "auc", expected.p_value)
    assert areas.n == min(labels.sum(), 300 - labels.sum())
    assert "is larger than the champion's" in areas.sentence


def test_three_classes_have_mcnemar_alone_and_the_baseline_is_tested_too() -> None:
    labels = DICE.integers(0, 3, 60)
    answers = dict.fromkeys(("challenger", "champion", "baseline"), np.eye(3)[labels])
    found = paired_tests(task("classification", labels), answers)
    for other in ("champion", "baseline"):
        (only,) = against(found, other)
        assert (only.test, only.p_value) == ("mcnemar_exact", 1)
        assert f"the {other} alone on 0" in only.sentence


def test_anomalies_have_delong() -> None:
    odd = np.arange(80) >= 60
    scores = {name: odd + DICE.normal(0, 1, 80) for name in ("challenger", "baseline")}
    (only,) = against(paired_tests(task("anomaly", odd.astype(int)), scores), "baseline")
    assert (only.test, only.metric, only.n) == ("delong", "auroc", 20)
    same = dict.fromkeys(("challenger", "champion"), scores["challenger"])
    (equal,) = against(paired_tests(task("anomaly", odd.astype(int)), same), "champion")
    assert (equal.statistic, equal.p_value) == (0, 1)
    assert "have the same area" in equal.sentence


def test_forecasts_have_diebold_and_mariano_over_the_overlap() -> None:
    true, std = DICE.normal(size=(90, 4, 2)) * [1, 20], np.array([1.0, 20.0])
    answers = {
        name: true + DICE.normal(0, spread, true.shape) * std for name, spread in (("challenger", 1), ("champion", 1.3))
    }
    (only,) = against(paired_tests(task("forecasting", true, std=std, block=8), answers), "champion")
    losses = [(((answers[name] - true) / std) ** 2).mean(axis=(1, 2)) for name in ("challenger", "champion")]
    expected = diebold_mariano(losses[0], losses[1], overlap=4)
    assert (only.test, only.metric, only.n) == ("diebold_mariano", "mse", 90)
    assert (only.statistic, only.p_value) == pytest.approx((expected.statistic, expected.p_value))
    assert only.statistic < 0
    assert f"{1 - losses[0].mean() / losses[1].mean():.1%} below the champion's" in only.sentence


def test_dependent_rows_and_other_tasks_have_no_test() -> None:
    labels = DICE.integers(0, 2, 40)
    answers = dict.fromkeys(("challenger", "champion"), answer(labels, 1))
    plain_task = task("classification", labels)
    none = {"champion": None, "baseline": None}
    assert paired_tests(replace(plain_task, groups=np.arange(40) // 2), answers) == none
    assert paired_tests(replace(plain_task, block=6), answers) == none
    assert paired_tests(task("regression", labels.astype(float)), answers) == none
    assert paired_tests(plain_task, {"challenger": answers["challenger"]}) == none


def test_an_unusable_answer_leaves_every_test_unknown() -> None:
    labels = DICE.integers(0, 2, 40)
    broken = answer(labels, 1)
    broken[3] = np.nan
    for ours, theirs in ((broken, answer(labels, 1)), (answer(labels, 1), broken)):
        for item in against(
            paired_tests(task("classification", labels), {"challenger": ours, "champion": theirs}), "champion"
        ):
            assert math.isnan(item.p_value)
            assert "could not be computed" in item.sentence
            assert plain(item)["p_value"] is None
