"""Thresholds that hold what they state, however they were looked for."""

from __future__ import annotations

import numpy as np
import pytest

from kfloop.core.statistics.selective import lowest_threshold


def drawn(dice: np.random.Generator, n: int, worst: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidences, whether right, and the true chance of each: it falls with the confidence, and the confidence overstates it."""
    confidence = dice.uniform(0.5, 1, n)
    chance = 1 - (1 - worst) * 2 * (1 - confidence)
    return confidence, dice.random(n) < chance, chance


@pytest.mark.parametrize(("n", "worst"), [(150, 0.9), (400, 0.8), (1000, 0.7)])
def test_the_stated_precision_is_missed_at_most_as_often_as_stated(n: int, worst: float) -> None:
    dice, missed, rounds, some = np.random.default_rng(7), 0, 400, 0
    for _ in range(rounds):
        confidence, right, _ = drawn(dice, n, worst)
        threshold = lowest_threshold(confidence, right, 0.95, 0.9)
        if threshold is None:
            continue
        some += 1
        # True precision above the threshold: the mean chance of a uniform confidence in [threshold, 1].
        missed += 1 - (1 - worst) * (1 - threshold) < 0.95
    assert missed / rounds <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / rounds)
    assert some > rounds / 4


def test_a_model_exactly_at_the_border_is_passed_no_more_often_than_stated() -> None:
    """The hardest case: whatever is kept has a precision a hair below the stated one, so every threshold is an error."""
    dice, rounds = np.random.default_rng(1), 500
    found = [lowest_threshold(dice.random(300), dice.random(300) < 0.9, 0.9, 0.95) is not None for _ in range(rounds)]
    assert 0 < np.mean(found) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / rounds)


def test_looking_for_the_best_bound_would_not_hold() -> None:
    """What the correction is for: the same rows, every threshold tested at the full level, and the lowest that passes taken."""
    from scipy.stats import binom

    dice, naive = np.random.default_rng(1), 0
    for _ in range(300):
        confidence, right = dice.random(300), dice.random(300) < 0.9
        hits = np.cumsum(right[np.argsort(-confidence)])
        naive += bool((binom.sf(hits - 1, np.arange(1, 301), 0.9) <= 0.05).any())
    assert naive / 300 > 0.15


def test_all_right_is_kept_whole_and_too_few_rows_prove_nothing() -> None:
    confidence = np.linspace(0.6, 0.99, 200)
    right = np.ones(200, dtype=bool)
    assert lowest_threshold(confidence, right, 0.95, 0.95) == pytest.approx(0.6)
    assert lowest_threshold(confidence[:58], right[:58], 0.95, 0.95) is None  # .95 ** 58 is above .05
    assert lowest_threshold(confidence[:59], right[:59], 0.95, 0.95) == pytest.approx(0.6)
    assert lowest_threshold(confidence[:0], right[:0], 0.95, 0.95) is None
    assert lowest_threshold(confidence, ~right, 0.95, 0.95) is None


def test_one_error_on_top_does_not_end_the_search() -> None:
    confidence = np.linspace(0.99, 0.6, 500)
    right = np.ones(500, dtype=bool)
    right[0] = False
    assert lowest_threshold(confidence, right, 0.95, 0.95) == pytest.approx(0.6)


def test_equal_confidences_stand_or_fall_together() -> None:
    confidence = np.repeat(np.array([0.9, 0.8], dtype=np.float32), 300)
    right = np.r_[np.ones(300, dtype=bool), np.zeros(300, dtype=bool)]
    assert lowest_threshold(confidence, right, 0.95, 0.95) == np.float32(0.9)
    right[:150] = False
    assert lowest_threshold(confidence, right, 0.95, 0.95) is None
