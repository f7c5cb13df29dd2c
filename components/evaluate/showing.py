"""What the report shows of an evaluation besides its figures: mistakes, curves, a few forecasts, a grid of samples.

None of it decides anything. The curves stand in ``shown.json`` and the samples in ``samples.npy``, beside ``report.json``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.statistics import classification, multilabel, ranking
from kfloop.core.statistics.classification import predictions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.components.evaluate.measuring import Task
    from kfloop.core.encoding import Examples

    Answers = Mapping[str, NDArray[Any]]

SHOWN = "shown.json"
SAMPLES = "samples.npy"
EXAMPLES = 24
POINTS = 400  # of a scatter plot, and of a curve
WINDOWS = 4
CHANNELS = 3
PAST = 2.0  # horizons of the past shown before a forecast


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is shown.

    Attributes:
        examples: The challenger's worst mistakes.
        confusion: Counts, true class by predicted class; null without classes.
        calibration: Points of the reliability curve by model; null without classes.
        curves: Plain values for ``shown.json``; empty for no file.
        samples: Real rows and samples by model, uint8 [n, H, W, C] each, for ``samples.npy`` [models, n, H, W, C]; empty for no file.
    """

    examples: list[dict[str, Any]] = field(default_factory=list)
    confusion: list[list[int]] | None = None
    calibration: dict[str, list[dict[str, float]]] | None = None
    curves: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, NDArray[Any]] = field(default_factory=dict)


def shown(task: Task, test: Examples, answers: Answers) -> Shown:
    """What is shown of these answers, by model."""
    return _BY_OBJECTIVE[task.objective](task, test, answers)


def write_shown(out: Path, found: Shown) -> None:
    """Write the files that there is something for."""
    curves = found.curves
    if found.samples:
        np.save(out / SAMPLES, np.stack(list(found.samples.values())))
        curves = curves | {"samples": list(found.samples)}
    if curves:
        (out / SHOWN).write_text(json.dumps(_finite(curves), sort_keys=True) + "\n", encoding="utf-8")


def _classes(task: Task, test: Examples, answers: Answers) -> Shown:
    ours = answers["challenger"]
    return Shown(
        examples=misclassified(test.ids, task.target, ours, task.labels),
        confusion=classification.confusion(task.target, ours).tolist(),
        calibration={name: classification.reliability(task.target, answer) for name, answer in answers.items()},
        curves=_roc(task.target == 1, {name: answer[:, 1] for name, answer in answers.items()}, task.labels[1])
        if len(task.labels) == classification.TWO
        else {},
    )


def _sets(task: Task, test: Examples, answers: Answers) -> Shown:
    ours = answers["challenger"]
    predicted = ours >= multilabel.THRESHOLD
    wrong = (predicted != (task.target > multilabel.THRESHOLD)).sum(axis=1)

    def names(row: NDArray[Any]) -> list[str]:
        return [task.labels[place] for place in np.flatnonzero(row)]

    worst = [row for row in np.argsort(-wrong, kind="stable")[:EXAMPLES] if wrong[row]]
    examples = [
        {
            "id": str(test.ids[row]),
            "label": names(task.target[row]),
            "predicted": names(predicted[row]),
            "wrong": int(wrong[row]),
        }
        for row in worst
    ]
    return Shown(examples=examples)


def _numbers(task: Task, test: Examples, answers: Answers) -> Shown:
    ours = answers["challenger"].astype(np.float64)
    errors = np.abs(ours - task.target)
    worst = np.argsort(-np.nan_to_num(errors, nan=math.inf), kind="stable")[:EXAMPLES]
    rows = _spread(len(ours), POINTS)
    return Shown(
        examples=[
            {
                "id": str(test.ids[row]),
                "label": float(task.target[row]),
                "predicted": float(ours[row]),
                "error": float(errors[row]),
            }
            for row in worst
        ],
        curves={
            "scatter": {
                "true": task.target[rows].astype(float).tolist(),
                "predicted": {name: answer[rows].astype(float).tolist() for name, answer in answers.items()},
            }
        },
    )


def _forecasts(task: Task, test: Examples, answers: Answers) -> Shown:
    horizon = task.target.shape[1]
    chosen = _spread(len(task.target), WINDOWS)
    windows = []
    for row, past in zip(chosen, test.batch_inputs(chosen)[0], strict=True):
        length = min(len(past), max(1, round(PAST * horizon)))
        channels = {
            name: {
                "past": past[-length:, place].astype(float).tolist(),
                "true": task.target[row, :, place].astype(float).tolist(),
                "forecast": {model: answer[row, :, place].astype(float).tolist() for model, answer in answers.items()},
            }
            for place, name in enumerate(task.channels[:CHANNELS])
        }
        windows.append({"id": str(test.ids[row]), "channels": channels})
    return Shown(curves={"forecasts": windows, "errors_by_step": _errors_by_step(task, answers)})


def _errors_by_step(task: Task, answers: Answers) -> dict[str, list[float]]:
    """Mean squared error at each step ahead, in standard deviations, by model."""
    return {
        name: np.mean(((answer.astype(np.float64) - task.target) / task.std) ** 2, axis=(0, 2)).tolist()
        for name, answer in answers.items()
    }


def _anomalies(task: Task, test: Examples, answers: Answers) -> Shown:
    ours = answers["challenger"].astype(np.float64)
    odd = task.target == 1
    if not np.isfinite(ours).all():
        return Shown()
    ranks = np.argsort(np.argsort(ours, kind="stable"), kind="stable") / max(1, len(ours) - 1)
    missed = np.where(odd, 1 - ranks, ranks)  # odd rows that score low, normal ones that score high
    worst = np.argsort(-missed, kind="stable")[:EXAMPLES]
    edges = np.histogram_bin_edges(np.clip(ours, *np.quantile(ours, [0, 0.99])), bins=30)
    clipped = np.clip(ours, edges[0], edges[-1])
    return Shown(
        examples=[
            {
                "id": str(test.ids[row]),
                "label": "odd" if odd[row] else "normal",
                "score": float(ours[row]),
                "above": float(ranks[row]),
            }
            for row in worst
        ],
        curves=_roc(odd, answers, "odd")
        | {
            "scores": {
                "edges": edges.tolist(),
                "normal": np.histogram(clipped[~odd], edges)[0].tolist(),
                "odd": np.histogram(clipped[odd], edges)[0].tolist(),
            }
        },
    )


def misclassified(
    ids: NDArray[np.str_], labels: NDArray[np.int64], probabilities: NDArray[np.floating], classes: list[str]
) -> list[dict[str, Any]]:
    """Up to 24 wrong answers, the most confident first; a row without a usable answer has the prediction null."""
    predicted = predictions(probabilities)
    confidence = np.where(predicted >= 0, np.where(np.isfinite(probabilities), probabilities, 0).max(axis=1), np.nan)
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-np.nan_to_num(confidence[wrong], nan=math.inf), kind="stable")][:EXAMPLES]
    return [
        {
            "id": str(ids[row]),
            "label": classes[int(labels[row])],
            "predicted": classes[int(predicted[row])] if predicted[row] >= 0 else None,
            "confidence": float(confidence[row]),
        }
        for row in wrong
    ]


def _roc(positive: NDArray[np.bool_], answers: Answers, name: str) -> dict[str, Any]:
    """ROC curves by model, thinned; empty where there is only one kind of row or a score is no number."""
    if positive.all() or not positive.any():
        return {}
    curves = {}
    for model, scores in answers.items():
        if np.isfinite(scores).all():
            false, true = ranking.roc_curve(positive, scores)
            kept = _spread(len(false), POINTS)
            kept = np.union1d(kept, [len(false) - 1])
            curves[model] = {"false": false[kept].tolist(), "true": true[kept].tolist()}
    return {"roc": {"positive": name, "curves": curves}} if curves else {}


def _spread(total: int, count: int) -> NDArray[np.int64]:
    """At most ``count`` of ``total`` places, evenly spread."""
    count = min(count, total)
    return (np.arange(count) * total) // max(count, 1)


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON has not."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


_BY_OBJECTIVE = {
    "classification": _classes,
    "multilabel": _sets,
    "regression": _numbers,
    "forecasting": _forecasts,
    "anomaly": _anomalies,
}
