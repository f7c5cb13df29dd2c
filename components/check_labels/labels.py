"""Which labels are probably wrong, how many in all, and what that means for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.check_labels.probabilities import folds_for, method, out_of_sample, pixel_features
from kfloop.core.artifacts import write_report
from kfloop.core.statistics.estimate import Estimate, wilson
from kfloop.core.versions import SPLITS, read_version
from kfloop.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.sections import LabelsConfig
    from kfloop.core.workspace import Workspace

RANKED = 500
FEWEST = 2
DOUBTFUL_WEIGHT = 0.5


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    """Label check of one dataset version.

    Attributes:
        n: Rows checked.
        n_flagged: Rows whose label is probably wrong.
        noise: Estimated share of wrong labels: the flagged share with its Wilson interval.
        method: Where the out-of-sample probabilities come from.
        policy: What was done about flagged rows of the train split.
        per_class: Rows and flagged rows of each given label.
        ranked: Flagged rows, most doubtful first.
    """

    n: int
    n_flagged: int
    noise: Estimate
    method: str
    policy: str
    per_class: list[dict[str, Any]]
    ranked: list[dict[str, Any]]


def run(config: LabelsConfig, *, dataset: Path, out: Path, workspace: Workspace) -> LabelReport:  # noqa: ARG001
    """Check the labels of all splits by cross-fitting.

    Args:
        config: The ``labels`` section.
        dataset: Dataset version.
        out: Empty folder for ``report.json``, ``issues.parquet`` and ``weights.parquet``.
        workspace: The loop's places.

    Raises:
        InputError: A class has a single example, so that nothing can be said about it.
    """
    version = read_version(dataset)
    parts = [version.split(name) for name in SPLITS]
    ids, images, labels = (
        np.concatenate([getattr(part, key) for part in parts]) for key in ("ids", "images", "labels")
    )
    split = np.repeat(np.array(SPLITS), [len(part) for part in parts])
    names = version.labels
    folds = folds_for(labels, config.folds)
    if folds < FEWEST:
        rare = names[int(np.bincount(labels, minlength=len(names)).argmin())]
        raise InputError(f"class '{rare}' has a single example: its label cannot be checked", hint="add examples of it")
    probabilities = out_of_sample(pixel_features(images), labels, len(names), folds=folds, seed=config.seed)
    flagged = find_issues(labels, probabilities)
    margin = normalized_margin(labels, probabilities)
    suggested = probabilities.argmax(axis=1)
    _write_tables(out, config.policy, ids, labels, suggested, margin, flagged, split)
    order = np.flatnonzero(flagged)[np.argsort(margin[flagged], kind="stable")]
    report = LabelReport(
        n=len(labels),
        n_flagged=int(flagged.sum()),
        noise=wilson(int(flagged.sum()), len(labels)),
        method=method(len(labels), folds),
        policy=config.policy,
        per_class=[
            {"label": name, "n": int((labels == index).sum()), "flagged": int(flagged[labels == index].sum())}
            for index, name in enumerate(names)
        ],
        ranked=[
            {
                "id": str(ids[row]),
                "given": names[labels[row]],
                "suggested": names[suggested[row]],
                "margin": float(margin[row]),
                "split": str(split[row]),
            }
            for row in order[:RANKED]
        ],
    )
    write_report(out, report)
    return report


def find_issues(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Rows whose given label is probably wrong: confident learning, pruned by noise rate (Northcutt, Jiang, Chuang, JAIR 2021).

    Args:
        labels: int64 [N].
        probabilities: Out-of-sample, float64 [N, K].

    Returns:
        bool [N].
    """
    from cleanlab.filter import find_label_issues

    return np.asarray(find_label_issues(labels, probabilities, filter_by="prune_by_noise_rate", n_jobs=1), dtype=bool)


def normalized_margin(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Probability of the given label minus the largest of the others, in [-1, 1]; low is doubtful."""
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -np.inf
    return np.asarray(probabilities[rows, labels] - others.max(axis=1))


def _write_tables(
    out: Path,
    policy: str,
    ids: np.ndarray,
    labels: np.ndarray,
    suggested: np.ndarray,
    margin: np.ndarray,
    flagged: np.ndarray,
    split: np.ndarray,
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    issues = {"id": ids, "given": labels, "suggested": suggested, "margin": margin, "flagged": flagged, "split": split}
    pq.write_table(pa.table(issues), out / "issues.parquet")
    quarantined = flagged & (split == "train") & (policy == "quarantine")
    doubtful = flagged & (split == "train") & (policy == "weight")
    weights = np.where(doubtful, DOUBTFUL_WEIGHT, 1.0)
    pq.write_table(pa.table({"id": ids, "weight": weights, "quarantined": quarantined}), out / "weights.parquet")
