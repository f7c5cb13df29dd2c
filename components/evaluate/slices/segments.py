"""Weak segments: kinds of rows on which the challenger errs more than elsewhere, found by a shallow tree among the validation rows.

Discovery and judgement use different rows: what a search finds is the worst of many, so its figures on the rows that were searched are too
bad; the test rows, which took no part, tell the truth. A leaf of the tree counts when it is worse than the worst leaves of 38 of 39 trees
of shuffled errors (Westfall and Young, "Resampling-based multiple testing", 1993): where no segment is weak, one is named in 4 % of rounds (simulated on 300 rows
and six columns), and one of a fifth of the rows that errs in 40 % instead of 10 % is found in 82 % of rounds with 300 rows and 99 % with 600.
Rows of one ``data.group`` err together, so with groups chance is called weak more often; the test rows then say otherwise.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.held_out import row_errors
from kfloop.components.evaluate.slices.columns import Column, column_names, read_columns
from kfloop.components.evaluate.slices.conditions import Condition, Question, questions, shortened
from kfloop.components.evaluate.slices.slicing import FEWEST_ROWS, Slice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from kfloop.components.evaluate.held_out import HeldOut
    from kfloop.core.encoding import Examples
    from kfloop.core.versions import DatasetVersion

    Floats = NDArray[np.float64]

FEWEST_FITTED = 200  # validation rows
MOST_COLUMNS = 40  # that are searched, in the order of the dataset
MOST_QUESTIONS = 60  # numbers and categories among them
MOST_CHANNELS = 3  # of a series
DEPTH = 3
LEAF_SHARE = 0.05
SHUFFLES, EXCEEDED = 39, 1  # a leaf may be as bad as the worst one of one shuffle in 39: 2 / 40 = 5 %
LEAST_Z = 2.0  # below which shuffling would be a waste
CLEARLY = 1.25  # times the mean error: less is not worth a person's time


@dataclass(frozen=True, kw_only=True)
class Segments:
    """What was found.

    Attributes:
        found: The segments, the worst first, as slices of the test rows.
        facts: For the report: ``n_fitted`` validation rows, their mean ``error``, the ``found`` ones with ``n_fitted`` and ``error`` of each, and a
            ``note`` that says why there are none.
    """

    found: tuple[Slice, ...]
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """A leaf of a tree.

    Attributes:
        conditions: Its path.
        n: Rows in it.
        error: Their mean error.
        z: How many standard errors that is above the other rows.
    """

    conditions: tuple[Condition, ...]
    n: int
    error: float
    z: float


def find_segments(
    version: DatasetVersion, most: int, held: HeldOut | None, test: Examples, objective: str, std: Floats, seed: int
) -> Segments:
    """Segments on which the challenger is weak.

    Args:
        version: Dataset version.
        most: Most segments; 0 looks for none.
        held: Validation rows and the challenger's answers.
        test: The test rows.
        objective: What was learned.
        std: Standard deviations of the channels of a forecast.
        seed: Seed of the shuffles.
    """
    n = len(held.rows) if held else 0
    if most == 0:
        return _none(n, "evaluate.segments is 0")
    if held is None or n < FEWEST_FITTED:
        return _none(n, f"there are {n} validation rows, and a search needs {FEWEST_FITTED}")
    errors = row_errors(objective, held.rows.target, held.answer, std)
    if not np.isfinite(errors).all():
        return _none(n, "some of the challenger's answers are no numbers")
    columns, there = _columns(version, held.rows, test)
    asked = list(islice(questions(columns), MOST_QUESTIONS))
    if not asked:
        return _none(n, "there is no column or fact by which rows could be told apart")
    weak = weak_leaves(columns, asked, errors, seed)[:most]
    if not weak:
        return _none(n, "no segment is clearly worse than the others", float(errors.mean()))
    found, told = [], []
    for leaf in weak:
        text = " and ".join(condition.text(columns) for condition in leaf.conditions)
        rows = np.logical_and.reduce([condition.meets(there) for condition in leaf.conditions])
        part = Slice(name=f"segment:{text}", text=text, rows=rows)
        told.append({"name": part.name, "n_fitted": leaf.n, "error": leaf.error, "n": part.n})
        if part.n >= FEWEST_ROWS:
            found.append(part)
    note = "" if len(found) == len(told) else f"segments with fewer than {FEWEST_ROWS} test rows are no slices"
    return Segments(
        found=tuple(found), facts={"n_fitted": n, "error": float(errors.mean()), "found": told, "note": note}
    )


def weak_leaves(columns: Sequence[Column], asked: Sequence[Question], errors: Floats, seed: int) -> list[Leaf]:
    """The leaves of a tree of the errors that are clearly worse than the other rows, the worst first.

    Args:
        columns: Values of the rows.
        asked: What the tree may ask.
        errors: Error of each row, finite, [N].
        seed: Seed of the shuffles.
    """
    if errors.min() == errors.max():
        return []
    codes = np.stack([question.codes for question in asked], axis=1)
    found = sorted(_leaves(_tree(codes, errors), columns, asked, errors), key=lambda leaf: -leaf.z)
    found = [leaf for leaf in found if leaf.z >= LEAST_Z and leaf.error >= CLEARLY * errors.mean()]
    if not found:
        return []
    generator = np.random.default_rng(seed)
    by_chance = sorted(_worst(codes, generator.permutation(errors)) for _ in range(SHUFFLES))
    bar = by_chance[-1 - EXCEEDED]
    return [leaf for leaf in found if leaf.z > bar]


def window_columns(windows: Examples, names: Sequence[str]) -> list[Column]:
    """Level, spread and change over the window of the first three channels of a series: windows have no columns of their own."""
    parts: list[Floats] = []
    for start in range(0, len(windows), 1000):
        past = windows.batch_inputs(np.arange(start, min(start + 1000, len(windows))))[0][:, :, :MOST_CHANNELS]
        values = np.where(np.isfinite(past), past, np.nan).astype(np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a channel without values in a window has no level
            level, spread = np.nanmean(values, axis=1), np.nanstd(values, axis=1)
        parts.append(np.stack([level, spread, values[:, -1] - values[:, 0]]))
    if not parts:
        return []
    whole = np.concatenate(parts, axis=1)
    return [
        Column(name=f"{word} of {name}", kind="number", values=whole[place, :, channel])
        for channel, name in enumerate(names[:MOST_CHANNELS])
        for place, word in enumerate(("level", "spread", "change"))
    ]


def _none(n: int, note: str, error: float | None = None) -> Segments:
    return Segments(found=(), facts={"n_fitted": n, "error": error, "found": [], "note": note})


def _columns(version: DatasetVersion, validation: Examples, test: Examples) -> tuple[list[Column], list[Column]]:
    """The same columns of the validation and of the test rows."""
    if version.modality == "series":
        channels = [str(name) for name in version.schema["series"]["channels"]]
        return window_columns(validation, channels), window_columns(test, channels)
    names = column_names(version, None, "evaluate.segments")[:MOST_COLUMNS]
    return read_columns(version, "validation", names, validation.ids), read_columns(version, "test", names, test.ids)


def _tree(codes: NDArray[np.float32], errors: Floats) -> Any:
    from sklearn.tree import DecisionTreeRegressor

    fewest = max(FEWEST_ROWS, math.ceil(LEAF_SHARE * len(errors)))
    return DecisionTreeRegressor(max_depth=DEPTH, min_samples_leaf=fewest, random_state=0).fit(codes, errors).tree_


def _worst(codes: NDArray[np.float32], errors: Floats) -> float:
    """The largest z of the leaves of a tree."""
    tree = _tree(codes, errors)
    leaf = tree.children_left < 0
    return max(
        _z(float(m), int(n), errors) for m, n in zip(tree.value[leaf].ravel(), tree.n_node_samples[leaf], strict=True)
    )


def _z(mean: float, n: int, errors: Floats) -> float:
    """Difference of a part's mean from that of the other rows over its standard error; 0 where there are no others."""
    total, others = errors.sum(), len(errors) - n
    if not others:
        return 0.0
    return float((mean - (total - n * mean) / others) / math.sqrt(errors.var() * (1 / n + 1 / others)))


def _leaves(tree: Any, columns: Sequence[Column], asked: Sequence[Question], errors: Floats) -> Iterator[Leaf]:
    open_nodes: list[tuple[int, tuple[Condition, ...]]] = [(0, ())]
    while open_nodes:
        node, path = open_nodes.pop()
        left, right = int(tree.children_left[node]), int(tree.children_right[node])
        if left < 0:
            n, mean = int(tree.n_node_samples[node]), float(tree.value[node].ravel()[0])
            yield Leaf(conditions=shortened(path), n=n, error=mean, z=_z(mean, n, errors))
            continue
        question, threshold = asked[int(tree.feature[node])], float(tree.threshold[node])
        goes_left = bool(tree.missing_go_to_left[node])
        for child, above in ((left, False), (right, True)):
            condition = question.condition(columns, threshold, above=above, missing=goes_left != above)
            open_nodes.append((child, (*path, condition)))
