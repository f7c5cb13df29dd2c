"""The expected quality of answers: calibrated where truth is known, with intervals that hold, and honest where it is not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from kfloop.core.quality.estimated import WINDOW, Estimated, by_label, f1, fall, quality
from kfloop.core.quality.evidence import STAKES, Evidence, Stretch
from kfloop.core.quality.expected import SURE, UNIT
from kfloop.core.quality.fitting import FEWEST
from kfloop.core.quality.gauge import SHARES, Gauge, open_gauge
from kfloop.core.statistics.estimate import wilson

DAY = 86400 * 10**9
NOTHING = np.zeros((0, 0))


def draw(
    rng: np.random.Generator, n: int, *, harder: float = 0.0, over: float = 1.4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers of an overconfident model of two classes, truth, and the true chance that each answer is right."""
    odds = rng.normal(1.5 - harder, 1.2, n)
    sign = rng.choice([-1.0, 1.0], n)
    chance = 1 / (1 + np.exp(-odds * sign))
    stated = 1 / (1 + np.exp(-over * odds * sign))
    truth = (rng.random(n) < chance).astype(float)
    return np.stack([1 - stated, stated], axis=1), truth, np.where(stated > 0.5, chance, 1 - chance)


def gauge_of(answers: np.ndarray, truth: np.ndarray | None, objective: str = "classification", **drops: float) -> Gauge:
    embedding = np.zeros((len(answers), 0))
    names = tuple(map(str, range(answers.shape[1])))
    found = open_gauge(objective, answers=answers, embedding=embedding, truth=truth, labels=names, **drops)
    assert found is not None
    return found


def sums_of(gauge: Gauge, answers: np.ndarray, embedding: np.ndarray | None = None) -> list[int]:
    vectors = np.zeros((len(answers), 0)) if embedding is None else embedding
    return [int(value) for value in gauge.columns(answers, vectors).sum(axis=0)]


@pytest.mark.parametrize("harder", [0.0, 1.0])
def test_intervals_hold_the_accuracy_of_shifted_traffic_and_stated_confidence_does_not(harder: float) -> None:
    rng = np.random.default_rng(1)
    true = float(draw(rng, 400_000, harder=harder)[2].mean())
    hits, plain, runs = 0, 0, 120
    for _ in range(runs):
        gauge = gauge_of(*draw(rng, 1000)[:2])
        answers = draw(rng, 500, harder=harder)[0]
        told = quality(gauge, sums_of(gauge, answers))
        hits += told.low <= true <= told.high
        plain += abs(answers.max(axis=1).mean() - true) < (told.high - told.low) / 2
    assert wilson(hits, runs).high >= 0.95
    assert hits / runs >= 0.9
    assert plain / runs < 0.5  # else the test would prove nothing


def test_the_fit_is_that_of_an_independent_solver() -> None:
    rng = np.random.default_rng(2)
    answers, truth, _ = draw(rng, 3000, over=1.0)
    gauge = gauge_of(answers, truth)
    offset, features = gauge.expected.decisions(answers, np.zeros((len(answers), 0)))
    right = (answers.argmax(axis=1) == truth).astype(float)

    def loss(beta: np.ndarray) -> float:
        odds = offset[:, 0] + features[:, 0] @ beta
        return float(-(right * odds - np.log1p(np.exp(odds))).sum() + 0.5 * (beta**2).sum())

    best = minimize(loss, np.zeros(features.shape[-1]), method="BFGS", options={"gtol": 1e-4})
    np.testing.assert_allclose(gauge.expected.coefficients, best.x, atol=1e-3)
    # The inverse of the curvature is what the reference leaves open; BFGS knows it roughly.
    assert np.sqrt(np.diag(gauge.expected.covariance)) == pytest.approx(np.sqrt(np.diag(best.hess_inv)), rel=0.3)


@pytest.mark.parametrize("n", [10, 400])
def test_certainties_of_one_do_not_make_the_fit_diverge(n: int) -> None:
    stated = np.where(np.random.default_rng(3).random(n) < 0.5, 0.0, 1.0)
    answers = np.stack([1 - stated, stated], axis=1)
    truth = stated.copy()
    truth[: n // 10] = 1 - truth[: n // 10]
    gauge = gauge_of(answers, truth)
    told = quality(gauge, sums_of(gauge, answers))
    assert np.isfinite([told.value, told.low, told.high]).all()
    if n >= FEWEST:
        assert told.value == pytest.approx(0.9, abs=0.03)  # a penalty pulls it towards the stated 1
    else:
        assert told.value == pytest.approx(1 - SURE, abs=1e-5)


def test_without_truth_stated_probabilities_are_taken_as_they_are() -> None:
    answers, _, _ = draw(np.random.default_rng(4), 500)
    gauge = gauge_of(answers, None)
    assert gauge.measured == gauge.expected.rows == 0
    assert quality(gauge, sums_of(gauge, answers)).value == pytest.approx(answers.max(axis=1).mean(), abs=1e-6)
    nobody = gauge_of(answers, np.full(500, -1.0))  # classes of which none is known
    assert nobody.measured == 0
    np.testing.assert_array_equal(nobody.sums, gauge.sums)


def test_numbers_without_truth_have_no_gauge() -> None:
    rows = np.random.default_rng(5).normal(size=(100, 1))
    told = {"embedding": rows, "labels": ()}
    assert open_gauge("regression", answers=rows, truth=None, **told) is None
    assert open_gauge("regression", answers=rows, truth=np.full(100, np.nan), **told) is None


def test_the_error_of_numbers_is_learned_where_it_depends_on_the_embedding() -> None:
    rng = np.random.default_rng(6)

    def world(n: int, place: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        embedding = rng.normal(size=(n, 4))
        embedding[:, 0] += place
        answers = embedding @ np.array([[0.3], [1.0], [0.0], [0.0]])
        return answers, embedding, answers[:, 0] + rng.normal(size=n) * np.exp(0.5 * embedding[:, 0])

    answers, embedding, truth = world(4000, 0.0)
    gauge = open_gauge("regression", answers=answers, embedding=embedding, truth=truth, labels=())
    assert gauge is not None
    assert gauge.quality == pytest.approx(0.76, abs=0.03)  # 1 - 1 / 4, and errors beyond the scale count as the scale
    after, moved, truth_after = world(4000, 1.0)
    true = gauge.expected.realised(after, truth_after).mean()
    told = fall(gauge, sums_of(gauge, after, moved))
    assert gauge.quality - true > 0.1
    assert told.low <= gauge.quality - true <= told.high or told.value == pytest.approx(gauge.quality - true, abs=0.03)
    same, unmoved, _ = world(4000, 0.0)
    assert abs(fall(gauge, sums_of(gauge, same, unmoved)).value) < 0.02


def test_f1_of_two_classes_is_that_of_labels() -> None:
    rng = np.random.default_rng(7)
    gauge = gauge_of(*draw(rng, 5000)[:2])
    answers, truth, _ = draw(rng, 20_000, harder=0.5)
    predicted = answers.argmax(axis=1)
    true = 2 * (predicted * truth).sum() / (predicted + truth).sum()
    told = f1(gauge, sums_of(gauge, answers))
    assert told is not None
    assert told.low <= true <= told.high
    assert told.high - told.low < 0.08
    three = np.full((100, 3), 1 / 3)
    several = gauge_of(three, np.zeros(100))
    assert f1(several, sums_of(several, three)) is None


def test_sets_of_labels_are_told_label_by_label() -> None:
    rng = np.random.default_rng(8)
    chance = rng.beta(0.5, 0.5, size=(3000, 3))
    chance[:, 2] = 0.5 + rng.choice([-0.1, 0.1], 3000)
    truth = (rng.random(chance.shape) < chance).astype(float)
    gauge = gauge_of(chance, truth, "multilabel")
    told = by_label(gauge, sums_of(gauge, chance))
    right = ((chance >= 0.5) == (truth >= 0.5)).mean(axis=0)
    assert [told[name] for name in ("0", "1", "2")] == pytest.approx(right.tolist(), abs=0.03)
    assert gauge.quality == pytest.approx(right.mean())


def test_evidence_has_the_mean_of_its_weights_at_the_bound_and_grows_when_the_mean_falls() -> None:
    """All outcomes of two blocks of three coins, each with its chance: no simulation could see the rare large ones."""
    total = 0.0
    for coins in itertools.product([0.0, 1.0], repeat=6):
        chance = np.prod([0.8 if coin else 0.2 for coin in coins])
        state = Evidence().advance(np.array(coins[:3]), bound=0.8, most=1.0, weight=0.5)
        total += chance * state.advance(np.array(coins[3:]), bound=0.8, most=1.0, weight=0.25).value
    assert total == pytest.approx(0.75)
    rng = np.random.default_rng(9)
    state = Evidence()
    for block in (rng.random((40, 10)) < 0.6).astype(float):
        state = state.advance(block, bound=0.8, most=1.0, weight=1e-4)
    assert state.value > 1 / SHARES["estimated"]


def test_evidence_without_time_stays_away_and_cannot_be_ruined() -> None:
    nothing = Evidence().advance(np.zeros(10), bound=0.5, most=1.0, weight=0.0)
    assert nothing == Evidence()
    assert nothing.value == 0.0
    hit = Evidence().advance(np.ones(1000), bound=0.5, most=1.0, weight=1.0)
    assert all(np.isfinite(hit.logs or ()))
    assert hit.advance(np.zeros(20000), bound=0.5, most=1.0, weight=0.0).value <= np.exp(690)
    assert max(STAKES) < 1


def test_a_stretch_refutes_only_what_is_untrue() -> None:
    rng = np.random.default_rng(10)
    good, at_bound = Stretch(), Stretch()
    for _ in range(200):
        good = good.advance((rng.random(10) < 0.9).astype(float), bound=0.8, least=0.0)
        at_bound = at_bound.advance((rng.random(10) < 0.8).astype(float), bound=0.8, least=0.0)
    assert good.n == at_bound.n == 2000
    assert good.log > np.log(20) > at_bound.log


def test_a_fall_is_declared_and_none_is_not() -> None:
    rng = np.random.default_rng(11)
    gauge = gauge_of(*draw(rng, 3000)[:2])
    quiet = draw(rng, 20_000)[0]
    ts_ns = DAY * 19_000 + np.arange(20_000) * 10**11
    state = Estimated().advance(gauge, gauge.columns(quiet, np.zeros((20_000, 0))), ts_ns)
    assert state.since_row is None
    worse = draw(rng, 5000, harder=1.5)[0]
    state = state.advance(gauge, gauge.columns(worse, np.zeros((5000, 0))), ts_ns[-1] + np.arange(1, 5001) * 10**11)
    assert state.since_row is not None
    assert 20_000 < state.since_row < 22_000
    assert state.since_ns > ts_ns[-1]
    assert fall(gauge, state.now(gauge)).low > 0.05
    assert state.history[-1].value < state.history[0].value
    back = state.advance(gauge, gauge.columns(quiet, np.zeros((20_000, 0))), ts_ns + 3 * 10**15)
    assert (back.since_row, back.since_ns) == (state.since_row, state.since_ns)  # it stays declared
    other = Gauge(**{**gauge.__dict__, "estimated_drop": 0.3})
    assert back.advance(other, gauge.columns(quiet[:60], np.zeros((60, 0))), ts_ns[:60]).since_row is None
    never = Gauge(**{**gauge.__dict__, "estimated_drop": None})
    told = Estimated().advance(never, gauge.columns(worse, np.zeros((5000, 0))), ts_ns[:5000])
    assert (told.since_row, told.evidence.value) == (None, 0.0)
    assert told.history


def test_parts_equal_the_whole_bit_by_bit_and_the_state_stays_small() -> None:
    rng = np.random.default_rng(12)
    gauge = gauge_of(*draw(rng, 1000)[:2])
    n = 3 * WINDOW + 123
    answers = draw(rng, n, harder=0.7)[0]
    ts_ns = DAY * 19_000 + np.sort(rng.integers(0, 40 * DAY, n))
    table = gauge.columns(answers, np.zeros((n, 0)))
    whole = Estimated().advance(gauge, table, ts_ns)
    for cuts in ([1, 2, 49, 50, 51, 499, 500, 501], sorted(rng.integers(0, n, 40).tolist())):
        state = Estimated()
        for part in np.split(np.arange(n), cuts):
            columns = gauge.columns(answers[part], np.zeros((len(part), 0))) if len(part) else table[:0]
            state = Estimated.from_dict(state.advance(gauge, columns, ts_ns[part]).to_dict())
        assert state == whole
    assert whole.rows == n == sum(whole.window[:1]) + WINDOW * 3
    assert UNIT * 0.4 < whole.window[1] / whole.window[0] < UNIT
