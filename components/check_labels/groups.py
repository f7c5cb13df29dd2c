"""Groups whose labels are worse than those of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.statistics.estimate import wilson
from kfloop.core.statistics.paired_tests import holm
from kfloop.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

MOST_VALUES = 20  # of a column that is looked at unasked
MOST_GROUPS = 200  # of a column that is named by the configuration, or the group column: its most frequent values
FEWEST_ROWS = 5
LISTED = 100


def worse_groups(
    columns: Mapping[str, NDArray[np.str_]], flagged: NDArray[np.bool_], wanted: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Flagged share of each group beside the others', with the chance of it being that high by luck.

    One-sided exact test of two proportions (Fisher) for each value against all other rows, corrected over all values of all columns (Holm 1979).

    Args:
        columns: Values of each row as text, str [N]; an empty text is no group.
        flagged: Rows whose label is probably wrong, bool [N].
        wanted: Columns to look at; empty means the origin, the group, and every column with at most 20 values.

    Returns:
        One line ``column, value, n, noise, p_adjusted`` a value, the clearest first, at most 100.

    Raises:
        ConfigError: There is no such column.
    """
    for name in wanted:
        if name not in columns:
            raise ConfigError(
                f"labels.groups names the column '{name}', which the dataset does not have", hint=nearest(name, columns)
            )
    lines: list[dict[str, Any]] = []
    chances: list[float] = []
    for name, values in columns.items():
        if wanted and name not in wanted:
            continue
        for value, n, hits in _values(values, flagged, named=name in wanted or name == "group"):
            lines.append({"column": name, "value": value, "n": n, "noise": wilson(hits, n)})
            chances.append(_chance(hits, n, int(flagged.sum()), len(flagged)))
    for line, adjusted in zip(lines, holm(chances), strict=True):
        line["p_adjusted"] = adjusted
    return sorted(lines, key=lambda line: (line["p_adjusted"], -line["noise"].value, line["column"], line["value"]))[
        :LISTED
    ]


def _values(values: NDArray[np.str_], flagged: NDArray[np.bool_], *, named: bool) -> list[tuple[str, int, int]]:
    """Value, rows and flagged rows of the groups of a column that are worth a test."""
    kinds, codes = np.unique(values, return_inverse=True)
    if len(kinds) < 2 or (len(kinds) > MOST_VALUES and not named):  # noqa: PLR2004 - one value has nothing beside it
        return []
    rows = np.bincount(codes, minlength=len(kinds))
    hits = np.bincount(codes, weights=flagged, minlength=len(kinds)).astype(np.int64)
    chosen = np.argsort(-rows, kind="stable")[:MOST_GROUPS]
    return [(str(kinds[k]), int(rows[k]), int(hits[k])) for k in chosen.tolist() if rows[k] >= FEWEST_ROWS and kinds[k]]


def _chance(hits: int, n: int, all_hits: int, everything: int) -> float:
    """Chance of at least ``hits`` flagged among ``n`` rows drawn from all of them without regard to their flags."""
    from scipy.stats import hypergeom

    return float(hypergeom.sf(hits - 1, everything, all_hits, n))
