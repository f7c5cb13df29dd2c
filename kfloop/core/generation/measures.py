"""The formulas: distances of distributions, of samples to real rows, and of samples to what was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.statistics.bootstrap import Statistic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Features = NDArray[np.float32]

CELLS = 30_000_000  # distances held at a time (120 MB as float32)


def frechet_distance(mean: Floats, covariance: Floats, other_mean: Floats, other_covariance: Floats) -> Floats:
    """Squared Frechet distance of normal distributions, |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)).

    The trace of the root is the sum of the roots of the eigenvalues of A C A with A = C'^(1/2), which is symmetric.

    Source: Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", NeurIPS 2017.

    Args:
        mean: Means, [..., D].
        covariance: Covariances, [..., D, D].
        other_mean: The mean they are compared with, [D].
        other_covariance: Its covariance, [D, D].

    Returns:
        Distances, [...], 0 or more.
    """
    values, vectors = np.linalg.eigh(other_covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance @ root), 0)).sum(-1)
    traces = np.trace(covariance, axis1=-2, axis2=-1) + np.trace(other_covariance)
    found: Floats = np.maximum(((mean - other_mean) ** 2).sum(-1) + traces - 2 * shared, 0)
    return found


def frechet_statistic(features: Features, real: Features) -> Statistic:
    """The Frechet distance as a function of sums over samples: of their features and of the products of these.

    Args:
        features: Features of samples, [N, D].
        real: Features of real rows, [M, D], which are not resampled.
    """
    rows, size = features.shape
    values = features.astype(np.float64)
    upper = np.triu_indices(size)
    reference = real.astype(np.float64)
    centre, spread = reference.mean(0), np.cov(reference, rowvar=False).reshape(size, size)

    def value(sums: Floats) -> Floats:
        mean = sums[:, :size] / rows
        second = np.zeros((len(sums), size, size))
        second[:, upper[0], upper[1]] = sums[:, size:] / rows
        second[:, upper[1], upper[0]] = sums[:, size:] / rows
        covariance = (second - mean[:, :, None] * mean[:, None, :]) * (rows / max(rows - 1, 1))
        return frechet_distance(mean, covariance, centre, spread)

    values = values - centre  # sums of squares of centred numbers lose no digits
    centre = np.zeros(size)
    return Statistic(
        features=np.concatenate([values, values[:, upper[0]] * values[:, upper[1]]], 1), value=value, n=rows
    )


def share_statistic(hits: NDArray[np.bool_]) -> Statistic:
    """The share of rows that are hits, [N]."""
    return Statistic.share(hits)


def nearest(rows: Features, others: Features, k: int, *, same: bool = False) -> Features:
    """Euclidean distances to the ``k`` nearest of ``others``, nearest first, [N, k].

    Args:
        rows: Points, [N, D].
        others: Points to look among, [M, D]; M is at least k (+ 1 where ``same``).
        k: Number of neighbours.
        same: ``rows`` and ``others`` are the same points, and none is its own neighbour.
    """
    squares = np.einsum("nd,nd->n", others, others)
    parts = []
    step = max(1, CELLS // len(others))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        found = squares - 2 * (part @ others.T) + np.einsum("nd,nd->n", part, part)[:, None]
        if same:
            found[np.arange(len(part)), np.arange(start, start + len(part))] = np.inf
        near = np.sort(np.partition(found, k - 1, axis=1)[:, :k], axis=1)
        parts.append(np.sqrt(np.maximum(near, 0)))
    return np.concatenate(parts) if parts else np.empty((0, k), np.float32)


def covered(real: Features, samples: Features, k: int) -> NDArray[np.bool_]:
    """Which real rows have a sample nearer than their k-th nearest real neighbour, [M].

    Source: Naeem et al., "Reliable fidelity and diversity metrics for generative models", ICML 2020 (coverage).
    """
    radius = nearest(real, real, k, same=True)[:, -1]
    found: NDArray[np.bool_] = nearest(real, samples, 1)[:, 0] <= radius
    return found


def clinging(rows: Features, train: Features, k: int) -> Features:
    """Distance to the nearest training row as a share of the mean distance to the ``k`` after it, [N]; a copy has about 0.

    The bare distance would accuse every smooth picture, which is near to all training rows and a copy of none.

    Source: after Carlini et al., "Extracting training data from diffusion models", USENIX Security 2023, section 4.2.
    """
    near = nearest(rows, train, k + 1)
    found: Features = near[:, 0] / np.maximum(near[:, 1:].mean(1), 1e-6)
    return found
