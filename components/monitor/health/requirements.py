"""What the training rows had to meet, asked of the rows of requests.

Of a suite only the expectations about single values (and pairs of them) can be counted row by row, so that two halves give what the whole gives; those about a table as a
whole (its size, distinct values, means, uniqueness) are left out, and so are those about columns that requests do not have, such as the label. Each is told.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.expectations.checks import prepare
from kfloop.core.expectations.expressions import MAPS, plan_of
from kfloop.core.expectations.kinds import FLOAT, INT, STR
from kfloop.core.statistics.estimate import wilson
from kfloop.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl
    from numpy.typing import NDArray

    from kfloop.core.expectations.checks import Check
    from kfloop.core.expectations.plans import Plan

NULLS = ("expect_column_values_to_not_be_null", "expect_column_values_to_be_null")
PAIRS = ("expect_column_pair_values_a_to_be_greater_than_b", "expect_column_pair_values_to_be_equal")
# A z-score is one against the mean of the table at hand: no single row has one.
BY_ROW = (MAPS - {"expect_column_value_z_scores_to_be_less_than"}) | {*NULLS, *PAIRS}
LEVEL = 0.999
LIMITS = ("min_value", "max_value")
SHOWN = 5

Counted = tuple[int, int]
"""Values that were judged, and those of them that are not as expected."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One expectation and how requests met it.

    Attributes:
        expectation: Its name.
        column: The column, or the columns.
        asked: Its limits or values, in words; empty where it has none.
        severity: ``critical``, ``warning`` or ``info``.
        judged: Values that were judged.
        unexpected: Those that are not as expected.
        allowed: Share that the suite lets be so.
        beyond: Whether more are so than is allowed and a tolerance more, beyond chance.
    """

    expectation: str
    column: str
    asked: str
    severity: str
    judged: int
    unexpected: int
    allowed: float
    beyond: bool

    @property
    def share(self) -> float:
        """Share of the judged values that are not as expected."""
        return self.unexpected / self.judged if self.judged else 0.0

    @property
    def sentence(self) -> str:
        """The finding for people."""
        what = self.expectation.removeprefix("expect_column_").replace("_", " ")
        allowed = f", {self.allowed:.1%} may be" if self.allowed else ""
        asked = f" {self.asked}" if self.asked else ""
        return f"column '{self.column}', {what}{asked}: {self.unexpected} of {self.judged} values of requests are not ({self.share:.1%}{allowed})"


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """Expectations that can be asked of single rows.

    Attributes:
        suite: These expectations, as a suite holds them.
        left_out: Names of the others.
    """

    suite: tuple[dict[str, Any], ...] = ()
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, suite: Sequence[Mapping[str, Any]]) -> Requirements:
        """The requirements of a suite; what has not the form of an expectation is left out."""
        known = [dict(item) for item in suite if isinstance(item, dict) and isinstance(item.get("kwargs"), dict)]
        kept = [item for item in known if item.get("type") in BY_ROW]
        return cls(
            suite=tuple(kept),
            left_out=tuple(sorted({str(item.get("type")) for item in known if item.get("type") not in BY_ROW})),
        )

    def count(self, columns: Mapping[str, NDArray[Any]]) -> dict[int, Counted]:
        """Judge some rows.

        Args:
            columns: One array [n] for each column: numbers or texts; NaN and None are missing.

        Returns:
            By place in ``suite``; nothing for an expectation that these columns cannot be asked.
        """
        checks = self._checks(columns) if columns else {}
        if not checks:
            return {}
        held = {name: _kind(values) for name, values in columns.items()}
        plans = {place: plan_of(check, held) for place, check in checks.items()}
        frame = _frame(columns, {name for check in checks.values() for name in check.columns})
        needs = {name: need for plan in plans.values() for name, need in plan.needs.items()}
        numbers = frame.lazy().select(**needs).collect().row(0, named=True)
        return {place: _counted(checks[place], plan, numbers) for place, plan in plans.items()}

    def judge(self, counts: Mapping[int, Counted], *, tolerance: float, fewest: int) -> list[Finding]:
        """What was counted, the worst first.

        Args:
            counts: By place in ``suite``.
            tolerance: Share beyond the allowed one that is borne.
            fewest: Judged values below which nothing is beyond.
        """
        found = []
        for place, (judged, unexpected) in counts.items():
            if not (0 <= place < len(self.suite) and judged and unexpected):
                continue
            item = self.suite[place]
            allowed = 1.0 - float(item["kwargs"].get("mostly") or 1.0)
            low = wilson(unexpected, judged, LEVEL).low
            found.append(
                Finding(
                    expectation=str(item["type"]),
                    column=_where(item["kwargs"]),
                    asked=_asked(item["kwargs"]),
                    severity=str(item.get("severity", "critical")),
                    judged=judged,
                    unexpected=unexpected,
                    allowed=allowed,
                    beyond=judged >= fewest and low > allowed + tolerance and item.get("severity") != "info",
                )
            )
        return sorted(found, key=lambda line: (not line.beyond, line.allowed - line.share, line.column))

    def _checks(self, columns: Mapping[str, NDArray[Any]]) -> dict[int, Check]:
        import pyarrow as pa

        kinds = {INT: pa.int64(), FLOAT: pa.float64(), STR: pa.string()}
        schema = pa.schema([(name, kinds[_kind(values)]) for name, values in columns.items()])
        found = {}
        for place, item in enumerate(self.suite):
            with suppress(
                ConfigError
            ):  # a suite that nobody could use: the training rows were not held against it either
                found[place] = prepare([_as_logged(item, columns)], schema)[0]
        return {place: check for place, check in found.items() if not check.broken}


def _counted(check: Check, plan: Plan, numbers: Mapping[str, Any]) -> Counted:
    """From the numbers of a plan: its first are rows and missing values, or the judged pairs."""
    found = [int(numbers[name] or 0) for name in plan.needs]
    if check.kind in PAIRS:
        return found[0], found[1]
    rows, missing = found[0], found[1]
    if check.kind in NULLS:
        return rows, rows - missing if check.kind.endswith("_to_be_null") else missing
    return rows - missing, found[2]


def _kind(values: NDArray[Any]) -> str:
    if np.issubdtype(values.dtype, np.floating):
        return FLOAT
    return INT if values.dtype.kind in "iub" else STR


def _frame(columns: Mapping[str, NDArray[Any]], names: set[str]) -> pl.DataFrame:
    import polars as pl

    found = {}
    for name in sorted(names):
        values = columns[name]
        if _kind(values) == FLOAT:
            found[name] = pl.Series(name, _single(values)).fill_nan(None)
        elif _kind(values) == INT:
            found[name] = pl.Series(name, values.astype(np.int64))
        elif values.dtype.kind == "U":
            found[name] = pl.Series(name, values.tolist(), dtype=pl.String)
        else:
            found[name] = pl.Series(name, [_text(value) for value in values.tolist()], dtype=pl.String)
    return pl.DataFrame(found)


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _single(values: NDArray[Any]) -> NDArray[np.float64]:
    # A request's numbers travel in single precision: limits and values are compared after the same rounding.
    with np.errstate(over="ignore"):
        return np.asarray(values.astype(np.float32).astype(np.float64))


def _as_logged(item: Mapping[str, Any], columns: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """An expectation with the limits and numbers of its set rounded as the column's values are."""
    told = dict(item["kwargs"])
    values = columns.get(str(told.get("column")))
    if values is not None and _kind(values) == FLOAT:
        told |= {name: _rounded(told[name]) for name in LIMITS if name in told}
        if isinstance(told.get("value_set"), list):
            told["value_set"] = [_rounded(value) for value in told["value_set"]]
    return {**item, "kwargs": told}


def _rounded(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _where(told: Mapping[str, Any]) -> str:
    return ", ".join(str(told[name]) for name in ("column", "column_A", "column_B") if name in told)


def _asked(told: Mapping[str, Any]) -> str:
    if "value_set" in told:
        known = told["value_set"] if isinstance(told["value_set"], list) else []
        return ", ".join(map(str, known[:SHOWN])) + (", ..." if len(known) > SHOWN else "")
    if "regex" in told:
        return str(told["regex"])
    limits = [told.get(name) for name in LIMITS]
    if limits == [None, None]:
        return str(told.get("value", ""))
    low, high = ("any" if value is None else str(value) for value in limits)
    return f"{low} and {high}"
