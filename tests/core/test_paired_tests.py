"""Paired tests against scipy, statsmodels, a plain count of pairs and published examples."""

import math
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from kfloop.core.statistics.paired_tests import (
    delong,
    delong_covariance,
    diebold_mariano,
    hac_lags,
    holm,
    mcnemar_exact,
    mean_variance,
)
from kfloop.core.statistics.proportions import Pairs

DICE = np.random.default_rng(5)
# Albumin, total protein, K-G score and whether surgery helped: DeLong et al. 1988, as in the SAS/STAT user's guide, example "Comparing
# Receiver Operating Characteristic Curves" of PROC LOGISTIC.
DELONG = """3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0 3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0 1.6 5.6 5 1 3.8 5.7 5 1 3.7 6.7 6 1
    3.2 5.4 4 1 3.8 6.6 6 1 4.1 6.6 5 1 3.6 5.7 5 1 4.3 7.0 4 1 3.6 6.7 4 0 2.3 4.4 6 1 4.2 7.6 4 0 4.0 6.6 6 0 3.5 5.8 6 1
    3.8 6.8 7 1 3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1 3.1 6.6 6 1 4.1 8.2 6 1 4.3 7.0 5 1 4.3 6.5 4 1 3.2 5.1 5 1 2.6 4.7 6 1
    3.3 6.8 6 0 1.7 4.0 7 0 3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1 3.5 6.2 5 1 2.9 5.7 9 0 2.1 4.8 7 1 2.8 6.2 8 0 4.0 7.0 7 1
    3.3 5.7 6 1 3.7 6.9 5 1 3.6 6.6 5 1"""
PATIENTS = np.array(DELONG.split(), dtype=float).reshape(-1, 4)


@pytest.mark.parametrize("counts", [(0, 1), (3, 12), (12, 3), (40, 41), (7, 7)])
def test_mcnemar_agrees_with_scipy_and_statsmodels(counts: tuple[int, int]) -> None:
    b, c = counts
    found = mcnemar_exact(Pairs(ours=b, theirs=c, n=200))
    assert found.p_value == pytest.approx(stats.binomtest(b, b + c, 0.5).pvalue)
    expected = mcnemar([[200 - b - c, b], [c, 0]], exact=True)
    assert (found.statistic, found.p_value) == pytest.approx((expected.statistic, expected.pvalue))


def test_models_that_agree_on_every_row_have_a_p_value_of_one() -> None:
    assert mcnemar_exact(Pairs(ours=0, theirs=0, n=50)).p_value == 1


def test_delong_gives_the_published_example() -> None:
    positive, albumin, protein, score = PATIENTS[:, 3] == 1, PATIENTS[:, 0], PATIENTS[:, 1], 10 - PATIENTS[:, 2]
    areas, covariance = delong_covariance(positive, np.stack([albumin, score, protein]))
    assert areas == pytest.approx([0.7366, 0.7258, 0.6478], abs=5e-5)
    assert np.sqrt(np.diag(covariance)) == pytest.approx([0.0927, 0.1028, 0.1000], abs=5e-5)
    first, second = delong(positive, albumin, score), delong(positive, protein, score)
    assert (first.statistic**2, first.p_value) == pytest.approx((0.0127, 0.9102), abs=5e-5)
    assert (second.statistic**2, second.p_value) == pytest.approx((0.5554, 0.4561), abs=5e-5)


def plain_delong(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every pair compared, as the paper writes it."""
    won, lost = scores[:, positive], scores[:, ~positive]
    psi = (won[:, :, None] > lost[:, None, :]) + 0.5 * (won[:, :, None] == lost[:, None, :])
    return psi.mean((1, 2)), np.cov(psi.mean(2)) / won.shape[1] + np.cov(psi.mean(1)) / lost.shape[1]


def test_delong_agrees_with_all_pairs_with_ties() -> None:
    positive = DICE.random(150) < 0.3
    scores = np.round(positive + DICE.normal(size=(2, 150)), 1)
    areas, covariance = delong_covariance(positive, scores)
    expected = plain_delong(positive, scores)
    np.testing.assert_allclose(areas, expected[0])
    np.testing.assert_allclose(covariance, expected[1])
    np.testing.assert_allclose(areas, [roc_auc_score(positive, row) for row in scores])
    found = delong(positive, scores[0], scores[1])
    z = (areas[0] - areas[1]) / math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert (found.statistic, found.p_value) == pytest.approx((z, 2 * stats.norm.sf(abs(z))))


def test_the_same_order_is_no_difference_and_what_cannot_be_ranked_has_no_test() -> None:
    positive, scores = np.arange(20) >= 12, DICE.normal(size=20)
    assert delong(positive, scores, 3 * scores + 1).p_value == 1
    assert not delong(np.arange(20) >= 19, scores, scores[::-1]).known
    assert not delong(positive, np.where(np.arange(20) == 3, np.nan, scores), scores).known
    perfect = positive.astype(float)
    assert not delong(positive, perfect, -perfect).known  # no spread to judge the difference by


@pytest.mark.parametrize("overlap", [1, 6])
def test_diebold_mariano_agrees_with_a_regression_on_a_constant(overlap: int) -> None:
    n = 300
    losses = [np.convolve(DICE.normal(size=n + overlap - 1) ** 2, np.ones(overlap) / overlap, "valid") for _ in (1, 2)]
    difference, lags = losses[0] - losses[1], hac_lags(n, overlap)
    fit: Any = sm.OLS(difference, np.ones(n)).fit(cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": False})
    assert mean_variance(difference, lags) == pytest.approx(fit.bse[0] ** 2)
    found = diebold_mariano(losses[0], losses[1], overlap=overlap)
    # Harvey, Leybourne & Newbold 1997, equation 9.
    corrected = fit.tvalues[0] * math.sqrt((n + 1 - 2 * overlap + overlap * (overlap - 1) / n) / n)
    assert found.statistic == pytest.approx(corrected)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(corrected), min(n - 1, 1.5 * n / (lags + 1))))
    assert diebold_mariano(losses[1], losses[0], overlap=overlap).statistic == pytest.approx(-corrected)


def test_forecasts_without_a_test() -> None:
    losses = DICE.random(40)
    assert diebold_mariano(losses, losses).p_value == 1
    assert not diebold_mariano(np.where(np.arange(40) == 2, np.nan, losses), losses).known
    assert not diebold_mariano(losses[:10], losses[10:20], overlap=6).known
    assert not diebold_mariano(losses + 1, losses).known  # a constant difference has no spread


def test_equal_forecasts_are_seldom_told_apart() -> None:
    generator, rejected = np.random.default_rng(0), 0
    for _ in range(400):
        first, second = (np.convolve(generator.normal(size=505) ** 2, np.ones(6) / 6, "valid") for _ in range(2))
        rejected += diebold_mariano(first, second, overlap=6).p_value < 0.05
    assert 0.03 <= rejected / 400 <= 0.11


@pytest.mark.parametrize("p_values", [[0.01], [0.04, 0.01, 0.03], [0.5, 0.5, 0.0, 1.0, 0.02]])
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_holm_counts_a_test_that_could_not_be_made() -> None:
    found = holm([0.01, math.nan, 0.02])
    assert (found[0], found[2]) == pytest.approx((0.03, 0.04))
    assert math.isnan(found[1])
    assert holm([]) == []
