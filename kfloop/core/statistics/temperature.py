"""Temperature scaling: one number by which logits are divided, so that stated confidence becomes the share of right answers.

Source: Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017. The order of the classes stays, so
accuracy does not change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.scoring import invalid_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FEWEST_ROWS = 30  # fewer rows say nothing of confidence
LOWEST, HIGHEST = 0.05, 20.0  # beyond them every answer is sure, or every class the same
TOLERANCE = 1e-6  # of the logarithm of the temperature
SMALLEST = float(np.finfo(np.float32).tiny)  # a float32 zero has no logarithm


def fit_temperature(log_probabilities: Floats, labels: NDArray[np.int64]) -> float:
    """The temperature of least mean log loss, in 0.05..20.

    The loss is convex in 1 / T, so that it falls towards one minimum in log T, which is searched with Brent's method. Where every row is
    right there is no minimum (ever colder is ever better), so nothing is learned and T is 1.

    Args:
        log_probabilities: Logits or logarithms of probabilities, [N, K], finite.
        labels: True classes, int64 [N], in 0..K-1.

    Raises:
        ValueError: There are no rows, or logits that are no finite numbers.
    """
    from scipy.optimize import minimize_scalar

    if not len(labels) or not np.isfinite(log_probabilities).all():
        message = f"a temperature needs rows with finite logits, these are {log_probabilities.shape}"
        raise ValueError(message)
    logits = log_probabilities.astype(np.float64)
    logits = logits - logits.max(axis=1, keepdims=True)
    true = logits[np.arange(len(labels)), labels]
    if (true >= 0).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        colder = np.exp(-log_temperature)
        return float((np.log(np.exp(logits * colder).sum(axis=1)) - true * colder).mean())

    found = minimize_scalar(
        loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded", options={"xatol": TOLERANCE}
    )
    return float(np.exp(found.x))


def fit_probabilities(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> tuple[float, int] | None:
    """The temperature of answers, and the rows it was fitted on; null with fewer than 30.

    Args:
        probabilities: [N, K]; rows that are no distribution are left out.
        labels: True classes, int64 [N]; -1 is unknown and left out.
    """
    usable = ~invalid_rows(probabilities) & (labels >= 0)
    n = int(usable.sum())
    if n < FEWEST_ROWS:
        return None
    return fit_temperature(logarithms(probabilities[usable]), labels[usable]), n


def logarithms(probabilities: NDArray[np.floating]) -> Floats:
    """Logarithms of probabilities, of which none is minus infinity."""
    return np.log(np.maximum(probabilities.astype(np.float64), SMALLEST))


def tempered(probabilities: NDArray[np.floating], temperature: float) -> Floats:
    """softmax(log p / T), [N, K]; rows that are no distribution stay what they are."""
    usable = ~invalid_rows(probabilities)
    found = probabilities.astype(np.float64)
    scaled = logarithms(probabilities[usable]) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    found[usable] = powers / powers.sum(axis=1, keepdims=True)
    return found
