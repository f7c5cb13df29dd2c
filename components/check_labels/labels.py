"""Which labels are probably wrong, how many in all, and what that means for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.check_labels.duplicates.coincidences import MANY
from kfloop.components.check_labels.groups import worse_groups
from kfloop.components.check_labels.noise import UNKNOWN, class_noise, imbalance, noise_matrix, overall_noise
from kfloop.components.check_labels.rows import read_rows
from kfloop.components.check_labels.tables import write_issues, write_queue, write_weights
from kfloop.core.artifacts import write_report
from kfloop.core.statistics.estimate import Estimate, wilson
from kfloop.core.versions import read_version

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.components.check_labels.judging import Judgement
    from kfloop.components.check_labels.rows import Rows
    from kfloop.core.sections import LabelsConfig
    from kfloop.core.versions import DatasetVersion
    from kfloop.core.workspace import Workspace

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]

RANKED = 500
RANKED_OUTLIERS = 100
WEAK = (
    0.8  # share of the labels that models foresee, below which their doubts say more about them than about the labels
)


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    """Label check of one dataset version.

    Attributes:
        dataset_digest: Dataset version that was checked.
        task: What is to be learned.
        n: Rows checked.
        n_flagged: Rows whose label is probably wrong.
        noise: Estimated share of wrong labels; unknown for forecasting.
        accuracy: Share of the labels that the out-of-sample predictions agree with, over sets of classes as a whole; unknown for numbers.
        warnings: What makes the figures less than they seem.
        method: Where the out-of-sample predictions come from.
        policy: What was done about flagged rows of the train split.
        per_class: Rows, flagged rows and estimated share of wrong labels of each given label.
        ranked: Flagged rows, most doubtful first.
        unchecked: Rows whose label could not be checked, with the reason.
        n_unchecked: How many those are.
        noise_matrix: Share of each true label among the rows given each label; null where there is none.
        duplicates: Exact, near, conflicting and leaking duplicates.
        leakage: Share of validation and test rows with a duplicate in train.
        outliers: Rows unlike the others.
        imbalance: Sizes of the classes; null without classes.
        groups: Flagged share by group.
        annotators: What several annotators agree on; null without votes.
        queued: Rows in the review queue.
    """

    dataset_digest: str
    task: str
    n: int
    n_flagged: int
    noise: Estimate
    accuracy: Estimate
    warnings: list[str]
    method: str
    policy: str
    per_class: list[dict[str, Any]]
    ranked: list[dict[str, Any]]
    unchecked: list[dict[str, Any]]
    n_unchecked: int
    noise_matrix: dict[str, Any] | None
    duplicates: dict[str, Any]
    leakage: Estimate
    outliers: dict[str, Any]
    imbalance: dict[str, Any] | None
    groups: list[dict[str, Any]]
    annotators: dict[str, Any] | None
    queued: int


def run(config: LabelsConfig, *, dataset: Path, out: Path, workspace: Workspace) -> LabelReport:  # noqa: ARG001
    """Check the labels of all splits by cross-fitting, and look for duplicates, leaks, outliers and disputes.

    Args:
        config: The ``labels`` section.
        dataset: Dataset version.
        out: Empty folder for ``report.json``, ``issues.parquet``, ``weights.parquet``, and ``consensus.parquet`` and ``queue.jsonl``
            where there are votes, or a queue is asked for.
        workspace: The loop's places.

    Raises:
        ConfigError: The configuration names a column that is not there, or a model that does not take such data.
        InputError: The votes are about unknown rows or labels.
    """
    from kfloop.components.check_labels.annotators.study import study_votes
    from kfloop.components.check_labels.duplicates.search import find_duplicates
    from kfloop.components.check_labels.features import features

    version = read_version(dataset)
    rows = read_rows(version)
    described = features(version, version.splits)
    duplicates = find_duplicates(version, config.near_distance)
    judgement, scores, strange = _judged(rows, described, version, config)
    open_to_doubt = ~rows.settled
    marks = {
        "conflict": duplicates.conflict & open_to_doubt,
        "low_confidence": judgement.checked
        & (judgement.confidence < config.review_below)
        & open_to_doubt
        & (rows.task != "regression"),
        "outlier": strange,
    }
    accuracy = wilson(*judgement.accuracy) if judgement.accuracy else UNKNOWN
    votes, annotators = version.beside("votes"), None
    if votes is not None and rows.task == "multiclass":
        given = dict(zip(rows.texts("id").tolist(), map(rows.named, range(len(rows))), strict=True))
        study = study_votes(votes, given, rows.names)
        study.write(out)
        annotators = study.as_dict()
    write_issues(out, rows, judgement, marks)
    write_weights(out, rows, judgement.flagged, config.policy)
    queued = write_queue(out, rows, judgement, marks, annotators) if config.policy == "relabel_queue" else 0
    report = LabelReport(
        dataset_digest=version.digest,
        task=rows.task,
        n=int(judgement.checked.sum()),
        n_flagged=int(judgement.flagged.sum()),
        noise=_noise(rows, judgement),
        accuracy=accuracy,
        warnings=_warnings(accuracy, duplicates.coincidences),
        method=judgement.method,
        policy=config.policy,
        per_class=_per_class(rows, judgement),
        ranked=_ranked(rows, judgement),
        unchecked=_unchecked(rows, judgement),
        n_unchecked=int((~judgement.checked).sum()) if rows.task != "forecasting" else 0,
        noise_matrix=noise_matrix(judgement.joint, rows.names) if judgement.joint is not None else None,
        duplicates=duplicates.as_dict(),
        leakage=duplicates.leakage,
        outliers=_outliers(rows, scores, strange),
        imbalance=imbalance(_rows_of_classes(rows), rows.names) if rows.names else None,
        groups=worse_groups(rows.group_columns(config.groups), judgement.flagged, config.groups),
        annotators=annotators,
        queued=queued,
    )
    write_report(out, report)
    return report


def _judged(
    rows: Rows, described: NDArray[np.floating], version: DatasetVersion, config: LabelsConfig
) -> tuple[Judgement, Floats, Bools]:
    """Verdict on the labels; and how usual the inputs are, low for outliers, with their flags."""
    if rows.task == "forecasting":
        from kfloop.components.check_labels.forecasting import judge_series

        return judge_series(version)
    from kfloop.components.check_labels.judging import judge
    from kfloop.components.check_labels.outliers import find_outliers

    scores, strange = find_outliers(described, config.seed)
    return judge(rows, described, version, config), scores, strange


def _noise(rows: Rows, judgement: Judgement) -> Estimate:
    if rows.task == "forecasting":
        return UNKNOWN
    if judgement.joint is not None and judgement.doubted is not None:
        return overall_noise(judgement.joint, int(judgement.doubted.sum()))
    return wilson(int(judgement.flagged.sum()), int(judgement.checked.sum()))


def _warnings(accuracy: Estimate, coincidences: float) -> list[str]:
    found = []
    if accuracy.value < WEAK:
        found.append(
            f"out of sample, the models agree with {accuracy.value:.0%} of the labels: too weak to tell wrong labels from hard "
            "rows, so noise, per_class and noise_matrix are upper bounds, and many flagged labels are right"
        )
    if coincidences > MANY:
        found.append(
            f"the columns have so few values that {coincidences:.2g} other rows equal a row by chance: equal rows are no evidence of "
            "contradicting labels or of leakage, so neither was judged"
        )
    return found


def _rows_of_classes(rows: Rows) -> NDArray[np.int64]:
    if rows.task == "multilabel":
        return np.asarray(rows.given.sum(axis=0), dtype=np.int64)
    return np.bincount(rows.given, minlength=len(rows.names))


def _per_class(rows: Rows, judgement: Judgement) -> list[dict[str, Any]]:
    """For sets of classes, the flags of a class are memberships, given or not, among all rows."""
    sizes = _rows_of_classes(rows).tolist() if rows.names else []
    if judgement.joint is not None and judgement.doubted is not None:
        flagged = np.bincount(rows.given[judgement.flagged], minlength=len(rows.names)).tolist()
        noise = class_noise(judgement.joint, np.bincount(rows.given[judgement.doubted], minlength=len(rows.names)))
    elif judgement.memberships is not None:
        flagged = judgement.memberships.sum(axis=0).tolist()
        noise = [wilson(count, len(rows)) for count in flagged]
    else:
        return []
    return [
        {"label": name, "n": n, "flagged": count, "noise": share}
        for name, n, count, share in zip(rows.names, sizes, flagged, noise, strict=True)
    ]


def _ranked(rows: Rows, judgement: Judgement) -> list[dict[str, Any]]:
    picked = np.flatnonzero(judgement.flagged)
    picked = picked[np.argsort(judgement.margin[picked], kind="stable")][:RANKED]
    return [
        {
            "id": name,
            "given": rows.named(row),
            "suggested": rows.in_words(judgement.suggested[row]),
            "margin": float(judgement.margin[row]),
            "split": split,
        }
        for row, name, split in zip(
            picked.tolist(), rows.texts("id", picked).tolist(), rows.texts("split", picked).tolist(), strict=True
        )
    ]


def _unchecked(rows: Rows, judgement: Judgement) -> list[dict[str, Any]]:
    if rows.task == "forecasting":
        return []
    picked = np.flatnonzero(~judgement.checked)[:RANKED]
    reason = "no other row of this class, outside its group and copies, to learn from"
    return [
        {"id": name, "given": rows.named(row), "reason": reason}
        for row, name in zip(picked.tolist(), rows.texts("id", picked).tolist(), strict=True)
    ]


def _outliers(rows: Rows, scores: Floats, strange: Bools) -> dict[str, Any]:
    picked = np.flatnonzero(strange)
    picked = picked[np.argsort(scores[picked], kind="stable")][:RANKED_OUTLIERS]
    lines = zip(picked.tolist(), rows.texts("id", picked).tolist(), rows.texts("split", picked).tolist(), strict=True)
    return {
        "n": int(strange.sum()),
        "ranked": [{"id": name, "score": float(scores[row]), "split": split} for row, name, split in lines],
    }
