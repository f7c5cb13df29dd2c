"""Temperature scaling beside torch's own optimiser, and what it must not do."""

import numpy as np
import pytest
import torch

from kfloop.core.statistics.classification import calibration_error, predictions
from kfloop.core.statistics.temperature import (
    FEWEST_ROWS,
    HIGHEST,
    fit_probabilities,
    fit_temperature,
    logarithms,
    tempered,
)


def rows(n: int, classes: int, overconfidence: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a model that states too much, and labels drawn from what it should have stated."""
    dice = np.random.default_rng(seed)
    honest = dice.normal(scale=2, size=(n, classes))
    odds = np.exp(honest)
    odds /= odds.sum(axis=1, keepdims=True)
    labels = (dice.random((n, 1)) > np.cumsum(odds, axis=1)).sum(axis=1)
    return honest * overconfidence, labels.clip(0, classes - 1).astype(np.int64)


def by_torch(logits: np.ndarray, labels: np.ndarray) -> float:
    """The procedure of the paper's authors: LBFGS on the log loss."""
    tensor, target = torch.from_numpy(logits), torch.from_numpy(labels)
    heat = torch.nn.Parameter(torch.ones(1, dtype=torch.float64) * 1.5)
    optimiser = torch.optim.LBFGS([heat], max_iter=40, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(tensor / heat, target)
        loss.backward()
        return loss

    optimiser.step(closure)
    return float(heat.detach())


@pytest.mark.parametrize(("classes", "overconfidence"), [(2, 3.0), (2, 0.4), (10, 2.0)])
def test_the_temperature_is_that_of_torch(classes: int, overconfidence: float) -> None:
    logits, labels = rows(800, classes, overconfidence)
    assert fit_temperature(logits, labels) == pytest.approx(by_torch(logits, labels), rel=1e-3)


def test_it_finds_the_overconfidence_that_was_put_in() -> None:
    logits, labels = rows(20_000, 3, 2.5)
    assert fit_temperature(logits, labels) == pytest.approx(2.5, rel=0.05)


def test_logits_and_probabilities_have_one_temperature_and_the_classes_stay() -> None:
    logits, labels = rows(500, 4, 3.0)
    probabilities = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
    found = fit_probabilities(probabilities, labels)
    assert found is not None
    temperature, n = found
    assert n == 500
    assert temperature == pytest.approx(fit_temperature(logits, labels), rel=1e-3)
    cooled = tempered(probabilities, temperature)
    np.testing.assert_allclose(cooled, torch.softmax(torch.from_numpy(logits / temperature), dim=1).numpy(), atol=1e-6)
    assert (predictions(cooled) == predictions(probabilities)).all()
    errors = [
        float(found.value(found.features.sum(axis=0, keepdims=True))[0])
        for found in (calibration_error(labels, probabilities), calibration_error(labels, cooled))
    ]
    assert errors[1] < 0.5 * errors[0]


def test_where_every_row_is_right_nothing_is_learned() -> None:
    logits = np.eye(3)[[0, 1, 2] * 20] * 2.0
    assert fit_temperature(logits, np.array([0, 1, 2] * 20)) == 1.0


def test_a_model_worse_than_chance_gets_the_highest_temperature() -> None:
    logits = np.eye(2)[[0, 1] * 30] * 4.0
    assert fit_temperature(logits, np.array([1, 0] * 30)) == pytest.approx(HIGHEST, rel=1e-4)


def test_too_few_or_unusable_rows() -> None:
    logits, labels = rows(60, 2, 2.0)
    probabilities = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
    assert fit_probabilities(probabilities[: FEWEST_ROWS - 1], labels[: FEWEST_ROWS - 1]) is None
    assert fit_probabilities(probabilities, np.full(60, -1)) is None
    probabilities[:10] = np.nan
    found = fit_probabilities(probabilities, labels)
    assert found is not None
    assert found[1] == 50
    assert np.isnan(tempered(probabilities, 2.0)[:10]).all()
    with pytest.raises(ValueError, match="finite logits"):
        fit_temperature(np.full((3, 2), np.nan), np.zeros(3, dtype=np.int64))
    with pytest.raises(ValueError, match="finite logits"):
        fit_temperature(np.empty((0, 2)), np.empty(0, dtype=np.int64))


def test_a_float32_zero_has_a_logarithm() -> None:
    assert np.isfinite(logarithms(np.array([[1.0, 0.0]], dtype=np.float32))).all()
    np.testing.assert_allclose(tempered(np.array([[1.0, 0.0]]), 3.0).sum(axis=1), 1)
