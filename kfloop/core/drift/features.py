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
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.drift.columns import CLIP, Columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Single = NDArray[np.float32]
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
        features: [p, b], 0 where nothing was observed.
        slices: Where each group of them stands.
        there: Whether a feature of the groups mean and spread was observed at all; None means that all were.
        whole: Whether those of the groups linear and quadratic were, [1, b]; None likewise.
        shares: Mean shares, [q, b].
        seasons: Season of the first row of each, [b].
    """

    features: Single
    slices: dict[str, slice]
    there: NDArray[np.bool_] | None
    whole: NDArray[np.bool_] | None
    shares: Single
    seasons: Ints

    @property
    def marginal(self) -> Single:
        """The groups mean and spread."""
        return self.features[: self.slices["spread"].stop]


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """The fitted map.

    Attributes:
        columns: How rows were encoded.
        unit: Rows a unit.
        value_means: Mean of each value by season, [values, seasons].
        joint: Values that enter linear and quadratic features.
        axes: Whitening, [components, len(joint)].
        means: Mean of each feature by season, [p, seasons].
        spread: Standard deviation of each feature of units, [p]; 1 before it is known.
    """

    columns: Columns
    unit: int
    value_means: Single
    joint: NDArray[np.intp]
    axes: Single
    means: Single
    spread: Single

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each group of features stands."""
        base = min(len(self.axes), QUADRATIC_BASE)
        widths = (len(self.columns.owners), int(self.columns.numeric.sum()), len(self.axes), base * (base + 1) // 2)
        ends = np.cumsum(widths).tolist()
        return {name: slice(end - width, end) for name, width, end in zip(GROUPS, widths, ends, strict=True)}

    def units(self, rows: Single, seasons: Ints) -> Units:
        """Return the units of rows, [values + shares, b * unit] to b units.

        Rows that do not fill a unit at the end are left out. Called with blocks of one size a row always gives the same numbers.
        """
        count, width, unit = rows.shape[1] // self.unit, len(self.columns.owners), self.unit
        rows, seasons = rows[:, : count * unit], seasons[: count * unit]
        shares = rows[width:]
        gone = shares[: len(self.columns.items)]
        there = gone[self.columns.owners] == 0 if gone.any() else None
        marginal = None if there is None else np.concatenate([there, there[self.columns.numeric]])
        whole = None if there is None else there[self.joint].all(axis=0)[None, :]
        raw = self._raw(rows[:width], seasons, there)
        raw -= self.means[:, seasons] if self.means.shape[1] > 1 else self.means
        if marginal is not None and whole is not None:
            raw[: len(marginal)][~marginal] = 0.0
            raw[len(marginal) :, ~whole[0]] = 0.0
        if unit > 1:
            raw = raw.reshape(len(raw), count, unit).mean(axis=2)
        raw *= self._scale
        np.clip(raw, -_FEATURE_CLIP, _FEATURE_CLIP, out=raw)
        if unit > 1:
            shares = shares.reshape(len(shares), count, unit).mean(axis=2)
            if marginal is not None and whole is not None:
                marginal = np.asarray(marginal.reshape(len(marginal), count, unit).any(axis=2))
                whole = np.asarray(whole.reshape(1, count, unit).any(axis=2))
        return Units(
            features=raw, slices=self.slices, there=marginal, whole=whole, shares=shares, seasons=seasons[::unit]
        )

    @cached_property
    def _scale(self) -> Single:
        return np.asarray(1 / self.spread, dtype=np.float32)[:, None]

    def _raw(self, rows: Single, seasons: Ints, there: NDArray[np.bool_] | None) -> Single:
        """Features before centring, [p, n], of values; one that is not there counts as the mean of its season."""
        slices, numeric = self.slices, self.columns.numeric
        raw = np.empty((slices["quadratic"].stop, rows.shape[1]), dtype=np.float32)
        values = raw[slices["mean"]]
        centre = self.value_means[:, seasons] if self.value_means.shape[1] > 1 else self.value_means
        np.subtract(rows, centre, out=values)
        if there is not None:
            values[~there] = 0.0
        np.square(values[numeric], out=raw[slices["spread"]])
        components = np.matmul(self.axes, values if len(self.joint) == len(values) else values[self.joint])
        np.clip(components, -CLIP, CLIP, out=raw[slices["linear"]])
        components = raw[slices["linear"]]
        base, at = min(len(self.axes), QUADRATIC_BASE), slices["quadratic"].start
        for i in range(base):
            np.multiply(components[i], components[i:base], out=raw[at : at + base - i])
            at += base - i
        return raw


def fit_features(columns: Columns, rows: Single, seasons: Ints, n_seasons: int, unit: int) -> Features:
    """Fit on the learning half.

    Args:
        columns: How the rows were encoded.
        rows: [values + shares, n], whole units one after the other.
        seasons: Season of each row, [n].
        n_seasons: How many seasons there are.
        unit: Rows a unit.
    """
    width = len(columns.owners)
    there = rows[width:][columns.owners] == 0
    value_means = _by_season(rows[:width], there, seasons, n_seasons)
    joint = np.flatnonzero(there.mean(axis=1) >= 1 - _RARELY_MISSING)
    values = np.where(there, rows[:width] - value_means[:, seasons], 0.0)[joint]
    whole = there[joint].all(axis=0)
    axes = _whitening(values[:, whole].T).T
    draft = Features(
        columns=columns,
        unit=unit,
        value_means=value_means.astype(np.float32),
        joint=joint,
        axes=np.ascontiguousarray(axes, dtype=np.float32),
        means=np.zeros((1, n_seasons), dtype=np.float32),
        spread=np.ones(1, dtype=np.float32),
    )
    raw = draft._raw(rows[:width], seasons, there)  # noqa: SLF001 - the draft is a Features
    observed = np.repeat(whole[None, :], len(raw), axis=0)
    observed[: draft.slices["spread"].stop] = np.concatenate([there, there[columns.numeric]])
    draft = replace(draft, means=_by_season(raw, observed, seasons, n_seasons).astype(np.float32))
    spread = draft.units(rows, seasons).features.std(axis=1, dtype=float)
    return replace(draft, spread=np.maximum(spread, 1e-6).astype(np.float32))


def _by_season(values: NDArray[Any], there: NDArray[np.bool_], seasons: Ints, n_seasons: int) -> Array:
    """Mean of observed cells, [d, n], by season, drawn to the overall mean where few rows tell, [d, n_seasons].

    The share that is kept of a season's own deviation is that which chance does not explain (James and Stein's estimate, one for each feature).
    """

    def by_season(cells: NDArray[Any]) -> Array:
        if not len(cells):
            return np.zeros((0, n_seasons))
        return np.stack([np.bincount(seasons, weights=line, minlength=n_seasons) for line in cells])

    counts, sums = by_season(there), by_season(np.where(there, values, 0.0))
    seen = np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    overall = sums.sum(axis=1, keepdims=True) / seen
    if n_seasons == 1:
        return overall
    variance = np.where(there, (values - overall) ** 2, 0.0).sum(axis=1, keepdims=True) / seen
    deviation = np.where(counts > 0, sums / np.maximum(counts, 1.0) - overall, 0.0)
    chance = (variance * (counts > 0) / np.maximum(counts, 1.0)).sum(axis=1, keepdims=True)
    kept = np.maximum(0.0, 1.0 - chance / np.maximum((deviation**2).sum(axis=1, keepdims=True), 1e-300))
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
