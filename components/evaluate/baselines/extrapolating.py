"""Forecasts that take no deep model: the last value again, and a ridge regression on the last values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Answer = NDArray[np.float64]

PENALTY = 1.0  # of a ridge on lags, in standard deviations
CELLS = 20_000_000  # numbers of windows held at a time


def repeat_last(past: NDArray[Any], horizon: int) -> Answer:
    """The last known value of each channel, repeated: [N, horizon, C] from windows [N, context, C]."""
    return np.repeat(_last(past)[:, None, :], horizon, axis=1)


def fit_lags(past: NDArray[Any], target: NDArray[Any]) -> Callable[[NDArray[Any]], Answer]:
    """Ridge regression of the next steps on the last ones, all channels sharing one set of weights.

    Values are taken from the last one and in standard deviations of their channel, which copes with levels that move (after Zeng et al.,
    "Are transformers effective for time series forecasting?", AAAI 2023, NLinear).

    Args:
        past: Windows to learn from, [N, context, C].
        target: What follows them, [N, horizon, C].

    Returns:
        What forecasts [M, horizon, C] from windows [M, context, C].
    """
    deviation = np.nanstd(past.astype(np.float64), axis=(0, 1))
    spread = np.where(deviation > 0, deviation, 1.0)
    context, horizon, channels = past.shape[1], target.shape[1], past.shape[2]
    products, moments = np.zeros((context, context)), np.zeros((context, horizon))
    for rows in _parts(len(past), context * channels):
        lags, last = _lags(past[rows], spread)
        wanted = ((target[rows] - last[:, None]) / spread).transpose(0, 2, 1).reshape(-1, horizon)
        products += lags.T @ lags
        moments += lags.T @ wanted
    weights = np.linalg.solve(products + PENALTY * np.eye(context), moments)

    def forecast(test: NDArray[Any]) -> Answer:
        found: list[Answer] = []
        for rows in _parts(len(test), context * channels):
            lags, last = _lags(test[rows], spread)
            ahead = (lags @ weights).reshape(-1, channels, horizon).transpose(0, 2, 1)
            found.append(ahead * spread + last[:, None])
        return np.concatenate(found) if found else np.empty((0, horizon, channels))

    return forecast


def _lags(windows: NDArray[Any], spread: Answer) -> tuple[Answer, Answer]:
    """Windows relative to their last value, [N * C, context], and that value, [N, C]."""
    last = _last(windows)
    relative: NDArray[Any] = np.nan_to_num((windows - last[:, None]) / spread)  # a gap counts as no change
    return relative.transpose(0, 2, 1).reshape(-1, windows.shape[1]), last


def _last(windows: NDArray[Any]) -> Answer:
    """The last value of each channel that is there, [N, C]; 0 where there is none."""
    known = np.isfinite(windows)
    place = windows.shape[1] - 1 - known[:, ::-1].argmax(axis=1)
    found = np.take_along_axis(windows, place[:, None], axis=1)[:, 0]
    return np.nan_to_num(found.astype(np.float64))


def _parts(total: int, size: int) -> list[slice]:
    step = max(1, CELLS // max(1, size))
    return [slice(start, start + step) for start in range(0, total, step)]
