"""How often the gate errs after a drift that named columns: rounds of simulated evidence through the rules that ``kfloop init`` writes.

The champion is right about .9 of the old rows (``--accuracy``) and about .7 of those where requests moved to; half of the better model's errors are the other's, too.
Each round draws who is right on which test row, makes the intervals that ``evaluate`` makes, and lets the rules beside the champion judge. A second
and a third column that moved name nine tenths of the same rows. Each line has three rates, with the 95 % interval of each over the rounds:

* cause: by the rules on ``drifted:*`` and ``old:*`` alone.
* known: by all rules beside the champion, whose dataset version held the moved rows.
* fresh: by all of them, too, where the moved rows are freshly labelled ones that the champion's version lacked.

    python benchmarks/gate_drifted.py              about six minutes on one core
    python benchmarks/gate_drifted.py --quick      a tenth of the rounds
    python benchmarks/gate_drifted.py --only forgets --accuracy .97
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from kfloop.cli.starting_rules import starting_rules
from kfloop.components.gate.evidence import Evidence
from kfloop.components.gate.rules import apply_rules
from kfloop.components.ingest.sources import SourceInfo
from kfloop.core.sections import Rule, SplitConfig
from kfloop.core.statistics.estimate import wilson
from kfloop.core.statistics.proportions import Pairs, tango

LEVEL = 0.95
SHARED = 0.5  # share of the better model's errors that the other one makes too
MOVED = 0.7  # the champion's accuracy where requests moved to
SWAPPED = 0.1  # share of the smaller side that a further column sees on the other one
OLD_ROWS, MOVED_ROWS, PARTS = (20, 60, 200, 600, 2000), (20, 60, 200, 600), (1, 2, 3)
FEW = 60  # old rows up to which a loop may have begun with so few that ``init`` wrote other rules
BEGAN = {"the default rules": 1000, "the rules for small data": FEW}  # test rows that ``init`` saw
HEAD = ("old rows", "moved rows", "columns", "cause", "known", "fresh")
# Who is right on a row.
BOTH, OURS, THEIRS, NEITHER = range(4)
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Case(NamedTuple):
    """One line of a table.

    Attributes:
        group: Group of tables.
        truth: What the challenger is, in words.
        lost: How much worse it is on the old rows.
        gained: How much better it is where requests moved to.
        wanted: Whether it deserves to pass; the figure is how often it does not, and of others how often they do.
        rules: Key of ``BEGAN``.
        old: Old test rows.
        moved: Test rows where requests moved to.
        parts: Columns that moved.
        accuracy: The champion's on the old rows.
    """

    group: str
    truth: str
    lost: float
    gained: float
    wanted: bool
    rules: str
    old: int
    moved: int
    parts: int
    accuracy: float

    @property
    def table(self) -> str:
        """Head of its table."""
        return f"{self.truth}, {self.rules}: how often it is {'refused' if self.wanted else 'let through'}, %"


TRUTHS = [
    ("equal", "an equal challenger", 0.0, 0.0, True),
    *(
        ("forgets", f"a challenger {100 * lost:g} points worse on the old rows and 20 better on the moved ones", lost, 0.2, False)
        for lost in (0.01, 0.02, 0.05, 0.1)
    ),
    *(
        ("gains", f"a challenger {100 * gained:g} points better on the moved rows and equal on the old ones", 0.0, gained, True)
        for gained in (0.05, 0.1, 0.2)
    ),
]  # fmt: skip


def cases(accuracy: float) -> Iterator[Case]:
    """All of them, of a champion that is right about so many of the old rows."""
    for (group, truth, lost, gained, wanted), rules in product(TRUTHS, BEGAN):
        columns = PARTS if group == "equal" else (PARTS[0], PARTS[-1])
        for old, moved, parts in product(OLD_ROWS, MOVED_ROWS, columns):
            if BEGAN[rules] > FEW or old <= FEW:
                yield Case(group, truth, lost, gained, wanted, rules, old, moved, parts, accuracy)


@cache
def rules_beside_champion(n_test: int) -> tuple[Rule, ...]:
    """The rules beside the champion that ``kfloop init`` writes for a table whose test split has so many rows, read from its own text."""
    info = SourceInfo(
        kind="csv", modality="table", task="multiclass", uri="", labels=("a", "b"), n=round(n_test / SplitConfig().test), n_fresh=0, digest=""
    )  # fmt: skip
    lines = [line.lstrip(" #-") for line in starting_rules("classification", info).splitlines() if "- {" in line]
    rules = tuple(Rule(**yaml.safe_load(line)) for line in lines)
    return tuple(rule for rule in rules if rule.versus == "champion")


@cache
def slices(old: int, moved: int, parts: int) -> dict[str, Mask]:
    """The rows of each slice, bool [N]; the old rows come first."""
    place = np.arange(old + moved)
    inside = place >= old
    found = {"origin:base": ~inside, "origin:fresh": inside, "origin:new": inside}
    found |= {f"class:{name}": place % 2 == number for number, name in enumerate("ab")}
    few = round(SWAPPED * min(old, moved))
    for part in range(parts):
        rows = inside.copy()
        away = slice(few * (part - 1), few * part) if part else slice(0)
        rows[:old][away], rows[old:][away] = True, False
        found |= {f"drifted:column {part}": rows, f"old:column {part}": ~rows}
    return found


@cache
def odds(champion: float, gain: float) -> tuple[float, float, float, float]:
    """Chances of who is right on a row."""
    challenger = champion + gain
    neither = SHARED * (1 - max(champion, challenger))
    ours, theirs = (1 - champion) - neither, (1 - challenger) - neither
    return 1 - ours - theirs - neither, ours, theirs, neither


@cache
def difference(won: int, lost: int, right: int, n: int, level: float) -> tuple[dict[str, Any], ...]:
    """Accuracy of the challenger, of the champion, and their difference, as ``evaluate`` gives them."""
    ours, theirs = (right + won) / n, (right + lost) / n
    low, high = tango(Pairs(ours=won, theirs=lost, n=n), level)
    alone = ({"value": value, "n": n, "level": level} for value in (ours, theirs))
    return (*alone, {"value": ours - theirs, "low": low, "high": high, "n": n, "level": level})


def evaluation(rows: Rows, masks: dict[str, Mask], parts: int) -> dict[str, Any]:
    """The report of ``evaluate`` on rows of which it is known who was right."""
    levels = {"drifted": parts, "old": parts}
    others = sum(name.partition(":")[0] not in levels for name in masks)
    blocks: list[dict[str, Any]] = [{"overall": {}, "slices": {}} for _ in range(3)]
    for name, mask in {"overall": None, **masks}.items():
        right, won, lost, _ = np.bincount(rows if mask is None else rows[mask], minlength=4).tolist()
        family = 1 if mask is None else levels.get(name.partition(":")[0], others)
        n = len(rows) if mask is None else int(mask.sum())
        for block, found in zip(blocks, difference(won, lost, right, n, 1 - (1 - LEVEL) / family), strict=True):
            (block["overall"] if mask is None else block["slices"].setdefault(name, {}))["accuracy"] = found
    names = [f"column {part}" for part in range(parts)]
    return {
        "objective": "classification",
        "modality": "table",
        "n_test": len(rows),
        "labels": ["a", "b"],
        "cause": {"parts": [{"drifted": f"drifted:{name}", "old": f"old:{name}"} for name in names]},
        "challenger": blocks[0],
        "champion": blocks[1],
        "differences": {"champion": blocks[2]},
    }


def drawn(case: Case, random: np.random.Generator) -> Rows:
    """Who is right on each row, [N]."""
    old = random.choice(4, case.old, p=odds(case.accuracy, -case.lost))
    moved = random.choice(4, case.moved, p=odds(MOVED, case.gained))
    return np.concatenate([old, moved])


def refused(case: Case, random: np.random.Generator) -> tuple[bool, ...]:
    """Whether one round's challenger is refused, by reading."""
    report = evaluation(drawn(case, random), slices(case.old, case.moved, case.parts), case.parts)
    verdicts, _ = apply_rules(rules_beside_champion(BEGAN[case.rules]), Evidence(reports={"evaluate": report}))
    blocking = [verdict.rule for verdict in verdicts if verdict.blocks]
    of_cause = any("[drifted:" in rule or "[old:" in rule for rule in blocking)
    # Where no row is fresh, origin:base is all rows, about which the rule on all rows asks the same.
    return of_cause, any("[origin:" not in rule for rule in blocking), bool(blocking)


def rates(case: Case, rounds: int) -> str:
    """One line: the share of rounds with the wrong end, and its 95 % interval, by reading."""
    random = np.random.default_rng(zlib.crc32(repr(case).encode()))
    found = np.array([refused(case, random) for _ in range(rounds)])
    wrong = (found if case.wanted else ~found).sum(axis=0)
    cells = [wilson(int(count), rounds) for count in wrong]
    told = " | ".join(f"{100 * item.value:.1f} ({100 * item.low:.1f} to {100 * item.high:.1f})" for item in cells)
    return f"| {case.old} | {case.moved} | {case.parts} | {told} |"


def main() -> None:
    """Print one table for each truth and set of rules."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
    parser.add_argument("--only", choices=sorted({truth[0] for truth in TRUTHS}), help="one group of tables")
    parser.add_argument("--rounds", type=int, default=600, help="rounds of a line")
    parser.add_argument("--accuracy", type=float, default=0.9, help="the champion's on the old rows, .6 to 1")
    options = parser.parse_args()
    rounds = options.rounds // 10 if options.quick else options.rounds
    began, table = time.process_time(), ""
    for case in cases(options.accuracy):
        if options.only in {None, case.group}:
            if case.table != table:
                table = case.table
                print(f"\n{table}\n\n| {' | '.join(HEAD)} |\n{'|---' * len(HEAD)}|")
            print(rates(case, rounds), flush=True)
    print(f"\n{rounds} rounds a line, {time.process_time() - began:.0f} s of one core", file=sys.stderr)


if __name__ == "__main__":
    main()
