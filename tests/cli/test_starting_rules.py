"""The rules that ``kfloop init`` writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kfloop.cli.loop_text import loop_text
from kfloop.components.gate.defaults import default_rules
from kfloop.components.ingest.sources import inspect
from kfloop.core.config import load_config
from kfloop.core.sections import DataConfig, GateConfig, SplitConfig


def written(source: str, folder: Path) -> str:
    return loop_text("a-loop", source, inspect(DataConfig(source=source)), {}, folder)


@pytest.fixture
def few_rows(tmp_path: Path) -> str:
    path = tmp_path / "few.csv"
    path.write_text("a,b,label\n" + "".join(f"{row},{row % 7},{'yes' if row % 2 else 'no'}\n" for row in range(80)))
    return str(path)


def test_the_default_rules_stand_as_a_comment_that_can_be_taken_as_it_is(tmp_path: Path) -> None:
    text = written("digits", tmp_path)
    (tmp_path / "loop.yaml").write_text(text)
    assert load_config(tmp_path / "loop.yaml").gate.rules is None
    active = "\n".join(
        line.replace("  # rules:", "  rules:").replace("  #   - {", "    - {") for line in text.splitlines()
    )
    gate = GateConfig(**yaml.safe_load(active)["gate"])
    n_test = round(SplitConfig().test * 1797)
    assert gate.rules == default_rules("classification", "image", n_test)


def test_few_rows_get_rules_on_point_estimates_that_decide(tmp_path: Path, few_rows: str) -> None:
    (tmp_path / "loop.yaml").write_text(written(few_rows, tmp_path))
    rules = load_config(tmp_path / "loop.yaml").gate.rules
    assert rules
    versus = {rule.slice: rule for rule in rules if rule.versus == "champion"}
    assert {rule.use for name, rule in versus.items() if name not in ("origin:fresh", "drifted:*")} == {"point"}
    # A retraining that learned from fresh rows must not have lost the old ones, nor got worse where things have drifted.
    assert (versus["origin:base"].when, versus["origin:base"].at_least) == ("slice_exists", -0.05)
    assert (versus["origin:fresh"].use, versus["origin:fresh"].when) == ("unless_refuted", "large_enough")
    assert (versus["old:*"].when, versus["old:*"].at_least, versus["old:*"].min_n) == ("large_enough", -0.05, 1)
    assert (versus["drifted:*"].use, versus["drifted:*"].when) == ("unless_refuted", "large_enough")
    assert {rule.use for rule in rules if rule.versus != "champion"} == {"point"}
