"""What the watch over quality promises, measured: coverage, false alarms, power, chosen labels, and real data. Seeded.

    python benchmarks/quality.py coverage --runs 1000   intervals of the estimated accuracy under covariate shift
    python benchmarks/quality.py quiet --runs 200       a year of labels without a fall: false alarms against the budget
    python benchmarks/quality.py power --runs 100       a fall of 2, 5, 10 points: labels until it is declared, beside ADWIN and a test at every look
    python benchmarks/quality.py biased --runs 200      only doubtful rows are labelled: how wrong the figures are
    python benchmarks/quality.py real --wheel nannyml-0.13.1-py3-none-any.whl     census and car loans, see quality_real.py

Shares come with 95 % Wilson intervals.
"""

from __future__ import annotations

import argparse
import math
import time
from functools import cache

import numpy as np
from quality_worlds import START_NS, Stream, World, gauge_of, play

from kfloop.core.quality.estimated import Estimated, quality
from kfloop.core.quality.hours import HOUR_NS
from kfloop.core.quality.realised import BLOCK
from kfloop.core.statistics.estimate import wilson

YEAR_HOURS = 8766
LOOK = 100


def share(found: int, n: int) -> str:
    """A share with its interval."""
    told = wilson(found, n)
    return f"{told.value:.3f} [{told.low:.3f}, {told.high:.3f}]"


def coverage(runs: int) -> None:
    """Print how often the interval of 500 rows holds the true accuracy of the traffic."""
    print(f"intervals of 95 % of 500 rows, {runs} runs; the accuracy that is sought is the true one of the traffic")
    for over in (1.0, 1.5):
        for n in (400, 2000, 10000):
            for harder in (-0.5, 0.0, 0.5, 1.0, 1.5):
                world, hits, plain, wide, errors = World(over=over), 0, 0, [], []
                rng = np.random.default_rng([31, n, int(10 * over), int(10 * harder) + 10])
                true = float(world.draw(rng, 1_000_000, harder=harder)[2].mean())
                for _ in range(runs):
                    gauge = gauge_of(rng, world, n)
                    answers, _, _ = world.draw(rng, 500, harder=harder)
                    told = quality(gauge, gauge.columns(answers, np.zeros((500, 0))).sum(axis=0).tolist())
                    hits += told.low <= true <= told.high
                    stated = answers.max(axis=1)
                    plain += abs(stated.mean() - true) <= 1.96 * stated.std(ddof=1) / len(stated) ** 0.5
                    wide.append((told.high - told.low) / 2)
                    errors.append(told.value - true)
                print(
                    f"  exaggeration {over}, reference {n:5d}, log-odds {-harder:+.1f} (accuracy {true:.3f}): covers {share(hits, runs)}, "
                    f"half width {np.mean(wide):.3f}, mean error {np.mean(errors):+.4f}; stated confidence alone covers {share(plain, runs)}",
                    flush=True,
                )


def quiet(runs: int) -> None:
    """Print how many years without a fall raise an alarm."""
    lines = {
        "no fall, random labels": (Stream(hours=YEAR_HOURS), 0.0),
        "no fall, only confidence < .8 labelled": (Stream(hours=YEAR_HOURS, share=0.2, below=0.8), 0.0),
        "fall of 2 points, all that is borne": (Stream(hours=YEAR_HOURS), 0.02),
    }
    world = World()
    for name, (stream, drop) in lines.items():
        started, alarms, refuted, labels = time.perf_counter(), 0, 0, 0
        for seed in range(runs):
            rng = np.random.default_rng([32, seed])
            gauge = gauge_of(rng, world, 5000)
            played = play(rng, gauge, world, stream, change_hour=0, flipped=flip(world, drop))
            alarms += played.state.since_label is not None
            refuted += played.state.refutes(played.state.newest_ns)
            labels += len(played.found)
        print(
            f"  realised, {name}: alarms in {share(alarms, runs)} of {runs} years (stated: at most .1 a year); refutes at the end in {share(refuted, runs)}; "
            f"{labels / runs:.0f} labels a year; {(time.perf_counter() - started) / runs:.2f} s a year",
            flush=True,
        )
    for name, harder in {"no fall": 0.0, "fall of 5 points, all that is borne": harder_by(world, 0.05)}.items():
        alarms = 0
        for seed in range(max(runs // 4, 1)):
            rng = np.random.default_rng([33, seed])
            gauge = gauge_of(rng, world, 5000)
            state = Estimated()
            for month in range(12):
                n = 730 * 200
                answers, _, _ = world.draw(rng, n, harder=harder)
                ts_ns = START_NS + (month * n + np.arange(n)) * (HOUR_NS // 200)
                state = state.advance(gauge, gauge.columns(answers, np.zeros((n, 0))), ts_ns)
            alarms += state.since_row is not None
        print(
            f"  estimated, {name}: alarms in {share(alarms, max(runs // 4, 1))} of {max(runs // 4, 1)} years of 200 rows an hour (stated: at most .1 a year)",
            flush=True,
        )


@cache
def flip(world: World, drop: float) -> float:
    """Share of the truths that must change for accuracy to fall by `drop`."""
    accuracy = float(world.draw(np.random.default_rng(0), 1_000_000)[2].mean())
    return drop / (2 * accuracy - 1)


@cache
def harder_by(world: World, drop: float) -> float:
    """Shift of the log-odds that lets accuracy fall by `drop`."""
    accuracy = float(world.draw(np.random.default_rng(0), 400_000)[2].mean())
    low, high = 0.0, 4.0
    for _ in range(20):
        middle = (low + high) / 2
        now = float(world.draw(np.random.default_rng(0), 400_000, harder=middle)[2].mean())
        low, high = (middle, high) if accuracy - now < drop else (low, middle)
    return low


def power(runs: int) -> None:
    """Print after how many labelled requests a fall is declared."""
    world = World()
    stream = Stream(hours=100 * 24, rows=40, share=0.1)
    change = 30 * 24
    late = int((stream.hours - change) * stream.rows * stream.share)
    print(
        f"fall after 30 of 100 days, 96 labels a day of 960 requests, about {late} labels after it, reference 5000, drop 2 points, {runs} runs"
    )
    for points in (0, 2, 5, 10):
        found: dict[str, list[float]] = {"kfloop": [], "ADWIN": [], "binomial p<.05 every 100 labels": []}
        early = dict.fromkeys(found, 0)
        for seed in range(runs):
            rng = np.random.default_rng([34, points, seed])
            gauge = gauge_of(rng, world, 5000)
            played = play(rng, gauge, world, stream, change_hour=change, flipped=flip(world, points / 100))
            first = int(np.argmax(played.after))
            alarms = {
                "kfloop": played.state.since_label,
                "ADWIN": adwin(played.found),
                "binomial p<.05 every 100 labels": looks(played.found, gauge.quality),
            }
            for name, at in alarms.items():
                early[name] += at is not None and at <= first
                found[name].append(math.inf if at is None or at <= first else at - first)
        for name, delays in found.items():
            hits = int(np.isfinite(delays).sum())
            middle, slow = np.quantile(delays, [0.5, 0.9], method="higher")
            print(
                f"  fall of {points:2d} points: {name}: too soon {share(early[name], runs)}, declared after it {share(hits, runs)}, "
                f"median {middle:.0f} labels, 90 % {slow:.0f}",
                flush=True,
            )


def adwin(found: np.ndarray) -> int | None:
    """Label at which river's ADWIN first sees the quality go down."""
    from river.drift import ADWIN

    detector = ADWIN()
    for number, value in enumerate(found, start=1):
        before = detector.estimation
        detector.update(float(value))
        if detector.drift_detected and detector.estimation < before:
            return number
    return None


def looks(found: np.ndarray, reference: float) -> int | None:
    """Label at which a one-sided binomial test of the latest 100 labels is below .05."""
    from scipy.stats import binom

    for stop in range(LOOK, len(found) + 1, LOOK):
        if binom.cdf(found[stop - LOOK : stop].sum(), LOOK, reference) < 0.05:  # noqa: PLR2004 - the usual level
            return stop
    return None


def biased(runs: int) -> None:
    """Print how wrong figures are when only doubtful rows are labelled."""
    world = World()
    for name, stream in {
        "any row": Stream(hours=240, share=0.1),
        "confidence < .8 only": Stream(hours=240, share=0.4, below=0.8),
        "confidence < .8, and 2 % of the others": Stream(hours=240, share=0.4, below=0.8, others=0.02),
    }.items():
        for points in (0, 5):
            rng = np.random.default_rng([35, points])
            gaps, plain, hits, alarms, effective, widths = [], [], 0, 0, [], []
            true = float(world.draw(rng, 1_000_000, flipped=flip(world, points / 100))[2].mean())
            for _ in range(runs):
                gauge = gauge_of(rng, world, 5000)
                played = play(rng, gauge, world, stream, change_hour=0, flipped=flip(world, points / 100))
                told = played.state.figures(gauge, played.hours)
                gaps.append(told.value.value - true)
                plain.append(told.unweighted.value - true)
                hits += told.value.low <= true <= told.value.high
                widths.append(told.value.high - told.value.low)
                alarms += played.state.since_label is not None
                effective.append(told.effective)
            print(
                f"  labelled: {name}; fall of {points} points (accuracy {true:.3f}): plain mean is off by {np.mean(plain):+.3f}, ours by {np.mean(gaps):+.4f} "
                f"(sd {np.std(gaps):.4f}), interval covers {share(hits, runs)} and is {np.mean(widths):.3f} wide, effective labels {np.mean(effective):.0f}, declared {share(alarms, runs)}",
                flush=True,
            )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("coverage", "quiet", "power", "biased", "real"))
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--wheel", help="nannyml's wheel, for `real`")
    given = parser.parse_args()
    if given.part == "real":
        from quality_real import real

        real(given.wheel)
        return
    print(f"blocks of {BLOCK} labels")
    {"coverage": coverage, "quiet": quiet, "power": power, "biased": biased}[given.part](given.runs)


if __name__ == "__main__":
    main()
