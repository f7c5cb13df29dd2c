"""What Spark counts itself, for expectations that Great Expectations judges otherwise on Spark than on pandas."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kfloop.core.expectations import outcomes
from kfloop.core.expectations.expressions import ORDERS, plan_of
from kfloop.core.expectations.plans import EXAMPLES, ROWS, most
from kfloop.core.spark import said

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import Column, DataFrame

    from kfloop.core.expectations.checks import Check

ROW = "row_number"
SUM = "expect_column_sum_to_be_between"
QUANTILES = "expect_column_quantile_values_to_be_between"
PATTERNS = ("expect_column_values_to_match_regex", "expect_column_values_to_not_match_regex")
PAIRS = ("expect_column_pair_values_a_to_be_greater_than_b", "expect_column_pair_values_to_be_equal")


def counts(check: Check) -> bool:
    """Whether the check is judged here."""
    return check.kind in {SUM, QUANTILES, *PATTERNS, *PAIRS, *ORDERS}


def count(frame: DataFrame, check: Check, held: Mapping[str, str]) -> dict[str, Any]:
    """The result of a check.

    Args:
        frame: The rows, missing values as null, with their number in column ``row_number``.
        check: The check, not broken.
        held: Kind of each column.
    """
    from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    try:
        if check.kind in {SUM, QUANTILES}:
            numbers = _sum(frame, check) if check.kind == SUM else _quantiles(frame, check)
            passed, observed = plan_of(check, held).judge(numbers)
            return outcomes.outcome(check, passed=passed, observed=observed)
        if check.kind in PATTERNS:
            return _patterns(frame, check)
        return _order(frame, check) if check.kind in ORDERS else _pairs(frame, check)
    except (Py4JJavaError, PySparkException) as error:
        return outcomes.broken(check, said(error))


def _verdict(
    frame: DataFrame, check: Check, judged: Column, wrong: Column, shown: Column | None = None
) -> dict[str, Any]:
    from pyspark.sql import functions as f

    wrong = judged & f.coalesce(wrong, f.lit(col=False))
    found = frame.agg(f.count_if(judged).alias("rows"), f.count_if(wrong).alias("wrong")).first()
    rows, unexpected = (found["rows"], found["wrong"]) if found else (0, 0)
    passed = most(rows, unexpected, check.fitted.get("mostly", 1))
    examples = (
        [] if passed or shown is None else frame.where(wrong).orderBy(ROW).limit(EXAMPLES).select(shown).collect()
    )
    return outcomes.outcome(check, passed=passed, observed=unexpected, unexpected=[row[0] for row in examples])


def _pairs(frame: DataFrame, check: Check) -> dict[str, Any]:
    """Two columns row by row; a comparison with a missing value does not hold."""
    from pyspark.sql import functions as f

    left, right = f.col(check.columns[0]), f.col(check.columns[1])
    how = check.fitted.get("ignore_row_if", "both_values_are_missing")
    judged = {
        "both_values_are_missing": left.isNotNull() | right.isNotNull(),
        "either_value_is_missing": left.isNotNull() & right.isNotNull(),
        "neither": f.lit(col=True),
    }[how]
    if check.kind.endswith("_equal"):
        fine = left == right
    else:
        fine = left >= right if check.fitted.get("or_equal") else left > right
    return _verdict(frame, check, judged, ~f.coalesce(fine, f.lit(col=False)))


def _order(frame: DataFrame, check: Check) -> dict[str, Any]:
    """Each value that is there against the one before it; the rows of the column come together in one executor, sorted on its disk where they are many."""
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    value = f.col(check.columns[0])
    present = frame.select(ROW, value).where(value.isNotNull())
    before = f.lag(value).over(Window.orderBy(ROW))
    low, high = (f.col("before"), value) if ORDERS[check.kind] > 0 else (value, f.col("before"))
    wrong = high <= low if check.fitted.get("strictly") else high < low
    return _verdict(present.withColumn("before", before), check, f.lit(col=True), wrong, value)


def _patterns(frame: DataFrame, check: Check) -> dict[str, Any]:
    """Python's regular expressions, matched by Python beside each executor: Java's mean other things by the same signs."""
    from pyspark.sql import functions as f

    pattern, value = check.fitted["regex"], f.col(check.columns[0])

    # A function of a function travels to the executors as code: they need no kfloop.
    def matches(text: str | None) -> bool | None:
        import re

        return None if text is None else re.search(pattern, text) is not None

    found = f.udf(matches, "boolean", useArrow=False)(value)
    wrong = found if "_not_match_" in check.kind else ~found
    return _verdict(frame, check, value.isNotNull(), wrong, value)


def _sum(frame: DataFrame, check: Check) -> dict[str, Any]:
    """The sum of nothing is 0, as it is for pandas."""
    from pyspark.sql import functions as f

    name = check.columns[0]
    found = frame.agg(f.sum(name)).first()
    return {f"sum:{name}": (found[0] if found else None) or 0}


def _quantiles(frame: DataFrame, check: Check) -> dict[str, Any]:
    """Exact neighbours of each quantile, under the names of the other engine's numbers."""
    from pyspark.sql import functions as f

    name, shares = check.columns[0], check.fitted["quantile_ranges"]["quantiles"]
    first = frame.agg(f.count(f.lit(1)).alias("rows"), f.count(name).alias("there")).first()
    rows, there = (first["rows"], first["there"]) if first else (0, 0)
    numbers: dict[str, Any] = {ROWS: rows, f"nulls:{name}": rows - there}
    last = max(there - 1, 0)
    places = sorted({end for share in shares for end in _ends(last * share)})
    # The value at a whole place: its share of the last place, which percentile turns back into the place.
    at = [f.percentile(name, place / last if last else 0.0).alias(f"at{place}") for place in places]
    values = frame.agg(*at).first() if there else None
    for share in shares:
        for word, end in zip(("lower", "higher"), _ends(last * share), strict=True):
            numbers[f"{word}:{share}:{name}"] = None if values is None else values[f"at{end}"]
    return numbers


def _ends(place: float) -> tuple[int, int]:
    return math.floor(place), math.ceil(place)
