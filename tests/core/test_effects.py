"""Effect sizes agree with references and say NaN when they cannot know."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from kfloop.core.statistics.effects import _auc, c2st_auc, feature_shifts, share_shifts
from kfloop.errors import InputError


def test_auc_equals_sklearn_also_with_ties() -> None:
    rng = np.random.default_rng(0)
    negative, positive = rng.integers(0, 10, 200).astype(float), rng.integers(3, 12, 150).astype(float)
    truth = np.r_[np.zeros(200), np.ones(150)]
    assert _auc(negative, positive) == pytest.approx(roc_auc_score(truth, np.r_[negative, positive]), abs=1e-12)


def test_c2st_is_near_a_half_without_drift_and_agrees_with_sklearn_with_it() -> None:
    rng = np.random.default_rng(1)
    reference, same, moved = (rng.normal(size=(400, 8)) for _ in range(3))
    moved = moved + 0.3
    none = c2st_auc(reference, same)
    assert none.low <= 0.5 <= none.high
    found = c2st_auc(reference, moved)
    x, y = np.r_[reference, moved], np.r_[np.zeros(400), np.ones(400)]
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scores = cross_val_predict(LogisticRegression(), x, y, cv=folds, method="decision_function")
    assert found.value == pytest.approx(roc_auc_score(y, scores), abs=0.03)
    assert found.low > 0.6
    assert found.n == 800


def test_c2st_of_disjoint_rows_is_one_and_constant_columns_do_no_harm() -> None:
    rng = np.random.default_rng(2)
    reference = np.c_[rng.normal(size=(60, 2)), np.ones(60)]
    current = np.c_[rng.normal(size=(60, 2)) + 50.0, np.ones(60)]
    assert c2st_auc(reference, current).value == 1.0
    assert c2st_auc(np.ones((50, 2)), np.ones((50, 2))).value == 0.5


@pytest.mark.parametrize(("n", "m"), [(0, 100), (100, 9), (3, 3)])
def test_c2st_of_too_few_rows_is_unknown(n: int, m: int) -> None:
    result = c2st_auc(np.zeros((n, 2)), np.zeros((m, 2)))
    assert math.isnan(result.value)
    assert not result.known


def test_feature_shift_is_in_reference_standard_deviations() -> None:
    reference, current = np.array([[0.0, 1.0, 5.0], [4.0, 1.0, 5.0]]), np.array([[6.0, 1.0, 6.0]])
    first, second, third = feature_shifts(reference, current, ["a", "b", "c"])
    assert (first.reference, first.current, first.shift_sd) == (2.0, 6.0, 2.0)
    assert second.shift_sd == 0.0
    assert math.isnan(third.shift_sd)


def test_feature_shift_refuses_other_columns() -> None:
    with pytest.raises(InputError, match="3 reference columns, 2 current"):
        feature_shifts(np.zeros((2, 3)), np.zeros((2, 2)), ["a", "b", "c"])


def test_share_shift_counts_predictions() -> None:
    reference = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    current = np.array([[0.9, 0.1], [0.8, 0.2]])
    effects = share_shifts(reference, current, ["cat", "dog"])
    assert [(e.name, e.reference, e.current) for e in effects] == [
        ("share of 'cat'", 0.5, 1.0),
        ("share of 'dog'", 0.5, 0.0),
    ]
    assert effects[0].shift_sd == 1.0
