"""Plans of expectations about several columns at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfloop.core.expectations.plans import Numbers, Plan, most

if TYPE_CHECKING:
    import polars as pl

    from kfloop.core.expectations.checks import Check


def pair_plan(check: Check) -> Plan:
    """Two columns row by row; a comparison with a missing value does not hold."""
    import polars as pl

    left, right = pl.col(check.columns[0]), pl.col(check.columns[1])
    how, mostly = check.fitted.get("ignore_row_if", "both_values_are_missing"), check.fitted.get("mostly", 1)
    judged = {
        "both_values_are_missing": left.is_not_null() | right.is_not_null(),
        "either_value_is_missing": left.is_not_null() & right.is_not_null(),
        "neither": left.is_null() | left.is_not_null(),
    }[how]
    if check.kind.endswith("_equal"):
        fine = left == right
    else:
        fine = left >= right if check.fitted.get("or_equal") else left > right
    return _rows_plan(check, judged, judged & ~fine.fill_null(value=False), mostly)


def _rows_plan(check: Check, judged: pl.Expr, wrong: pl.Expr, mostly: float) -> Plan:
    rows, unexpected = f"judged:{id(check)}", f"unexpected:{id(check)}"

    def judge(numbers: Numbers) -> tuple[bool, Any]:
        return most(numbers[rows], numbers[unexpected], mostly), numbers[unexpected]

    return Plan(needs={rows: judged.sum(), unexpected: wrong.sum()}, judge=judge)


def compound_plan(check: Check) -> Plan:
    """Rows whose values in several columns repeat together; missing values are equal to each other."""
    import polars as pl

    columns, mostly = list(check.columns), check.fitted.get("mostly", 1)
    missing = [pl.col(name).is_null() for name in columns]
    judged = {
        "all_values_are_missing": ~pl.all_horizontal(missing),
        "any_value_is_missing": ~pl.any_horizontal(missing),
    }.get(check.fitted.get("ignore_row_if", "all_values_are_missing"))
    together = pl.struct(columns)
    together = together if judged is None else together.filter(judged)
    rows, distinct, repeated = (f"{word}:{id(check)}" for word in ("judged", "distinct", "repeated"))
    return Plan(
        needs={rows: together.len(), distinct: together.n_unique()},
        judge=lambda numbers: (numbers[rows] == numbers[distinct] or numbers[rows] == 0, 0),
        later={repeated: together.is_duplicated().sum()},
        judge_later=lambda numbers: (most(numbers[rows], numbers[repeated], mostly), numbers[repeated]),
    )
