"""The expectations that both engines know: their arguments, and the columns they can judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.core.expectations.kinds import LIST, NUMBERS, ORDERED, OTHER, SCALARS, STR, TIME

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What one expectation takes.

    Attributes:
        arguments: Kind of each argument (``arguments.ARGUMENTS``) by name.
        required: Names that must be there.
        kinds: Kinds of column it can judge.
        about_schema: It is about the table's columns or size, not about values.
        alike: Its columns must hold the same kind (numbers are one).
    """

    arguments: Mapping[str, str]
    required: tuple[str, ...] = ("column",)
    kinds: frozenset[str] = SCALARS
    about_schema: bool = False
    alike: bool = False

    def columns(self, kwargs: Mapping[str, Any]) -> tuple[str, ...]:
        """The columns that these arguments name."""
        names = [str(kwargs[name]) for name, kind in self.arguments.items() if kind == "column" and name in kwargs]
        return (*names, *kwargs.get("column_list", []))


_COLUMN = {"column": "column"}
_MAP = _COLUMN | {"mostly": "share"}
_SET = {"value_set": "set"}
_PAIR = {"column_A": "column", "column_B": "column", "mostly": "share", "ignore_row_if": "missing_of_two"}


def _between(kind: str) -> dict[str, str]:
    return {"min_value": kind, "max_value": kind, "strict_min": "flag", "strict_max": "flag"}


def _map(
    more: Mapping[str, str] | None = None, *, kinds: frozenset[str] = SCALARS, required: tuple[str, ...] = ()
) -> Rule:
    return Rule(arguments=_MAP | dict(more or {}), required=("column", *required), kinds=kinds)


def _set(more: Mapping[str, str] | None = None, kinds: frozenset[str] = SCALARS) -> Rule:
    return Rule(arguments=_COLUMN | _SET | dict(more or {}), required=("column", "value_set"), kinds=kinds)


def _table(arguments: Mapping[str, str], required: tuple[str, ...] = ()) -> Rule:
    return Rule(arguments=arguments, required=required, about_schema=True)


def _aggregate(kinds: frozenset[str], limit: str = "number") -> Rule:
    return Rule(arguments=_COLUMN | _between(limit), kinds=kinds)


_ANY = SCALARS | {LIST, OTHER}
_ORDER = {"strictly": "flag"}
_TEXT = frozenset({STR})

_REGEX = {"regex": "regex"}

RULES: dict[str, Rule] = {
    "expect_table_row_count_to_be_between": _table(_between("count")),
    "expect_table_row_count_to_equal": _table({"value": "count"}, ("value",)),
    "expect_table_column_count_to_be_between": _table({"min_value": "count", "max_value": "count"}),
    "expect_table_column_count_to_equal": _table({"value": "count"}, ("value",)),
    "expect_table_columns_to_match_set": _table({"column_set": "names", "exact_match": "flag"}, ("column_set",)),
    "expect_column_to_exist": _table({"column": "column", "column_index": "count"}, ("column",)),
    "expect_column_values_to_be_of_type": Rule(
        arguments=_COLUMN | {"type_": "type"}, required=("column", "type_"), kinds=_ANY
    ),
    "expect_column_values_to_be_unique": _map(),
    "expect_column_values_to_not_be_null": _map(kinds=_ANY),
    "expect_column_values_to_be_null": _map(kinds=_ANY),
    "expect_column_values_to_be_in_set": _map(_SET, required=("value_set",)),
    "expect_column_values_to_not_be_in_set": _map(_SET, required=("value_set",)),
    "expect_column_values_to_be_between": _map(_between("limit"), kinds=ORDERED),
    "expect_column_values_to_match_regex": _map(_REGEX, kinds=_TEXT, required=("regex",)),
    "expect_column_values_to_not_match_regex": _map(_REGEX, kinds=_TEXT, required=("regex",)),
    "expect_column_value_lengths_to_be_between": _map(_between("count"), kinds=_TEXT),
    "expect_column_value_lengths_to_equal": _map({"value": "count"}, kinds=_TEXT, required=("value",)),
    "expect_column_values_to_be_increasing": _map(_ORDER, kinds=ORDERED),
    "expect_column_values_to_be_decreasing": _map(_ORDER, kinds=ORDERED),
    "expect_column_value_z_scores_to_be_less_than": _map(
        {"threshold": "number", "double_sided": "flag"}, kinds=NUMBERS, required=("threshold", "double_sided")
    ),
    "expect_column_distinct_values_to_be_in_set": _set(),
    "expect_column_distinct_values_to_contain_set": _set(),
    "expect_column_distinct_values_to_equal_set": _set(),
    "expect_column_most_common_value_to_be_in_set": _set({"ties_okay": "flag"}, SCALARS - {TIME}),
    "expect_column_unique_value_count_to_be_between": _aggregate(SCALARS, "count"),
    "expect_column_proportion_of_unique_values_to_be_between": _aggregate(SCALARS, "share"),
    "expect_column_min_to_be_between": _aggregate(ORDERED, "limit"),
    "expect_column_max_to_be_between": _aggregate(ORDERED, "limit"),
    "expect_column_mean_to_be_between": _aggregate(NUMBERS),
    "expect_column_median_to_be_between": _aggregate(NUMBERS),
    "expect_column_stdev_to_be_between": _aggregate(NUMBERS),
    "expect_column_sum_to_be_between": _aggregate(NUMBERS),
    "expect_column_quantile_values_to_be_between": Rule(
        arguments=_COLUMN | {"quantile_ranges": "quantiles", "allow_relative_error": "interpolation"},
        required=("column", "quantile_ranges"),
        kinds=NUMBERS,
    ),
    "expect_column_pair_values_a_to_be_greater_than_b": Rule(
        arguments=_PAIR | {"or_equal": "flag"}, required=("column_A", "column_B"), kinds=ORDERED, alike=True
    ),
    "expect_column_pair_values_to_be_equal": Rule(arguments=_PAIR, required=("column_A", "column_B"), alike=True),
    "expect_compound_columns_to_be_unique": Rule(
        arguments={"column_list": "columns", "mostly": "share", "ignore_row_if": "missing_of_many"},
        required=("column_list",),
    ),
}
