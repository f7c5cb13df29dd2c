"""The plan of every expectation that the polars engine knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfloop.core.expectations.patterns import translate
from kfloop.core.expectations.plans import (
    EXAMPLES,
    ROWS,
    Numbers,
    Plan,
    between,
    map_plan,
    most,
    near,
    nulls,
    quantile,
    values,
    within,
    z_scores,
)
from kfloop.core.expectations.several import compound_plan, pair_plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from kfloop.core.expectations.checks import Check

MAPS = frozenset(
    {
        "expect_column_values_to_be_in_set",
        "expect_column_values_to_not_be_in_set",
        "expect_column_values_to_be_between",
        "expect_column_values_to_match_regex",
        "expect_column_values_to_not_match_regex",
        "expect_column_value_lengths_to_be_between",
        "expect_column_value_lengths_to_equal",
        "expect_column_value_z_scores_to_be_less_than",
    }
)
ORDERS = {"expect_column_values_to_be_increasing": 1, "expect_column_values_to_be_decreasing": -1}
SEVERAL = 2
STATISTICS = ("min", "max", "mean", "median", "stdev", "sum")


def plan_of(check: Check, held: Mapping[str, str]) -> Plan:
    """The plan of a check that is not broken.

    Args:
        check: The check.
        held: Kind of each column.
    """
    kind = check.kind
    if kind in MAPS:
        return map_plan(check, _expected(check, held[check.columns[0]]))
    if kind in ORDERS:
        return _order(check, ORDERS[kind])
    word = kind.removeprefix("expect_column_").removesuffix("_to_be_between")
    if word in STATISTICS:
        return _statistic(check, word)
    special = {
        "expect_table_row_count_to_be_between": _row_count,
        "expect_table_row_count_to_equal": _row_count,
        "expect_column_values_to_be_unique": _unique,
        "expect_column_values_to_not_be_null": _null,
        "expect_column_values_to_be_null": _null,
        "expect_column_most_common_value_to_be_in_set": _most_common,
        "expect_column_unique_value_count_to_be_between": _distinct,
        "expect_column_proportion_of_unique_values_to_be_between": _distinct,
        "expect_column_quantile_values_to_be_between": _quantiles,
        "expect_column_pair_values_a_to_be_greater_than_b": pair_plan,
        "expect_column_pair_values_to_be_equal": pair_plan,
        "expect_compound_columns_to_be_unique": compound_plan,
    }
    if kind in special:
        return special[kind](check)
    return _distinct_set(check, held[check.columns[0]])


def _expected(check: Check, held: str) -> pl.Expr:
    import polars as pl

    column, told = pl.col(check.columns[0]), check.fitted
    if check.kind.endswith("_in_set"):
        found = column.is_in(values(told["value_set"], held).implode())
        return ~found if "_not_be_" in check.kind else found
    if check.kind.endswith("_regex"):
        found = column.str.contains(translate(told["regex"]), strict=True)
        return ~found if "_not_match_" in check.kind else found
    if check.kind == "expect_column_value_z_scores_to_be_less_than":
        return z_scores(column, told["threshold"], told["double_sided"])
    if check.kind == "expect_column_values_to_be_between":
        return between(column, told)
    length = column.str.len_chars().cast(pl.Int64)
    return length == told["value"] if "value" in told else between(length, told)


def _row_count(check: Check) -> Plan:
    import polars as pl

    told = check.fitted
    if "value" in told:
        told = {"min_value": told["value"], "max_value": told["value"]}
    return Plan(needs={ROWS: pl.len()}, judge=lambda numbers: (within(numbers[ROWS], told), numbers[ROWS]))


def _null(check: Check) -> Plan:
    import polars as pl

    name, mostly = check.columns[0], check.fitted.get("mostly", 1)
    wanted = check.kind.endswith("_to_be_null")

    def judge(numbers: Numbers) -> tuple[bool, Any]:
        missing = numbers[f"nulls:{name}"]
        unexpected = numbers[ROWS] - missing if wanted else missing
        return most(numbers[ROWS], unexpected, mostly), unexpected

    return Plan(needs=nulls(name), judge=judge, examples=pl.col(name).drop_nulls().head(EXAMPLES) if wanted else None)


def _unique(check: Check) -> Plan:
    """Different hashes prove different values; only when hashes repeat are the values themselves compared."""
    import polars as pl

    name, mostly = check.columns[0], check.fitted.get("mostly", 1)
    column, hashes, repeated = pl.col(name), f"hashes:{name}", f"repeated:{name}"

    def judge(numbers: Numbers) -> tuple[bool, Any]:
        missing = numbers[f"nulls:{name}"]
        return numbers[hashes] - (missing > 0) == numbers[ROWS] - missing, 0

    def judge_later(numbers: Numbers) -> tuple[bool, Any]:
        return most(numbers[ROWS] - numbers[f"nulls:{name}"], numbers[repeated], mostly), numbers[repeated]

    present = column.drop_nulls()
    return Plan(
        needs=nulls(name) | {hashes: column.hash().n_unique()},
        judge=judge,
        later={repeated: present.is_duplicated().sum()},
        judge_later=judge_later,
        examples=present.filter(present.is_duplicated()).head(EXAMPLES),
    )


def _order(check: Check, sign: int) -> Plan:
    import polars as pl

    name, key, mostly = check.columns[0], f"unexpected:{id(check)}", check.fitted.get("mostly", 1)
    present = pl.col(name).drop_nulls()
    before, after = (present.shift(1), present) if sign > 0 else (present, present.shift(1))
    wrong = after <= before if check.fitted.get("strictly") else after < before

    def judge(numbers: Numbers) -> tuple[bool, Any]:
        return most(numbers[ROWS] - numbers[f"nulls:{name}"], numbers[key], mostly), numbers[key]

    return Plan(needs=nulls(name) | {key: wrong.sum()}, judge=judge, examples=present.filter(wrong).head(EXAMPLES))


def _statistic(check: Check, word: str) -> Plan:
    import polars as pl

    name = check.columns[0]
    column, key = pl.col(name), f"{word}:{name}"
    expressions = {
        "min": column.min,
        "max": column.max,
        "mean": column.mean,
        "median": column.median,
        "stdev": column.std,
        "sum": column.sum,
    }
    return Plan(
        needs={key: expressions[word]()},
        judge=lambda numbers: (within(numbers[key], check.fitted), numbers[key]),
    )


def _distinct(check: Check) -> Plan:
    import polars as pl

    name = check.columns[0]
    key, share = f"distinct:{name}", check.kind.startswith("expect_column_proportion")
    if not share and set(check.fitted) <= {"column", "min_value"} and check.fitted["min_value"] == SEVERAL:
        return _several(name)

    def judge(numbers: Numbers) -> tuple[bool, Any]:
        missing = numbers[f"nulls:{name}"]
        observed, present = numbers[key] - (missing > 0), numbers[ROWS] - missing
        if share:
            observed = observed / present if present else 0
        return within(observed, check.fitted), observed

    return Plan(needs=nulls(name) | {key: pl.col(name).n_unique()}, judge=judge)


def _several(name: str) -> Plan:
    """Two different values at least: the least and the greatest tell, without gathering all of them."""
    import polars as pl

    low, high = f"min:{name}", f"max:{name}"

    def judge(numbers: Numbers) -> tuple[bool, Any]:
        several = numbers[low] != numbers[high]
        return several, "2 or more" if several else int(numbers[low] is not None)

    return Plan(needs={low: pl.col(name).min(), high: pl.col(name).max()}, judge=judge)


def _distinct_set(check: Check, held: str) -> Plan:
    """The distinct values against a set, without gathering them: strangers are counted by row, members by their distinct number."""
    import polars as pl

    column, wanted = pl.col(check.columns[0]), check.fitted["value_set"]
    found = column.is_in(values(wanted, held).implode())
    strangers, members = f"strangers:{id(check)}", f"members:{id(check)}"
    needs = {}
    if not check.kind.endswith("_contain_set"):
        needs[strangers] = (~found).sum()
    if not check.kind.endswith("_be_in_set"):
        needs[members] = column.filter(found).n_unique()

    def judge(numbers: Numbers) -> tuple[bool, Any]:
        strange, lacking = numbers.get(strangers, 0), len(wanted) - numbers.get(members, len(wanted))
        return strange == 0 and lacking == 0, strange or lacking

    return Plan(needs=needs, judge=judge, examples=column.filter(~found).unique().sort().head(EXAMPLES))


def _most_common(check: Check) -> Plan:
    import polars as pl

    name = check.columns[0]
    key, wanted, ties = f"modes:{name}", set(check.fitted["value_set"]), check.fitted.get("ties_okay", False)

    def judge(numbers: Numbers) -> tuple[bool, Any]:
        modes = list(numbers[key])
        known = sum(value in wanted for value in modes)
        return (known > 0 if ties else len(modes) == 1 and known == 1), sorted(modes)[:EXAMPLES]

    return Plan(needs={key: pl.col(name).drop_nulls().mode().implode()}, judge=judge)


def _quantiles(check: Check) -> Plan:
    import polars as pl

    name, told = check.columns[0], check.fitted["quantile_ranges"]
    how = check.fitted.get("allow_relative_error") or "nearest"
    needs = nulls(name)
    for share in told["quantiles"]:
        needs[f"lower:{share}:{name}"] = pl.col(name).quantile(share, interpolation="lower")
        needs[f"higher:{share}:{name}"] = pl.col(name).quantile(share, interpolation="higher")

    def judge(numbers: Numbers) -> tuple[bool, Any]:
        found = [quantile(numbers, name, share, how) for share in told["quantiles"]]
        good = [
            value is not None
            and (near(value, low) or near(value, high) or within(value, {"min_value": low, "max_value": high}))
            for value, (low, high) in zip(found, told["value_ranges"], strict=True)
        ]
        return all(good), {"quantiles": told["quantiles"], "values": found}

    return Plan(needs=needs, judge=judge)
