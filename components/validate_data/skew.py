"""Whether two sets of rows look alike, column by column: Kolmogorov-Smirnov for numbers, chi-squared for categories.

A p-value alone measures how many rows there are: a column is skewed only when the difference is both beyond chance (Bonferroni over the columns)
and large enough to matter (an effect size).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.expectations.kinds import BOOL, NUMBERS, STR, TIME, kind_of

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS = 200_000  # on each side; a difference that matters shows in far fewer
MOST_CATEGORIES = 50  # the rest is pooled
FEWEST_EXPECTED = 5.0  # cells below this make chi-squared unreliable: their categories are pooled
KS, CHI2 = "ks", "chi2"
MISSING = "(missing)"
_TERMS = 100
# Columns that differ by design, or name rows.
NOT_COMPARED = frozenset({"id", "content", "split", "origin", "group", "time", "label_by", "label_at", "phash", "node"})


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One test of one column.

    Attributes:
        test: ``ks`` or ``chi2``.
        statistic: Of the test.
        p: p-value.
        effect: Largest distance of the distribution functions, or total variation distance; 0 to 1.
        n_reference: Values compared on the reference's side.
        n_current: Values compared on the other side.
    """

    test: str
    statistic: float
    p: float
    effect: float
    n_reference: int
    n_current: int


def ks_2samp(reference: np.ndarray, current: np.ndarray) -> tuple[float, float]:
    """Two-sample Kolmogorov-Smirnov statistic and its asymptotic two-sided p-value.

    p is Kolmogorov's limit 2 sum (-1)^(k-1) exp(-2 k^2 z^2) at z = D sqrt(nm / (n + m)), conservative where values repeat.

    Args:
        reference: Numbers [n], none NaN.
        current: Numbers [m], none NaN.
    """
    first, second = np.sort(reference), np.sort(current)
    # At the values of either sample both distribution functions are known; ties are taken together by side="right".
    steps = np.concatenate([first, second])
    share_first = np.searchsorted(first, steps, side="right") / len(first)
    share_second = np.searchsorted(second, steps, side="right") / len(second)
    statistic = float(np.abs(share_first - share_second).max())
    scaled = statistic * math.sqrt(len(first) * len(second) / (len(first) + len(second)))
    return statistic, kolmogorov(scaled)


def kolmogorov(z: float) -> float:
    """Survival function of Kolmogorov's distribution."""
    if z < 0.2:  # noqa: PLR2004 - 1 to fifteen digits, where the series converges slowly
        return 1.0
    terms = np.arange(1, _TERMS)
    signs = np.where(terms % 2, 1.0, -1.0)
    return float(np.clip(2 * np.sum(signs * np.exp(-2.0 * terms**2 * z**2)), 0.0, 1.0))


def chi2(reference: np.ndarray, current: np.ndarray) -> tuple[float, float, float]:
    """Chi-squared statistic of two rows of counts by category, its p-value, and their total variation distance.

    Args:
        reference: Counts [K].
        current: Counts [K] of the same categories.
    """
    from scipy.stats import chi2 as distribution

    sums = np.array([reference.sum(), current.sum()], dtype=float)
    effect = float(np.abs(reference / sums[0] - current / sums[1]).sum() / 2)
    table = _pooled(np.stack([reference, current]).astype(float))
    if table.shape[1] < 2:  # noqa: PLR2004 - one category: nothing can differ
        return 0.0, 1.0, effect
    expected = np.outer(sums, table.sum(axis=0)) / sums.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    return statistic, float(distribution.sf(statistic, table.shape[1] - 1)), effect


def _pooled(table: np.ndarray) -> np.ndarray:
    """Rare categories joined until each cell is expected to hold a few rows."""
    totals = table.sum(axis=0)
    table, totals = table[:, totals > 0], totals[totals > 0]
    smallest_share = table.sum(axis=1).min() / table.sum()
    rare = totals * smallest_share < FEWEST_EXPECTED
    if not rare.any():
        return table
    pooled = table[:, rare].sum(axis=1, keepdims=True)
    kept = table[:, ~rare]
    if pooled.sum() * smallest_share >= FEWEST_EXPECTED or kept.shape[1] == 0:
        return np.concatenate([kept, pooled], axis=1)
    smallest = kept.sum(axis=0).argmin()
    kept[:, smallest] += pooled[:, 0]
    return np.asarray(kept)


def compare_tables(
    reference: pa.Table, current: pa.Table, *, pair: str, level: float, effect: float
) -> list[dict[str, Any]]:
    """Every column that both tables have, compared.

    Missing values are left out of a column's own test; where there are any, their share is a test of its own, named ``column (missing)``.

    Args:
        reference: Rows of one set.
        current: Rows of the other.
        pair: Name for the entries.
        level: Chance that any column of equal sets is called skewed.
        effect: Smallest effect that counts.

    Returns:
        Entries for the report; none when a side is empty.
    """
    if not (reference.num_rows and current.num_rows):
        return []
    names = [name for name in reference.schema.names if name in current.schema.names and name not in NOT_COMPARED]
    first, second = (sample(table.select(names), np.arange(table.num_rows)) for table in (reference, current))
    found: list[tuple[str, Comparison]] = []
    for name in names:
        found += _compare_column(name, first[name], second[name])
    return [_entry(pair, name, item, len(found), level, effect) for name, item in found]


def _entry(pair: str, name: str, item: Comparison, tests: int, level: float, effect: float) -> dict[str, Any]:
    adjusted = min(1.0, item.p * tests)
    return {
        "pair": pair,
        "column": name,
        "test": item.test,
        "statistic": item.statistic,
        "p": item.p,
        "p_adjusted": adjusted,
        "effect": item.effect,
        "skewed": adjusted < level and item.effect >= effect,
        "n_reference": item.n_reference,
        "n_current": item.n_current,
    }


def sample(table: pa.Table, rows: np.ndarray, most: int = MOST_ROWS) -> pa.Table:
    """At most ``most`` of these rows (places in rising order), the same ones each time."""
    import pyarrow as pa

    if len(rows) > most:
        rows = np.sort(np.random.default_rng(len(rows)).choice(rows, most, replace=False))
    if len(rows) == table.num_rows:
        return table
    # Batch by batch: taking from a table of many chunks at once is a hundred times slower.
    parts, start = [], 0
    for batch in table.to_batches():
        first, last = np.searchsorted(rows, [start, start + batch.num_rows])
        parts.append(batch.take(pa.array(rows[first:last] - start)))
        start += batch.num_rows
    return pa.Table.from_batches(parts, table.schema)


def _compare_column(name: str, reference: pa.ChunkedArray, current: pa.ChunkedArray) -> list[tuple[str, Comparison]]:
    kind = kind_of(reference.type)
    if kind != kind_of(current.type) and not {kind, kind_of(current.type)} <= NUMBERS:
        return []
    found = []
    missing = [_missing(column) for column in (reference, current)]
    present = [
        column.filter(part) for column, part in zip((reference, current), (~gone for gone in missing), strict=True)
    ]
    if any(gone.any() for gone in missing):
        counts = [np.array([(~gone).sum(), gone.sum()]) for gone in missing]
        found.append((f"{name} {MISSING}", _categories(counts[0], counts[1])))
    if min(len(present[0]), len(present[1])) == 0:
        return found
    if kind in NUMBERS or kind == TIME:
        first, second = (_numbers(column) for column in present)
        statistic, p = ks_2samp(first, second)
        item = Comparison(
            test=KS, statistic=statistic, p=p, effect=statistic, n_reference=len(first), n_current=len(second)
        )
        return [(name, item), *found]
    if kind in {STR, BOOL}:
        counted = _counts(present[0], present[1])
        return found if counted is None else [(name, _categories(*counted)), *found]
    return found


def _categories(reference: np.ndarray, current: np.ndarray) -> Comparison:
    statistic, p, effect = chi2(reference, current)
    return Comparison(
        test=CHI2,
        statistic=statistic,
        p=p,
        effect=effect,
        n_reference=int(reference.sum()),
        n_current=int(current.sum()),
    )


def _missing(column: pa.ChunkedArray) -> np.ndarray:
    import pyarrow.compute as pc

    return np.asarray(pc.is_null(column, nan_is_null=True).to_numpy())


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return np.asarray(column.to_numpy()).astype(np.float64)


def _counts(reference: pa.ChunkedArray, current: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray] | None:
    """Counts of each side by category, the most common ones and the rest; null when most values are there only once (texts, names)."""
    counts = [
        {item["values"]: item["counts"] for item in column.value_counts().to_pylist()}
        for column in (reference, current)
    ]
    totals = {key: counts[0].get(key, 0) + counts[1].get(key, 0) for key in {**counts[0], **counts[1]}}
    if len(totals) > MOST_CATEGORIES and len(totals) > sum(totals.values()) / 10:
        return None
    ranked = sorted(totals, key=lambda key: (-totals[key], str(key)))
    kept, rest = ranked[:MOST_CATEGORIES], ranked[MOST_CATEGORIES:]
    rows = [
        [side.get(key, 0) for key in kept] + ([sum(side.get(key, 0) for key in rest)] if rest else [])
        for side in counts
    ]
    return np.array(rows[0]), np.array(rows[1])
