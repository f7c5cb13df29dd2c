"""Each expectation as polars expressions that give single numbers, and a judgement of these numbers.

Numbers that several expectations need have one name and are computed once; all of a suite go into one pass over the data. What is only needed
to judge a doubtful case, or to show examples of unexpected values, waits for a second pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from kfloop.core.expectations.checks import Check

Numbers = Mapping[str, Any]
Judge = Callable[[Numbers], tuple[bool, Any]]
ROWS = "rows"
EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one expectation is judged.

    Attributes:
        needs: Expression of each number, by its name.
        judge: From the numbers to the verdict and what was observed.
        later: Expressions for a second pass, which runs when the first verdict is a fail.
        judge_later: The final judgement; null means that the first one stands.
        examples: Values that should not be there, up to five; null means none can be shown.
    """

    needs: dict[str, pl.Expr]
    judge: Judge
    later: dict[str, pl.Expr] = field(default_factory=dict)
    judge_later: Judge | None = None
    examples: pl.Expr | None = None


def nulls(name: str) -> dict[str, pl.Expr]:
    """Rows, and missing values of a column."""
    import polars as pl

    return {ROWS: pl.len(), f"nulls:{name}": pl.col(name).null_count()}


def most(rows: int, unexpected: int, mostly: float) -> bool:
    """Whether enough of the rows are as expected; no rows are no reason to complain."""
    return rows == 0 or (rows - unexpected) / rows >= mostly


def within(value: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether a number or time lies between ``min_value`` and ``max_value``; nothing (null, NaN) does not."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return False
    low, high = arguments.get("min_value"), arguments.get("max_value")
    above = low is None or (value > low if arguments.get("strict_min") else value >= low)
    below = high is None or (value < high if arguments.get("strict_max") else value <= high)
    return bool(above and below)


def map_plan(check: Check, expected: pl.Expr) -> Plan:
    """Plan of an expectation about each value that is there; ``expected`` is a boolean for each row."""
    import polars as pl

    name, key = check.columns[0], f"unexpected:{id(check)}"
    mostly = check.fitted.get("mostly", 1)

    def judge(numbers: Numbers) -> tuple[bool, Any]:
        return most(numbers[ROWS] - numbers[f"nulls:{name}"], numbers[key], mostly), numbers[key]

    return Plan(
        needs=nulls(name) | {key: (~expected).sum()},
        judge=judge,
        examples=pl.col(name).filter(~expected).head(EXAMPLES),
    )


def between(column: pl.Expr, arguments: Mapping[str, Any]) -> pl.Expr:
    """Whether each value lies between ``min_value`` and ``max_value``."""
    import polars as pl

    low, high = arguments.get("min_value"), arguments.get("max_value")
    parts = []
    if low is not None:
        parts.append(column > _literal(low) if arguments.get("strict_min") else column >= _literal(low))
    if high is not None:
        parts.append(column < _literal(high) if arguments.get("strict_max") else column <= _literal(high))
    return parts[0] if len(parts) == 1 else pl.Expr.and_(*parts)


def _literal(value: Any) -> pl.Expr:
    import polars as pl

    return pl.lit(value, dtype=pl.Datetime("us")) if isinstance(value, datetime) else pl.lit(value)


def values(items: list[Any], kind: str) -> pl.Series:
    """A value set as a series of the column's own type; numbers that no integer equals are left out."""
    import polars as pl

    if kind == "int":
        return pl.Series([item for item in items if isinstance(item, int)], dtype=pl.Int64)
    if kind == "float":
        return pl.Series([float(item) for item in items], dtype=pl.Float64)
    return pl.Series(items, dtype=pl.Datetime("us")) if kind == "time" else pl.Series(items)


def z_scores(column: pl.Expr, threshold: float, double_sided: bool) -> pl.Expr:
    """Whether each value is less than ``threshold`` standard deviations from the mean; true where there is no deviation."""
    score = (column - column.mean()) / column.std()
    close = score.abs() < abs(threshold) if double_sided else score < threshold
    constant = column.min() == column.max()  # by rounding, its deviation need not be exactly 0
    return close | score.is_nan() | constant


def quantile(numbers: Numbers, name: str, share: float, how: str) -> float | None:
    """One quantile from its two neighbours; ``nearest`` goes to the even place when in the middle, as numpy does."""
    low, high = numbers[f"lower:{share}:{name}"], numbers[f"higher:{share}:{name}"]
    if low is None or high is None:
        return None
    place = (numbers[ROWS] - numbers[f"nulls:{name}"] - 1) * share
    part = place - math.floor(place)
    ends = {"lower": low, "higher": high, "midpoint": low + (high - low) / 2, "linear": low + (high - low) * part}
    return ends[how] if how in ends else (high if round(place) > math.floor(place) else low)


def near(value: float, bound: float | None) -> bool:
    """Equal within 0.01 %, the tolerance that Great Expectations gives a quantile."""
    return bound is not None and abs(value - bound) <= 1e-8 + 1e-4 * abs(bound)
