"""Metrics against scikit-learn and torchmetrics, on the rows and on resamples."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from torchmetrics.classification import MulticlassCalibrationError

from kfloop.core.scoring import invalid_rows
from kfloop.core.statistics.bootstrap import Statistic, replicate
from kfloop.core.statistics.classification import accuracy, confusion, overall, predictions, second_class

CLASSES = 4


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, 257)
    logits = generator.normal(size=(257, CLASSES)) + 1.5 * np.eye(CLASSES)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, probabilities.astype(np.float32)


def value(statistic: Statistic) -> float:
    return float(statistic.value(statistic.features.sum(0, keepdims=True))[0])


def reference(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    predicted = probabilities.argmax(1)
    calibration = MulticlassCalibrationError(num_classes=probabilities.shape[1], n_bins=15, norm="l1")
    return {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "macro_f1": metrics.f1_score(labels, predicted, average="macro", zero_division=0),
        "log_loss": -float(np.log(probabilities[np.arange(len(labels)), labels].astype(np.float64)).mean()),
        "ece": float(calibration(torch.from_numpy(probabilities), torch.from_numpy(labels))),
    }


def test_metrics_agree_with_their_references(scored: tuple[np.ndarray, np.ndarray]) -> None:
    expected = reference(*scored)
    for name, statistic in overall(*scored).items():
        assert value(statistic) == pytest.approx(expected[name], abs=1e-6), name


def test_log_loss_agrees_with_sklearn(scored: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = scored
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(1, keepdims=True)
    assert value(overall(labels, exact)["log_loss"]) == pytest.approx(metrics.log_loss(labels, exact))


def test_every_resample_agrees_with_metrics_on_the_drawn_rows(scored: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = scored[0][:12], scored[1][:12]  # few rows, so that classes go missing in some resamples
    replicates = replicate(overall(labels, probabilities), 12, resamples=40, seed=5)
    drawn = np.random.default_rng(5).integers(0, 12, size=(40, 12))
    for row, rows in enumerate(drawn):
        expected = reference(labels[rows], probabilities[rows])
        for name, item in replicates.items():
            assert item.values[row] == pytest.approx(expected[name], abs=1e-6), name


def test_slice_accuracy_counts_its_rows_only(scored: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = scored
    rows = labels == 2
    statistic = accuracy(labels, probabilities).among(rows)
    assert statistic.n == rows.sum()
    assert value(statistic) == pytest.approx((probabilities.argmax(1)[rows] == 2).mean())


@pytest.mark.parametrize("poison", [np.nan, np.inf, -0.5, 3.0])
def test_one_row_without_a_distribution_makes_every_metric_unknown(
    scored: tuple[np.ndarray, np.ndarray], poison: float
) -> None:
    labels, probabilities = scored
    probabilities[5, 1] = poison
    assert invalid_rows(probabilities).tolist() == [row == 5 for row in range(257)]
    for name, statistic in overall(labels, probabilities).items():
        assert np.isnan(value(statistic)), name
    assert predictions(probabilities)[5] == -1
    assert confusion(labels, probabilities).sum() == 256
    clean = accuracy(labels, probabilities).among(labels == (labels[5] + 1) % CLASSES)
    assert np.isfinite(value(clean))


def test_confusion_agrees_with_sklearn(scored: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = scored
    expected: Any = metrics.confusion_matrix(labels, probabilities.argmax(1))
    np.testing.assert_array_equal(confusion(labels, probabilities), expected)


def two_classes(rows: int = 120) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(4)
    labels = (generator.random(rows) < 0.2).astype(np.int64)
    second = np.clip(0.35 * labels + 0.6 * generator.random(rows), 0.01, 0.99)
    return labels, np.stack([1 - second, second], axis=1)


def test_the_second_of_two_classes_agrees_with_sklearn_on_rows_slices_and_resamples() -> None:
    labels, probabilities = two_classes()
    predicted, found = probabilities.argmax(1), second_class(labels, probabilities)
    references = {
        "recall": metrics.recall_score,
        "precision": metrics.precision_score,
        "f1": metrics.f1_score,
    }
    assert set(references) == set(found) < set(overall(labels, probabilities))
    resampled = replicate(found, 120, resamples=30, seed=9)
    drawn = np.random.default_rng(9).integers(0, 120, size=(30, 120))
    half = np.arange(120) % 2 == 0
    for name, reference in references.items():
        assert value(found[name]) == pytest.approx(reference(labels, predicted)), name
        assert value(found[name].among(half)) == pytest.approx(reference(labels[half], predicted[half])), name
        for row, rows in enumerate(drawn):
            assert resampled[name].values[row] == pytest.approx(reference(labels[rows], predicted[rows])), name
    assert [found[name].n for name in ("recall", "f1")] == [labels.sum()] * 2
    assert found["precision"].n == predicted.sum()
    assert found["f1"].among(half).n == found["recall"].among(half).n == labels[half].sum()
    assert set(references).isdisjoint(overall(labels, np.full((120, 3), 1 / 3)))


def test_without_rows_of_the_second_class_its_figures_are_unknown() -> None:
    labels, probabilities = two_classes()
    never = np.tile([0.9, 0.1], (120, 1))
    found = second_class(labels, never)
    assert np.isnan(value(found["precision"]))  # nothing was taken for it
    assert (value(found["recall"]), value(found["f1"])) == (0, 0)
    none = second_class(np.zeros(120, dtype=np.int64), never)
    assert all(np.isnan(value(statistic)) for statistic in none.values())
    probabilities[3] = np.nan
    assert all(np.isnan(value(statistic)) for statistic in second_class(labels, probabilities).values())
