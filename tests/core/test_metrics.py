"""Metrics of numbers, forecasts, sets of labels and scores against scikit-learn, on the rows and on resamples; blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics

from kfloop.core.statistics import classification, forecasting, multilabel, ranking, regression
from kfloop.core.statistics.bootstrap import AnyStatistic, Replicates, Statistic, replicate
from kfloop.core.statistics.intervals import percentile
from kfloop.core.statistics.metrics import METRICS, directions, primary

DICE = np.random.default_rng(7)


def value(statistic: AnyStatistic) -> float:
    size = len(statistic.features) if isinstance(statistic, Statistic) else statistic.size
    return replicate({"a": statistic}, size, resamples=1, seed=0)["a"].point


def test_numbers_agree_with_sklearn_on_rows_resamples_and_slices() -> None:
    true = DICE.normal(1e4, 3, 60)
    predicted = true + DICE.normal(0, 2, 60)
    found = regression.overall(true, predicted)
    references = {
        "mae": metrics.mean_absolute_error,
        "rmse": metrics.root_mean_squared_error,
        "r2": metrics.r2_score,
    }
    resampled = replicate(found, 60, resamples=20, seed=3)
    drawn = np.random.default_rng(3).integers(0, 60, size=(20, 60))
    half = np.arange(60) % 2 == 0
    for name, reference in references.items():
        assert value(found[name]) == pytest.approx(reference(true, predicted)), name
        assert value(found[name].among(half)) == pytest.approx(reference(true[half], predicted[half])), name
        for row, rows in enumerate(drawn):
            assert resampled[name].values[row] == pytest.approx(reference(true[rows], predicted[rows])), name


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_one_unusable_answer_makes_every_figure_unknown(poison: float) -> None:
    true = DICE.normal(size=20)
    bad = true.copy()
    bad[3] = poison
    sets = (DICE.random((20, 3)) > 0.5).astype(float)
    no_set = sets.copy()
    no_set[3, 1] = poison
    cube, std = true.reshape(5, 2, 2), np.ones(2)
    found: list[AnyStatistic] = [
        *regression.overall(true, bad).values(),
        *ranking.overall(true > 0, bad).values(),
        *multilabel.overall(sets, no_set).values(),
        *forecasting.overall(cube, bad.reshape(5, 2, 2), std).values(),
    ]
    assert len(found) == 10
    assert all(math.isnan(value(statistic)) for statistic in found)
    assert math.isfinite(value(regression.overall(true, bad)["mae"].among(np.arange(20) > 3)))


def test_scores_agree_with_sklearn_with_ties_and_on_resamples() -> None:
    positive = DICE.random(80) < 0.3
    scores = np.round(positive + DICE.normal(size=80), 1)
    found = ranking.overall(positive, scores)
    resampled = replicate(found, 80, resamples=25, seed=5)
    drawn = np.random.default_rng(5).integers(0, 80, size=(25, 80))
    for name, reference in (("auroc", metrics.roc_auc_score), ("average_precision", metrics.average_precision_score)):
        assert value(found[name]) == pytest.approx(reference(positive, scores)), name
        for row, rows in enumerate(drawn):
            assert resampled[name].values[row] == pytest.approx(reference(positive[rows], scores[rows])), name
    false, true = ranking.roc_curve(positive, scores)
    expected = metrics.roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(false, expected[0])
    np.testing.assert_allclose(true, expected[1])


def test_scores_of_one_kind_of_rows_have_no_order() -> None:
    assert math.isnan(value(ranking.auroc(np.zeros(9, dtype=bool), np.arange(9.0))))
    assert math.isnan(value(ranking.average_precision(np.zeros(9, dtype=bool), np.arange(9.0))))


def test_two_classes_have_an_area_under_the_curve() -> None:
    labels = DICE.integers(0, 2, 50)
    first = DICE.random(50)
    probabilities = np.stack([first, 1 - first], axis=1)
    assert value(classification.overall(labels, probabilities)["auc"]) == pytest.approx(
        metrics.roc_auc_score(labels, 1 - first)
    )
    assert "auc" not in classification.overall(labels, np.full((50, 3), 1 / 3))


def test_sets_agree_with_sklearn() -> None:
    true = (DICE.random((90, 4)) < [0.5, 0.2, 0.1, 0.0]).astype(float)
    probabilities = np.clip(0.6 * true + 0.55 * DICE.random((90, 4)), 0, 1)
    probabilities[:, 3] = 0.1
    predicted = probabilities >= 0.5
    found = multilabel.overall(true, probabilities)
    assert value(found["micro_f1"]) == pytest.approx(metrics.f1_score(true, predicted, average="micro"))
    each = metrics.f1_score(true, predicted, average=None, zero_division=0)
    assert value(found["macro_f1"]) == pytest.approx(each[:3].mean())  # the last neither occurs nor is predicted
    assert value(found["accuracy"]) == pytest.approx(1 - metrics.hamming_loss(true, predicted))
    for place, statistic in enumerate(multilabel.f1_by_label(true, probabilities)[:3]):
        assert value(statistic) == pytest.approx(each[place])
        assert statistic.n == true[:, place].sum()


def test_forecasts_are_judged_in_standard_deviations() -> None:
    true, std = DICE.normal(size=(30, 6, 2)) * [1, 50], np.array([1.0, 50.0])
    forecast = true + DICE.normal(size=(30, 6, 2)) * [0.5, 5]
    expected = [
        metrics.mean_squared_error((true / std)[..., k].ravel(), (forecast / std)[..., k].ravel()) for k in (0, 1)
    ]
    assert value(forecasting.overall(true, forecast, std)["mse"]) == pytest.approx(np.mean(expected))
    by_channel = forecasting.by_channel(true, forecast, std, ["load", "temperature"])
    assert [value(part["mse"]) for part in by_channel.values()] == pytest.approx(expected)
    assert list(by_channel) == ["load", "temperature"]


def test_blocks_widen_the_interval_of_dependent_rows_to_what_it_is() -> None:
    noise = np.random.default_rng(1).normal(size=2024) ** 2
    losses = np.convolve(noise, np.ones(24) / 24, "valid")[:2000]
    statistic = Statistic(
        features=np.column_stack([losses, np.ones(2000)]), value=lambda sums: sums[:, 0] / sums[:, 1], n=2000
    )
    single, blocks = (replicate({"a": statistic}, 2000, resamples=1000, seed=0, block=size)["a"] for size in (1, 48))
    # Each of 2000 squares of variance 2 has the same weight in the mean, but for the ends.
    assert blocks.values.std() == pytest.approx(math.sqrt(2 / 2000), rel=0.2)
    assert single.values.std() < blocks.values.std() / 3


def test_too_few_blocks_leave_the_interval_unknown() -> None:
    statistic = regression.overall(np.arange(20.0), np.zeros(20))["mae"]
    estimate = percentile(replicate({"a": statistic}, 20, resamples=200, seed=0, block=8)["a"], 0.95)
    assert estimate.value == pytest.approx(9.5)
    assert math.isnan(estimate.low)
    assert forecasting.block_length(1, 1) == 1
    assert forecasting.block_length(24, 1) == 48
    assert forecasting.block_length(24, 24) == 1


def test_relative_difference() -> None:
    ours = Replicates(point=1.1, values=np.array([1.0, 2.0, 3.0]), n=3)
    theirs = Replicates(point=1.0, values=np.array([2.0, 2.0, 0.0]), n=3)
    found = ours.relative_to(theirs)
    assert found.point == pytest.approx(0.1)
    np.testing.assert_allclose(found.values, [-0.5, 0.0, np.nan])
    assert math.isnan(ours.relative_to(Replicates(point=0.0, values=theirs.values, n=3)).point)


def test_every_objective_has_a_main_figure_and_directions() -> None:
    assert {name: primary(name) for name in METRICS} == {
        "classification": "accuracy",
        "multilabel": "micro_f1",
        "regression": "rmse",
        "forecasting": "mse",
        "anomaly": "auroc",
        "generation": "frechet_distance",
    }
    assert directions("regression") == {
        "rmse": "lower",
        "mae": "lower",
        "r2": "higher",
        "rmse_gap": "lower",
        "rmse_ratio": "lower",
    }
