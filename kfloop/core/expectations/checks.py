"""From a suite to checks that both engines understand alike: what an expectation may be told, and what it needs of its column.

Great Expectations on pandas is generous (``isin`` of texts in a column of numbers is just false) and polars is not, so the meaning is settled here,
once, before either engine looks at a row. A suite that is wrong whatever the data are is a ``ConfigError``; one that does not fit the columns
at hand gives checks that are broken (word ``error``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kfloop.core.expectations import kinds
from kfloop.core.expectations.arguments import ARGUMENTS
from kfloop.core.expectations.rules import RULES, Rule
from kfloop.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

# What Great Expectations writes into kwargs besides arguments; it changes no verdict.
IGNORED = frozenset({"batch_id", "result_format", "catch_exceptions"})


@dataclass(frozen=True, kw_only=True)
class Check:
    """One expectation, ready to be evaluated.

    Attributes:
        kind: Its name, such as ``expect_column_values_to_be_unique``.
        kwargs: Arguments as the suite has them, those that are null left out.
        fitted: The same with limits and value sets as values of the column (times parsed).
        severity: ``critical``, ``warning`` or ``info``.
        columns: The columns it looks at.
        broken: Why it cannot be evaluated on these columns; empty when it can.
    """

    kind: str
    kwargs: dict[str, Any]
    fitted: dict[str, Any]
    severity: str
    columns: tuple[str, ...] = ()
    broken: str = ""
    supported: bool = field(default=True)

    @property
    def where(self) -> str:
        """The column for the report; empty for the table, a list for several."""
        return ", ".join(self.columns)


def prepare(suite: list[dict[str, Any]], schema: pa.Schema) -> list[Check]:
    """The checks of a suite on a table with this schema.

    Raises:
        ConfigError: An expectation is unusable whatever the data are: an argument that is unknown, missing or senseless.
    """
    held = {name: kinds.kind_of(schema.field(name).type) for name in schema.names}
    return [_prepare(item, held) for item in suite]


def _prepare(item: Mapping[str, Any], held: Mapping[str, str]) -> Check:
    kind, severity = str(item["type"]), str(item.get("severity", "critical"))
    kwargs = {name: value for name, value in item["kwargs"].items() if value is not None and name not in IGNORED}
    if kwargs.pop("row_condition", None) is not None:
        raise ConfigError(
            f"the suite has an unusable expectation {kind!r}: row_condition is not supported, every row is judged",
            hint="leave row_condition out; 'mostly' allows for a share of exceptions",
        )
    kwargs.pop("condition_parser", None)
    rule = RULES.get(kind)
    if rule is None:
        columns = tuple(str(kwargs[key]) for key in ("column", "column_A", "column_B") if key in kwargs)
        broken = _missing(columns, held)
        return Check(
            kind=kind,
            kwargs=kwargs,
            fitted=kwargs,
            severity=severity,
            columns=columns,
            broken=broken,
            supported=False,
        )
    _check_arguments(kind, rule, kwargs)
    columns = rule.columns(kwargs)
    broken = "" if rule.about_schema else _missing(columns, held) or _unfit(rule, columns, held)
    fitted = dict(kwargs)
    if not broken and not rule.about_schema:
        try:
            fitted = _fitted(rule, kwargs, held[columns[0]] if columns else "")
        except TypeError as error:
            broken = f"column '{columns[0]}': {error}"
    return Check(kind=kind, kwargs=kwargs, fitted=fitted, severity=severity, columns=columns, broken=broken)


def _check_arguments(kind: str, rule: Rule, kwargs: Mapping[str, Any]) -> None:
    start = f"the suite has an unusable expectation {kind!r}"
    for name in kwargs:
        if name not in rule.arguments:
            raise ConfigError(f"{start}: it has no argument '{name}'", hint=nearest(name, rule.arguments))
    for name in rule.required:
        if name not in kwargs:
            raise ConfigError(f"{start}: '{name}' is missing", hint=f"it needs: {', '.join(rule.required)}")
    for name, value in kwargs.items():
        expected, test = ARGUMENTS[rule.arguments[name]]
        if not test(value):
            raise ConfigError(f"{start}: '{name}' is {value!r}", hint=f"expected {expected}")
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if rule.arguments.get("min_value") and low is None and high is None:
        raise ConfigError(f"{start}: min_value and max_value are both missing", hint="it would let everything pass")
    try:
        upside_down = low is not None and high is not None and low > high
    except TypeError:
        upside_down = True
    if upside_down:
        raise ConfigError(f"{start}: min_value {low!r} is above max_value {high!r}", hint="exchange them")


def _missing(columns: tuple[str, ...], held: Mapping[str, str]) -> str:
    return next((f"there is no column '{name}'; {nearest(name, held)}" for name in columns if name not in held), "")


def _unfit(rule: Rule, columns: tuple[str, ...], held: Mapping[str, str]) -> str:
    for name in columns:
        if held[name] not in rule.kinds:
            return f"column '{name}' is of type {held[name]}, it takes {', '.join(sorted(rule.kinds))}"
    if rule.alike and len({"number" if held[name] in kinds.NUMBERS else held[name] for name in columns}) > 1:
        return "columns of different types: " + ", ".join(f"'{name}' is {held[name]}" for name in columns)
    return ""


def _fitted(rule: Rule, kwargs: Mapping[str, Any], kind: str) -> dict[str, Any]:
    fitted = dict(kwargs)
    for name, value in kwargs.items():
        if rule.arguments[name] == "limit":
            fitted[name] = kinds.fit(value, kind)
        elif rule.arguments[name] == "set":
            fitted[name] = list(dict.fromkeys(kinds.fit(item, kind) for item in value))
    return fitted
