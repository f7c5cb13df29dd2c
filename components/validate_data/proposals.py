"""What one column of a reference suggests to expect of later versions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.components.validate_data.suites import BETWEEN, CRITICAL, IN_SET, NOT_NULL, UNIQUE, WARNING
from kfloop.core.expectations.kinds import (
    BOOL,
    FLOAT,
    INT,
    NUMBERS,
    OTHER,
    SCALARS,
    STR,
    TIME,
    TYPE_WORD,
    kind_of,
)
from kfloop.core.expectations.polars import lazy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import polars as pl
    import pyarrow as pa

Expectation = dict[str, Any]
MARGIN = 0.1  # of the range, on each side
MEAN_MARGIN = 0.5  # standard deviations
MISSING_FACTOR, MISSING_MORE = 1.5, 0.02
UNIQUE_ROWS = 20  # fewer rows than this are no sign that values never repeat
MOST_CATEGORIES, ROWS_PER_CATEGORY = 50, 10
CATEGORY_MOSTLY = 0.99  # a new value now and then is news, not bad data
DIGITS = 3


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a column.

    Attributes:
        name: Its name.
        kind: ``int``, ``float``, ``bool``, ``str``, ``time``, ``list`` or ``other``.
        rows: Rows of the table.
        missing: Rows without a value.
        distinct: Different values; an estimate where they are neither few nor all different; 0 for floats and lists.
        low: Least value (least length of a text); null without values.
        high: Greatest value or length.
        mean: Mean of numbers.
        std: Standard deviation of numbers.
        values: The different values, sorted, when they are few.
    """

    name: str
    kind: str
    rows: int
    missing: int
    distinct: int = 0
    low: Any = None
    high: Any = None
    mean: float | None = None
    std: float | None = None
    values: tuple[Any, ...] = ()

    @property
    def present(self) -> int:
        """Rows with a value."""
        return self.rows - self.missing


def facts_of(table: pa.Table) -> dict[str, Facts]:
    """The facts of each column, in one pass over the data and one over the few values of categories."""
    held = {name: kind_of(table.schema.field(name).type) for name in table.schema.names}
    scalars = {name for name, kind in held.items() if kind in SCALARS}
    frame = lazy(table, scalars, held)
    needs = {f"{word}:{name}": need for name in scalars for word, need in _needs(name, held[name]).items()}
    found = frame.select(**needs).collect(engine="streaming").row(0, named=True) if needs else {}
    found |= _distinct(frame, {name for name in scalars if held[name] != FLOAT}, found, table.num_rows)
    facts = {}
    for name, kind in held.items():
        got = {word: found.get(f"{word}:{name}") for word in ("missing", "distinct", "low", "high", "mean", "std")}
        missing = table[name].null_count if got["missing"] is None else got["missing"]
        distinct = (got["distinct"] or 0) - min(missing, 1)
        few = kind in {BOOL, INT, STR} and 0 < distinct <= MOST_CATEGORIES
        facts[name] = Facts(
            name=name,
            kind=kind,
            rows=table.num_rows,
            missing=missing,
            distinct=max(0, distinct),
            low=got["low"],
            high=got["high"],
            mean=got["mean"],
            std=got["std"],
            values=_values(frame, name) if few else (),
        )
    return facts


def _needs(name: str, kind: str) -> dict[str, pl.Expr]:
    import polars as pl

    column = pl.col(name)
    needs = {"missing": column.null_count()}
    if kind != FLOAT:
        needs["distinct"] = column.approx_n_unique()
    if kind in NUMBERS | {TIME}:
        needs |= {"low": column.min(), "high": column.max()}
    if kind in NUMBERS:
        needs |= {"mean": column.mean(), "std": column.std()}
    if kind == STR:
        length = column.str.len_chars()
        needs |= {"low": length.min(), "high": length.max()}
    return needs


def _distinct(frame: pl.LazyFrame, names: set[str], found: Mapping[str, Any], n_rows: int) -> dict[str, int]:
    """Exact numbers of different values where the estimate leaves open whether they are few or never repeat; one column at a time, for the memory's sake."""
    import polars as pl

    exact = {}
    for name in sorted(names):
        estimate, present = found[f"distinct:{name}"], n_rows - found[f"missing:{name}"]
        if estimate <= 2 * MOST_CATEGORIES or estimate >= present / 2:
            # Different hashes are different values; equal hashes of different values: once in a million tables of ten million rows.
            need = pl.col(name).hash().n_unique()
            exact[f"distinct:{name}"] = frame.select(need).collect(engine="streaming").item()
    return exact


def _values(frame: pl.LazyFrame, name: str) -> tuple[Any, ...]:
    import polars as pl

    found = frame.select(pl.col(name).unique()).drop_nulls().collect(engine="streaming")
    return tuple(sorted(found.to_series().to_list()))


def make(kind: str, severity: str, why: str, **arguments: Any) -> Expectation:
    """One proposal, with the reason for the person who reviews it."""
    return {"type": kind, "kwargs": arguments, "severity": severity, "meta": {"why": why}}


def basics(facts: Facts) -> Iterator[Expectation]:
    """Type and missing values."""
    name = facts.name
    if facts.kind != OTHER:
        why = f"the reference holds {facts.kind}"
        yield make("expect_column_values_to_be_of_type", CRITICAL, why, column=name, type_=TYPE_WORD[facts.kind])
    if not facts.missing:
        yield make(NOT_NULL, CRITICAL, "no value is missing in the reference", column=name)
    elif facts.present:
        share = facts.missing / facts.rows
        mostly = math.floor(100 * (1 - MISSING_FACTOR * share - MISSING_MORE)) / 100
        if mostly > 0:
            why = f"{share:.2%} of the values are missing in the reference"
            yield make(NOT_NULL, CRITICAL, why, column=name, mostly=mostly)


def unique(facts: Facts, severity: str) -> Iterator[Expectation]:
    """No value twice, when the reference has enough rows to say so."""
    if facts.kind in {STR, INT, TIME} and facts.present >= UNIQUE_ROWS and facts.distinct == facts.present:
        yield make(UNIQUE, severity, f"all {facts.present} values of the reference differ", column=facts.name)


def values(facts: Facts) -> Iterator[Expectation]:
    """Categories, ranges and lengths: what the values of an input or a fact may be."""
    name = facts.name
    if not facts.present:
        return
    if facts.kind == BOOL or _categorical(facts):
        why = f"the reference has {facts.distinct} different values"
        mostly = {} if facts.kind == BOOL else {"mostly": CATEGORY_MOSTLY}
        yield make(IN_SET, WARNING, why, column=name, value_set=list(facts.values), **mostly)
    elif facts.kind in NUMBERS:
        yield from _numbers(facts)
    elif facts.kind == STR:
        why = f"texts of the reference have {facts.low} to {facts.high} characters"
        yield make(
            "expect_column_value_lengths_to_be_between",
            WARNING,
            why,
            column=name,
            min_value=facts.low // 2,
            max_value=2 * facts.high,
        )
    elif facts.kind == TIME:
        why = "the earliest time of the reference"  # no end: time goes on
        yield make(BETWEEN, WARNING, why, column=name, min_value=facts.low.isoformat())


def _categorical(facts: Facts) -> bool:
    return (
        facts.kind in {STR, INT}
        and 0 < len(facts.values) <= MOST_CATEGORIES
        and facts.present >= ROWS_PER_CATEGORY * len(facts.values)
        and (facts.kind == STR or len(facts.values) <= ROWS_PER_CATEGORY)
    )


def _numbers(facts: Facts) -> Iterator[Expectation]:
    if facts.mean is None or not all(math.isfinite(value) for value in (facts.low, facts.high, facts.mean)):
        return
    span = facts.high - facts.low
    margin = MARGIN * (span or abs(facts.high) or 1.0)
    low, high = _rounded(facts.low - margin, down=True), _rounded(facts.high + margin, down=False)
    if facts.low >= 0:
        low = max(low, 0.0)  # what was never negative will hardly become so
    if facts.kind == INT:
        low, high = math.floor(low), math.ceil(high)
    why = f"the reference lies in [{facts.low:.6g}, {facts.high:.6g}]; the margin is {MARGIN:.0%} of that range"
    yield make(BETWEEN, WARNING, why, column=facts.name, min_value=low, max_value=high)
    if facts.std and math.isfinite(facts.std):
        why = f"mean {facts.mean:.6g}, standard deviation {facts.std:.6g}; the margin is half a standard deviation"
        yield make(
            "expect_column_mean_to_be_between",
            WARNING,
            why,
            column=facts.name,
            min_value=_rounded(facts.mean - MEAN_MARGIN * facts.std, down=True),
            max_value=_rounded(facts.mean + MEAN_MARGIN * facts.std, down=False),
        )


def _rounded(value: float, *, down: bool) -> float:
    """``value`` with three significant digits, rounded outward: a file for people."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - DIGITS + 1)
    steps = math.floor(value / unit) if down else math.ceil(value / unit)
    return float(f"{steps * unit:.{DIGITS}g}")
