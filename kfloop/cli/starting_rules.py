"""The gate rules that ``kfloop init`` writes: the default ones as a comment, or simpler ones where the test rows are too few for intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kfloop.components.gate.defaults import default_rules
from kfloop.core.sections import Rule, SeriesConfig, SplitConfig
from kfloop.core.statistics.bootstrap import FEWEST_BLOCKS
from kfloop.core.statistics.forecasting import block_length

if TYPE_CHECKING:
    from kfloop.components.ingest.sources import SourceInfo

FEW_TEST_ROWS = (
    100  # the default rules need 60 of one kind or another, and a split by hash gives more or less than its share
)
RULES = """\
  # {why}
  # So these are the default rules on point estimates, which chance may pass: with more data delete them, and intervals decide.
  rules:
{lines}
"""


DEFAULTS = """\
  # These rules decide (they are the default ones of this task, see components/gate/README.md). To change them, take the
  # comment signs away: a list of your own replaces all of these.
  # rules:
{lines}
"""


def starting_rules(objective: str, info: SourceInfo) -> str:
    """The rules of section ``gate``: the default ones as a comment to start from; or, where these could decide nothing, rules on point estimates.

    Args:
        objective: What will be learned.
        info: What was found in the source.

    Returns:
        Lines of YAML; :func:`decides_alone` says which of the two they are.
    """
    n_test = round(SplitConfig().test * info.n)
    # A list of one's own replaces those that a retraining for drift adds, so they stand in it; only tables have columns that move.
    rules = default_rules(objective, info.modality, n_test, drifted=info.modality == "table")
    why = _why_not_intervals(objective, info, n_test)
    if not why:
        return DEFAULTS.format(lines="\n".join(f"  #   - {{{_spelt(rule)}}}" for rule in rules))
    kept = [
        rule if rule.use == "unless_refuted" else rule.model_copy(update={"use": "point", "min_n": 1})
        for rule in rules
        if rule.mode == "enforce" and _decides_little(rule)
    ]
    return RULES.format(why=why, lines="\n".join(f"    - {{{_spelt(rule)}}}" for rule in kept))


def _decides_little(rule: Rule) -> bool:
    """Whether a rule can decide about few rows: those on point estimates, and of the slices the old rows and, from 20 on, the fresh ones and those that drifted."""
    if rule.slice in {"origin:base", "old:*"}:
        return rule.use == "interval"  # a point from here on
    if rule.slice in {"origin:fresh", "drifted:*"}:
        return rule.use == "unless_refuted"
    return rule.when == "always" and not (rule.use == "interval" and rule.versus == "absolute")


def decides_alone(rules: str) -> bool:
    """Whether these lines are rules that decide, and not a comment."""
    return "\n  rules:\n" in rules


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
    """A rule as YAML, without what is as usual."""
    usual = Rule(metric=rule.metric, source=rule.source, at_least=rule.at_least, at_most=rule.at_most)
    told: dict[str, object] = {
        "metric": rule.metric,
        "source": None if rule.source == "evaluate" else rule.source,
        "slice": None if rule.slice == "overall" else f'"{rule.slice}"',
        "versus": None if rule.versus == "absolute" else rule.versus,
        "relative": "true" if rule.relative else None,
        "at_least": rule.at_least,
        "at_most": rule.at_most,
    }
    told |= {
        key: getattr(rule, key) for key in ("use", "min_n", "mode", "when") if getattr(rule, key) != getattr(usual, key)
    }
    return ", ".join(
        f"{key}: {value:g}" if isinstance(value, float) else f"{key}: {value}"
        for key, value in told.items()
        if value is not None
    )
