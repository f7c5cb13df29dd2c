"""The joint test keeps its level with a look after every request, finds what is worse, and agrees with bets made one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kfloop.core.sections import RolloutConfig
from kfloop.core.statistics.estimate import wilson
from kfloop.core.statistics.paired_bets import HIGH, RANGES, STAKES, findings, first_at, log_wealth
from loading import load

BOUNDS = RolloutConfig().bounds()


bench = load(Path(__file__).parents[2] / "benchmarks" / "rollout.py")


@pytest.mark.parametrize("name", RANGES)
def test_wealth_is_what_bets_one_after_the_other_win(name: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(RANGES[name], 1, 30)
    bound = BOUNDS[name]
    purses = np.ones(len(STAKES))
    for number, value in enumerate(x):
        purses *= 1 + STAKES / (bound - RANGES[name]) * (value - bound)
        assert (purses > 0).all()
        assert log_wealth(x, bound, RANGES[name], HIGH)[number] == pytest.approx(np.log(purses.mean()))


@pytest.mark.parametrize(("name", "values"), [("errors", (-1.0, 0.0, 1.0)), ("latency", (0.0, 1.0))])
def test_bets_are_fair_exactly_at_the_bound(name: str, values: tuple[float, ...]) -> None:
    """Summed over every outcome of three requests the wealth has mean 1: nothing is won on average, whoever bets on what."""
    bound, low = BOUNDS[name], RANGES[name]
    p_one = bound if low == 0 else 0.1 + bound
    chance = {1.0: p_one, 0.0: 1 - p_one - (0.1 if low else 0.0), -1.0: 0.1}
    total = back = 0.0
    for outcome in np.array(np.meshgrid(values, values, values)).reshape(3, -1).T:
        weight = np.prod([chance[value] for value in outcome])
        total += weight * np.exp(log_wealth(outcome, bound, low, HIGH)[-1])
        back += weight * np.exp(log_wealth(-outcome, -bound, -HIGH, -low)[-1])
    assert (total, back) == (pytest.approx(1), pytest.approx(1))


def test_a_challenger_at_every_margin_is_withdrawn_at_most_alpha_however_often_one_looks() -> None:
    """The worst case that still counts as not worse; an equal challenger is withdrawn far more rarely."""
    found = bench.simulate("at every margin", repeats=600, requests=2000)
    assert wilson(round(found["ever_worse"]["share"] * 600), 600).low <= 0.05
    assert found["ever_worse"]["share"] > 0.005  # the level is used, not given away
    assert found["promoted"]["share"] <= 0.05
    assert bench.simulate("equal, noisy", repeats=200, requests=2000)["ever_worse"]["share"] <= 0.02


def test_without_the_split_of_alpha_the_level_would_break() -> None:
    """The check above can fail: a test that looks at every question at a level ten times too large is caught by it."""
    loose = RolloutConfig(max_requests=2000).model_copy(update={"alpha": 0.5})
    found = bench.simulate("at every margin", repeats=600, requests=2000, config=loose)
    assert wilson(round(found["ever_worse"]["share"] * 600), 600).low > 0.05


@pytest.mark.parametrize("world", ["2 points more failures", "twice as slow"])
def test_a_worse_challenger_is_withdrawn_and_not_promoted(world: str) -> None:
    found = bench.simulate(world, repeats=60, requests=5000)
    assert found["withdrawn_before_promotion"]["share"] == 1
    assert found["promoted"]["share"] <= 0.05


def test_a_better_challenger_is_promoted() -> None:
    found = bench.simulate("2 points better in quality", repeats=60, requests=10000)
    assert found["promoted"]["share"] > 0.9
    assert found["ever_worse"]["share"] == 0


def test_labels_that_come_newest_first_prove_no_more_than_they_should() -> None:
    """At the bound itself, with a look after every 25 labels: the most favourable look would be right far too often."""
    rng = np.random.default_rng(3)
    shown = {"worse": 0, "fine": 0}
    for _ in range(200):
        x = rng.choice([-1.0, 0.0, 1.0], size=1500, p=[0.045, 0.9, 0.055])  # mean .01, the bound
        found = [findings({"quality": x[-n:]}, {"quality": 0.01}, 0.05)[0] for n in range(25, 1501, 25)]
        shown["worse"] += any(finding.worse_at is not None for finding in found)
        shown["fine"] += any(finding.fine_at is not None for finding in found)
    assert shown["worse"] <= 20  # 10 expected at most, of 200
    assert shown["fine"] <= 20


def test_without_a_request_nothing_is_shown() -> None:
    found = findings({name: np.zeros(0) for name in BOUNDS}, BOUNDS, 0.05)
    assert {finding.question for finding in found} == set(BOUNDS)
    assert all((f.worse_at, f.fine_at, f.mean, f.worse, f.fine) == (None, None, None, 1.0, 1.0) for f in found)
    assert {finding.worse_needed for finding in found} == {80.0}


def test_what_was_shown_once_stays_shown_and_evidence_is_a_finite_number() -> None:
    x = np.concatenate([np.ones(2000), -np.ones(8000)])
    (found,) = findings({"errors": x}, {"errors": 0.005}, 0.05)
    assert found.worse_at is not None
    assert found.worse_at < 10
    assert np.isfinite([found.worse, found.fine]).all()
    assert found.fine_at is not None
    assert first_at(log_wealth(x[: found.worse_at - 1], 0.005, -1.0, 1.0), 0.05) is None


@pytest.mark.parametrize("bound", [0.0, 1.0, -0.5, np.nan])
def test_a_bound_that_nothing_can_reach_is_refused(bound: float) -> None:
    with pytest.raises(ValueError, match="does not lie between"):
        log_wealth(np.zeros(3), bound, 0.0, 1.0)
