"""Rows that lie far from all others: mean distance to the nearest neighbours, on a robust log scale.

Distances grow by a factor from the middle of the data to its edge, so they are judged by their logarithm: how many robust standard deviations
(of the upper half, for distances lean that way) a row lies above the median row. Source of the score: S. Ramaswamy, R. Rastogi, K. Shim, "Efficient
algorithms for mining outliers from large data sets", SIGMOD 2000.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kfloop.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

NEIGHBOURS = 10
FEWEST = 5  # with fewer rows nothing lies apart
FAR = 5.0  # robust standard deviations from the median row
SMALLEST_SPREAD = 0.1  # of the logarithm: an outlier is at least e^.5 = 1.6 times as far from others as the median row
MOST_REFERENCES = 50_000
MOST_DISTANCES = 5_000_000_000  # rows times references: about half a minute of one core
MADS = 1.4826  # median absolute deviations to standard deviations, for a normal
REPEATED = 0.95  # where so many rows have equal neighbours, every other row lies apart


def find_outliers(features: NDArray[np.floating], seed: int = 0) -> tuple[Floats, NDArray[np.bool_]]:
    """Judge every row by its distance to its nearest neighbours.

    Args:
        features: [N, D], on scales that may be compared. NaN counts as the median of its column; a row with an infinite value is flagged.
        seed: Draws the references that neighbours are looked for among where there are more than 50,000 rows.

    Returns:
        Scores in [0, 1], low = outlying, [N]; and whether the row is an outlier (score below .5), bool [N].

    Raises:
        InputError: The features are no [N, D] array.
    """
    if features.ndim != 2:  # noqa: PLR2004
        raise InputError(f"outliers need features [N, D], got an array of shape {list(features.shape)}")
    n = len(features)
    infinite = np.isinf(features).any(axis=1)
    scores = np.where(infinite, 0.0, 1.0)
    rows = np.flatnonzero(~infinite)
    if len(rows) >= FEWEST and features.shape[1]:
        distances = _distances(_filled(features[rows]), seed)
        scores[rows] = 1 / (1 + np.exp((_heights(distances) - FAR) * 2 / FAR))
    return scores, np.asarray(scores < 0.5) if n else np.zeros(0, dtype=bool)  # noqa: PLR2004


def _filled(features: NDArray[np.floating]) -> Floats:
    """Features without NaN, around 0 and at most 1 in size, so that squares neither overflow nor cancel."""
    values = np.array(features, dtype=np.float64)
    largest = np.nanmax(np.abs(values), initial=0.0) or 1.0
    values /= largest if np.isfinite(largest) else 1.0
    for column in range(values.shape[1]):
        missing = np.isnan(values[:, column])
        known = values[~missing, column]
        middle = float(np.median(known)) if len(known) else 0.0
        values[missing, column] = middle
        values[:, column] -= middle
    largest = float(np.abs(values).max()) or 1.0
    return np.asarray(values / largest)


def _distances(features: Floats, seed: int) -> Floats:
    """Mean Euclidean distance to the nearest references other than the row itself, [N]."""
    from sklearn.neighbors import NearestNeighbors

    n = len(features)
    wanted = min(n, MOST_REFERENCES, max(MOST_DISTANCES // n, 1000))
    picked = np.arange(n) if wanted == n else np.sort(np.random.default_rng(seed).choice(n, wanted, replace=False))
    k = min(NEIGHBOURS, wanted - 1)
    search = NearestNeighbors(n_neighbors=k + 1).fit(features[picked])
    near, places = search.kneighbors(features)
    own = picked[places] == np.arange(n)[:, None]
    # Among equal rows the row itself need not be listed; then the farthest is left out instead.
    own[~own.any(axis=1), -1] = True
    return np.asarray(near[~own].reshape(n, k).mean(axis=1))


def _heights(distances: Floats) -> Floats:
    """Robust standard deviations of the log distance above the median row, [N]."""
    heights = np.full(len(distances), -np.inf)
    apart = distances > distances.max() * 1e-9
    if not apart.any():
        return np.zeros(len(distances))
    if apart.mean() < 1 - REPEATED:
        heights[apart] = 2 * FAR
        return heights
    logs = np.log(distances[apart])
    middle = float(np.median(logs))
    above = logs[logs > middle] - middle
    spread = max(MADS * float(np.median(above)) if len(above) else 0.0, SMALLEST_SPREAD)
    heights[apart] = (logs - middle) / spread
    return heights
