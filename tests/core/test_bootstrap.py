"""The bootstrap against scipy's, and its refusals."""

import math

import numpy as np
import pytest
from scipy import stats

from kfloop.core.statistics.bootstrap import Replicates, Statistic, replicate
from kfloop.core.statistics.intervals import percentile


def mean_of(values: np.ndarray) -> Statistic:
    features = np.column_stack([values, np.ones(len(values))])
    return Statistic(features=features, value=lambda sums: sums[:, 0] / sums[:, 1], n=len(values))


def test_mean_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=300)
    replicates = replicate({"mean": mean_of(values)}, 300, resamples=20000, seed=1)["mean"]
    ours = percentile(replicates, 0.9)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, confidence_level=0.9, method="percentile", rng=np.random.default_rng(2)
    )
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.004)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.004)
    assert replicates.values.std() == pytest.approx(theirs.standard_error, rel=0.03)


def test_paired_difference_agrees_with_scipy() -> None:
    generator = np.random.default_rng(3)
    first = generator.normal(size=200)
    second = first + generator.normal(0.1, 0.3, size=200)
    both = replicate({"a": mean_of(first), "b": mean_of(second)}, 200, resamples=20000, seed=4)
    ours = percentile(both["a"] - both["b"], 0.95)
    theirs = stats.bootstrap(
        (first, second),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True,
        n_resamples=20000,
        method="percentile",
        rng=np.random.default_rng(5),
        vectorized=True,
    )
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.004)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.004)


def test_the_same_seed_gives_the_same_resamples_whatever_else_is_asked() -> None:
    values = np.random.default_rng(0).normal(size=50)
    alone = replicate({"a": mean_of(values)}, 50, resamples=300, seed=7)["a"]
    together = replicate({"b": mean_of(values**2), "a": mean_of(values)}, 50, resamples=300, seed=7)["a"]
    np.testing.assert_allclose(alone.values, together.values)


def test_nan_rows_make_the_statistic_unknown() -> None:
    values = np.ones(20)
    values[3] = np.nan
    estimate = percentile(replicate({"a": mean_of(values)}, 20, resamples=200, seed=0)["a"], 0.95)
    assert math.isnan(estimate.value)
    assert not estimate.known


def test_too_many_undefined_resamples_leave_the_interval_unknown() -> None:
    values = np.concatenate([np.full(10, math.nan), np.ones(90)])
    estimate = percentile(Replicates(point=1.0, values=values, n=5), 0.95)
    assert estimate.value == 1.0
    assert math.isnan(estimate.low)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        replicate({}, 0, resamples=10, seed=0)
    with pytest.raises(ValueError, match="have 3 rows, expected 4"):
        replicate({"a": mean_of(np.ones(3))}, 4, resamples=10, seed=0)
    one = Replicates(point=0.0, values=np.zeros(3), n=3)
    with pytest.raises(ValueError, match="cannot be paired"):
        one - Replicates(point=0.0, values=np.zeros(4), n=3)
