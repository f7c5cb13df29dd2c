"""The same suite in polars expressions: one pass over the data, for tables beyond what pandas can carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfloop.core.expectations import outcomes
from kfloop.core.expectations.expressions import plan_of
from kfloop.core.expectations.kinds import FLOAT, kind_of
from kfloop.core.expectations.rules import RULES
from kfloop.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl
    import pyarrow as pa

    from kfloop.core.expectations.checks import Check
    from kfloop.core.expectations.plans import Plan

BIG = 1_000_000
HEAVY = ("hashes:", "distinct:", "repeated:", "examples:")
ROWS_PER_BATCH = 1 << 17
OF_TYPE = "expect_column_values_to_be_of_type"


def evaluate(table: pa.Table, checks: list[Check]) -> list[dict[str, Any]]:
    """Each check's result on the table, in order.

    Raises:
        ConfigError: An expectation that this engine does not know.
    """
    refuse_unsupported(checks)
    held = {name: kind_of(table.schema.field(name).type) for name in table.schema.names}
    plans = {
        place: plan_of(check, held)
        for place, check in enumerate(checks)
        if not check.broken and check.kind != OF_TYPE and not _about_columns(check)
    }
    frame = lazy(table, {name for place in plans for name in checks[place].columns}, held)
    numbers = _numbers(
        frame, {name: need for plan in plans.values() for name, need in plan.needs.items()}, table.num_rows
    )
    verdicts = {place: plan.judge(numbers) for place, plan in plans.items()}
    doubtful = {place: plan for place, plan in plans.items() if not verdicts[place][0]}
    numbers |= _numbers(frame, _second_pass(doubtful), table.num_rows)
    for place, plan in doubtful.items():
        if plan.judge_later:
            verdicts[place] = plan.judge_later(numbers)
    results = []
    for place, check in enumerate(checks):
        if check.broken:
            results.append(outcomes.broken(check, check.broken))
        elif check.kind == OF_TYPE:
            results.append(outcomes.type_outcome(check, table.schema))
        elif place in plans:
            passed, observed = verdicts[place]
            examples = list(numbers.get(f"examples:{place}", []))
            results.append(outcomes.outcome(check, passed=passed, observed=observed, unexpected=examples))
        else:
            results.append(_columns_outcome(check, table.schema.names))
    return results


def refuse_unsupported(checks: list[Check]) -> None:
    """Raise a ConfigError for the first check that this engine does not know."""
    for check in checks:
        if not check.supported:
            raise ConfigError(
                f"the polars engine does not know {check.kind!r}",
                hint=f"{nearest(check.kind, RULES)} Or set validation.engine: great_expectations",
                expectation=check.kind,
            )


def lazy(table: pa.Table, columns: set[str], held: dict[str, str]) -> pl.LazyFrame:
    """The columns, a batch at a time and without a copy of the whole; NaN is a missing value, as it is for pandas."""
    import polars as pl
    from polars.io.plugins import register_io_source

    names = [name for name in table.schema.names if name in columns] or table.schema.names[:1]
    light = table.select(names)
    empty = _polars(light.slice(0, 0))

    def batches(
        wanted: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        part = light if wanted is None else light.select(wanted)
        for batch in part.slice(0, n_rows).to_batches(max_chunksize=ROWS_PER_BATCH):
            frame = _polars(batch)
            yield frame if predicate is None else frame.filter(predicate)

    frame = register_io_source(batches, schema=empty.schema)
    floats = [name for name in names if held[name] == FLOAT]
    return frame.with_columns(pl.col(floats).fill_nan(None)) if floats else frame


def _polars(part: pa.Table | pa.RecordBatch) -> pl.DataFrame:
    import polars as pl

    frame = pl.from_arrow(part, rechunk=False)
    if not isinstance(frame, pl.DataFrame):
        raise TypeError(f"expected a table, found {type(frame).__name__}")
    return frame


def _numbers(frame: pl.LazyFrame, expressions: dict[str, pl.Expr], n_rows: int) -> dict[str, Any]:
    """All expressions in one pass; in a big table those that remember every value go one after the other, so that one memory is enough."""
    heavy = {name for name in expressions if name.startswith(HEAVY)} if n_rows > BIG else set()
    numbers = _collect(frame, {name: need for name, need in expressions.items() if name not in heavy})
    for name in sorted(heavy):
        numbers |= _collect(frame, {name: expressions[name]})
    return numbers


def _collect(frame: pl.LazyFrame, expressions: dict[str, pl.Expr]) -> dict[str, Any]:
    if not expressions:
        return {}
    found = frame.select(**expressions).collect(engine="streaming")
    return {
        name: value.to_list() if hasattr(value, "to_list") else value
        for name, value in found.row(0, named=True).items()
    }


def _second_pass(doubtful: dict[int, Plan]) -> dict[str, pl.Expr]:
    later = {name: need for plan in doubtful.values() for name, need in plan.later.items()}
    shown = {
        f"examples:{place}": plan.examples.implode() for place, plan in doubtful.items() if plan.examples is not None
    }
    return later | shown


def _about_columns(check: Check) -> bool:
    return RULES[check.kind].about_schema and not check.kind.startswith("expect_table_row_count")


def _columns_outcome(check: Check, names: list[str]) -> dict[str, Any]:
    """Expectations about the names and number of columns, which need no data."""
    told = check.fitted
    if check.kind == "expect_column_to_exist":
        place = told.get("column_index")
        passed = told["column"] in names if not place else names[place : place + 1] == [told["column"]]
        return outcomes.outcome(check, passed=passed)
    if check.kind == outcomes.COLUMN_SET:
        wanted = set(told["column_set"])
        passed = wanted == set(names) if told.get("exact_match", True) else wanted <= set(names)
        return outcomes.outcome(check, passed=passed, observed=sorted(names))
    low, high = told.get("value", told.get("min_value")), told.get("value", told.get("max_value"))
    above = low is None or (len(names) > low if told.get("strict_min") else len(names) >= low)
    below = high is None or (len(names) < high if told.get("strict_max") else len(names) <= high)
    return outcomes.outcome(check, passed=above and below, observed=len(names))
