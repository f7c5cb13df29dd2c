"""Whether people are treated alike: rates by group (``evaluate.groups``), and the gaps between the groups.

Selection rate, true and false positive rate of the second class by group, and their largest differences, are what demographic parity and
equalised odds compare (Hardt, Price and Srebro, "Equality of opportunity in supervised learning", NeurIPS 2016); the calibration error by group
is calibration within groups (Kleinberg, Mullainathan and Raghavan, ITCS 2017).

A gap is the largest figure minus the smallest, and chance alone opens one, the more groups and the fewer rows the wider. With selection rates
that are truly equal (50 %) the mean gap of two groups is .10 with 30 rows each, .06 with 100, .02 with 1000; of five groups .21, .12, .04; a
calibration error, which chance opens too, has a mean gap of .05, .03, .01 between two perfectly calibrated groups (simulated). So an interval
of a gap lies too high and seldom reaches 0. Its upper end is below the truth in at most 2.5 % of rounds, as it should be, and a rule should
bound that one (``use: interval``); its lower end is above the truth in 2 to 100 % of rounds and proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.slices.columns import column_names, read_column, read_columns, spelled
from kfloop.components.evaluate.slices.slicing import MOST_TRAINING, Slice, group_parts
from kfloop.core.statistics import classification
from kfloop.core.statistics.bootstrap import AnyStatistic, Statistic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Floats = NDArray[np.float64]
    Rows = NDArray[np.bool_]
    Statistics = dict[str, AnyStatistic]

FEWEST_GROUPS = 2  # between which there is a gap


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Test rows by the value of a column.

    Attributes:
        name: ``group:NAME``.
        parts: The groups.
        compared: Those with enough rows for a gap.
        text: Which gaps these are, in words.
    """

    name: str
    parts: tuple[Slice, ...]
    compared: tuple[Slice, ...]
    text: str


def groupings(
    version: DatasetVersion, wanted: Sequence[str], ids: NDArray[np.str_], smallest: int
) -> tuple[Grouping, ...]:
    """The groups of each column of ``evaluate.groups``.

    Args:
        version: Dataset version.
        wanted: The columns.
        ids: The test rows.
        smallest: Rows from which a group counts for a gap.

    Raises:
        ConfigError: There is no such column, or it holds no single values.
    """
    found = []
    names = column_names(version, wanted, "evaluate.groups")
    for name, test in zip(names, read_columns(version, "test", names, ids), strict=True):
        parts = group_parts(read_column(version, name, MOST_TRAINING), test)
        compared = tuple(part for part in parts if part.n >= smallest)
        text = _gap_in_words(spelled(name), parts, compared, smallest)
        found.append(Grouping(name=f"group:{spelled(name)}", parts=parts, compared=compared, text=text))
    return tuple(found)


def _gap_in_words(name: str, parts: Sequence[Slice], compared: Sequence[Slice], smallest: int) -> str:
    """What is compared, and how many rows are not because their groups are too small."""
    small = sum(part.n for part in parts) - sum(part.n for part in compared)
    rows = f"{small} row{'s' if small != 1 else ''} of smaller groups {'are' if small != 1 else 'is'} left out"
    if len(compared) < FEWEST_GROUPS:
        text = f"no gap: fewer than two of the {len(parts)} groups of {name} have {smallest} rows"
    elif small:
        text = f"the largest minus the smallest of the {len(compared)} of {len(parts)} groups of {name} that have {smallest} rows"
    else:
        text = f"the largest minus the smallest of the {len(parts)} groups of {name}"
    return f"{text}; {rows}" if small else text


def group_statistics(
    objective: str, target: NDArray[Any], answer: NDArray[Any], whole: Mapping[str, AnyStatistic], grouping: Grouping
) -> dict[str, Statistics]:
    """Figures of each group as slice ``group:NAME=VALUE``, and the gaps between the larger ones as slice ``group:NAME``.

    Args:
        objective: What was learned.
        target: The truth, as ``Examples.target`` has it.
        answer: The model's answer for each row.
        whole: The figures over all rows.
        grouping: The groups.
    """
    figures = _figures(objective, target, answer, whole)
    found: dict[str, Statistics] = {
        part.name: {name: item.among(about & part.rows) for name, (item, about) in figures.items()}
        for part in grouping.parts
    }
    gaps: Statistics = {}
    for name, (item, about) in figures.items():
        if isinstance(item, Statistic):
            compared = [item.among(about & part.rows) for part in grouping.compared]
            gaps[f"{name}_gap"] = gap(compared, len(target))
            if name == "rmse":
                gaps["rmse_ratio"] = gap(compared, len(target), ratio=True)
    return found | ({grouping.name: gaps} if gaps else {})


def gap(parts: Sequence[Statistic], n: int, *, ratio: bool = False) -> Statistic:
    """The largest of some statistics minus the smallest, or over it; unknown where one of them is, and for fewer than two.

    Its ``n`` is that of the smallest part, which tells least.

    Args:
        parts: Statistics of the same rows.
        n: Number of these rows.
        ratio: Divide instead of subtracting.
    """
    if len(parts) < FEWEST_GROUPS:
        return Statistic(features=np.zeros((n, 1)), value=lambda sums: np.full(len(sums), np.nan), n=0)
    edges = [0, *np.cumsum([part.features.shape[1] for part in parts]).tolist()]

    def value(sums: Floats) -> Floats:
        each = np.stack(
            [part.value(sums[:, low:high]) for part, (low, high) in zip(parts, pairwise(edges), strict=True)]
        )
        largest, smallest = each.max(axis=0), each.min(axis=0)  # NaN where one is NaN
        if ratio:
            return np.asarray(largest / np.where(smallest > 0, smallest, np.nan))
        return np.asarray(largest - smallest)

    features = np.concatenate([part.features for part in parts], axis=1)
    return Statistic(features=features, value=value, n=min(part.n for part in parts))


def _figures(
    objective: str, target: NDArray[Any], answer: NDArray[Any], whole: Mapping[str, AnyStatistic]
) -> dict[str, tuple[AnyStatistic, Rows]]:
    """Figures by group, and the rows that each is about."""
    every = np.ones(len(target), dtype=np.bool_)
    found = {name: (whole[name], every) for name in _WHOLE[objective]}
    if objective == "classification" and answer.shape[1] == classification.TWO:
        selected = classification.selection_rate(answer)
        found |= {
            "selection_rate": (selected, every),
            "tpr": (selected, target == 1),
            "fpr": (selected, target == 0),
        }
    return found


_WHOLE = {
    "classification": ("accuracy", "ece"),
    "multilabel": ("accuracy",),
    "regression": ("rmse",),
    "anomaly": ("auroc",),
}
