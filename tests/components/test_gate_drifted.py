"""The benchmark of the gate after a drift judges what the steps themselves would say, and the default rules keep what they promise there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kfloop.components.evaluate.measuring import Task, n_slices, statistics_of
from kfloop.components.evaluate.new_rows import NewRows
from kfloop.components.evaluate.scoreboard import Board
from kfloop.components.evaluate.slices.slicing import Slice
from kfloop.components.gate.defaults import default_rules
from kfloop.core.sections import EvaluateConfig
from kfloop.core.statistics.estimate import wilson
from loading import load

bench = load(Path(__file__).parents[2] / "benchmarks" / "gate_drifted.py")


def case(**told: Any) -> Any:
    """A challenger that is equal to the champion, but for what is told."""
    usual = {"group": "", "truth": "", "lost": 0.0, "gained": 0.0, "wanted": True, "rules": "the default rules"}
    return bench.Case(**usual | {"old": 600, "moved": 60, "parts": 1, "accuracy": 0.9} | told)


def wrong(one: Any, rounds: int = 150) -> Any:
    """How often the rules on the cause end wrongly."""
    random = np.random.default_rng(1)
    refused = [bench.refused(one, random)[0] is one.wanted for _ in range(rounds)]
    return wilson(sum(refused), rounds)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(("old", "moved"), [(20, 60), (200, 30)])
def test_the_simulated_report_says_what_evaluate_says(old: int, moved: int, parts: int) -> None:
    one = case(old=old, moved=moved, parts=parts, lost=0.05, gained=0.2)
    rows, masks = bench.drawn(one, np.random.default_rng(2)), bench.slices(old, moved, parts)
    report = bench.evaluation(rows, masks, parts)
    target = (np.arange(old + moved) % 2).astype(np.int64)
    fresh = masks["origin:fresh"]
    named = [
        Slice(name=name, text=name, rows=mask) for name, mask in masks.items() if name.startswith(("drift", "old"))
    ]
    task = Task(
        objective="classification",
        target=target,
        origin=np.where(fresh, "fresh", "base"),
        labels=["a", "b"],
        channels=[],
        std=np.zeros(0),
        block=1,
        slices=tuple(named),
        new=NewRows(rows=fresh, text=""),
    )
    right = {"challenger": (bench.BOTH, bench.OURS), "champion": (bench.BOTH, bench.THEIRS)}
    answers = {who: np.eye(2)[np.where(np.isin(rows, kinds), target, 1 - target)] for who, kinds in right.items()}
    statistics = {who: statistics_of(task, answer) for who, answer in answers.items()}
    common, families = n_slices(statistics["challenger"])
    config = EvaluateConfig(bootstrap=200)
    board = Board(objective="classification", n=old + moved, n_slices=common, config=config, families=families)
    found = {who: board.resample(item) for who, item in statistics.items()}
    real = {who: board.scores(item) for who, item in found.items()}
    real["differences"] = board.differences(found["challenger"], found["champion"])
    simulated = {who: report[who] for who in right} | {"differences": report["differences"]["champion"]}
    for who, block in simulated.items():
        assert block["slices"].keys() == real[who]["slices"].keys()
        for name, figures in [("overall", block["overall"]), *block["slices"].items()]:
            item = (real[who]["overall"] if name == "overall" else real[who]["slices"][name])["accuracy"]
            assert figures["accuracy"] == {key: getattr(item, key) for key in figures["accuracy"]}, (who, name)


def test_its_rules_are_those_that_init_writes() -> None:
    usual = default_rules("classification", "table", 1000, drifted=True)
    assert bench.rules_beside_champion(1000) == tuple(rule for rule in usual if rule.versus == "champion")
    few = bench.rules_beside_champion(60)
    kept = {(rule.slice, rule.use, rule.at_least) for rule in few if rule.slice.startswith(("old", "drifted"))}
    assert kept == {("old:*", "point", -0.05), ("drifted:*", "unless_refuted", -0.02)}


@pytest.mark.parametrize(("old", "parts"), [(600, 1), (200, 3)])
def test_forgetting_by_the_margin_is_hardly_ever_let_through_however_many_columns_moved(old: int, parts: int) -> None:
    forgets = case(old=old, parts=parts, lost=0.05, gained=0.2, wanted=False)
    assert wrong(forgets).low <= 0.025
    assert wrong(forgets._replace(lost=0.0)).low > 0.15, "one that forgets nothing is let through: the check can fail"


def test_few_old_rows_refuse_only_what_is_surely_worse() -> None:
    at_the_bound = case(old=60, parts=3, lost=0.02, gained=0.2)
    assert wrong(at_the_bound).low <= 0.025
    assert wrong(at_the_bound._replace(lost=0.3)).low > 0.8


def test_more_old_rows_refuse_an_equal_challenger_less() -> None:
    found = [wrong(case(old=old)).value for old in (200, 600, 2000)]
    assert found[0] > 0.3
    assert found[1] < 0.12
    assert found[2] < 0.06


def test_the_tables_have_a_line_for_every_size_and_the_same_figures_each_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["gate_drifted.py", "--only", "equal", "--rounds", "1"])
    printed = []
    for _ in range(2):
        bench.main()
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    lines = [line for line in printed[0].splitlines() if line.startswith("| ") and not line.startswith("| old")]
    assert len(lines) == 5 * 4 * 3 + 2 * 4 * 3
    assert printed[0].count("how often it is refused, %") == 2
