"""Why the challenger answers as it does: a few test rows taken apart, and of tables which columns it relies on.

Nothing of this decides anything. ``explanations.json`` and the arrays in ``explanations.npz`` stand beside ``report.json``; an explanation that
fails is named there with its reason and fails nothing else.
"""

from __future__ import annotations

import importlib
import json
import math
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.corruptions.robustness import DAMAGE
from kfloop.core.statistics.classification import predictions
from kfloop.core.statistics.multilabel import THRESHOLD
from kfloop.errors import KfloopError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.components.evaluate.measuring import Task
    from kfloop.components.evaluate.opening import Contestant
    from kfloop.components.evaluate.scoreboard import Board
    from kfloop.core.sections import EvaluateConfig
    from kfloop.core.versions import DatasetVersion

    Output = Callable[[NDArray[Any]], NDArray[Any]]

EXPLANATIONS = "explanations.json"
ARRAYS = "explanations.npz"
# Which module explains a modality, by its function ``explain``.
MODULES = {
    "image": "windows",
    "series": "windows",
    "audio": "windows",
    "vector": "windows",
    "text": "parts",
    "graphs": "parts",
    "nodes": "parts",
    "table": "tables",
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is explained.

    Attributes:
        config: Section ``evaluate``.
        version: Dataset version.
        model: The challenger.
        task: The truth about the test rows.
        answer: The challenger's answers, for all test rows.
        board: How figures are resampled.
    """

    config: EvaluateConfig
    version: DatasetVersion
    model: Contestant
    task: Task
    answer: NDArray[Any]
    board: Board

    def output(self, row: int) -> tuple[Output, str]:
        """The number that is explained for a row: it takes answers [B, ...] and gives [B]; and what it is, in words."""
        own = self.answer[row]
        if self.task.objective in {"classification", "multilabel"}:
            place = int(np.nanargmax(own))
            return lambda answers: answers[:, place], f"probability of {self.task.labels[place]}"
        if self.task.objective == "forecasting":
            std = self.task.std
            return (
                lambda answers: -np.mean(np.abs(answers.astype(np.float64) - own) / std, axis=(1, 2)),
                "how far the forecast moves, in standard deviations",
            )
        words = "score: higher is odder" if self.task.objective == "anomaly" else "predicted number"
        return lambda answers: answers, words


@dataclass(frozen=True, kw_only=True)
class Explained:
    """Explanations of the challenger.

    Attributes:
        told: What ``explanations.json`` says.
        arrays: What ``explanations.npz`` holds; empty for no file.
    """

    told: dict[str, Any]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    def write(self, out: Path) -> None:
        """Write the files."""
        (out / EXPLANATIONS).write_text(json.dumps(finite(self.told), sort_keys=True) + "\n", encoding="utf-8")
        if self.arrays:
            np.savez_compressed(out / ARRAYS, **self.arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its options


def explain(
    config: EvaluateConfig,
    version: DatasetVersion,
    model: Contestant,
    task: Task,
    answer: NDArray[Any],
    board: Board,
) -> Explained | None:
    """Explain a few answers; null when explanations are switched off. Never raises."""
    if not config.explain:
        return None
    about = {"objective": task.objective, "modality": version.modality, "role": model.role}
    job = Job(config=config, version=version, model=model, task=task, answer=answer, board=board)
    try:
        name = MODULES[version.modality]
        module = importlib.import_module(f"kfloop.components.evaluate.explanations.{name}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Explained = module.explain(job, chosen_rows(task, answer, config.explain))
    except (*DAMAGE, ImportError) as error:
        said = error.message if isinstance(error, KfloopError) else f"{type(error).__name__}: {error}"
        return Explained(told=about | {"problem": said.splitlines()[0] if said else "unknown", "examples": []})
    return Explained(told=about | {"problem": ""} | found.told, arrays=found.arrays)


def chosen_rows(task: Task, answer: NDArray[Any], count: int) -> list[int]:
    """The rows that are explained: the worst mistakes, up to half of them, and answers from all over the test rows that are right or usual."""
    usable = np.isfinite(answer.reshape(len(answer), -1).astype(np.float64)).all(axis=1)
    wrong, size = mistakes(task, answer)
    bad = np.flatnonzero(wrong & usable)
    good = np.flatnonzero(~wrong & usable)
    worst = bad[np.argsort(-size[bad], kind="stable")][: max(count // 2, count - len(good))]
    left = min(count - len(worst), len(good))
    spread = good[(np.arange(left) * len(good)) // max(left, 1)]
    return [*spread.tolist(), *worst.tolist()]


def mistakes(task: Task, answer: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which rows are mistakes, and how bad each is. Of numbers the tenth with the largest errors counts as mistakes."""
    if task.objective == "classification":
        return predictions(answer) != task.target, np.nan_to_num(answer).max(axis=1).astype(np.float64)
    if task.objective == "multilabel":
        count = ((answer >= THRESHOLD) != (task.target >= THRESHOLD)).sum(axis=1)
        return count > 0, count.astype(np.float64)
    if task.objective == "anomaly":
        ranks = np.argsort(np.argsort(answer, kind="stable"), kind="stable") / max(1, len(answer) - 1)
        far = np.where(task.target == 1, 1 - ranks, ranks)
        return far > 0.5, far  # noqa: PLR2004  # an odd row in the lower half of the scores, a normal one in the upper
    errors = np.abs(answer.astype(np.float64) - task.target).reshape(len(answer), -1)
    size = np.nan_to_num(
        (errors / (np.tile(task.std, errors.shape[1] // len(task.std)) if len(task.std) else 1.0)).mean(axis=1)
    )
    return size >= np.quantile(size, 0.9), size


def described(job: Job, row: int) -> dict[str, Any]:
    """What every explained row has: id, label, prediction, the number that is explained, and whether the answer is right."""
    target, own, labels = job.task.target[row], job.answer[row], job.task.labels
    output, words = job.output(row)
    label: Any = None
    predicted: Any = None
    right: bool | None = None
    if job.task.objective == "classification":
        label, predicted = labels[int(target)], labels[int(np.argmax(own))]
        right = label == predicted
    elif job.task.objective == "multilabel":
        label, predicted = ([labels[k] for k in np.flatnonzero(one >= THRESHOLD)] for one in (target, own))
        right = label == predicted
    elif job.task.objective == "anomaly":
        label = "odd" if target == 1 else "normal"
    elif job.task.objective == "regression":
        label, predicted = float(target), float(own)
    return {
        "id": str(job.model.test.ids[row]),
        "label": label,
        "predicted": predicted,
        "right": right,
        "output": words,
        "value": abs(float(output(own[None])[0])),
    }


def finite(value: Any) -> Any:
    """Plain values with null for numbers that JSON has not."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None
