"""The drift watch keeps its promise, finds what it should, resumes exactly, and never cries drift on nonsense."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from kfloop.core.drift.budget import FIRST_SHARE, YEAR_SECONDS, Budget
from kfloop.core.drift.columns import fit_columns
from kfloop.core.drift.dependence import correlation_length, suggested_unit
from kfloop.core.drift.fitting import fit_watch
from kfloop.core.drift.payment import KNOT_WEIGHTS, STAKES, knot_shares, log_growth, log_mean, paid, settle, stakes
from kfloop.core.drift.rehearsal import rehearse
from kfloop.core.drift.settings import Settings
from kfloop.core.drift.state import Bets, Books, State
from kfloop.core.drift.watch import Watch
from kfloop.core.statistics.estimate import wilson
from kfloop.errors import InputError, StateError

COLUMNS = 4
KINDS = {**{f"x{i}": "numeric" for i in range(COLUMNS)}, "kind": "categorical"}


def draw(rng: np.random.Generator, n: int, shift: float = 0.0) -> dict[str, Any]:
    numbers = rng.normal(size=(n, COLUMNS))
    numbers[:, 0] += shift
    return {**{f"x{i}": numbers[:, i] for i in range(COLUMNS)}, "kind": rng.choice(["a", "b", "c"], n)}


def cut(table: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    return {name: cells[start:stop] for name, cells in table.items()}


def watch(seed: int = 0, n: int = 600, budget: Budget | None = None, **settings: Any) -> Watch:
    rng = np.random.default_rng([1, seed])
    return fit_watch(draw(rng, n), budget or Budget.per_life(0.05), kinds=KINDS, settings=Settings(**settings))


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal in every bit."""
    if isinstance(one, State | Books | Bets):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and one.tobytes() == other.tobytes()
    return bool(one == other)


@pytest.fixture(scope="module")
def shared() -> Watch:
    return watch()


def test_missing_cells_do_not_make_directions_alarm() -> None:
    """A unit with a missing cell neither wins nor loses; counted as an average one in the reference, it made skewed columns alarm within 60 blocks."""
    rng = np.random.default_rng(5)
    cells = rng.normal(size=(6000, 12)) ** 2
    cells[rng.random(cells.shape) < 0.045] = np.nan
    table = {f"c{number}": cells[:, number] for number in range(12)}
    kinds = dict.fromkeys(table, "numeric")
    found = rehearse(table, kinds=kinds, settings=Settings(batch=400), runs=8, blocks=60, seed=1)
    assert found.alarms == 0
    assert max(found.highest) < 5.9  # the logarithm of a threshold that 60 blocks may be held to


def test_false_alarms_stay_in_budget_with_a_small_reference() -> None:
    """200 reference rows and 2000 monitored ones, at thresholds so low that a leak would show: one in five may alarm."""
    alarms, runs = 0, 40
    for seed in range(runs):
        quiet = watch(seed, n=200, budget=Budget.per_schedule(0.2, blocks=40))
        state = quiet.advance(quiet.start(), draw(np.random.default_rng([2, seed]), 2000))
        assert state.blocks == 40
        alarms += state.drift_row is not None or state.quality_row is not None
    assert wilson(alarms, runs).low <= 0.2
    assert wilson(alarms, runs).high <= 0.25


@pytest.mark.parametrize("budget", [Budget.per_life(0.05), Budget.per_schedule(1, blocks=8760)])
def test_a_shift_of_half_a_deviation_in_one_column_is_found(budget: Budget) -> None:
    for seed in range(3):
        test = watch(seed, n=2000, budget=budget)
        rng = np.random.default_rng([3, seed])
        state = test.advance(test.start(), draw(rng, 1000))
        assert state.drift_row is None
        state = test.advance(state, draw(rng, 800, shift=0.5))
        assert state.drift_row is not None
        assert state.drift_row > 1000
        assert state.quality_row is None
        found = {name: value for name, value in test.streams(state).items() if value > 3}
        assert max(found, key=found.__getitem__) in {"x0 up", "all values together"}


def test_a_change_of_correlation_alone_is_found() -> None:
    test = watch(n=2000)
    rng = np.random.default_rng(4)
    state = test.advance(test.start(), draw(rng, 500))
    rows = draw(rng, 800)
    rows["x1"] = 0.6 * rows["x0"] + 0.8 * rows["x1"]
    state = test.advance(state, rows)
    assert state.drift_row is not None
    assert test.streams(state)["spread and correlation"] > max(test.streams(state)[f"x{i} up"] for i in range(4))


@pytest.mark.parametrize(("settings", "n_seasons"), [({}, 1), ({"unit": 5, "batch": 10}, 1), ({"n_seasons": 3}, 3)])
def test_two_halves_equal_the_whole_bit_for_bit(settings: dict[str, int], n_seasons: int) -> None:
    rng = np.random.default_rng(5)
    reference, rows = draw(rng, 900), draw(rng, 733)
    marks = np.arange(900) % n_seasons
    test = fit_watch(
        reference,
        Budget.per_life(0.05),
        kinds=KINDS,
        seasons=marks if n_seasons > 1 else None,
        settings=Settings(**settings),
    )
    seasons = np.arange(733) % n_seasons
    whole = test.advance(test.start(), rows, seasons)
    pieces = test.start()
    for start, stop in [(0, 1), (1, 1), (1, 130), (130, 501), (501, 733)]:
        pieces = test.advance(pieces, cut(rows, start, stop), seasons[start:stop])
        pieces = State.from_dict(json.loads(json.dumps(pieces.to_dict())))
    assert same(whole, pieces)
    assert whole.rows == 733
    assert np.isfinite(whole.log_drift)


def test_a_damaged_or_foreign_state_is_refused(shared: Watch) -> None:
    payload = shared.advance(shared.start(), draw(np.random.default_rng(6), 120)).to_dict()
    assert same(State.from_dict(payload), State.from_dict(json.loads(json.dumps(payload))))
    damaged = [
        None,
        [],
        {},
        {**payload, "format": 99},
        {**payload, "rows": payload["rows"] + 1},
        {key: value for key, value in payload.items() if key != "books"},
        {**payload, "memory": {"shape": [2, 3], "doubles": "???"}},
    ]
    for broken in damaged:
        with pytest.raises(StateError):
            State.from_dict(broken)
    other = watch(1)
    with pytest.raises(StateError, match=other.fingerprint):
        other.advance(State.from_dict(payload), draw(np.random.default_rng(6), 10))


def test_a_state_is_small(shared: Watch) -> None:
    state = shared.advance(shared.start(), draw(np.random.default_rng(7), 2040))
    assert len(json.dumps(state.to_dict())) < 200_000


def test_no_rows_change_nothing_and_one_row_waits(shared: Watch) -> None:
    start = shared.start()
    assert same(shared.advance(start, {}), start)
    assert same(shared.advance(start, draw(np.random.default_rng(8), 0)), start)
    state = shared.advance(start, draw(np.random.default_rng(8), 1))
    assert (state.rows, state.blocks, len(state.pending), state.drift_e) == (1, 0, 1, 0.0)


def nonsense(name: str, rows: dict[str, Any], n: int) -> dict[str, Any]:
    """Return rows that are wrong in one way."""
    changes: dict[str, dict[str, Any]] = {
        "all NaN": {key: np.full(n, np.nan) for key in KINDS},
        "NaN column": {"x2": np.full(n, np.nan)},
        "infinite": {"x2": np.where(np.arange(n) % 2, np.inf, -np.inf)},
        "texts for numbers": {"x2": np.array(["?"] * n)},
        "None": {"kind": np.array([None] * n, dtype=object), "x1": np.array([None] * n, dtype=object)},
        "new column": {"extra": np.arange(n)},
        "new category": {"kind": np.array(["zebra" if i % 10 == 0 else "a" for i in range(n)])},
    }
    rows = rows | changes.get(name, {})
    if name == "column gone":
        del rows["x3"]
    return rows


@pytest.mark.parametrize(
    "name", ["all NaN", "NaN column", "infinite", "texts for numbers", "None", "new column", "column gone"]
)
def test_nonsense_is_a_matter_of_quality_and_never_drift(shared: Watch, name: str) -> None:
    rng = np.random.default_rng(9)
    state = shared.advance(shared.start(), draw(rng, 300))
    state = shared.advance(state, nonsense(name, draw(rng, 1000), 1000))
    assert state.drift_row is None
    assert state.quality_row is not None
    assert state.quality_row <= 500


def test_a_category_that_was_never_seen_is_a_matter_of_quality(shared: Watch) -> None:
    rng = np.random.default_rng(10)
    state = shared.advance(shared.start(), nonsense("new category", draw(rng, 500), 500))
    assert state.quality_row is not None
    streams = shared.streams(state)
    quality = ("kind: missing", "kind: value never seen", "a new column")
    assert max(quality, key=streams.__getitem__) == "kind: value never seen"


def test_codes_are_the_same_levels_as_integers_and_as_floats() -> None:
    columns = fit_columns({"code": np.array([1, 2, 3, 1])}, {"code": "categorical"})
    whole = columns.encode({"code": np.array([1, 2])})
    assert np.array_equal(whole, columns.encode({"code": np.array([1.0, 2.0, np.nan])})[:2])
    assert columns.share_names == ("code: missing", "code: value never seen", "a new column")
    assert columns.encode({"code": np.array([4.0, np.nan])})[:, 3:].tolist() == [[0, 1, 0], [1, 0, 0]]


def test_a_few_huge_values_prove_nothing(shared: Watch) -> None:
    rng = np.random.default_rng(11)
    rows = draw(rng, 1000)
    rows["x0"][::100] = 1e308
    rows["x1"][5] = -1e308
    with np.errstate(all="raise", under="ignore"):
        state = shared.advance(shared.start(), rows)
    assert (state.drift_row, state.quality_row) == (None, None)


def test_constant_and_empty_columns_of_the_reference_are_guarded() -> None:
    rng = np.random.default_rng(12)
    kinds = {**KINDS, "same": "numeric", "empty": "numeric"}

    def rows(n: int, same_value: float, empty: float) -> dict[str, Any]:
        return {**draw(rng, n), "same": np.full(n, same_value), "empty": np.full(n, empty)}

    test = fit_watch(rows(400, 7.0, np.nan), Budget.per_life(0.05), kinds=kinds)
    calm = test.advance(test.start(), rows(400, 7.0, np.nan))
    assert (calm.drift_row, calm.quality_row) == (None, None)
    for changed in (rows(400, 8.0, np.nan), rows(400, 7.0, 1.0)):
        state = test.advance(calm, changed)
        assert state.quality_row is not None
        assert state.drift_row is None


def test_a_reference_of_constants_alone_can_be_watched() -> None:
    test = fit_watch({"x": np.ones(100)}, Budget.per_life(0.05), kinds={"x": "numeric"})
    state = test.advance(test.start(), {"x": np.ones(300)})
    assert (state.blocks, state.drift_row, state.quality_row) == (6, None, None)


def test_seasons_that_come_one_after_the_other_are_no_drift_with_a_seasonal_reference() -> None:
    def rows(n: int, hours: np.ndarray) -> dict[str, Any]:
        table = draw(rng, n)
        return table | {"x0": table["x0"] + np.sin(2 * np.pi * hours / 24)}

    rng = np.random.default_rng(13)
    hours = np.arange(2400) % 24
    stream = (np.arange(4800) // 100) % 24
    reference, traffic = rows(2400, hours), rows(4800, stream)
    blind = fit_watch(reference, Budget.per_life(0.05), kinds=KINDS)
    assert blind.advance(blind.start(), traffic).drift_row is not None
    seasonal = fit_watch(reference, Budget.per_life(0.05), kinds=KINDS, seasons=hours, settings=Settings(n_seasons=24))
    assert seasonal.advance(seasonal.start(), traffic, stream).drift_row is None


def test_units_of_many_rows_stand_correlated_traffic() -> None:
    def rows(n: int) -> dict[str, Any]:
        table, noise = draw(rng, n), rng.normal(size=n)
        walk = np.zeros(n)
        for i in range(1, n):
            walk[i] = 0.9 * walk[i - 1] + noise[i]
        return table | {"x0": walk}

    rng = np.random.default_rng(14)
    reference, traffic = rows(6000), rows(6000)
    length = correlation_length(reference["x0"][:, None])
    assert 12 < length < 30  # (1 + .9) / (1 - .9) = 19
    assert suggested_unit(reference["x1"][:, None]) == 1
    rowwise = fit_watch(reference, Budget.per_life(0.05), kinds=KINDS)
    assert rowwise.advance(rowwise.start(), traffic).drift_row is not None
    unit = 100
    test = fit_watch(reference, Budget.per_life(0.05), kinds=KINDS, settings=Settings(batch=4, unit=unit))
    assert test.advance(test.start(), traffic).drift_row is None
    assert "units of 100 rows" in test.guarantee


def test_thresholds_follow_from_the_users_number() -> None:
    blocks = 35040
    schedule = Budget.per_schedule(2, blocks=blocks)
    assert schedule.threshold == 17520
    assert np.exp(schedule.log_needed("drift")) == pytest.approx(17520 / 0.8)
    assert np.exp(schedule.log_needed("quality")) == pytest.approx(17520 / 0.2)
    assert schedule.log_weight(1000) == 0.0
    life = Budget.per_life(0.05)
    assert life.threshold == 20
    assert sum(np.exp(life.log_weight(block)) for block in range(100_000)) == pytest.approx(1.0, abs=1e-3)
    for wrong in (0, -1, float("nan"), float("inf"), 40000):
        with pytest.raises(InputError):
            Budget.per_schedule(wrong, blocks=blocks)
    for chance in (0, 1, 2, float("nan")):
        with pytest.raises(InputError):
            Budget.per_life(chance)


def test_weights_of_a_year_sum_to_the_time_that_passed_whatever_the_clock_does() -> None:
    budget = Budget.per_year(4)
    rng = np.random.default_rng(20)
    for steps in (rng.exponential(40_000, 3000), np.full(5000, 60.0), np.zeros(1000), np.full(3, 1e9)):
        weights = [budget.log_weight(block, seconds) for block, seconds in enumerate(steps)]
        assert np.exp(weights).sum() <= 4 * steps.sum() / YEAR_SECONDS + FIRST_SHARE + 1e-9
    assert np.exp(budget.log_weight(10**6, 1e12)) <= 0.0101  # a silence of ages alarms nobody
    assert budget.log_weight(7, -3600.0) == budget.log_weight(7, 0.0)  # a clock that was set back
    for wrong in (0, -1, float("nan"), 101):
        with pytest.raises(InputError):
            Budget.per_year(wrong)


def clocked(rng: np.random.Generator, n: int) -> np.ndarray:
    """Times of rows whose rate changes by a factor of 20, with one hour by which the clock was set back."""
    gaps = rng.exponential(3000.0, n)
    gaps[n // 2 :] /= 20
    times = np.cumsum(gaps)
    times[n // 3 :] -= 3600.0
    return np.asarray(times)


def test_a_budget_for_the_year_is_kept_at_any_rate_and_finds_what_it_should() -> None:
    """So many alarms a year are allowed that a watch which forgot to ask for time would raise them."""
    alarms, allowed, found = 0, 0.0, 0
    for seed in range(15):
        rng = np.random.default_rng([21, seed])
        test = watch(seed, n=300, budget=Budget.per_year(50), most=400)
        times = clocked(rng, 2000)
        state = test.advance(test.start(), draw(rng, 2000), times=times)
        alarms += state.drift_row is not None or state.quality_row is not None
        allowed += 50 * (times.max() - times.min()) / YEAR_SECONDS + FIRST_SHARE
        after = times[-1] + np.arange(500) * 150.0
        found += test.advance(state, draw(rng, 500, shift=1.0), times=after).drift_row is not None
    assert allowed < 15 * 10
    assert alarms <= 1
    assert found == 15


def test_a_budget_for_the_year_needs_times() -> None:
    test = watch(budget=Budget.per_year(1))
    rng = np.random.default_rng(22)
    with pytest.raises(InputError, match="no times"):
        test.advance(test.start(), draw(rng, 5))
    with pytest.raises(InputError, match="3 times for 5 rows"):
        test.advance(test.start(), draw(rng, 5), times=np.arange(3))


def test_blocks_grow_where_many_rows_come_and_halves_still_equal_the_whole() -> None:
    test = watch(budget=Budget.per_year(1), most=500)
    rng = np.random.default_rng(23)
    n = 12_000
    rows, times = draw(rng, n), np.arange(n) * 0.05
    times[9000:] += np.arange(n - 9000) * 60.0  # then hardly any come
    whole = test.advance(test.start(), rows, times=times)
    assert whole.blocks < 130  # 240 of 50 rows
    assert whole.size == 50
    assert test.advance(test.start(), cut(rows, 0, 9000), times=times[:9000]).size > 300
    pieces = test.start()
    for start, stop in [(0, 700), (700, 701), (701, 9100), (9100, n)]:
        pieces = test.advance(pieces, cut(rows, start, stop), times=times[start:stop])
        pieces = State.from_dict(json.loads(json.dumps(pieces.to_dict())))
    assert same(whole, pieces)


def test_the_state_after_each_block_is_one_to_go_on_from(shared: Watch) -> None:
    rows = draw(np.random.default_rng(24), 230)
    states = list(shared.steps(shared.start(), rows))
    assert [state.rows for state in states] == [50, 100, 150, 200, 230]
    rest = shared.advance(states[1], cut(rows, 100, 230))
    assert same(rest, states[-1])


def test_the_rehearsal_agrees_with_the_promise() -> None:
    found = rehearse(draw(np.random.default_rng(15), 300), kinds=KINDS, runs=6, blocks=20)
    assert found.kept
    assert (found.runs, found.blocks, len(found.highest)) == (6, 20, 6)
    assert not replace(found, alarms=6, share=wilson(6, 6)).kept
    assert "does not hold" in replace(found, alarms=6, share=wilson(6, 6)).statement


def test_a_rehearsal_says_how_much_less_evidence_would_do() -> None:
    few = rehearse(draw(np.random.default_rng(15), 300), kinds=KINDS, runs=6, blocks=10)
    assert few.factor == 1.0
    highest = tuple(np.log(np.linspace(0.1, 10, 40)).tolist())
    many = replace(few, runs=40, blocks=100, highest=highest)
    assert many.factor == pytest.approx(
        np.exp(highest[36]) / (100 / 0.2 / 0.8)
    )  # P(Binomial(40, .8) <= 36) is the first above .95
    budget = Budget.per_schedule(1, blocks=8760)
    assert budget.tightened(0.02).threshold == pytest.approx(175.2)
    assert "by simulation" in budget.tightened(0.02).statement
    for wrong in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(InputError):
            budget.tightened(wrong)


def test_an_acknowledged_alarm_is_counted_and_evidence_begins_anew(shared: Watch) -> None:
    rng = np.random.default_rng(16)
    state = shared.advance(shared.start(), draw(rng, 600, shift=2.0))
    assert state.drift_row is not None
    cleared = state.acknowledged()
    assert (cleared.alarms, cleared.drift_row, cleared.drift_e) == (1, None, 0.0)
    assert shared.advance(cleared, draw(rng, 300)).drift_row is None


def test_what_the_reference_takes_is_a_lower_bound_for_every_mean() -> None:
    """Against the definition: min over m of log K(m) R(m), looked for on a fine grid."""
    rng = np.random.default_rng(17)
    for _ in range(20):
        scores, paying = rng.beta(2, 2.5, 300), rng.beta(2, 2.5, 500)
        centre = np.array([0.45])
        stake, share = stakes(STAKES, centre), knot_shares(centre)
        won = log_growth(np.ones((1, 300)), (scores - centre)[None, :], stake)
        values = paid(np.ones((1, 500)), (paying - centre)[None, :], share)
        ours = won + settle(stake * 300, share * 500, values)
        m = np.linspace(0, 1, 2001)[:, None]
        reference = log_mean(np.log(len(KNOT_WEIGHTS)) + values + share * 500 * (m - centre), axis=1)
        for j in range(len(STAKES)):
            exact = (won[0, j] - stake[0, j] * 300 * (m[:, 0] - centre) + reference).min()
            assert ours[0, j] <= exact + 1e-9
            assert ours[0, j] == -np.inf or ours[0, j] > exact - 5


def test_wealth_of_the_reference_has_mean_at_most_one() -> None:
    """R at the true mean, and K there, are e-values: their means over many draws are at most 1."""
    rng = np.random.default_rng(18)
    centre = np.array([0.4])  # the true mean of beta(2, 2) is .5: c need not be right
    stake, share = stakes(STAKES, centre), knot_shares(centre)
    wealth, payment = [], []
    for _ in range(2000):
        wealth.append(log_growth(np.ones((1, 20)), rng.beta(2, 2, (1, 20)) - centre, stake) - stake * 20 * 0.1)
        values = paid(np.ones((1, 20)), rng.beta(2, 2, (1, 20)) - centre, share) + share * 20 * 0.1
        payment.append(np.exp(values).sum())
    assert (np.exp(np.array(wealth)).mean(axis=0) <= 1.1).all()
    assert np.mean(payment) <= 1.1


def test_wrong_columns_and_seasons_are_input_errors(shared: Watch) -> None:
    rng = np.random.default_rng(19)
    with pytest.raises(InputError, match="different lengths"):
        shared.advance(shared.start(), {"x0": np.zeros(3), "x1": np.zeros(2)})
    with pytest.raises(InputError, match="cannot be watched"):
        fit_columns(draw(rng, 10), {"nothing": "numeric"})
    with pytest.raises(InputError, match="at least 50 units"):
        fit_watch(draw(rng, 40), Budget.per_life(0.05), kinds=KINDS)
    with pytest.raises(InputError, match="seasons for 100 rows"):
        fit_watch(draw(rng, 100), Budget.per_life(0.05), kinds=KINDS, settings=Settings(n_seasons=2))
    with pytest.raises(InputError, match="from 0 to 0"):
        shared.advance(shared.start(), draw(rng, 2), np.array([0, 1]))
    with pytest.raises(InputError, match="out of range"):
        Settings(batch=0)
