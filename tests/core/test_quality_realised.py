"""Realised quality: labels that come late, chosen and broken, each counted once, and evidence that keeps its promise."""

from __future__ import annotations

import builtins
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kfloop.core.quality.answers import Place, parse, read_new, spelled
from kfloop.core.quality.delays import counted, quantile
from kfloop.core.quality.gauge import STRATA, Gauge, open_gauge
from kfloop.core.quality.hours import ENOUGH_ROWS, HOUR_NS, KEPT_HOURS, Hours
from kfloop.core.quality.opinion import ask_adwin
from kfloop.core.quality.realised import RECENT, Labels, Realised
from kfloop.core.quality.weighing import MOST_WEIGHT, Weighed, highest, weigh, weights

if TYPE_CHECKING:
    from pathlib import Path

START = 472_000 * HOUR_NS
ROWS_AN_HOUR = 50


def draw(rng: np.random.Generator, n: int, flipped: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Answers of two classes and truth; `flipped` truths have changed what they mean."""
    odds = rng.normal(2.0, 1.5, n)
    sign = rng.choice([-1.0, 1.0], n)
    chance = 1 / (1 + np.exp(-odds * sign))
    truth = rng.random(n) < chance * (1 - flipped) + (1 - chance) * flipped
    stated = 1 / (1 + np.exp(-1.3 * odds * sign))
    return np.stack([1 - stated, stated], axis=1), truth.astype(float)


def gauge_of(seed: int, n: int = 4000, drop: float | None = 0.02) -> Gauge:
    answers, truth = draw(np.random.default_rng([1, seed]), n)
    found = open_gauge(
        "classification",
        answers=answers,
        embedding=np.zeros((n, 0)),
        truth=truth,
        labels=("0", "1"),
        realised_drop=drop,
    )
    assert found is not None
    return found


def traffic(
    gauge: Gauge,
    seed: int,
    hours: int,
    *,
    flipped: float = 0.0,
    share: float = 0.2,
    below: float = 2.0,
    start: int = START,
) -> tuple[Hours, Labels]:
    """Hours of traffic, and the labels of some rows a minute after their request."""
    rng = np.random.default_rng([2, seed])
    n = hours * ROWS_AN_HOUR
    answers, truth = draw(rng, n, flipped)
    ts_ns = start + np.arange(n) * (HOUR_NS // ROWS_AN_HOUR)
    table = gauge.columns(answers, np.zeros((n, 0)))
    strata = gauge.strata(table[:, 1], None)
    rows = np.flatnonzero((rng.random(n) < share) & (answers.max(axis=1) < below))
    labels = Labels(
        strata=strata[rows],
        expected=table[rows, 1],
        found=(gauge.expected.realised(answers[rows], truth[rows]) * 1_000_000).astype(np.int64),
        ts_ns=ts_ns[rows],
        at_ns=ts_ns[rows] + 60 * 10**9,
        delays=np.full(len(rows), 60.0),
    )
    return Hours().add_rows(table, strata, ts_ns), labels


def part(labels: Labels, rows: Any) -> Labels:
    return Labels(**{name: getattr(labels, name)[rows] for name in Labels.__dataclass_fields__})


def test_a_fall_is_declared_soon_and_a_fall_that_is_borne_is_not() -> None:
    for seed in range(3):
        gauge = gauge_of(seed)
        hours, labels = traffic(gauge, seed, 200)
        quiet = Realised().advance(gauge, hours, labels)
        assert quiet.since_label is None
        later, worse = traffic(gauge, seed + 10, 400, flipped=0.15, start=START + 200 * HOUR_NS)
        state = quiet.advance(gauge, later, worse)
        assert state.since_label is not None
        assert quiet.labels < state.since_label < quiet.labels + 1500
        assert state.since_ns >= worse.at_ns[0]
        told = state.figures(gauge, later)
        assert told.value.high < gauge.quality - 0.02
        assert state.history[-1].value < state.history[0].value
        again = state.advance(gauge, hours, labels)
        assert (again.since_label, again.since_ns) == (state.since_label, state.since_ns)


def test_false_alarms_stay_in_budget_at_the_very_fall_that_is_borne() -> None:
    """A gauge that allows 100 false alarms a year, of which the watch has a tenth, on 300 hours: 0.34 on average."""
    alarms, runs = 0, 30
    for seed in range(runs):
        gauge = replace(gauge_of(seed), false_alarms_per_year=100.0)
        hours, labels = traffic(gauge, seed, 300, flipped=0.02 / (2 * 0.838 - 1), share=0.1)
        alarms += Realised().advance(gauge, hours, labels).since_label is not None
    assert alarms / runs <= 0.37


def test_labels_of_doubtful_rows_alone_mislead_the_mean_but_not_the_watch() -> None:
    misled, off, alarms, runs = [], [], 0, 10
    for seed in range(runs):
        gauge = gauge_of(seed)
        hours, labels = traffic(gauge, seed, 200, share=0.6, below=0.8)
        state = Realised().advance(gauge, hours, labels)
        told = state.figures(gauge, hours)
        misled.append(gauge.quality - told.unweighted.value)
        off.append(gauge.quality - told.value.value)
        alarms += state.since_label is not None
        assert told.effective < len(labels)
        assert told.unlabelled > 0.2
    assert np.mean(misled) > 0.15
    assert abs(np.mean(off)) < 0.02
    assert alarms == 0


def test_many_labels_refute_a_fall_and_old_or_bad_ones_do_not() -> None:
    gauge = gauge_of(0, n=20_000, drop=0.05)
    hours, labels = traffic(gauge, 3, 600, share=0.2)
    state = Realised().advance(gauge, hours, labels)
    assert state.refutes(int(labels.ts_ns[-1]))
    assert not state.refutes(int(labels.ts_ns[-1]) + 60 * 24 * HOUR_NS)
    fallen, fewer = traffic(gauge, 4, 600, share=0.2, flipped=0.05 / (2 * 0.838 - 1))
    assert not Realised().advance(gauge, fallen, fewer).refutes(int(fewer.ts_ns[-1]))
    untested = replace(gauge, realised_drop=None)
    assert not Realised().advance(untested, hours, labels).refutes(int(labels.ts_ns[-1]))


def test_stretches_begin_anew_and_another_drop_begins_other_evidence() -> None:
    gauge = gauge_of(0, drop=0.05)
    hours, labels = traffic(gauge, 3, 60 * 24, share=0.05)
    state = Realised().advance(gauge, hours, labels)
    older, newer = state.stretches
    assert 0 < newer.n < older.n < len(labels)
    other = state.advance(replace(gauge, realised_drop=0.1), hours, part(labels, slice(0, 0)))
    assert other.evidence.logs is None
    assert (other.labels, other.recent) == (state.labels, state.recent)


def test_parts_equal_the_whole_bit_by_bit_and_the_state_stays_small() -> None:
    gauge = gauge_of(0)
    hours, labels = traffic(gauge, 5, 400)
    whole = Realised().advance(gauge, hours, labels)
    assert len(labels) > RECENT
    assert len(whole.recent) == RECENT
    rng = np.random.default_rng(6)
    for cuts in ([1, 9, 10, 11, 19], sorted(rng.integers(0, len(labels), 30).tolist())):
        state = Realised()
        for rows in np.split(np.arange(len(labels)), cuts):
            text = json.dumps(state.advance(gauge, hours, part(labels, rows)).to_dict(), allow_nan=False)
            state = Realised.from_dict(json.loads(text))
        assert state == whole


def test_hours_add_up_in_any_parts_and_forget() -> None:
    gauge = gauge_of(0)
    rng = np.random.default_rng(7)
    answers, _ = draw(rng, 3000)
    table = gauge.columns(answers, np.zeros((3000, 0)))
    strata = gauge.strata(table[:, 1], rng.random(3000) < 0.3)
    assert strata.max() >= STRATA
    ts_ns = START + np.sort(rng.integers(0, 30 * HOUR_NS, 3000))
    whole = Hours().add_rows(table, strata, ts_ns).add_truths(ts_ns[:50], np.full(50, 1800.0))
    parts = Hours()
    for rows in np.array_split(np.arange(3000), 7):
        parts = Hours.from_dict(
            json.loads(json.dumps(parts.add_rows(table[rows], strata[rows], ts_ns[rows]).to_dict()))
        )
    for rows in np.array_split(np.arange(50), 3):
        parts = parts.add_truths(ts_ns[rows], np.full(len(rows), 1800.0))
    assert parts == whole
    first = int(START // HOUR_NS)
    assert whole.mix(gauge, first).rows == 0  # nothing before: the reference stands for it
    assert whole.mix(gauge, first).mean == pytest.approx(gauge.sums[1] / 1e6)
    mix = whole.mix(gauge, first + 30)
    assert mix.rows >= ENOUGH_ROWS
    assert mix.shares.sum() == pytest.approx(1)
    late = whole.add_rows(table[:1], strata[:1], ts_ns[:1] + 2 * KEPT_HOURS * HOUR_NS)
    assert len(late.table) == 1
    assert late.rows == 3001


def test_the_delay_curve_asks_only_requests_that_are_old_enough() -> None:
    gauge = gauge_of(0)
    answers, _ = draw(np.random.default_rng(8), 200)
    table = gauge.columns(answers, np.zeros((200, 0)))
    ts_ns = START + np.repeat([0, 48], 100) * HOUR_NS
    hours = Hours().add_rows(table, gauge.strata(table[:, 1], None), ts_ns)
    hours = hours.add_truths(ts_ns[:40], np.repeat([1800.0, 7200.0, np.nan], [20, 10, 10]))
    now = (START + 49 * HOUR_NS) / 1e9 + 60
    told = hours.curve(now)
    assert (told["1 h"].n, told["1 h"].value) == (100, 0.2)
    assert (told["1 d"].n, told["1 d"].value) == (100, 0.3)
    assert told["1 w"].n == 0
    assert not told["1 w"].known
    bins = counted((), np.array([0.0, 60.0, 3600.0, np.nan, 1e12]))
    assert sum(bins) == 4
    assert quantile(bins, 0.5) == pytest.approx(60, rel=0.3)
    assert quantile((), 0.5) is None


def test_weights_are_those_of_the_shares_and_are_cut() -> None:
    shares = np.repeat([0.2, 0.0], STRATA)
    even = weights(shares, np.repeat([100.0, 0.0], STRATA))
    np.testing.assert_allclose(even[:STRATA], 1.0)
    few = np.array([1000.0, *[0.0] * (2 * STRATA - 1)])
    chosen = weights(shares, few)
    assert chosen[0] < 0.25
    assert (chosen <= MOST_WEIGHT).all()
    assert (chosen[1:STRATA] == MOST_WEIGHT).all()
    gauge = gauge_of(0)
    assert highest(gauge, even) <= 1.0


def test_few_labels_are_not_certain() -> None:
    gauge = gauge_of(0)
    mix = Hours().mix(gauge, 0)
    nothing = weigh(gauge, mix, np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    assert not nothing.value.known
    assert not nothing.unweighted.known
    told = weigh(gauge, mix, np.array([4, 4, 4]), np.full(3, 0.99), np.ones(3))
    assert told.value.high - told.value.low > 0.05
    assert told.unlabelled == pytest.approx(0.8, abs=0.01)


def weighed(gauge: Gauge, hours: Hours, labels: Labels) -> Weighed:
    mix = hours.mix(gauge, int(labels.ts_ns[-1] // HOUR_NS) + 1)
    return weigh(gauge, mix, labels.strata, labels.expected / 1e6, labels.found / 1e6)


def accuracy(flipped: float) -> float:
    answers, truth = draw(np.random.default_rng(5), 400_000, flipped)
    return float((answers.argmax(axis=1) == truth).mean())


def test_the_interval_leaves_open_what_rows_are_worth_that_nobody_labels() -> None:
    """Labels of doubtful rows only, after a change of concept that most rows share: half of it is out of sight, and the interval says so."""
    flipped, covered, narrow, runs = 0.12, 0, [], 40
    true = accuracy(flipped)
    for seed in range(runs):
        gauge = gauge_of(seed)
        told = weighed(gauge, *traffic(gauge, seed, 40, flipped=flipped, share=0.6, below=0.8))
        covered += told.value.low <= true <= told.value.high
        assert told.value.high - told.value.low > told.unlabelled
        told = weighed(gauge, *traffic(gauge, seed, 40, flipped=flipped, share=0.6))
        assert told.unlabelled == 0.0
        narrow.append(told.value.high - told.value.low)
    assert covered / runs >= 0.95
    assert max(narrow) < 0.07


@pytest.mark.parametrize("worth", [0.0, 1.0])
def test_the_interval_holds_whatever_strata_without_labels_are_worth(worth: float) -> None:
    gauge = gauge_of(0)
    mix = Hours().mix(gauge, 0)
    rng = np.random.default_rng(1)
    answers, truth = draw(rng, 20_000)
    expected = gauge.columns(answers, np.zeros((20_000, 0)))[:, 1]
    strata = gauge.strata(expected, None)
    found = gauge.expected.realised(answers, truth)
    labelled = strata < 3
    told = weigh(gauge, mix, strata[labelled], expected[labelled] / 1e6, found[labelled])
    of_all = float(np.where(labelled, found, worth).mean())
    assert told.value.low - 0.005 <= of_all <= told.value.high + 0.005  # shares of strata are those of the reference
    assert told.unlabelled == pytest.approx(0.4, abs=0.01)


def write(path: Path, *lines: Any) -> None:
    with path.open("ab") as stream:
        for line in lines:
            stream.write((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")


def answer(name: str, label: Any = "1", at: str | None = "2026-01-02T03:04:05+00:00") -> dict[str, Any]:
    return {"request_id": name, "label": label} | ({} if at is None else {"at": at})


def test_each_answer_is_read_once_and_contradictions_are_told(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    assert read_new(path, Place()).answers == ()
    write(path, answer("a"), answer("b", 2), answer("a", "1"), answer("a", "0"))
    first = read_new(path, Place())
    assert [(one.request_id, one.label) for one in first.answers] == [("a", "1"), ("b", "2")]
    assert first.changed == 1
    assert read_new(path, first.place).answers == ()
    write(path, answer("b", "3"), answer("c", [True, "x"]), answer("a", "1"))
    second = read_new(path, first.place)
    assert [(one.request_id, one.label) for one in second.answers] == [("c", ("True", "x"))]
    assert second.changed == 1
    whole = read_new(path, Place())
    assert [one.request_id for one in whole.answers] == ["a", "b", "c"]
    assert (whole.changed, whole.place) == (2, second.place)


def test_broken_lines_and_lines_being_written_harm_nothing(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    write(
        path,
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"",
        answer("", "1"),
        answer("x", None),
        {"label": 1},
        answer("y", float("nan")),
    )
    write(path, b"[" * 100_000, answer("a", at="yesterday"), {"request_id": 7, "label": 0})
    told = read_new(path, Place())
    assert [(one.request_id, one.label, one.at) for one in told.answers] == [("a", "1", None), ("7", "0", None)]
    assert told.broken == 9
    with path.open("ab") as stream:
        stream.write(b'{"request_id": "half", "la')
    assert read_new(path, told.place).answers == ()
    with path.open("ab") as stream:
        stream.write(b'bel": "1"}')
    last = read_new(path, told.place)
    assert [one.request_id for one in last.answers] == ["half"]
    with path.open("ab") as stream:
        stream.write(b"\n" + json.dumps(answer("next")).encode())
    assert [one.request_id for one in read_new(path, last.place).answers] == ["next"]


def test_a_rewritten_file_counts_nothing_twice_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    write(path, answer("a"), answer("b"))
    place = read_new(path, Place()).place
    path.unlink()
    assert "is gone" in read_new(path, place).problems[0]
    write(path, answer("b"), answer("c", at=None), answer("d", at="2026-03-01T00:00:00"))
    told = read_new(path, place)
    assert [one.request_id for one in told.answers] == ["d"]
    assert "rewritten" in told.problems[0]
    assert read_new(path, told.place).answers == ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, "3"),
        (3.0, "3"),
        (2.5, 2.5),
        (True, "True"),
        (" cat ", "cat"),
        ("", None),
        (None, None),
        ({}, None),
        ([1, "a"], ("1", "a")),
        ([2.5], None),
    ],
)
def test_labels_are_spelled_as_ingest_spells_them(value: Any, expected: Any) -> None:
    assert spelled(value) == expected
    if expected is None:
        assert parse(json.dumps(answer("a", value)).encode()) is None


def test_adwin_sees_a_fall_and_none_where_there_is_none() -> None:
    rng = np.random.default_rng(9)
    quiet = (rng.random(1500) < 0.9).astype(float).tolist()
    told = ask_adwin(quiet)
    assert told.changes == ()
    assert "no change" in told.statement
    told = ask_adwin([*quiet, *(rng.random(500) < 0.7).astype(float).tolist()])
    assert told.changes
    assert told.changes[0] > 1500
    assert told.before is not None
    assert told.after is not None
    assert told.after < told.before
    assert ask_adwin([]).changes == ()


def test_adwin_says_that_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("river"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "not installed" in ask_adwin([1.0, 0.0]).statement
