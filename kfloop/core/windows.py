"""Windows of a time series: what a model sees, and what follows it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIMENSIONS = 2  # rows and channels


def windows(
    values: NDArray[np.float64], groups: NDArray[Any] | None, context: int, horizon: int, stride: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Windows whose target begins after their input ends, each within one group.

    Window ``i`` sees ``context`` rows from row ``starts[i]`` on; its target is the ``horizon`` rows of the same group after them. With one
    group, inputs and targets are read-only views of ``values``: nothing is copied. Starts of several groups have no common step, which
    a view needs: there the windows are copied, ``context + horizon`` times the values at stride 1. To read such a series in parts, pass one
    group at a time.

    Args:
        values: Rows in time order, [T, C].
        groups: Series id of each row, [T]; None for one series. The rows of a series may lie apart.
        context: Rows a window sees, at least 1.
        horizon: Rows of its target; 0 when nothing is forecast.
        stride: Rows between the starts of two windows of a group, at least 1.

    Returns:
        Inputs [N, context, C], targets [N, horizon, C], starts int64 [N]. A group that is too short has no window.

    Raises:
        ValueError: A size is below its least value, or shapes do not fit.
    """
    _check(values, groups, context, horizon, stride)
    length, width = len(values), context + horizon
    order, runs = _runs(groups, length)
    places = [
        np.arange(first, last - width + 1, stride, dtype=np.int64) for first, last in runs if last - first >= width
    ]
    if not places:
        nothing = np.empty((0, width, values.shape[1]), dtype=values.dtype)
        return nothing[:, :context], nothing[:, context:], np.empty(0, dtype=np.int64)
    rows = values if order is None else values[order]
    # sliding_window_view puts the window last: [T - width + 1, C, width].
    every = np.lib.stride_tricks.sliding_window_view(rows, width, axis=0).transpose(0, 2, 1)
    starts = np.concatenate(places)
    picked = every[places[0][0] : places[0][-1] + 1 : stride] if len(places) == 1 else every[starts]
    picked.flags.writeable = False
    return picked[:, :context], picked[:, context:], starts if order is None else order[starts]


def count_windows(length: int, context: int, horizon: int, stride: int = 1) -> int:
    """Number of windows in one series of ``length`` rows."""
    return max(0, (length - context - horizon) // stride + 1)


def _runs(groups: NDArray[Any] | None, length: int) -> tuple[NDArray[np.int64] | None, list[tuple[int, int]]]:
    """First and last + 1 row of each group; and, when rows of a group lie apart, the order that brings them together."""
    if groups is None or length == 0:
        return None, [(0, length)]
    edges = np.flatnonzero(groups[1:] != groups[:-1]) + 1
    names, codes = np.unique(groups, return_inverse=True)
    order = None
    if len(edges) + 1 > len(names):
        order = np.argsort(codes, kind="stable").astype(np.int64)
        edges = np.flatnonzero(np.diff(codes[order])) + 1
    bounds = [0, *edges.tolist(), length]
    return order, list(pairwise(bounds))


def _check(values: NDArray[np.float64], groups: NDArray[Any] | None, context: int, horizon: int, stride: int) -> None:
    if values.ndim != DIMENSIONS:
        message = f"values have shape {values.shape}: expected rows and channels [T, C]"
        raise ValueError(message)
    if groups is not None and groups.shape != (len(values),):
        message = f"groups have shape {groups.shape}, values {len(values)} rows: expected one group for each row"
        raise ValueError(message)
    for name, size, least in (("context", context, 1), ("horizon", horizon, 0), ("stride", stride, 1)):
        if size < least:
            message = f"{name} is {size}: expected at least {least}"
            raise ValueError(message)
