"""Which answers a person should look at: confidence thresholds by predicted class, found on validation rows and measured on test rows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.scoring import REVIEW
from kfloop.core.statistics.estimate import Estimate, wilson
from kfloop.core.statistics.selective import lowest_threshold
from kfloop.errors import ConfigError, TerminalError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.core.scoring import PackagedModel
    from kfloop.core.sections import ReviewConfig
    from kfloop.core.versions import DatasetVersion

FORMAT = 1
CURVE_POINTS = 100


@dataclass(frozen=True, kw_only=True)
class Told:
    """Answers to labelled rows.

    Attributes:
        predicted: Class of each answer, int64 [N].
        confidence: Its probability, float32 [N].
        right: Whether it is the row's class, bool [N].
    """

    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    right: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ClassReview:
    """One predicted class.

    Attributes:
        label: Its name.
        threshold: Confidence from which on an answer is accepted; null where none could be proven: every answer is flagged.
        n_validation: Validation rows that were predicted so.
        n_test: Test rows that were predicted so.
        precision: Share of right answers among the accepted ones, on test rows.
        coverage: Share of the answers that are accepted, on test rows.
    """

    label: str
    threshold: float | None
    n_validation: int
    n_test: int
    precision: Estimate
    coverage: Estimate


@dataclass(frozen=True, kw_only=True)
class Review:
    """Thresholds of all classes, and what they give.

    Attributes:
        asked: Precision that the answers of each class shall have.
        level: Confidence level of that statement for each class, and of the intervals.
        n_validation: Labelled validation rows on which the thresholds were found.
        n_test: Labelled test rows on which they were measured.
        classes: Each class.
        precision: Share of right answers among all accepted ones, on test rows.
        coverage: Share of all answers that are accepted, on test rows.
        curve: Coverage and share of wrong answers for one common threshold after the other, on test rows, the highest first.
    """

    asked: float
    level: float
    n_validation: int
    n_test: int
    classes: list[ClassReview]
    precision: Estimate
    coverage: Estimate
    curve: list[tuple[float, float]]

    def plain(self) -> dict[str, Any]:
        """As the report has it."""
        return asdict(self)


def check_review(config: ReviewConfig, objective: str) -> None:
    """Refuse thresholds for a model that has no one class to be sure of.

    Raises:
        ConfigError: They are asked for, and it is so.
    """
    if config.precision is not None and objective != "classification":
        raise ConfigError(
            f"package.review.precision is {config.precision:g}, which is for classification, but this model learned {objective}",
            hint="set package.review: {precision: null}",
        )


def review_of(config: ReviewConfig, model: PackagedModel, version: DatasetVersion) -> Review | None:
    """Find the thresholds and write ``review.json`` into the package; null where none are asked for.

    Raises:
        TerminalError: There are no labelled validation or test rows.
    """
    if config.precision is None:
        return None
    found, measured = (_told(model, version, split) for split in ("validation", "test"))
    labels = model.labels
    thresholds = []
    for number in range(len(labels)):
        mine = found.predicted == number
        thresholds.append(lowest_threshold(found.confidence[mine], found.right[mine], config.precision, config.level))
    lowest = np.array([np.inf if one is None else one for one in thresholds], dtype=np.float32)
    accepted = measured.confidence >= lowest[measured.predicted]
    rows = [{"label": label, "threshold": one} for label, one in zip(labels, thresholds, strict=True)]
    text = json.dumps(
        {"format": FORMAT, "precision": config.precision, "level": config.level, "classes": rows}, indent=1
    )
    (model.folder / REVIEW).write_text(text + "\n", encoding="utf-8")
    classes = [
        ClassReview(
            label=label,
            threshold=thresholds[number],
            n_validation=int((found.predicted == number).sum()),
            n_test=int((measured.predicted == number).sum()),
            **_measured(measured, accepted, measured.predicted == number, config.level),
        )
        for number, label in enumerate(labels)
    ]
    return Review(
        asked=config.precision,
        level=config.level,
        n_validation=len(found.right),
        n_test=len(measured.right),
        classes=classes,
        curve=_curve(measured),
        **_measured(measured, accepted, np.ones(len(accepted), dtype=bool), config.level),
    )


def _told(model: PackagedModel, version: DatasetVersion, split: str) -> Told:
    """The package's own answers, with its calibrated probabilities."""
    rows = model.encoder.examples(version, split, model.signature.objective)
    rows = rows.take(rows.target >= 0)
    if not len(rows):
        raise TerminalError(
            f"package.review.precision needs labelled rows, but the {split} split has none",
            hint=f"raise data.split.{split}, add labels, or set package.review: {{precision: null}}",
        )
    probabilities = model.score(rows)["probabilities"]
    predicted = probabilities.argmax(axis=1).astype(np.int64)
    return Told(
        predicted=predicted, confidence=probabilities.max(axis=1).astype(np.float32), right=predicted == rows.target
    )


def _measured(told: Told, accepted: NDArray[np.bool_], counted: NDArray[np.bool_], level: float) -> dict[str, Estimate]:
    kept = accepted & counted
    return {
        "precision": wilson(int((told.right & kept).sum()), int(kept.sum()), level),
        "coverage": wilson(int(kept.sum()), int(counted.sum()), level),
    }


def _curve(told: Told) -> list[tuple[float, float]]:
    """Coverage and share of errors where the most confident answers are kept, thinned evenly."""
    order = np.argsort(-told.confidence, kind="stable")
    kept = np.flatnonzero(np.append(np.diff(told.confidence[order]) < 0, True)) + 1
    wrong = np.cumsum(~told.right[order])[kept - 1]
    chosen = np.unique(np.linspace(0, len(kept) - 1, CURVE_POINTS).round().astype(np.int64))
    return [(float(kept[at] / len(order)), float(wrong[at] / kept[at])) for at in chosen]
