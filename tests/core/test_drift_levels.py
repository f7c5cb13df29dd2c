"""Counts of levels tell what the rows themselves would: the same evidence, no row lost, nothing won by what was not observed."""

from __future__ import annotations

import numpy as np
import pytest

from kfloop.core.drift.block import count_block, fixed_counts
from kfloop.core.drift.budget import Budget
from kfloop.core.drift.fitting import fit_watch
from kfloop.core.drift.learned import Learned
from kfloop.core.drift.levels import LEVELS, SCORES, SHARES, counted, counted_shares, gains, moments
from kfloop.core.drift.payment import STAKES, log_growth, stakes
from kfloop.core.drift.settings import Settings


def values(seed: int, f: int = 3, n: int = 700) -> np.ndarray:
    return np.random.default_rng([31, seed]).normal(size=(f, n)).astype(np.float32)


def test_growth_from_counts_is_that_of_the_rounded_rows() -> None:
    rows = values(0)
    there = np.random.default_rng(32).random(rows.shape) < 0.8
    counts, centre = counted(rows, there), np.array([0.3, 0.5, 0.6])
    stake = stakes(STAKES, centre)
    found = log_growth(counts, gains(SCORES, centre), stake)
    rounded = (1 + np.tanh(np.floor(rows * 16 + 0.5) / 16.0, dtype=float)) / 2
    for f in range(3):
        gained = np.where(there[f], rounded[f] - centre[f], 0.0)
        for j in range(len(STAKES)):
            assert found[f, j] == pytest.approx(np.log1p(stake[f, j] * gained).sum(), abs=1e-6)
    mean, variance = moments(counts, SCORES)
    assert mean == pytest.approx([rounded[f][there[f]].mean() for f in range(3)], abs=1e-6)
    assert variance == pytest.approx([rounded[f][there[f]].var() for f in range(3)], abs=1e-6)


def test_rounding_moves_no_score_by_much() -> None:
    rows = np.linspace(-9, 9, 2001, dtype=np.float32)[None, :]
    levels = counted(np.ascontiguousarray(rows.T)).argmax(axis=1)  # one row a feature
    assert np.abs(SCORES[levels] - (1 + np.tanh(rows[0])) / 2).max() < 0.016
    assert (np.diff(levels) >= 0).all()
    assert levels.min() == 0
    assert levels.max() == LEVELS - 2  # the last one is for what was not observed


def test_every_row_is_counted_once_and_what_is_not_there_wins_nothing() -> None:
    rows = values(1, n=100)
    assert counted(rows).sum(axis=1).tolist() == [100, 100, 100]
    nothing = counted(rows, np.zeros((1, 100), dtype=bool))
    assert nothing[:, -1].tolist() == [100, 100, 100]
    centre = np.full(3, 0.2)
    assert not log_growth(nothing, gains(SCORES, centre), stakes(STAKES, centre)).any()
    assert moments(nothing, SCORES)[0].tolist() == [0, 0, 0]


def test_a_share_above_nothing_stays_above_nothing() -> None:
    shares = np.array([[0.0, 1.0], [1e-4, 0.5], [0.02, 1 / 3]], dtype=np.float32)
    levels = [np.flatnonzero(line).tolist() for line in counted_shares(shares)]
    assert levels[0] == [0, LEVELS - 2]
    assert levels[1][0] == 1
    assert all(
        SHARES[at] >= share - 1e-6
        for line, told in zip(levels, shares, strict=True)
        for at, share in zip(line, told, strict=True)
    )
    assert counted_shares(np.zeros((2, 50), dtype=np.float32))[:, 0].tolist() == [50, 50]


@pytest.mark.parametrize("unit", [1, 7])
def test_a_block_is_the_sum_of_its_slabs(unit: int) -> None:
    """1400 rows are counted in three slabs, or in units that do not fall on their ends."""
    rng = np.random.default_rng(33)
    names = [f"x{i}" for i in range(3)]
    table = {name: rng.normal(size=1400) for name in names}
    table["x0"][::9] = np.nan
    watch = fit_watch(
        {name: rng.normal(size=1400) for name in names},
        Budget.per_life(0.05),
        kinds=dict.fromkeys(names, "numeric"),
        settings=Settings(unit=unit),
    )
    rows, seasons = watch.columns.encode(table).T, np.zeros(1400, dtype=np.int64)
    axes = {"linear": rng.normal(size=(2, len(watch.linear.learn))).astype(np.float32)}
    block = count_block(watch.features, rows, seasons, axes)
    whole = watch.features.units(rows, seasons)
    assert block.units == 1400 // unit
    assert np.array_equal(block.fixed, fixed_counts(whole))
    assert block.mean == pytest.approx(whole.features.mean(axis=1), abs=1e-5)
    directly = counted(axes["linear"] @ whole.features[watch.features.slices["linear"]], whole.whole)
    assert np.abs(block.learned["linear"] - directly).sum() <= 4  # a product of another shape may round another way
    assert block.learned["linear"].sum(axis=1).tolist() == [1400 // unit] * 2


def test_a_learned_bet_is_won_along_its_direction() -> None:
    rng = np.random.default_rng(34)
    learned = Learned(learn=values(2, 4, 500), pay=values(3, 4, 900), tolerance=0.0, lifetime=5)
    bets = learned.opened(learned.empty(), np.array([1.0, 0.0, 0.0, 0.0]), 50.0, sparse=False, weight=0.0, block=1)
    shifted = rng.normal(size=(4, 400)).astype(np.float32) + np.array([[0.5], [0], [0], [0]], dtype=np.float32)
    for rows, wins in ((shifted, True), (-shifted, False)):
        played = Learned.played(bets, counted(Learned.directions(bets) @ rows), 400, 0.0)
        assert bool(Learned.evidence(played)[0] > 5) is wins
