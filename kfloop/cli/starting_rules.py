"""The gate rules that ``kfloop init`` writes where the default rules could decide nothing, because the test rows are too few for intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kfloop.components.gate.defaults import default_rules
from kfloop.core.sections import SeriesConfig, SplitConfig
from kfloop.core.statistics.bootstrap import FEWEST_BLOCKS
from kfloop.core.statistics.forecasting import block_length

if TYPE_CHECKING:
    from kfloop.components.ingest.sources import SourceInfo
    from kfloop.core.sections import Rule

FEW_TEST_ROWS = (
    100  # the default rules need 60 of one kind or another, and a split by hash gives more or less than its share
)
RULES = """\
  # {why}
  # So these are the default rules on point estimates, which chance may pass: with more data delete them, and intervals decide.
  rules:
{lines}
"""


def starting_rules(objective: str, info: SourceInfo) -> str:
    """Rules on point estimates as lines of section ``gate``; empty where the default rules can decide.

    Args:
        objective: What will be learned.
        info: What was found in the source.
    """
    n_test = round(SplitConfig().test * info.n)
    why = _why_not_intervals(objective, info, n_test)
    if not why:
        return ""
    rules = [
        rule
        for rule in default_rules(objective, info.modality, n_test)
        if rule.mode == "enforce"
        and rule.when == "always"
        and not (rule.use == "interval" and rule.versus == "absolute")
    ]
    return RULES.format(why=why, lines="\n".join(f"    - {{{_spelt(rule)}}}" for rule in rules))


def _why_not_intervals(objective: str, info: SourceInfo, n_test: int) -> str:
    """Why intervals cannot decide; empty where they can."""
    if info.modality == "series":
        series = SeriesConfig()
        dependent = series.horizon if objective == "forecasting" else series.context
        blocks = n_test // block_length(dependent, series.stride)
        if blocks < 2 * FEWEST_BLOCKS:
            return f"Windows overlap: about {n_test} test windows hold {blocks} that are independent, too few for intervals."
    few = n_test < FEW_TEST_ROWS
    return f"Small data: about {n_test} test rows are too few to tell models apart by intervals." if few else ""


def _spelt(rule: Rule) -> str:
    """A rule as YAML, without what is as usual and without what intervals ask for."""
    told = {
        "metric": rule.metric,
        "source": None if rule.source == "evaluate" else rule.source,
        "slice": None if rule.slice == "overall" else f'"{rule.slice}"',
        "versus": None if rule.versus == "absolute" else rule.versus,
        "relative": "true" if rule.relative else None,
        "at_least": rule.at_least,
        "at_most": rule.at_most,
    }
    return ", ".join(
        f"{key}: {value:g}" if isinstance(value, float) else f"{key}: {value}"
        for key, value in told.items()
        if value is not None
    )
