"""All that a block of rows is to the bets: how often each level came, and the mean of its features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.drift.levels import LEVELS, counted, counted_shares

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kfloop.core.drift.features import Features, Units

    Array = NDArray[np.float64]
    Single = NDArray[np.float32]
    Ints = NDArray[np.int64]

_SLAB = 512  # rows at a time, whose features stay in the cache


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """A block.

    Attributes:
        units: How many units it has.
        fixed: Levels of what the fixed streams are about, see `fixed_counts`.
        learned: Levels of each learned direction, [B, levels] by group.
        mean: Mean features, [p].
        seasons: Units of each season, [n_seasons].
    """

    units: int
    fixed: Array
    learned: dict[str, Array]
    mean: Array
    seasons: Array


def fixed_counts(units: Units) -> Array:
    """Levels of the features of the groups mean and spread, then of the shares, [f, levels]."""
    return np.concatenate([counted(units.marginal, units.there), counted_shares(units.shares)])


def count_block(features: Features, rows: Single, seasons: Ints, directions: Mapping[str, Single]) -> Block:
    """Count the units of a block.

    Args:
        features: The fitted map.
        rows: Encoded rows, [values + shares, b * unit].
        seasons: Season of each row.
        directions: Directions of each learned group that are bet on, [B, p].
    """
    fixed: Array = np.zeros(0)
    learned = {name: np.zeros((len(axes), LEVELS)) for name, axes in directions.items()}
    total = np.zeros(len(features.spread))
    by_season = np.zeros(features.means.shape[1])
    step = -(-_SLAB // features.unit) * features.unit
    for start in range(0, rows.shape[1], step):
        units = features.units(rows[:, start : start + step], seasons[start : start + step])
        found = fixed_counts(units)
        fixed = fixed + found if len(fixed) else found
        for name, axes in directions.items():
            if len(axes):
                learned[name] += counted(axes @ units.features[features.slices[name]], units.whole)
        total += units.features @ np.ones(len(units.seasons), dtype=np.float32)
        by_season += np.bincount(units.seasons, minlength=len(by_season))
    count = rows.shape[1] // features.unit
    return Block(units=count, fixed=fixed, learned=learned, mean=total / count, seasons=by_season)
