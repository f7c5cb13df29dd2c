"""Series without labels: which rows a simple forecaster, fitted on other stretches of time, could not foresee."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kfloop.components.check_labels.issues import find_number_issues
from kfloop.components.check_labels.judging import Judgement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

MOST_LAGS = 24
BLOCKS = 5
PENALTY = 1.0


def judge_series(version: DatasetVersion) -> tuple[Judgement, Floats, Bools]:
    """No label is judged; a row is an outlier when a ridge forecaster of its channels is too far off.

    Each channel's next value is foreseen from the last values of it (at most 24, at most the context) and of the mean of all channels,
    by ridge regression cross-fitted in five blocks of time. A row's residual is judged as a noisy number is
    (``issues.find_number_issues``); its score is 1 without residual, .5 at the smallest residual that is flagged, and at least 0.

    Returns:
        An empty judgement, the scores float64 [N], the flags bool [N].
    """
    channels = [name for name in version.inputs if name != "time"]
    context = int(version.schema.get("series", {}).get("context", MOST_LAGS))
    values, runs = _values(version, channels)
    order = np.argsort(runs, kind="stable")  # the rows of a series may lie apart
    scores, strange = np.empty(len(values)), np.empty(len(values), dtype=np.bool_)
    scores[order], strange[order] = series_outliers(values[order], runs[order], lags=min(MOST_LAGS, context))
    n = len(values)
    judgement = Judgement(
        flagged=np.zeros(n, dtype=np.bool_),
        checked=np.zeros(n, dtype=np.bool_),
        margin=np.full(n, np.nan),
        confidence=np.full(n, np.nan),
        suggested=np.full(n, np.nan),
        method="a forecast has no labels; outliers by the residuals of a ridge forecaster, cross-fitted in 5 blocks of time",
    )
    return judgement, scores, strange


def series_outliers(values: Floats, runs: Ints, *, lags: int) -> tuple[Floats, Bools]:
    """Rows that the rows before them do not let expect.

    Args:
        values: Rows in time order, float64 [N, C]; NaN is missing.
        runs: Rows with the same number follow each other in time, int64 [N], ascending.
        lags: Rows looked back.

    Returns:
        Score of each row, low for outliers, 1 where there are too few rows before it, float64 [N]; and whether it is an outlier, bool [N].
    """
    n = len(values)
    scores, strange = np.ones(n), np.zeros(n, dtype=np.bool_)
    known = np.arange(n) >= lags
    known[lags:] &= runs[lags:] == runs[: n - lags]
    rows = np.flatnonzero(known)
    if len(rows) < BLOCKS * (lags + 2):
        return scores, strange
    filled = _filled(values)
    shared = _lagged(filled.mean(axis=1), rows, lags) if values.shape[1] > 1 else None
    for channel in range(values.shape[1]):
        own = _lagged(filled[:, channel], rows, lags)
        design = own if shared is None else np.concatenate([own, shared], axis=1)
        target = filled[rows, channel]
        foreseen = _ridge(design, target, lags)
        seen = np.isfinite(values[rows, channel])
        if not np.ptp(target[seen]) > 0:
            continue
        found = find_number_issues(target[seen], foreseen[seen])
        scores[rows[seen]] = np.minimum(scores[rows[seen]], (1.0 + found.margin) / 2.0)
        strange[rows[seen]] |= found.flagged
    return scores, strange


def _ridge(design: Floats, target: Floats, gap: int) -> Floats:
    """Predictions of each block of time from the others, less what lies within ``gap`` rows of it."""
    scale = design.std(axis=0) + 1e-12
    design = (design - design.mean(axis=0)) / scale
    result = np.empty(len(target))
    for block in np.array_split(np.arange(len(target)), BLOCKS):
        far = np.ones(len(target), dtype=np.bool_)
        far[max(0, block[0] - gap) : block[-1] + gap + 1] = False
        x, centre = design[far], target[far].mean()
        gram = x.T @ x + PENALTY * np.eye(x.shape[1])
        result[block] = design[block] @ np.linalg.solve(gram, x.T @ (target[far] - centre)) + centre
    return result


def _lagged(series: Floats, rows: Ints, lags: int) -> Floats:
    return np.stack([series[rows - lag] for lag in range(1, lags + 1)], axis=1)


def _filled(values: Floats) -> Floats:
    """Missing values take the last known one, or the channel's mean."""
    known = np.isfinite(values)
    if known.all():
        return values
    last = np.maximum.accumulate(np.where(known, np.arange(len(values))[:, None], 0), axis=0)
    filled = np.take_along_axis(values, last, axis=0)
    means = np.nan_to_num(np.nanmean(np.where(known, values, np.nan), axis=0))
    return np.where(np.isfinite(filled), filled, means)


def _values(version: DatasetVersion, channels: list[str]) -> tuple[Floats, Ints]:
    """Values [N, C] of all splits, and the run of each row: its split and series."""
    values, runs, offset = [], [], 0
    for split in version.splits:
        table = version.table(split)
        part = np.stack([table[name].to_numpy().astype(np.float64) for name in channels], axis=1)
        codes = np.zeros(len(part), dtype=np.int64)
        if "group" in table.column_names and len(part):
            codes = np.unique(np.array(table["group"].to_pylist(), dtype=str), return_inverse=True)[1]
        values.append(part)
        runs.append(codes + offset)
        offset += int(codes.max(initial=0)) + 1
    return np.concatenate(values), np.concatenate(runs)
