"""From encoded rows to units: what is bet on, centred by season, averaged over neighbours, standardised by the learning half.

Four groups of features:

    mean        every value itself
    spread      the square of every numeric value
    linear      whitened principal components of all values that are rarely missing
    quadratic   squares and products of the first 20 of them: spread and correlation

A season is a number per row, for instance the hour of the week; every feature is taken relative to its mean in that season. A unit is the mean of
`unit` neighbouring rows: where rows hang together, units of many rows hardly do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.drift.columns import CLIP, Columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Ints = NDArray[np.int64]

MOST_COMPONENTS = 48
QUADRATIC_BASE = 20
_RARELY_MISSING = 0.05
_SMALLEST_VARIANCE = 1e-4
_FEATURE_CLIP = 8.0
GROUPS = ("mean", "spread", "linear", "quadratic")


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """Units ready to be bet on.

    Attributes:
        features: [b, p], 0 where nothing was observed.
        observed: Whether a feature was observed at all, [b, p].
        shares: Mean shares, [b, q].
        seasons: Season of the first row of each, [b].
    """

    features: Array
    observed: NDArray[np.bool_]
    shares: Array
    seasons: Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """The fitted map.

    Attributes:
        columns: How rows were encoded.
        unit: Rows a unit.
        value_means: Mean of each value by season, [seasons, values].
        joint: Values that enter linear and quadratic features.
        axes: Whitening, [len(joint), components].
        means: Mean of each feature by season, [seasons, p].
        spread: Standard deviation of each feature of units, [p]; 1 before it is known.
    """

    columns: Columns
    unit: int
    value_means: Array
    joint: NDArray[np.intp]
    axes: Array
    means: Array
    spread: Array

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each group of features stands."""
        base = min(self.axes.shape[1], QUADRATIC_BASE)
        widths = (len(self.columns.owners), int(self.columns.numeric.sum()), self.axes.shape[1], base * (base + 1) // 2)
        ends = np.cumsum(widths).tolist()
        return {name: slice(end - width, end) for name, width, end in zip(GROUPS, widths, ends, strict=True)}

    def units(self, rows: Array, seasons: Ints) -> Units:
        """Return the units of rows, [b * unit, values + shares] to b units.

        Rows that do not fill a unit at the end are left out. Called with blocks of one size a row always gives the same numbers.
        """
        count = len(rows) // self.unit
        rows, seasons = rows[: count * self.unit], seasons[: count * self.unit]
        raw, observed = self._raw(rows, seasons)
        raw -= self.means[seasons] if len(self.means) > 1 else self.means[0]
        if not observed.all():
            raw[~observed] = 0.0
        shares = rows[:, len(self.columns.owners) :]
        if self.unit > 1:
            raw = raw.reshape(count, self.unit, -1).mean(axis=1)
            observed = np.asarray(observed.reshape(count, self.unit, -1).any(axis=1))
            shares = shares.reshape(count, self.unit, -1).mean(axis=1)
        raw /= self.spread
        np.clip(raw, -_FEATURE_CLIP, _FEATURE_CLIP, out=raw)
        return Units(features=raw, observed=observed, shares=shares, seasons=seasons[:: self.unit])

    def _raw(self, rows: Array, seasons: Ints) -> tuple[Array, NDArray[np.bool_]]:
        """Features before centring and which are observed, both [n, p]."""
        width = len(self.columns.owners)
        there = rows[:, width:][:, self.columns.owners] == 0
        centre = self.value_means[seasons] if len(self.value_means) > 1 else self.value_means[0]
        slices, numeric = self.slices, self.columns.numeric
        raw = np.empty((len(rows), slices["quadratic"].stop))
        observed = np.empty(raw.shape, dtype=bool)
        values = raw[:, slices["mean"]]
        np.subtract(rows[:, :width], centre, out=values)
        values[~there] = 0.0
        np.square(values[:, numeric], out=raw[:, slices["spread"]])
        components = np.clip(values[:, self.joint] @ self.axes, -CLIP, CLIP)
        raw[:, slices["linear"]] = components
        # One component after the other: to gather both factors of every pair first would cost several times as much.
        base, at = min(self.axes.shape[1], QUADRATIC_BASE), slices["quadratic"].start
        for i in range(base):
            np.multiply(components[:, i : i + 1], components[:, i:base], out=raw[:, at : at + base - i])
            at += base - i
        observed[:, slices["mean"]], observed[:, slices["spread"]] = there, there[:, numeric]
        observed[:, slices["linear"].start :] = there[:, self.joint].all(axis=1)[:, None]
        return raw, observed


def fit_features(columns: Columns, rows: Array, seasons: Ints, n_seasons: int, unit: int) -> Features:
    """Fit on the learning half.

    Args:
        columns: How the rows were encoded.
        rows: [n, values + shares], whole units one after the other.
        seasons: Season of each row, [n].
        n_seasons: How many seasons there are.
        unit: Rows a unit.
    """
    width = len(columns.owners)
    there = rows[:, width:][:, columns.owners] == 0
    value_means = _by_season(rows[:, :width], there, seasons, n_seasons)
    joint = np.flatnonzero(there.mean(axis=0) >= 1 - _RARELY_MISSING)
    values = np.where(there, rows[:, :width] - value_means[seasons], 0.0)[:, joint]
    axes = _whitening(values[there[:, joint].all(axis=1)])
    empty = np.zeros((n_seasons, 1))
    draft = Features(
        columns=columns, unit=unit, value_means=value_means, joint=joint, axes=axes, means=empty, spread=np.ones(1)
    )
    raw, observed = draft._raw(rows, seasons)  # noqa: SLF001 - the draft is a Features
    means = _by_season(raw, observed, seasons, n_seasons)
    draft = replace(draft, means=means)
    spread = draft.units(rows, seasons).features.std(axis=0)
    return replace(draft, spread=np.maximum(spread, 1e-6))


def _by_season(values: Array, there: NDArray[np.bool_], seasons: Ints, n_seasons: int) -> Array:
    """Mean of observed cells by season, drawn to the overall mean where few rows tell, [n_seasons, d].

    The share that is kept of a season's own deviation is that which chance does not explain (James and Stein's estimate, one for each column).
    """
    if not values.shape[1]:
        return np.zeros((n_seasons, 0))
    counts = np.stack(
        [np.bincount(seasons, weights=column, minlength=n_seasons) for column in there.T.astype(float)], 1
    )
    held = np.where(there, values, 0.0)
    sums = np.stack([np.bincount(seasons, weights=column, minlength=n_seasons) for column in held.T], axis=1)
    overall = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1.0)
    if n_seasons == 1:
        return np.asarray(overall[None, :])
    variance = np.where(there, (values - overall) ** 2, 0.0).sum(axis=0) / np.maximum(counts.sum(axis=0), 1.0)
    deviation = np.where(counts > 0, sums / np.maximum(counts, 1.0) - overall, 0.0)
    chance = (variance * (counts > 0) / np.maximum(counts, 1.0)).sum(axis=0)
    kept = np.maximum(0.0, 1.0 - chance / np.maximum((deviation**2).sum(axis=0), 1e-300))
    return np.asarray(overall + kept * deviation)


def _whitening(values: Array) -> Array:
    """Principal axes scaled to unit variance, the strongest first, [d, k]; directions without variance are left out."""
    if len(values) < 2 or not values.shape[1]:  # noqa: PLR2004 - one row has no covariance
        return np.zeros((values.shape[1], 0))
    covariance = np.cov(values, rowvar=False).reshape(values.shape[1], -1)
    weight = values.shape[1] / (values.shape[1] + len(values))
    covariance = (1 - weight) * covariance + weight * np.diag(np.diag(covariance))
    variances, axes = np.linalg.eigh(covariance)
    order = np.argsort(-variances)[:MOST_COMPONENTS]
    order = order[variances[order] > _SMALLEST_VARIANCE * max(float(variances.max()), 1e-300)]
    return oriented(axes[:, order] / np.sqrt(variances[order]))


def oriented(axes: Array) -> Array:
    """Axes [d, k], each turned so that its largest entry is above 0: which way it points is nobody's to choose, and must be the same on every machine."""
    if not axes.size:
        return axes
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    return np.ascontiguousarray(axes * np.where(largest < 0, -1.0, 1.0))
