"""Ranges of numbers and times that people can read: rounded edges, and words for them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.number_words import between, number_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kfloop.components.evaluate.slices.columns import Column

    Floats = NDArray[np.float64]

QUARTILES = (0.25, 0.5, 0.75)
DAY, MINUTE = 86_400.0, 60.0


def quartile_edges(column: Column) -> list[float]:
    """Up to three rounded edges between quarters of the known values, rising; none where all values are the same.

    Edges are rounded to a hundredth of the power of ten of the range between the outer ones, so that a few new rows seldom change them, and
    with them the names of slices.
    """
    values = column.values[np.isfinite(column.values)]
    if not len(values) or values.min() == values.max():
        return []
    found = np.quantile(values, QUARTILES)
    span = float(found[-1] - found[0]) or float(values.max() - values.min())
    if column.kind == "time":
        step = DAY if span >= 8 * DAY else MINUTE if span >= 8 * MINUTE else 1.0
    else:
        step = 10.0 ** (math.floor(math.log10(span)) - 1)
        step = max(step, 1.0) if column.whole else step
    edges = {_rounded(math.floor(edge / step + 0.5) * step) for edge in found.tolist()}
    return sorted(edge for edge in edges if values.min() < edge <= values.max()) or [
        _beside(float(found[1]), values, between_times if column.kind == "time" else between)
    ]


def _beside(common: float, values: Floats, cut: Callable[[float, float], float]) -> float:
    """The edge between a value that most rows have and the next one, above it where there is one."""
    above, below = values[values > common], values[values < common]
    low, high = (common, float(above.min())) if len(above) else (float(below.max()), common)
    return cut(low, high)


def between_times(low: float, high: float) -> float:
    """The full day in (low, high], else the full minute, else the second."""
    for step in (DAY, MINUTE, 1.0):
        found = math.floor(high / step) * step
        if low < found:
            return found
    return high


def worded(value: float, column: Column) -> str:
    """A number or a time in words, such as ``12.5`` or ``2024-03-01``."""
    return number_words(value, time=column.kind == "time")


def _rounded(value: float) -> float:
    """Without the last digits, which are noise of the rounding."""
    return float(f"{value:.12g}")
