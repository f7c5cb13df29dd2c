"""How often the nominal 95 % intervals of an evaluation hold the true value, by figure and number of rows.

Each round draws test rows from a known truth, and makes the interval as ``evaluate`` does (1000 resamples; the score intervals of shares
need none, so they get ten times as many rounds). The target is 93 to 97 %:
accuracy and paired differences of it from 200 rows, recall, F1 and areas under a curve from 50 rows of the rarer kind. Every case has a seed of
its own, so that one more case changes no other.

    python benchmarks/gate_intervals.py
    python benchmarks/gate_intervals.py --quick
    python benchmarks/gate_intervals.py --only auc --rounds 4000
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.statistics import classification, ranking
from kfloop.core.statistics.bootstrap import replicate
from kfloop.core.statistics.estimate import wilson
from kfloop.core.statistics.intervals import interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kfloop.core.statistics.bootstrap import AnyStatistic
    from kfloop.core.statistics.estimate import Estimate

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Draw = Callable[[np.random.Generator, int], Estimate]

RESAMPLES, LEVEL = 1000, 0.95
RARE = 0.1  # share of the rarer class
FALSE_ALARMS = 0.02  # share of the others that are taken for it


@dataclass(frozen=True)
class Case:
    """One figure of one truth.

    Attributes:
        figure: Its name.
        truth: What was simulated.
        value: The true value.
        draw: Gives one round's interval from a generator and a seed of the resamples.
        n: Rows, or rows of the rarer kind.
        is_share: Whether its interval needs no resamples.
    """

    figure: str
    truth: str
    value: float
    draw: Draw
    n: int
    is_share: bool = False


def estimate(statistic: AnyStatistic, n: int, seed: int) -> Estimate:
    """The interval of one figure."""
    return interval(replicate({"a": statistic}, n, resamples=_resamples(statistic), seed=seed)["a"], LEVEL)


def difference(ours: AnyStatistic, theirs: AnyStatistic, n: int, seed: int) -> Estimate:
    """The interval of a paired difference."""
    both = replicate({"a": ours, "b": theirs}, n, resamples=_resamples(ours), seed=seed)
    return interval(both["a"] - both["b"], LEVEL)


def _resamples(statistic: AnyStatistic) -> int:
    return 1 if getattr(statistic, "is_share", False) else RESAMPLES


def answers(predicted: NDArray[np.bool_]) -> Floats:
    """Probabilities of two classes."""
    second = np.where(predicted, 0.9, 0.1)
    return np.stack([1 - second, second], axis=1)


def accuracy(n: int, share: float) -> Case:
    """Accuracy of one model."""

    def draw(generator: np.random.Generator, seed: int) -> Estimate:
        labels = generator.integers(0, 2, n)
        hits = generator.random(n) < share
        return estimate(classification.accuracy(labels, answers((labels == 1) == hits)), n, seed)

    return Case("accuracy", f"{share:.0%}", share, draw, n, is_share=True)


def accuracy_difference(n: int, ours: float, theirs: float) -> Case:
    """Paired difference of two accuracies; the models are wrong together on two thirds of the better one's errors."""
    both_wrong = 2 / 3 * (1 - max(ours, theirs))
    parts = [ours + theirs - 1 + both_wrong, 1 - theirs - both_wrong, 1 - ours - both_wrong, both_wrong]

    def draw(generator: np.random.Generator, seed: int) -> Estimate:
        kind = generator.choice(4, size=n, p=parts)  # both right, ours alone, theirs alone, neither
        labels = np.ones(n, dtype=np.int64)
        first, second = (classification.accuracy(labels, answers((kind == 0) | (kind == k))) for k in (1, 2))
        return difference(first, second, n, seed)

    return Case("accuracy, difference", f"{ours:.0%} - {theirs:.0%}", ours - theirs, draw, n, is_share=True)


def second_class(figure: str, rare: int, recall: float) -> Case:
    """Recall, precision or F1 of a class of a tenth of the rows."""
    n = round(rare / RARE)
    found, false = RARE * recall, (1 - RARE) * FALSE_ALARMS
    value = {"recall": recall, "precision": found / (found + false), "f1": 2 * found / (found + false + RARE)}[figure]

    def draw(generator: np.random.Generator, seed: int) -> Estimate:
        labels = (generator.random(n) < RARE).astype(np.int64)
        predicted = generator.random(n) < np.where(labels == 1, recall, FALSE_ALARMS)
        return estimate(classification.second_class(labels, answers(predicted))[figure], n, seed)

    return Case(figure, f"recall {recall:.0%}", value, draw, rare, is_share=figure != "f1")


def f1_difference(rare: int, ours: float, theirs: float) -> Case:
    """Paired difference of F1; what the worse one finds, the better one finds."""
    n = round(rare / RARE)
    values = [2 * RARE * recall / (RARE * recall + (1 - RARE) * FALSE_ALARMS + RARE) for recall in (ours, theirs)]

    def draw(generator: np.random.Generator, seed: int) -> Estimate:
        labels = (generator.random(n) < RARE).astype(np.int64)
        ease, alarm = generator.random(n), generator.random((2, n)) < FALSE_ALARMS
        first, second = (
            classification.second_class(labels, answers(np.where(labels == 1, ease < recall, alarm[k])))["f1"]
            for k, recall in enumerate((ours, theirs))
        )
        return difference(first, second, n, seed)

    return Case("f1, difference", f"recall {ours:.0%} - {theirs:.0%}", values[0] - values[1], draw, rare)


def area(rare: int, value: float, share: float = RARE) -> Case:
    """Area under the ROC curve of normal scores."""
    n, shift = round(rare / share), NormalDist().inv_cdf(value) * 2**0.5

    def draw(generator: np.random.Generator, seed: int) -> Estimate:
        positive = generator.random(n) < share
        return estimate(ranking.auroc(positive, generator.normal(size=n) + shift * positive), n, seed)

    return Case("auc", f"{value:.2f}, {share:.0%} positive", value, draw, rare)


def area_difference(rare: int, ours: float, theirs: float) -> Case:
    """Paired difference of two areas; the scores of a row have a correlation of .7."""
    n, shifts = round(rare / RARE), [NormalDist().inv_cdf(value) * 2**0.5 for value in (ours, theirs)]

    def draw(generator: np.random.Generator, seed: int) -> Estimate:
        positive, shared = generator.random(n) < RARE, generator.normal(size=n)
        first, second = (
            ranking.auroc(positive, 0.7**0.5 * shared + 0.3**0.5 * generator.normal(size=n) + shift * positive)
            for shift in shifts
        )
        return difference(first, second, n, seed)

    return Case("auc, difference", f"{ours:.2f} - {theirs:.2f}", ours - theirs, draw, rare)


def calibration(n: int, bend: float) -> Case:
    """Expected calibration error of a model that says ``bend`` more (or less) than the truth; its bins are filled evenly over .6 to .9."""

    def draw(generator: np.random.Generator, seed: int) -> Estimate:
        told = generator.uniform(0.6, 0.9, n)
        hits = generator.random(n) < told - bend
        labels = np.where(hits, 1, 0)
        return estimate(classification.calibration_error(labels, np.stack([1 - told, told], axis=1)), n, seed)

    return Case("ece", f"{bend:.2f}", abs(bend), draw, n)


def cases() -> list[Case]:
    """All of them."""
    return [
        *(accuracy(n, share) for share in (0.8, 0.97) for n in (50, 200, 2000)),
        *(accuracy_difference(n, *pair) for pair in ((0.85, 0.85), (0.97, 0.95)) for n in (60, 200, 500, 2000)),
        *(second_class("recall", n, share) for share in (0.7, 0.9) for n in (20, 50, 200)),
        *(second_class("precision", n, 0.7) for n in (20, 50, 200)),
        *(second_class("f1", n, share) for share in (0.7, 0.95) for n in (20, 50, 200)),
        *(f1_difference(n, 0.9, 0.8) for n in (20, 50, 200)),
        *(area(n, 0.75) for n in (20, 50)),
        *(area(n, 0.9) for n in (20, 50)),
        *(area(n, 0.97) for n in (20, 50, 100, 200)),
        *(area(n, 0.97, 0.5) for n in (20, 50)),
        *(area_difference(n, 0.9, 0.9) for n in (20, 50)),
        *(area_difference(n, 0.97, 0.95) for n in (20, 50, 100)),
        *(calibration(n, bend) for bend in (0.0, 0.02, 0.1) for n in (200, 2000)),
    ]


def row(case: Case, rounds: int) -> str:
    """One line of the table."""
    rounds *= 10 if case.is_share else 1
    name = f"{case.figure} {case.truth} {case.n}"
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    found = [case.draw(generator, number) for number in range(rounds)]
    # Ends of shares are sums of fractions: the true value may lie on one but for the last digit.
    held = sum(item.low - 1e-12 <= case.value <= item.high + 1e-12 for item in found)
    missed = [sum(item.low > case.value for item in found), sum(item.high < case.value for item in found)]
    unknown = sum(not item.known for item in found)
    mean = np.nanmean([item.value for item in found]) - case.value
    width = np.nanmean([item.high - item.low for item in found])
    own = wilson(held, rounds)
    sides = " / ".join(f"{100 * count / rounds:.1f}" for count in missed)
    return (
        f"| {case.figure} | {case.truth} | {case.n} | {100 * own.value:.1f} | {100 * own.low:.1f} to {100 * own.high:.1f} | "
        f"{sides} | {width:.3f} | {mean:+.4f} | {unknown} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="100 rounds: shows that it runs")
    parser.add_argument("--only", default="", help="figures whose name begins with this")
    args = parser.parse_args()
    rounds = 100 if args.quick else args.rounds
    began = time.perf_counter()
    print(
        "| figure | truth | n | coverage % | its 95 % interval | above / below the truth % | width | bias | unknown |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for case in cases():
        if case.figure.startswith(args.only):
            print(row(case, rounds), flush=True)
    print(
        f"\n{rounds} rounds a line, of shares ten times as many, {time.perf_counter() - began:.0f} s", file=sys.stderr
    )


if __name__ == "__main__":
    main()
