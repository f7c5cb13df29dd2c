"""Outliers: planted ones are found, clean data are left alone, garbage is survived."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

import kfloop.components.check_labels.outliers as module
from kfloop.components.check_labels.outliers import find_outliers
from kfloop.errors import InputError


@pytest.mark.parametrize("dimensions", [2, 5, 20, 64])
@pytest.mark.parametrize("n", [500, 3000])
def test_clean_normal_data_have_hardly_any(dimensions: int, n: int) -> None:
    rate = np.mean(
        [find_outliers(np.random.default_rng(seed).normal(size=(n, dimensions)))[1].mean() for seed in range(4)]
    )
    assert rate <= 0.01


@pytest.mark.parametrize("dimensions", [2, 20, 64])
def test_planted_outliers_are_found_and_ranked_first(dimensions: int) -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(2000, dimensions))
    away = generator.normal(size=(10, dimensions))
    features[:10] = away / np.linalg.norm(away, axis=1, keepdims=True) * (4 * np.sqrt(dimensions) + 6)
    scores, flagged = find_outliers(features)
    assert flagged[:10].all()
    assert set(np.argsort(scores)[:10]) == set(range(10))
    assert ((scores >= 0) & (scores <= 1)).all()
    assert np.array_equal(flagged, scores < 0.5)


def test_noise_among_digits_is_found() -> None:
    digits = load_digits().data / 16
    noise = np.random.default_rng(0).integers(0, 17, (8, 64)) / 16
    _, flagged = find_outliers(np.concatenate([digits, noise]))
    assert flagged[-8:].all()
    assert flagged[:-8].mean() <= 0.01


def test_clusters_of_different_density_are_not_outliers() -> None:
    generator = np.random.default_rng(0)
    features = np.concatenate([generator.normal(0, 1, (900, 8)), generator.normal(40, 4, (600, 8))])
    assert find_outliers(features)[1].mean() <= 0.01


def test_scale_and_place_do_not_matter() -> None:
    features = np.random.default_rng(0).normal(size=(300, 5))
    features[0] = 30
    expected = find_outliers(features)[0]
    for other in (features * 1e-12, features * 1e200, features.astype(np.float32) * 7 + 5):
        assert np.allclose(find_outliers(other)[0], expected, atol=1e-3)


@pytest.mark.parametrize("n", [0, 1, 2, 4])
def test_few_rows_hold_none(n: int) -> None:
    scores, flagged = find_outliers(np.arange(n * 3, dtype=float).reshape(n, 3) ** 3)
    assert scores.tolist() == [1.0] * n
    assert flagged.dtype == bool
    assert not flagged.any()


def test_equal_rows_hold_none_but_the_one_that_differs() -> None:
    features = np.ones((1000, 4))
    assert not find_outliers(features)[1].any()
    features[7] = 5
    assert np.flatnonzero(find_outliers(features)[1]).tolist() == [7]


def test_nan_counts_as_usual_and_infinity_as_outlying() -> None:
    features = np.random.default_rng(0).normal(size=(200, 3))
    features[:20, 0] = np.nan
    features[5] = np.nan
    features[30, 1] = np.inf
    scores, flagged = find_outliers(features)
    assert np.isfinite(scores).all()
    assert flagged[30]
    assert not flagged[:20].any()
    assert not find_outliers(np.full((50, 2), np.nan))[1].any()
    assert find_outliers(np.full((50, 2), np.inf))[1].all()


def test_no_columns_and_no_table() -> None:
    assert not find_outliers(np.empty((20, 0)))[1].any()
    with pytest.raises(InputError, match=r"features \[N, D\]"):
        find_outliers(np.zeros(5))


def test_references_are_drawn_where_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_REFERENCES", 500)
    features = np.random.default_rng(0).normal(size=(4000, 6))
    features[:5] = 40 + 40 * np.eye(6)[:5]
    scores, flagged = find_outliers(features, seed=3)
    assert flagged[:5].all()
    assert flagged[5:].mean() <= 0.01
    assert np.array_equal(scores, find_outliers(features, seed=3)[0])
