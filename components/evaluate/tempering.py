"""What a temperature does, or would do, to the challenger's calibration on the test rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.artifacts import read_report
from kfloop.core.signature import MEND
from kfloop.core.statistics.classification import calibration_error
from kfloop.core.statistics.temperature import fit_probabilities, tempered
from kfloop.errors import StateError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.components.evaluate.held_out import HeldOut
    from kfloop.components.evaluate.opening import Contestant
    from kfloop.components.evaluate.scoreboard import Board


def temperature_facts(
    board: Board,
    challenger: Contestant,
    held: HeldOut | None,
    target: NDArray[np.int64],
    answer: NDArray[np.floating],
) -> dict[str, Any] | None:
    """``value``, ``n_fitted``, ``adopted``, and ``ece_before``, ``ece_after`` and ``ece_change`` on the test rows, paired.

    A temperature that the package has adopted is what its graph divides by: then ``before`` is the same graph without it. Any other is fitted
    on the validation rows here, and ``after`` is what adopting it would give. Null where there is no temperature: other objectives, and
    fewer than 30 validation rows.

    Args:
        board: How the test rows are resampled.
        challenger: The challenger.
        held: Its answers to validation rows.
        target: Classes of the test rows, int64 [N].
        answer: Its probabilities of the test rows, [N, K].

    Raises:
        StateError: The package's report does not say which temperature its graph has.
    """
    if board.objective != "classification":
        return None
    adopted = _adopted(challenger)
    if adopted:
        value, n = adopted
        before, after = tempered(answer, 1 / value), answer.astype(np.float64)
    else:
        fitted = fit_probabilities(held.answer, held.rows.target) if held else None
        if fitted is None:
            return None
        value, n = fitted
        before, after = answer.astype(np.float64), tempered(answer, value)
    both = {"before/ece": calibration_error(target, before), "after/ece": calibration_error(target, after)}
    found = board.resample(both)
    scores = board.scores(found)["overall"]
    change = board.differences({"ece": found["after/ece"]}, {"ece": found["before/ece"]})["overall"]["ece"]
    return {
        "value": value,
        "n_fitted": n,
        "ece_before": scores["before/ece"],
        "ece_after": scores["after/ece"],
        "ece_change": change,
        "adopted": adopted is not None,
    }


def _adopted(challenger: Contestant) -> tuple[float, int] | None:
    """The temperature of the package's graph and the rows it was fitted on; null for none."""
    folder = challenger.model.folder
    told = read_report(folder).get("temperature")
    if told is None:
        return None
    try:
        value, n = float(told["value"]), int(told["n_fitted"])
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"the report of the package '{folder}' has the temperature {told!r}", hint=MEND) from error
    if not 0 < value < math.inf:
        raise StateError(f"the report of the package '{folder}' has the temperature {value!r}", hint=MEND)
    return value, n
