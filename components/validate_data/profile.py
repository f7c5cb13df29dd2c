"""One line about each column: what it holds, how much is missing, its range and its most common values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import plain
from kfloop.core.expectations.kinds import BOOL, INT, NUMBERS, SCALARS, STR, TIME, kind_of
from kfloop.core.expectations.polars import lazy

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

TOP = 5
FEW_VALUES = 1000  # more different values than this have no common ones worth showing


def profile(table: pa.Table) -> list[dict[str, Any]]:
    """For each column: column, type, missing, distinct, minimum, maximum, mean, std, top.

    ``distinct`` is an estimate (HyperLogLog, within about 15 %) above 10,000 rows, since it tells and does not judge. ``top`` holds the five most common values of a column with few
    different ones, each with its share of all rows. What has no meaning for a column is null.
    """
    held = {name: kind_of(table.schema.field(name).type) for name in table.schema.names}
    scalar = {name for name, kind in held.items() if kind in SCALARS}
    frame = lazy(table, scalar, held)
    found = _numbers(frame, {name: held[name] for name in held if name in scalar}, table.num_rows)
    few = [name for name in scalar if held[name] in {BOOL, INT, STR} and 0 < found[f"distinct:{name}"] <= FEW_VALUES]
    tops = _tops(frame, few, table.num_rows)
    return [
        {
            "column": name,
            "type": kind,
            "missing": found.get(f"missing:{name}", table[name].null_count),
            "distinct": found.get(f"distinct:{name}"),
            "minimum": plain(_iso(found.get(f"minimum:{name}"))),
            "maximum": plain(_iso(found.get(f"maximum:{name}"))),
            "mean": plain(found.get(f"mean:{name}")),
            "std": plain(found.get(f"std:{name}")),
            "top": tops.get(name, []),
        }
        for name, kind in held.items()
    ]


def _numbers(frame: pl.LazyFrame, held: dict[str, str], n_rows: int) -> dict[str, Any]:
    import polars as pl

    exact = n_rows <= 10_000  # noqa: PLR2004 - said in the docstring of profile
    needs: dict[str, pl.Expr] = {}
    for name, kind in held.items():
        column = pl.col(name)
        needs[f"missing:{name}"] = column.null_count()
        needs[f"distinct:{name}"] = column.n_unique() if exact else column.approx_n_unique()
        if kind in NUMBERS | {TIME}:
            needs |= {f"minimum:{name}": column.min(), f"maximum:{name}": column.max()}
        if kind in NUMBERS | {BOOL}:
            needs |= {f"mean:{name}": column.mean(), f"std:{name}": column.std()}
    if not needs:
        return {}
    found = frame.select(**needs).collect(engine="streaming").row(0, named=True)
    for name in held:  # missing is no value, and an estimate knows no bound
        missing = found[f"missing:{name}"]
        found[f"distinct:{name}"] = max(0, min(found[f"distinct:{name}"] - min(missing, 1), n_rows - missing))
    return dict(found)


def _tops(frame: pl.LazyFrame, names: list[str], n_rows: int) -> dict[str, list[dict[str, Any]]]:
    """Five most common values of each column; equally common ones in their own order, so that two runs agree."""
    import polars as pl

    tops = {}
    for name in sorted(names):
        counts = frame.select(pl.col(name)).drop_nulls().group_by(name).agg(pl.len().alias("n"))
        found = counts.sort(["n", name], descending=[True, False]).head(TOP).collect(engine="streaming")
        tops[name] = [{"value": value, "share": count / n_rows} for value, count in found.rows()]
    return tops


def _iso(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
