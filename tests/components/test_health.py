"""The health of a service: quantiles, hours, counters, and the suite of the training rows asked of requests."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from kfloop.components.monitor.health.hours import HOUR_NS
from kfloop.components.monitor.health.latency import bins, quantile
from kfloop.components.monitor.health.requirements import BY_ROW, Requirements
from kfloop.components.monitor.health.watch import HealthWatch
from kfloop.components.monitor.policy.causes import DATA_QUALITY
from kfloop.core.expectations.checks import prepare
from kfloop.core.expectations.polars import evaluate
from kfloop.core.sections import MonitorConfig
from kfloop.errors import StateError

if TYPE_CHECKING:
    from numpy.typing import NDArray

START = 1_700_000_000_000_000_000 // HOUR_NS * HOUR_NS
CONFIG = MonitorConfig()
SUITE = [
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "age", "min_value": 0.1, "max_value": 90}},
    {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "age", "mostly": 0.95}, "severity": "warning"},
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "city", "value_set": ["Rome", "Oslo"]}},
    {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "city", "regex": "^[A-Z]"}},
    {"type": "expect_column_pair_values_a_to_be_greater_than_b", "kwargs": {"column_A": "age", "column_B": "years"}},
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "label", "value_set": ["a"]}},
    {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "age", "min_value": 0, "max_value": 50}},
    {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 20}},
]
ASKED = Requirements.of(SUITE)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    ts_ns: NDArray[np.int64]
    latency_us: NDArray[np.int64]
    inputs: dict[str, NDArray[Any]] = field(default_factory=dict)

    def part(self, chosen: slice) -> Chunk:
        inputs = {name: values[chosen] for name, values in self.inputs.items()}
        return Chunk(ts_ns=self.ts_ns[chosen], latency_us=self.latency_us[chosen], inputs=inputs)


def columns(rng: np.random.Generator, n: int) -> dict[str, NDArray[Any]]:
    age = rng.uniform(20, 80, n).astype(np.float32)
    return {"age": age, "years": age - 10, "city": rng.choice(np.array(["Rome", "Oslo"]), n)}


def hours(n_hours: int, *, rows: int = 100, seed: int = 0, latency: float = 1000.0, start: int = START) -> Chunk:
    """``rows`` an hour, in the order of time."""
    rng = np.random.default_rng(seed)
    n = n_hours * rows
    times = np.sort(start + rng.integers(0, n_hours * HOUR_NS, n))
    return Chunk(
        ts_ns=times,
        latency_us=rng.lognormal(np.log(latency), 0.5, n).astype(np.int64),
        inputs=columns(rng, n),
    )


def at(hour: float) -> float:
    """Seconds since 1970, so many hours after the start."""
    return START / 1e9 + hour * 3600


def test_quantiles_are_within_two_and_a_half_per_cent() -> None:
    times = np.random.default_rng(1).lognormal(8, 1.3, 20_000).astype(np.int64)
    names, found = np.unique(bins(times), return_counts=True)
    counts = dict(zip(names.tolist(), found.tolist(), strict=True))
    for share in (0.01, 0.5, 0.95, 0.99, 1.0):
        exact = np.quantile(times, share, method="inverted_cdf") / 1000
        assert quantile(counts, share) == pytest.approx(exact, rel=0.025)
    assert quantile({}, 0.5) is None


def test_times_that_are_none_are_no_latency() -> None:
    assert bins(np.array([0, -5, 1])).tolist() == [-1, -1, 0]
    assert bins(np.array([np.nan, np.inf, 1e300])).tolist() == [
        -1,
        bins(np.array([3.6e9]))[0],
        bins(np.array([3.6e9]))[0],
    ]


@pytest.mark.parametrize("cut", [0, 1, 777, 2999, 3000])
def test_two_halves_and_a_pause_between_them_give_what_the_whole_gives(cut: int) -> None:
    chunk = hours(30)
    whole = HealthWatch(requirements=ASKED).advance(chunk)
    half = HealthWatch(requirements=ASKED).advance(chunk.part(slice(0, cut)))
    kept = json.loads(json.dumps(half.to_dict(), allow_nan=False))
    again = HealthWatch.from_dict(kept, requirements=ASKED).advance(chunk.part(slice(cut, None)))
    assert again == whole
    assert again.to_dict() == whole.to_dict()


@pytest.mark.parametrize("seed", range(5))
def test_any_cuts_of_rows_in_disorder_give_what_the_whole_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chunk = hours(60, rows=20, seed=seed)
    chunk = Chunk(ts_ns=rng.permutation(chunk.ts_ns), latency_us=chunk.latency_us, inputs=chunk.inputs)
    watch, cuts = HealthWatch(requirements=ASKED), [0, *sorted(rng.integers(0, 1200, 6).tolist()), 1200]
    for start, stop in itertools.pairwise(cuts):
        watch = watch.advance(chunk.part(slice(start, stop)))
    whole = HealthWatch(requirements=ASKED).advance(chunk)
    assert watch == whole
    assert whole.backwards > 0


def test_the_state_stays_small_over_a_year() -> None:
    year = hours(365 * 24, rows=20)
    state = HealthWatch(requirements=ASKED).advance(year).to_dict()
    assert len(json.dumps(state)) < 40_000
    assert len(state["volume"]) == 168
    assert len(state["hours"]) == 24


def test_volume_latency_and_cost_now_beside_the_first_day() -> None:
    watch = (
        HealthWatch()
        .advance(hours(24, rows=100))
        .advance(hours(24, rows=50, latency=3000.0, seed=2, start=START + 24 * HOUR_NS))
    )
    report = watch.report(CONFIG, now=at(48), price_per_1000=2.0, blessed_ms_p95=1.5)
    assert report["rows"] == 3600
    assert report["rows_per_hour"]["before"] == 100
    assert report["latency_ms"]["before"]["p50"] == pytest.approx(1.0, rel=0.06)
    assert report["latency_ms"]["now"]["p50"] == pytest.approx(3.0, rel=0.15)
    assert report["latency_ms"]["blessed_p95"] == 1.5
    assert report["cost"] == {
        "price_per_1000": 2.0,
        "per_day": pytest.approx(2.0 * report["rows_per_hour"]["now"] * 0.024),
    }
    assert ["on the champion's first day" in line for line in report["findings"]] == [True]
    assert watch.report(MonitorConfig(latency_ms_p95=100), now=at(48))["findings"] == []
    said = watch.report(MonitorConfig(latency_ms_p95=2), now=at(48))["findings"]
    assert len(said) == 1
    assert "monitor.latency_ms_p95 is 2" in said[0]
    assert watch.report(MonitorConfig(price_per_1000=5), now=at(48), price_per_1000=2)["cost"]["price_per_1000"] == 5


def test_the_first_day_is_no_measure_before_it_is_over() -> None:
    report = HealthWatch().advance(hours(10)).report(CONFIG, now=at(10))
    assert report["latency_ms"]["before"] is None
    assert report["rows_per_hour"]["before"] is None


def test_traffic_that_ended_is_not_now() -> None:
    report = HealthWatch(requirements=ASKED).advance(hours(24)).report(CONFIG, now=at(24 * 5))
    assert report["rows_per_hour"]["now"] == 0
    assert report["latency_ms"]["now"]["p95"] is None
    assert report["expectations"]["unmet"] == []


def test_rows_as_in_training_meet_the_suite_and_declare_nothing() -> None:
    watch = HealthWatch(requirements=ASKED).advance(hours(24))
    (cause,) = watch.causes(CONFIG, at(24))
    assert (cause.kind, cause.declared, cause.matters) == (DATA_QUALITY, False, False)
    told = watch.report(CONFIG, now=at(24))["expectations"]
    assert told["asked"] == 5
    assert told["unmet"] == []
    assert told["left_out"] == ["expect_column_mean_to_be_between", "expect_table_row_count_to_be_between"]


@pytest.mark.parametrize(
    ("column", "broken", "expectation"),
    [
        ("age", lambda values: values + 500, "expect_column_values_to_be_between"),
        ("age", lambda values: values * np.nan, "expect_column_values_to_not_be_null"),
        ("age", lambda values: np.full_like(values, np.inf), "expect_column_values_to_be_between"),
        ("city", lambda values: np.full(len(values), "rome"), "expect_column_values_to_be_in_set"),
        ("years", lambda values: values + 100, "expect_column_pair_values_a_to_be_greater_than_b"),
    ],
)
def test_rows_that_break_an_expectation_are_told_and_never_matter(column: str, broken: Any, expectation: str) -> None:
    good, bad = hours(20), hours(4, rows=200, seed=3, start=START + 20 * HOUR_NS)
    bad.inputs[column] = broken(bad.inputs[column])
    watch = HealthWatch(requirements=ASKED).advance(good).advance(bad)
    (cause,) = watch.causes(CONFIG, at(24))
    assert cause.declared
    assert cause.matters is False
    assert column in " ".join(cause.moved)
    assert cause.size.low > 0.5
    assert cause.since == "2023-11-15T18:00:00+00:00"
    unmet = watch.report(CONFIG, now=at(24))["expectations"]["unmet"]
    assert expectation in [line["expectation"] for line in unmet if line["beyond"]]
    well = watch.advance(hours(24, rows=100, seed=4, start=START + 24 * HOUR_NS))
    assert [cause.declared for cause in well.causes(CONFIG, at(48))] == [False]  # it ends with what caused it


def test_a_finding_says_what_was_asked() -> None:
    chunk = hours(24)
    chunk.inputs["age"][:] = 500
    chunk.inputs["city"][:] = "rome"
    said = HealthWatch(requirements=ASKED).advance(chunk).report(CONFIG, now=at(24))["findings"]
    assert said == [
        "column 'age', values to be between 0.1 and 90: 500 of 500 values of requests are not (100.0%)",
        "column 'city', values to be in set Rome, Oslo: 500 of 500 values of requests are not (100.0%)",
        "column 'city', values to match regex ^[A-Z]: 500 of 500 values of requests are not (100.0%)",
    ]


def test_a_few_odd_values_are_shown_but_not_declared() -> None:
    chunk = hours(24)
    chunk.inputs["age"][-3:] = 1000
    watch = HealthWatch(requirements=ASKED).advance(chunk)
    assert [line["unexpected"] for line in watch.report(CONFIG, now=at(24))["expectations"]["unmet"]] == [3]
    assert [cause.declared for cause in watch.causes(CONFIG, at(24))] == [False]


def test_limits_are_compared_in_the_precision_in_which_requests_travel() -> None:
    """0.1 in single precision is more than 0.1 in double."""
    suite = [
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "max_value": 0.1}},
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "x", "value_set": [0.1, 0.3]}},
    ]
    for dtype in (np.float32, np.float64):
        counts = Requirements.of(suite).count({"x": np.full(5, 0.1, dtype)})
        assert counts == {0: (5, 0), 1: (5, 0)}


def test_counting_row_by_row_agrees_with_the_engine_that_judges_training_rows() -> None:
    rng = np.random.default_rng(7)
    asked = columns(rng, 400)
    asked["age"][rng.random(400) < 0.2] = np.nan
    asked["city"] = asked["city"].astype(object)
    asked["city"][rng.random(400) < 0.1] = None
    asked["city"][rng.random(400) < 0.1] = "paris"
    suite = [item for item in SUITE if item["type"] in BY_ROW and item["kwargs"].get("column") != "label"]
    table = pa.table({name: values.tolist() for name, values in asked.items()})
    table = table.set_column(0, "age", pa.array(asked["age"].astype(float), from_pandas=True))
    results = evaluate(table, prepare([{"severity": "critical", **item} for item in suite], table.schema))
    found = Requirements.of(suite).count(asked)
    assert [found[place][1] for place in range(len(suite))] == [line["observed"] for line in results]


def test_requirements_that_cannot_be_asked_are_left_out() -> None:
    odd: list[Any] = [None, {}, {"type": "expect_column_values_to_be_between", "kwargs": {"column": "age"}}, *SUITE]
    asked = Requirements.of(odd)
    assert asked.count({}) == {}
    assert asked.count({"stranger": np.zeros(3)}) == {}
    assert len(asked.count({"age": np.zeros(3, np.float32)})) == 2
    assert asked.count({"age": np.array(["a", "b"])}).keys() == {2}  # texts can be missing; they cannot be between
    assert asked.count({"age": np.empty(0)}) == {1: (0, 0), 2: (0, 0)}


def test_garbage_is_counted_and_never_declared() -> None:
    new = HealthWatch(requirements=ASKED)
    nothing = Chunk(ts_ns=np.empty(0, np.int64), latency_us=np.empty(0, np.int64))
    assert new.advance(nothing) is new
    assert new.causes(CONFIG, at(0)) == ()
    empty = new.report(CONFIG, now=at(0))
    assert empty["findings"] == []
    assert empty["rows_per_hour"] == {"now": 0.0, "before": None}
    one = new.advance(hours(1, rows=1))
    assert [cause.declared for cause in one.causes(CONFIG, at(1))] == [False]
    missing = hours(1, rows=40)
    missing.inputs.update({"age": np.full(40, np.nan, np.float32), "city": np.full(40, None, object)})
    few = new.advance(missing)
    assert [cause.declared for cause in few.causes(CONFIG, at(1))] == [False]  # fewer than min_rows
    assert json.loads(json.dumps(few.report(CONFIG, now=at(1)), allow_nan=False))


def test_a_clock_that_goes_back_or_far_ahead_does_not_push_out_today() -> None:
    chunk = hours(24)
    odd = chunk.ts_ns.copy()
    odd[5], odd[6], odd[7] = START + 10**5 * HOUR_NS, -5, 0
    watch = HealthWatch().advance(Chunk(ts_ns=odd, latency_us=chunk.latency_us, inputs=chunk.inputs))
    report = watch.report(CONFIG, now=at(24))
    assert watch.backwards > 2
    assert "went back" in report["findings"][0]
    assert report["latency_ms"]["now"]["rows"] >= 500


def test_counters_grow_fall_back_and_are_shares_of_a_day() -> None:
    first = {"answered": 5000, "failed": 40, "written": 100, "dropped": 0}
    watch = HealthWatch().counted(first, at(1))
    assert (
        watch.report(CONFIG, now=at(1))["service"]["failure_share"] is None
    )  # what was before may be another champion's
    watch = watch.counted({"answered": 5090, "failed": 50, "written": 150, "dropped": 50}, at(2))
    again = HealthWatch.from_dict(json.loads(json.dumps(watch.to_dict())))
    assert again == watch
    service = again.report(CONFIG, now=at(2))["service"]
    assert service["failure_share"] == pytest.approx(0.1)
    assert service["dropped_share"] == pytest.approx(0.5)
    said = again.report(CONFIG, now=at(2))["findings"]
    assert ["failed" in said[0], "not logged" in said[1]] == [True, True]
    restarted = again.counted({"answered": 10, "failed": 0}, at(3))  # the server began anew
    assert restarted.report(CONFIG, now=at(3))["service"]["answered"] == 100
    assert restarted.report(CONFIG, now=at(40))["service"]["answered"] is None


def test_a_state_of_another_format_or_a_damaged_one_is_refused() -> None:
    state = HealthWatch().advance(hours(2)).to_dict()
    for damaged in (state | {"format": 9}, {"format": 1}, state | {"hours": {"x": {}}}, state | {"first": 3}):
        with pytest.raises(StateError):
            HealthWatch.from_dict(damaged)


def test_counts_of_another_suite_are_left_behind() -> None:
    state = HealthWatch(requirements=ASKED).advance(hours(24)).to_dict()
    other = HealthWatch.from_dict(state, requirements=Requirements.of(SUITE[:1]))
    assert other.causes(CONFIG, at(24)) == ()
    assert other.rows == 2400
