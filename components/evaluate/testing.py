"""Paired tests of the challenger against champion and baseline: evidence beside the intervals, which decides nothing by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.statistics import classification, forecasting
from kfloop.core.statistics.paired_tests import UNKNOWN, Tested, delong, diebold_mariano, mcnemar_exact
from kfloop.core.statistics.proportions import Pairs, paired

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kfloop.components.evaluate.measuring import Task

    Answer = NDArray[Any]

OTHERS = ("champion", "baseline")
SMALLEST_TOLD = 0.001


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """One test as the report holds it.

    Attributes:
        test: ``mcnemar_exact``, ``delong`` or ``diebold_mariano``.
        metric: The figure whose difference was tested.
        statistic: The test's statistic; NaN (null in JSON) where it could not be computed.
        p_value: Two-sided p-value; NaN where it could not be computed.
        n: Number of rows; for areas under a curve, of the rarer kind.
        sentence: What it says, for people.
    """

    test: str
    metric: str
    statistic: float
    p_value: float
    n: int
    sentence: str


def paired_tests(task: Task, answers: Mapping[str, Answer]) -> dict[str, list[PairedTest] | None]:
    """The tests of the challenger against each other model; null where there is no such model, or no test that holds for these rows.

    Rows of groups and labelled windows that overlap depend on each other in a way that none of the tests allows for: a wrong p-value would be
    far too small.

    Args:
        task: The truth.
        answers: Answers by model.
    """
    dependent = task.groups is not None or (task.block > 1 and task.objective != "forecasting")
    make = None if dependent else _TESTS.get(task.objective)
    return {
        other: make(task, answers["challenger"], answers[other], other) if make and other in answers else None
        for other in OTHERS
    }


def _classes(task: Task, ours: Answer, theirs: Answer, other: str) -> list[PairedTest]:
    sides = [classification.accuracy(task.target, answer).hits for answer in (ours, theirs)]
    pairs = paired(sides[0], sides[1]) if sides[0] and sides[1] else None
    found = [_mcnemar(pairs, other, len(task.target))]
    if ours.shape[1] == classification.TWO:
        usable = all(side is not None for side in sides)
        scores = [answer[:, 1] if usable else np.full(len(answer), np.nan) for answer in (ours, theirs)]
        found.append(_areas("auc", task.target == 1, scores[0], scores[1], other))
    return found


def _anomalies(task: Task, ours: Answer, theirs: Answer, other: str) -> list[PairedTest]:
    return [_areas("auroc", task.target == 1, ours, theirs, other)]


def _forecasts(task: Task, ours: Answer, theirs: Answer, other: str) -> list[PairedTest]:
    first, second = (forecasting.squared_errors(task.target, answer, task.std) for answer in (ours, theirs))
    # A block is twice the windows that share rows.
    found = diebold_mariano(first, second, overlap=max(1, task.block // 2))
    change = float(first.mean() / second.mean() - 1) if second.any() else float("nan")
    what = (
        f"Over {len(first)} windows the challenger's mean squared error is {abs(change):.1%} "
        f"{'above' if change > 0 else 'below'} the {other}'s"
    )
    return [_told("diebold_mariano", "mse", found, len(first), what)]


def _mcnemar(pairs: Pairs | None, other: str, n: int) -> PairedTest:
    found = mcnemar_exact(pairs) if pairs else UNKNOWN
    what = (
        f"Of {pairs.n} rows the challenger alone is right on {pairs.ours} and the {other} alone on {pairs.theirs}"
        if pairs
        else ""
    )
    return _told("mcnemar_exact", "accuracy", found, n, what)


def _areas(metric: str, positive: NDArray[np.bool_], ours: Answer, theirs: Answer, other: str) -> PairedTest:
    found, rarer = delong(positive, ours, theirs), int(min(positive.sum(), (~positive).sum()))
    way = "larger" if found.statistic > 0 else "smaller"
    what = f"With {rarer} rows of the rarer kind the challenger's area under the ROC curve is {way} than the {other}'s"
    if found.known and found.statistic == 0:
        what = f"With {rarer} rows of the rarer kind challenger and {other} have the same area under the ROC curve"
    return _told("delong", metric, found, rarer, what)


def _told(test: str, metric: str, found: Tested, n: int, what: str) -> PairedTest:
    """A test with its sentence."""
    name = _NAMES[test]
    if found.known:
        chance = f"{found.p_value:.3f}" if found.p_value >= SMALLEST_TOLD else f"less than {SMALLEST_TOLD}"
        sentence = (
            f"{what}; two equally good models would differ at least this much with a chance of {chance} ({name})."
        )
    else:
        sentence = f"{name} could not be computed: an answer is no usable number, or there are too few rows of a kind."
    return PairedTest(
        test=test, metric=metric, statistic=found.statistic, p_value=found.p_value, n=n, sentence=sentence
    )


_NAMES = {
    "mcnemar_exact": "McNemar's exact test",
    "delong": "DeLong's test",
    "diebold_mariano": "Diebold and Mariano's test",
}
_TESTS = {"classification": _classes, "anomaly": _anomalies, "forecasting": _forecasts}
