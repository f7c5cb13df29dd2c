"""Twenty expectations on a table of ten columns, written once, and the same for each of the libraries that are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandera.polars as pandera
    import polars as pl
    import pyarrow as pa

TOWNS = [f"town {number:02d}" for number in range(50)]
KINDS = ["basic", "plus", "pro", "school", "trial"]
COLOURS = ["black", "blue", "green", "grey", "red", "teal", "white", "yellow"]
COLUMNS = ("id", "price", "weight", "score", "ratio", "visits", "year", "town", "kind", "colour")
LABEL = "kind"
MISSING = 0.01  # share of weights

UNIQUE = "expect_column_values_to_be_unique"
NOT_NULL = "expect_column_values_to_not_be_null"
BETWEEN = "expect_column_values_to_be_between"
IN_SET = "expect_column_values_to_be_in_set"
EQUAL_SET = "expect_column_distinct_values_to_equal_set"
REGEX = "expect_column_values_to_match_regex"
LENGTHS = "expect_column_value_lengths_to_be_between"
ROWS = "expect_table_row_count_to_be_between"
STATISTICS = {
    "expect_column_mean_to_be_between": "mean",
    "expect_column_stdev_to_be_between": "std",
    "expect_column_median_to_be_between": "median",
    "expect_column_max_to_be_between": "max",
    "expect_column_unique_value_count_to_be_between": "n_unique",
}

# Expectation, column, arguments. Sound data meet all; those of `rows(..., damaged=True)` miss the ones in DAMAGED.
EXPECTATIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (ROWS, "", {"min_value": 1000, "max_value": 100_000_000}),
    (UNIQUE, "id", {}),
    (NOT_NULL, "id", {}),
    (REGEX, "id", {"regex": "^row-[0-9]+$"}),
    (LENGTHS, "id", {"min_value": 12, "max_value": 12}),
    (NOT_NULL, "price", {}),
    (BETWEEN, "price", {"min_value": 0.0, "max_value": 1000.0}),
    (NOT_NULL, "weight", {"mostly": 0.95}),
    (BETWEEN, "weight", {"min_value": 20.0, "max_value": 120.0, "mostly": 0.99}),
    ("expect_column_mean_to_be_between", "score", {"min_value": 119.0, "max_value": 121.0}),
    ("expect_column_stdev_to_be_between", "score", {"min_value": 38.0, "max_value": 42.0}),
    ("expect_column_median_to_be_between", "ratio", {"min_value": 0.48, "max_value": 0.52}),
    ("expect_column_max_to_be_between", "ratio", {"min_value": 0.5, "max_value": 1.0}),
    (NOT_NULL, "visits", {}),
    (BETWEEN, "visits", {"min_value": 0, "max_value": 60}),
    (BETWEEN, "year", {"min_value": 1950, "max_value": 2024}),
    ("expect_column_unique_value_count_to_be_between", "year", {"min_value": 50, "max_value": 75}),
    (IN_SET, "town", {"value_set": TOWNS}),
    (EQUAL_SET, "kind", {"value_set": KINDS}),
    (IN_SET, "colour", {"value_set": COLOURS, "mostly": 0.99}),
)
DAMAGED = (1, 3, 5, 6, 8, 9, 12, 14, 17, 18)


def rows(start: int, count: int, *, damaged: bool = False) -> pa.Table:
    """Rows ``start`` to ``start + count`` of the table: 4 float, 2 int, 3 category columns and an id; seeded by ``start``."""
    import numpy as np
    import pyarrow as pa

    random = np.random.default_rng(start)
    number = np.arange(start, start + count)
    price, weight, score = random.uniform(1, 999, count), random.normal(70, 12, count), random.normal(120, 40, count)
    ratio, visits = random.random(count), np.minimum(random.poisson(9.0, count), 60)
    year, holes = random.integers(1950, 2025, count), random.random(count) < MISSING
    ids = np.char.mod("row-%08d", number)
    picked = [random.integers(0, len(names), count) for names in (TOWNS, KINDS, COLOURS)]
    towns, kinds = TOWNS, KINDS
    priceless = np.zeros(count, dtype=bool)
    if damaged:
        ids[1], ids[5] = ids[0], "ROW-00000005"
        price[2], priceless[3], weight[: count // 50] = -1.0, True, 300.0
        score, ratio[4], visits[6] = score + 5.0, 1.5, 99
        towns, kinds = ["nowhere", *TOWNS[1:]], ["free", *KINDS[1:]]
    return pa.table(
        {
            "id": pa.array(ids.tolist(), pa.string()),
            "price": pa.array(price, mask=priceless),
            "weight": pa.array(weight, mask=holes),
            "score": score,
            "ratio": ratio,
            "visits": visits.astype(np.int64),
            "year": year,
            "town": pa.array(towns, pa.string()).take(pa.array(picked[0])),
            "kind": pa.array(kinds, pa.string()).take(pa.array(picked[1])),
            "colour": pa.array(COLOURS, pa.string()).take(pa.array(picked[2])),
        }
    )


def suite() -> list[dict[str, Any]]:
    """The expectations as a suite of kfloop and of Great Expectations holds them."""
    return [
        {"type": kind, "kwargs": ({"column": column} if column else {}) | told, "severity": "critical"}
        for kind, column, told in EXPECTATIONS
    ]


def polars_checks() -> list[pl.Expr]:
    """The expectations as one would write them in polars: expressions that give one boolean each."""
    return [polars_check(*item).alias(str(place)) for place, item in enumerate(EXPECTATIONS)]


def polars_check(kind: str, column: str, told: dict[str, Any]) -> pl.Expr:
    """One expectation in polars; a missing value is not judged, but by those about missing values."""
    import polars as pl

    value, low, high = pl.col(column or COLUMNS[0]), told.get("min_value"), told.get("max_value")
    if kind == ROWS:
        return pl.len().is_between(low, high)
    if kind == UNIQUE:
        return value.n_unique() == pl.len()
    if kind == NOT_NULL:
        return value.null_count() <= (1 - told.get("mostly", 1)) * pl.len()
    if kind in STATISTICS:
        return getattr(value, STATISTICS[kind])().is_between(low, high)
    if kind == EQUAL_SET:
        return value.is_in(told["value_set"]).all() & (value.n_unique() == len(told["value_set"]))
    fine = {
        BETWEEN: lambda: value.is_between(low, high),
        LENGTHS: lambda: value.str.len_chars().is_between(low, high),
        REGEX: lambda: value.str.contains(told["regex"]),
        IN_SET: lambda: value.is_in(told["value_set"]),
    }[kind]()
    return fine.mean() >= told["mostly"] if "mostly" in told else fine.all()


def pandera_schema() -> pandera.DataFrameSchema:
    """The expectations as a schema of pandera: its own checks where it has them, functions of the column elsewhere."""
    import pandera.polars as pandera
    import polars as pl

    dtypes = dict.fromkeys(COLUMNS, pl.String) | dict.fromkeys(("price", "weight", "score", "ratio"), pl.Float64)
    dtypes |= dict.fromkeys(("visits", "year"), pl.Int64)
    checks: dict[str, list[pandera.Check]] = {name: [] for name in ("", *COLUMNS)}
    flags: dict[str, dict[str, bool]] = {name: {"nullable": True} for name in COLUMNS}
    for place, (kind, column, told) in enumerate(EXPECTATIONS):
        if kind == UNIQUE:
            flags[column]["unique"] = True
        elif kind == NOT_NULL and "mostly" not in told:
            flags[column]["nullable"] = False
        else:
            checks[column].append(_pandera_check(str(place), kind, column, told))
    columns = {name: pandera.Column(dtypes[name], checks[name], **flags[name]) for name in COLUMNS}
    return pandera.DataFrameSchema(columns, checks=checks[""])


def _pandera_check(name: str, kind: str, column: str, told: dict[str, Any]) -> pandera.Check:
    import pandera.polars as pandera

    own = {
        BETWEEN: lambda: pandera.Check.in_range(told["min_value"], told["max_value"], name=name, error=name),
        LENGTHS: lambda: pandera.Check.str_length(told["min_value"], told["max_value"], name=name, error=name),
        REGEX: lambda: pandera.Check.str_matches(told["regex"], name=name, error=name),
        IN_SET: lambda: pandera.Check.isin(told["value_set"], name=name, error=name),
    }
    if kind in own and "mostly" not in told:
        return own[kind]()
    expression = polars_check(kind, column, told)
    return pandera.Check(lambda data: data.lazyframe.select(expression), name=name, error=name)


def pandera_verdicts(frame: pl.DataFrame) -> list[bool]:
    """Validate by the schema, all of it, and say which expectations were met."""
    import pandera.errors

    try:
        pandera_schema().validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as error:
        found = error.failure_cases.select("column", "check").unique().rows()
        names = {"field_uniqueness": UNIQUE, "not_nullable": NOT_NULL}
        missed = {int(check) for _, check in found if check.isdigit()}
        missed |= {
            place
            for place, (kind, column, told) in enumerate(EXPECTATIONS)
            if not told and any(column == name and names.get(check) == kind for name, check in found)
        }
        return [place not in missed for place in range(len(EXPECTATIONS))]
    return [True] * len(EXPECTATIONS)
