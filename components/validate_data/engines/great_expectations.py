"""Great Expectations on pandas: the engine for small tables, and the reference for the others."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kfloop.components.validate_data.engines.naming import Naming
from kfloop.core.expectations import outcomes
from kfloop.core.expectations.kinds import STR, kind_of
from kfloop.core.expectations.rules import RULES
from kfloop.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pandas as pd
    import pyarrow as pa

    from kfloop.core.expectations.checks import Check

ROW_COUNT = "expect_table_row_count"
OF_TYPE = "expect_column_values_to_be_of_type"
LARGEST_EXACT_FLOAT = 1 << 53


def evaluate(table: pa.Table, checks: list[Check]) -> list[dict[str, Any]]:
    """Each check's result on the table, in order.

    Raises:
        ConfigError: Great Expectations does not know an expectation, or does not take its arguments.
    """
    quiet()
    # A broken check of a kind that kfloop knows was looked at already; any other must at least be one that exists.
    expectations = [None if check.broken and check.supported else expectation_of(check) for check in checks]
    naming, schema = Naming(table.schema.names), SchemaJudge(table)
    named = [naming.check(check) for check in checks]
    rows = _batch("rows", frame_of(naming.table(table), named))
    return [
        schema.result(check, expectation) or naming.told(judge(plain, expectation_of(plain), rows), check)
        for check, plain, expectation in zip(checks, named, expectations, strict=True)
    ]


class SchemaJudge:
    """Judges what needs no rows: broken checks, types, and expectations about the columns themselves.

    Args:
        table: The table; only its schema is looked at.
    """

    def __init__(self, table: pa.Table) -> None:
        self._empty = table.slice(0, 0)
        self._batch: Any = None

    def result(self, check: Check, expectation: Any) -> dict[str, Any] | None:
        """The result of the check; null where it needs the rows."""
        if check.broken:
            return outcomes.broken(check, check.broken)
        if check.kind == OF_TYPE:
            return outcomes.type_outcome(check, self._empty.schema)
        if not _about_columns(check):
            return None
        self._batch = self._batch or _batch("columns", self._empty.to_pandas())
        return judge(check, expectation, self._batch)


def quiet() -> None:
    """Keep Great Expectations from telling about its registries and temporary folders; what matters comes back as results."""
    with warnings.catch_warnings(), _named_program():
        warnings.simplefilter("ignore", FutureWarning)  # it imports pyspark where there is one, which warns of pandas
        import great_expectations  # noqa: F401 - sets the levels that are mended below

    for name in ("great_expectations", "great_expectations.data_context.types.base"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def _named_program() -> Iterator[None]:
    """While pyspark is imported: it takes a program without a file (``python -c``, workers of test runners) for its own doctests, and ends it."""
    main = sys.modules["__main__"]
    nameless = main.__spec__ is None and not hasattr(main, "__file__")
    if nameless:
        main.__file__ = "<kfloop>"
    try:
        yield
    finally:
        if nameless:
            del main.__file__


def frame_of(table: pa.Table, checks: Iterable[Check]) -> pd.DataFrame:
    """The rows as pandas, only the columns that a check looks at (one at least, to be counted)."""
    names = columns_named(table, checks)
    frame: pd.DataFrame = table.select(names).to_pandas()
    for name in names:
        if _loses_digits(table[name]):
            frame[name] = _nullable_integers(table[name])
        elif kind_of(table.schema.field(name).type) == STR:
            frame[name] = frame[name].astype("str")
    return frame


def columns_named(table: pa.Table, checks: Iterable[Check]) -> list[str]:
    """The columns that a check looks at, one at least."""
    wanted = {name for check in checks for name in (*check.columns, *_named(check.kwargs))}
    return [name for name in table.schema.names if name in wanted] or table.schema.names[:1]


def _named(value: Any) -> set[str]:
    """Every text in the arguments of an expectation that kfloop has no rule for: some are columns."""
    if isinstance(value, dict):
        return {name for item in value.values() for name in _named(item)}
    if isinstance(value, list | tuple):
        return {name for item in value for name in _named(item)}
    return {value} if isinstance(value, str) else set()


def _loses_digits(column: pa.ChunkedArray) -> bool:
    """Integers with missing values become floats in pandas; beyond 2^53 different ones would become equal."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_integer(column.type) or column.null_count in (0, len(column)):
        return False
    ends = pc.min_max(column).as_py()
    return bool(max(abs(ends["min"]), abs(ends["max"])) > LARGEST_EXACT_FLOAT)


def _nullable_integers(column: pa.ChunkedArray) -> pd.Series:
    import pandas as pd

    return column.to_pandas(types_mapper={column.type: pd.Int64Dtype()}.get)


def _about_columns(check: Check) -> bool:
    rule = RULES.get(check.kind)
    return rule is not None and rule.about_schema and not check.kind.startswith(ROW_COUNT)


def new_context() -> Any:
    """A context of Great Expectations in memory, without progress bars."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def _batch(name: str, frame: pd.DataFrame) -> Any:
    asset = new_context().data_sources.add_pandas("kfloop").add_dataframe_asset(name)
    return asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})


def expectation_of(check: Check) -> Any:
    """The check as an expectation of Great Expectations.

    Raises:
        ConfigError: It knows no such expectation, or does not take its arguments.
    """
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    kwargs = dict(check.kwargs if check.broken else check.fitted)
    for name in ("min_value", "max_value"):
        if isinstance(kwargs.get(name), datetime):  # as an object it would be cut to its date
            kwargs[name] = kwargs[name].isoformat()
    try:
        return ExpectationConfiguration(type=check.kind, kwargs=kwargs).to_domain_obj()
    except Exception as error:  # whatever Great Expectations raises on a name or argument it does not know
        raise ConfigError(
            f"the suite has an unusable expectation {check.kind!r}: {error}",
            hint=f"{nearest(check.kind, RULES)}; see the list of Great Expectations",
        ) from error


def judge(check: Check, expectation: Any, batch: Any) -> dict[str, Any]:
    """The result of one expectation on a batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about deprecations of pandas inside Great Expectations
        found = batch.validate(expectation, result_format="SUMMARY").to_json_dict()
    why = _exception(found.get("exception_info", {}))
    if why:
        return outcomes.broken(check, why)
    details = found.get("result", {})
    unexpected = details.get("partial_unexpected_list") or details.get("partial_missing_list") or []
    observed = details.get("observed_value")
    if observed is None:
        observed = details.get("unexpected_count")
    return outcomes.outcome(check, passed=bool(found["success"]), observed=observed, unexpected=unexpected)


def _exception(info: dict[str, Any]) -> str:
    """Message of an exception inside a check; its shape differs between expectations of a column and of a table."""
    entries = [info, *(entry for entry in info.values() if isinstance(entry, dict))]
    return next((str(entry["exception_message"]) for entry in entries if entry.get("raised_exception")), "")
