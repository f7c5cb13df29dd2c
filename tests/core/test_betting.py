"""The betting test keeps its promise with a finite, reused reference, finds real shifts, and resumes exactly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kfloop.core.statistics.betting import Bet, Betting, BettingState, View
from kfloop.core.statistics.estimate import wilson
from kfloop.core.statistics.wealth import STAKES, worth
from kfloop.errors import InputError, StateError

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = 8
WIDTH = COLUMNS + 11
VIEWS = (
    View(name="linear", start=0, stop=COLUMNS),
    View(name="quadratic", start=COLUMNS, stop=COLUMNS + 10),
    View(name="fixed", start=COLUMNS + 10, stop=WIDTH, direction=(1.0,)),
)


def features(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the columns, products of the first four, and one more for the fixed direction."""
    first, second = np.triu_indices(4)
    return np.column_stack([rows, rows[:, first] * rows[:, second], -np.abs(rows[:, 0])])


def draw(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return rng.normal(size=(n, COLUMNS))


def gaussian(rng: np.random.Generator, n: int = 400) -> Betting:
    """Return the test on `n` Gaussian reference rows, 40 % of them for learning."""
    reference = features(draw(rng, n))
    cut = n * 2 // 5
    return Betting(learn=reference[:cut], pay=reference[cut:], views=VIEWS)


def test_false_alarms_stay_in_budget_with_a_reused_reference() -> None:
    """400 reference rows, 2000 monitored ones: the trap in which a fixed reference fires without any drift."""
    repeats, alarms = 150, 0
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        state = gaussian(rng).advance(BettingState(), features(draw(rng, 2000)))
        assert state.rows == 2000
        alarms += state.alarm_row is not None
    assert wilson(alarms, repeats).high <= 0.05


def test_wealth_has_mean_at_most_one_without_drift() -> None:
    """The evidence is an e-value: its mean without drift is at most 1, here with no tolerance to help."""
    values = []
    for seed in range(150):
        rng = np.random.default_rng(1000 + seed)
        exact = gaussian(rng, 100)
        test = Betting(learn=exact.learn, pay=exact.pay, views=VIEWS, tolerance=0.0)
        values.append(test.advance(BettingState(), features(draw(rng, 500))).e_value)
    assert np.mean(values) + 3 * np.std(values) / np.sqrt(len(values)) <= 1.0


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mean of all", lambda rows: rows + 0.8),
        ("mean of one", lambda rows: rows + 2.0 * np.eye(COLUMNS)[3]),
        ("spread", lambda rows: rows * 2.0),
        ("correlation", lambda rows: np.column_stack([rows[:, :1] * np.ones((1, 4)), rows[:, 4:]])),
    ],
)
def test_strong_shifts_are_found_within_a_few_batches(name: str, change: object) -> None:
    assert callable(change)
    delays = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        test = gaussian(rng)
        state = test.advance(BettingState(), features(draw(rng, 500)))
        assert state.alarm_row is None, name
        state = test.advance(state, features(change(draw(rng, 300))))
        assert state.alarm_row is not None, name
        delays.append(state.alarm_row - 500)
    assert max(delays) <= 200, name


def test_two_halves_equal_the_whole_bit_for_bit() -> None:
    rng = np.random.default_rng(5)
    test = gaussian(rng)
    rows = features(draw(rng, 700) + 0.2)
    rows[13, 2], rows[400, 0] = np.nan, np.inf
    whole = test.advance(BettingState(), rows)
    state = BettingState()
    for cut in np.split(rows, [1, 30, 49, 50, 51, 333, 334, 600]):
        state = BettingState.from_dict(json.loads(json.dumps(test.advance(state, cut).to_dict(), allow_nan=False)))
    assert state == whole
    assert (whole.skipped, whole.rows, len(whole.pending), whole.batches) == (2, 698, 48, 13)


def test_rows_that_are_not_finite_never_bet() -> None:
    rng = np.random.default_rng(6)
    test = gaussian(rng)
    clean = features(draw(rng, 200))
    dirty = np.insert(clean, [0, 50, 120], np.full(WIDTH, np.nan), axis=0)
    expected, found = test.advance(BettingState(), clean), test.advance(BettingState(), dirty)
    assert found.skipped == 3
    assert found.log_e == expected.log_e
    nothing = test.advance(BettingState(), np.full((300, WIDTH), np.nan))
    assert (nothing.batches, nothing.rows, nothing.skipped, nothing.e_value) == (0, 0, 300, 0.0)


def test_no_rows_change_nothing() -> None:
    test = gaussian(np.random.default_rng(7))
    assert test.advance(BettingState(), np.zeros((0, WIDTH))) == BettingState()


def test_the_alarm_stays_after_the_drift_is_gone() -> None:
    rng = np.random.default_rng(8)
    test = gaussian(rng)
    alarmed = test.advance(BettingState(), features(draw(rng, 300) + 1.5))
    assert alarmed.alarm_row is not None
    later = test.advance(alarmed, features(draw(rng, 1500)))
    assert later.alarm_row == alarmed.alarm_row


def test_the_state_stays_small_and_banks_old_bets() -> None:
    rng = np.random.default_rng(9)
    exact = gaussian(rng)
    test = Betting(learn=exact.learn, pay=exact.pay, views=VIEWS, lifetime=5)
    state = test.advance(BettingState(), features(draw(rng, 2000)))
    assert len(state.bets) <= 5 * len(VIEWS)
    assert state.banked is not None
    assert set(test.wealth(state)) == {"linear", "quadratic", "fixed"}


def test_the_minimum_is_bounded_from_below() -> None:
    """The fast minimum is never above, and close to, the minimum on a fine grid of the definition."""
    rng = np.random.default_rng(10)
    stakes = STAKES
    for rows, shift in ((50, 0.3), (2000, 0.05), (200, 0.0)):
        paid, seen = rng.beta(2, 2, 240), np.clip(rng.beta(2, 2, rows) + shift, 0, 1)
        bet = Bet(
            view="v",
            opened=0,
            direction=(1.0,),
            centre=0.0,
            scale=1.0,
            mean_score=0.5,
            tolerance=0.02,
            reference=tuple(np.log1p(stakes[:, None] * (0.5 - paid)).sum(axis=1).tolist()),
            current=tuple(np.log1p(stakes[:, None] * (seen - 0.5)).sum(axis=1).tolist()),
            rows=rows,
        )
        grid = np.linspace(0, 1, 20001)
        won = np.array(bet.current)[:, None] - stakes[:, None] * rows * (grid + 0.02 - 0.5)
        paid_out = np.array(bet.reference)[:, None] + stakes[:, None] * 240 * (grid - 0.5)
        exact = (np.logaddexp.reduce(won) + np.logaddexp.reduce(paid_out) - 2 * np.log(4)).min()
        found = worth((bet,), 240)[0]
        assert found <= exact + 1e-6
        assert found == pytest.approx(exact, abs=0.05)


def test_a_reference_that_is_too_small_or_not_finite_is_refused() -> None:
    good = np.random.default_rng(0).normal(size=(50, 1))
    views = (View(name="v", start=0, stop=1),)
    with pytest.raises(InputError, match=r"paying half .* \(3, 1\)"):
        Betting(learn=good, pay=good[:3], views=views)
    with pytest.raises(InputError, match="learning half"):
        Betting(learn=np.full((50, 1), np.nan), pay=good, views=views)
    with pytest.raises(InputError, match="do not fit 1 columns"):
        Betting(learn=good, pay=good, views=(View(name="v", start=0, stop=2),))


@pytest.mark.parametrize(
    "payload", [{}, {"format": 99}, {"format": 1}, {"format": 1, "pending": [], "average": [], "bets": 3}]
)
def test_a_broken_state_is_an_error(payload: dict[str, object]) -> None:
    with pytest.raises(StateError, match="betting state"):
        BettingState.from_dict(payload)
