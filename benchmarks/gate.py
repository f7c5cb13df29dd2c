"""How often the gate errs: rounds of simulated evidence through the gate's own rules.

Champion and challenger answer the same test rows; each round draws who is right on which, makes the intervals that ``evaluate`` makes, and
lets the rules judge. Nominal is 2.5 % (one side of a 95 % interval). The last column of each table is the 95 % interval of the rate
over rounds.

    python benchmarks/gate.py             about half an hour on one core
    python benchmarks/gate.py --quick     a tenth of the rounds, three minutes
    python benchmarks/gate.py --only power
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kfloop.components.gate.evidence import Evidence
from kfloop.components.gate.rules import apply_rules
from kfloop.core.sections import Rule
from kfloop.core.statistics import classification, ranking
from kfloop.core.statistics.bootstrap import replicate
from kfloop.core.statistics.estimate import wilson
from kfloop.core.statistics.intervals import interval
from kfloop.core.statistics.proportions import Pairs, tango

LEVEL, RESAMPLES = 0.95, 1000
SHARED = 0.5  # share of the better model's errors that the other one makes too
MARGIN = 0.05
SLICES = 20
SUPERIOR = Rule(metric="accuracy", versus="champion", at_least=1e-9, use="interval")
NOT_WORSE = Rule(metric="accuracy", versus="champion", at_least=-MARGIN, use="interval")
Estimates = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One row of a table: what is simulated, and how one round ends (true counts)."""

    table: str
    cells: tuple[str, ...]
    once: Callable[[np.random.Generator], bool]
    cheap: bool = True


def passes(rule: Rule, differences: dict[str, Estimates], champion: float = 0.5) -> dict[str, bool]:
    """Whether the rule passes, by slice (``overall`` among them), given the differences challenger minus champion.

    Args:
        rule: A rule against the champion.
        differences: Estimate of each slice.
        champion: The champion's own figure; any number does, since the rule is about the difference.
    """
    blocks: dict[str, Any] = {"challenger": {}, "champion": {}, "champion's difference": {}}
    for name, found in differences.items():
        figures = {"challenger": champion + found["value"], "champion": champion}
        for who, value in figures.items():
            blocks[who][name] = {rule.metric: {"value": value, "n": found["n"], "level": LEVEL}}
        blocks["champion's difference"][name] = {rule.metric: found}
    shaped = {who: {"overall": found.pop("overall", {}), "slices": found} for who, found in blocks.items()}
    report = {
        "objective": "classification",
        "slice_columns": {"column": ["x"]},
        "challenger": shaped["challenger"],
        "champion": shaped["champion"],
        "differences": {"champion": shaped["champion's difference"]},
    }
    report["challenger"]["overall"].setdefault("level_of", {"value": 0.0, "level": LEVEL})
    verdicts, _ = apply_rules((rule,), Evidence(reports={"evaluate": report}))
    places = [verdict.rule.partition("[")[2].partition("]")[0] or "overall" for verdict in verdicts]
    return {place: verdict.verdict == "pass" for place, verdict in zip(places, verdicts, strict=True)}


def accuracies(random: np.random.Generator, n: int, champion: float, gain: float, level: float = LEVEL) -> Estimates:
    """One round's difference of two accuracies on ``n`` rows, with the interval that ``evaluate`` gives it."""
    challenger = champion + gain
    both_wrong = SHARED * min(1 - champion, 1 - challenger)
    ours = (1 - champion) - both_wrong
    theirs = (1 - challenger) - both_wrong
    won, lost, _ = random.multinomial(n, [ours, theirs, 1 - ours - theirs])
    low, high = tango(Pairs(ours=int(won), theirs=int(lost), n=n), level)
    return {"value": (won - lost) / n, "low": low, "high": high, "n": n, "level": level}


def ranked(random: np.random.Generator, n: int, rare: int, metric: str) -> Estimates:
    """One round's difference of two equally good models' area under the curve or F1 with ``rare`` of ``n`` rows of the rarer class."""
    positive = np.arange(n) < rare
    common = random.normal(size=n)
    scores = [1.5 * positive + np.sqrt(0.5) * (common + random.normal(size=n)) for _ in range(2)]
    if metric == "auc":
        statistics = {name: ranking.auroc(positive, found) for name, found in zip("ab", scores, strict=True)}
    else:
        sure = [1 / (1 + np.exp(-3 * (found - 1.6))) for found in scores]
        both = [np.stack([1 - found, found], axis=1) for found in sure]
        statistics = {
            name: classification.macro_f1(positive.astype(np.int64), found)
            for name, found in zip("ab", both, strict=True)
        }
    made = replicate(statistics, n, resamples=RESAMPLES, seed=int(random.integers(2**31)))
    found = interval(made["a"] - made["b"], LEVEL)
    return {"value": found.value, "low": found.low, "high": found.high, "n": n, "level": LEVEL}


def null_cases() -> Iterator[Case]:
    """A challenger that is no better, and one that is exactly a margin worse."""
    for champion in (0.8, 0.97):
        for n in (200, 1000, 5000, 20000):
            cells = (f"accuracy {champion:g}", f"{n}")

            def equal(random: np.random.Generator, n: int = n, champion: float = champion) -> bool:
                return passes(SUPERIOR, {"overall": accuracies(random, n, champion, 0.0)})["overall"]

            def worse(random: np.random.Generator, n: int = n, champion: float = champion) -> bool:
                return passes(NOT_WORSE, {"overall": accuracies(random, n, champion, -MARGIN)})["overall"]

            yield Case("superiority of an equal challenger", cells, equal)
            yield Case("non-inferiority (margin .05) of one .05 worse", cells, worse)
    for n, rare in ((1000, 50), (1000, 500), (5000, 250)):
        for metric in ("auc", "macro_f1"):
            rule = Rule(metric=metric, versus="champion", at_least=1e-9, use="interval")

            def uneven(
                random: np.random.Generator, n: int = n, rare: int = rare, metric: str = metric, rule: Rule = rule
            ) -> bool:
                return passes(rule, {"overall": ranked(random, n, rare, metric)})["overall"]

            cells = (f"{metric}, {rare} of the rarer class", f"{n}")
            yield Case("superiority of an equal challenger", cells, uneven, cheap=False)


def power_cases() -> Iterator[Case]:
    """How often what deserves it is promoted."""
    for n in (200, 500, 1000, 2000, 5000, 20000):
        for gain, rule, what in (
            (0.0, NOT_WORSE, "non-inferiority of an equal one"),
            (-0.02, NOT_WORSE, "non-inferiority of one .02 worse"),
            (0.01, SUPERIOR, "superiority of one .01 better"),
            (0.02, SUPERIOR, "superiority of one .02 better"),
            (0.05, SUPERIOR, "superiority of one .05 better"),
        ):

            def promoted(random: np.random.Generator, n: int = n, gain: float = gain, rule: Rule = rule) -> bool:
                return passes(rule, {"overall": accuracies(random, n, 0.9, gain)})["overall"]

            yield Case("power at accuracy .9", (what, f"{n}"), promoted)


def slice_cases() -> Iterator[Case]:
    """Any false claim among 20 slices, whose intervals come at the level that ``evaluate`` gives them."""
    level = 1 - (1 - LEVEL) / SLICES
    for n in (50, 200, 1000):
        refuted = Rule(
            metric="accuracy", versus="champion", slice="column:x=*", at_least=0.0, use="unless_refuted", min_n=20
        )
        proved = Rule(metric="accuracy", versus="champion", slice="column:x=*", at_least=-0.1, use="interval", min_n=20)

        def one_called_bad(random: np.random.Generator, n: int = n, rule: Rule = refuted) -> bool:
            return not all(passes(rule, slices(random, n, 0.0, level)).values())

        def one_called_good(random: np.random.Generator, n: int = n, rule: Rule = proved) -> bool:
            return any(passes(rule, slices(random, n, -0.1, level)).values())

        def bad_one_found(random: np.random.Generator, n: int = n, rule: Rule = refuted) -> bool:
            found = slices(random, n, 0.0, level)
            found["column:x=0"] = accuracies(random, n, 0.85, -0.2, level)
            return not passes(rule, found)["column:x=0"]

        table = f"{SLICES} slices"
        yield Case(table, ("any of 20 equal slices called worse (unless_refuted)", f"{n}"), one_called_bad)
        yield Case(table, ("any of 20 slices at the margin called good (interval)", f"{n}"), one_called_good)
        yield Case(table, ("power: the one slice that is .20 worse is found", f"{n}"), bad_one_found)


def slices(random: np.random.Generator, n: int, gain: float, level: float) -> dict[str, Estimates]:
    """One round's differences of 20 slices of ``n`` rows."""
    return {f"column:x={place}": accuracies(random, n, 0.85, gain, level) for place in range(SLICES)}


GROUPS = {"null": null_cases, "power": power_cases, "slices": slice_cases}


def main() -> None:
    """Print one table for each kind of claim."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
    parser.add_argument("--only", choices=sorted(GROUPS), help="one group of tables")
    parser.add_argument("--rounds", type=int, default=4000, help="rounds of a case; a quarter where it bootstraps")
    options = parser.parse_args()
    rounds = options.rounds // 10 if options.quick else options.rounds
    cases = [case for name, make in GROUPS.items() if options.only in {None, name} for case in make()]
    for table in dict.fromkeys(case.table for case in cases):
        print(f"\n{table}\n\n| what | rows | rounds | rate | 95 % interval |\n|---|---|---|---|---|")
        for case in (case for case in cases if case.table == table):
            count = rounds if case.cheap else rounds // 4
            seed = zlib.crc32("|".join((case.table, *case.cells)).encode())
            random = np.random.default_rng(seed)
            found = wilson(sum(case.once(random) for _ in range(count)), count)
            cells = " | ".join(case.cells)
            print(f"| {cells} | {count} | {found.value:.4f} | {found.low:.4f} to {found.high:.4f} |")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
