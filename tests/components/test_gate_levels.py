"""Levels of intervals, Holm's correction over the slices of a rule, and what a rule can detect."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import normal_power

from kfloop.components.gate.levels import at_level, detectable, holm_levels, quantile, standard_errors_beyond
from kfloop.components.gate.measurement import Measurement

Z95 = NormalDist().inv_cdf(0.975)


def measured(value: float, error: float, level: float = 0.95, n: int = 100) -> Measurement:
    half = NormalDist().inv_cdf(0.5 + level / 2) * error
    return Measurement(value=value, low=value - half, high=value + half, n=n, level=level)


def test_an_interval_at_another_level_is_that_of_the_same_standard_error() -> None:
    wide = measured(0.1, 0.02, level=0.998)
    found = at_level(wide, 0.95)
    assert found.low == pytest.approx(0.1 - Z95 * 0.02)
    assert found.high == pytest.approx(0.1 + Z95 * 0.02)
    assert found.level == 0.95
    assert at_level(Measurement(missing="nothing"), 0.9) == Measurement(missing="nothing")


def test_each_arm_of_a_lopsided_interval_is_scaled_by_itself() -> None:
    found = at_level(Measurement(value=0.9, low=0.7, high=0.95, n=9, level=0.99), 0.95)
    factor = quantile(0.95) / quantile(0.99)
    assert found.low == pytest.approx(0.9 - 0.2 * factor)
    assert found.high == pytest.approx(0.9 + 0.05 * factor)


@pytest.mark.parametrize(
    ("threshold", "at_least", "expected"),
    [(0.0, True, 5.0), (0.2, True, -5.0), (0.0, False, -5.0), (0.2, False, 5.0), (0.1, True, 0.0)],
)
def test_distance_counts_standard_errors_on_the_side_that_is_asked_for(
    threshold: float, at_least: bool, expected: float
) -> None:
    assert standard_errors_beyond(measured(0.1, 0.02), threshold, at_least=at_least) == pytest.approx(expected)


def test_distance_of_a_number_without_interval_is_unknown_and_of_one_without_width_infinite() -> None:
    assert math.isnan(standard_errors_beyond(Measurement(value=0.1), 0.0, at_least=True))
    exact = Measurement(value=0.1, low=0.1, high=0.1, n=5)
    assert standard_errors_beyond(exact, 0.1, at_least=True) == math.inf
    assert standard_errors_beyond(exact, 0.2, at_least=True) == -math.inf


@pytest.mark.parametrize("seed", range(6))
def test_holm_claims_what_statsmodels_claims(seed: int) -> None:
    distances = np.random.default_rng(seed).normal(1.5, 1.5, size=12)
    p_values = 1 - np.array([NormalDist().cdf(distance) for distance in distances])
    expected = multipletests(p_values, alpha=0.025, method="holm")[0]
    levels = holm_levels(distances.tolist(), 0.95)
    claimed = [distance >= quantile(level) for distance, level in zip(distances, levels, strict=True)]
    assert claimed == expected.tolist()


def test_holm_counts_what_cannot_be_judged_and_never_claims_it() -> None:
    alone, beside = holm_levels([2.1], 0.95), holm_levels([2.1, math.nan], 0.95)
    assert alone == [0.95]
    assert beside[0] == pytest.approx(0.975)
    assert quantile(alone[0]) <= 2.1
    assert quantile(beside[0]) > 2.1
    assert holm_levels([], 0.95) == []


def test_detectable_effect_has_four_chances_in_five() -> None:
    error = 0.02
    found = detectable(measured(0.0, error), -0.05, at_least=True, use="interval")
    assert found is not None
    assert normal_power((found + 0.05) / error, 1, 0.025, alternative="larger") == pytest.approx(0.8)
    upper = detectable(measured(0.0, error), 0.05, at_least=False, use="interval")
    assert upper == pytest.approx(-found)
    noticed = detectable(measured(0.0, error), -0.05, at_least=True, use="unless_refuted")
    assert noticed == pytest.approx(-0.05 - (found + 0.05))
    assert detectable(Measurement(value=0.1), 0.0, at_least=True, use="interval") is None
