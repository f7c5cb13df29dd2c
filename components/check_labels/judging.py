"""What out-of-sample models say about each label of a version, by task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.check_labels.confident import ConfidentJoint, confident_joint
from kfloop.components.check_labels.features.text import read_texts, terms
from kfloop.components.check_labels.folds import fold_of_rows
from kfloop.components.check_labels.issues import find_issues, find_number_issues, find_set_issues, normalized_margin
from kfloop.components.check_labels.learners import StandIn
from kfloop.components.check_labels.probabilities import MOST_ROWS, SAMPLE, cross_fit, folds_for
from kfloop.components.check_labels.targets import predict_numbers
from kfloop.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kfloop.components.check_labels.learners import Learner
    from kfloop.components.check_labels.rows import Rows
    from kfloop.core.sections import LabelsConfig
    from kfloop.core.versions import DatasetVersion

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

ROW_BY_ROW = ("image", "audio", "text", "table", "vector")
MOST_SET_CLASSES = 30  # beyond, one fast model for each class


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Verdict on each row.

    Attributes:
        flagged: The label is probably wrong, bool [N].
        checked: The label could be checked, bool [N].
        margin: Low is doubtful, NaN where not checked, float64 [N].
        confidence: How sure the models are of what they say, float64 [N].
        suggested: Their label: int64 [N], bool [N, K] or float64 [N].
        method: How, in words.
        accuracy: Rows whose label is what the models say, and rows checked; null for numbers.
        joint: Given and true classes; null for other tasks.
        doubted: Rows whose likeliest class is another than the given one, and that no person has settled, bool [N].
        memberships: For sets of classes, which memberships are flagged, bool [N, K].
    """

    flagged: Bools
    checked: Bools
    margin: Floats
    confidence: Floats
    suggested: NDArray[Any]
    method: str
    accuracy: tuple[int, int] | None = None
    joint: ConfidentJoint | None = None
    doubted: Bools | None = None
    memberships: Bools | None = None


def judge(rows: Rows, features: NDArray[np.floating], version: DatasetVersion, config: LabelsConfig) -> Judgement:
    """Judge the labels of all rows.

    Args:
        rows: The rows.
        features: Their features, [N, D].
        version: The dataset version.
        config: The ``labels`` section.

    Raises:
        ConfigError: ``probabilities: model`` for data that is not judged row by row, or has no single class.
    """
    if config.probabilities == "model" and (version.modality not in ROW_BY_ROW or rows.task != "multiclass"):
        raise ConfigError(
            f"labels.probabilities is 'model', but the data is {version.modality} for {rows.task}: models judge the labels of "
            f"{', '.join(ROW_BY_ROW)} data with one class each",
            hint="set labels.probabilities: stand_in",
        )
    folds = folds_for(len(rows), config.folds)
    described: Any = features
    if version.modality == "text" and rows.task != "regression":
        described = terms(read_texts(version, version.splits))
    if rows.task == "multiclass":
        return _classes(rows, described, version, config, folds)
    if rows.task == "multilabel":
        return _sets(rows, described, version, config, folds)
    return _numbers(rows, features, config, folds)


def _classes(rows: Rows, features: Any, version: DatasetVersion, config: LabelsConfig, folds: int) -> Judgement:
    given, k, settled = rows.given, len(rows.names), rows.settled
    fold = fold_of_rows(given, rows.cluster, folds=folds, seed=config.seed)
    learner: Learner
    if config.probabilities == "model":
        learner = _network_learner(version, given, rows.names, config.seed)
    else:
        learner = StandIn(features, given, k, modality=version.modality, seed=config.seed)
    found = cross_fit(learner, given, k, fold, order=_order(rows, config), settled=settled)
    probabilities, checked = found.probabilities, found.checked
    flagged = np.zeros(len(given), dtype=np.bool_)
    flagged[checked] = find_issues(given[checked], probabilities[checked], settled[checked])
    margin = np.where(checked, normalized_margin(given, probabilities), np.nan)
    suggested = probabilities.argmax(axis=1).astype(np.int64)
    return Judgement(
        flagged=flagged,
        checked=checked,
        margin=margin,
        confidence=np.asarray(probabilities.max(axis=1), dtype=np.float64),
        suggested=suggested,
        method=_method(learner.name, folds, len(rows)) + "; confident learning, pruned by noise rate",
        accuracy=(int((suggested == given)[checked].sum()), int(checked.sum())),
        doubted=checked & ~settled & (suggested != given),
        joint=confident_joint(given[checked], probabilities[checked], settled[checked]),
    )


def _network_learner(version: DatasetVersion, given: NDArray[np.int64], names: Sequence[str], seed: int) -> Learner:
    """The modality's usual model family, on all rows in order."""
    from kfloop.core.crossfit import NetworkLearner
    from kfloop.core.encoding import fit_encoder

    encoder = fit_encoder(version)
    parts = [encoder.encode(version.table(split)) for split in version.splits]
    inputs = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    return NetworkLearner(inputs, given, names, encoder, seed=seed)


def _sets(rows: Rows, features: Any, version: DatasetVersion, config: LabelsConfig, folds: int) -> Judgement:
    given: Bools = rows.given
    k, settled = given.shape[1], rows.settled
    rarest_first = np.argsort(given.sum(axis=0), kind="stable")
    # The rarest of a row's classes is the one that folds must share out.
    strata = np.where(given.any(axis=1), given[:, rarest_first].argmax(axis=1), k)
    fold = fold_of_rows(strata, rows.cluster, folds=folds, seed=config.seed)
    chance, checked = np.zeros(given.shape), np.ones(given.shape, dtype=np.bool_)
    order, name = _order(rows, config), "nothing"
    for column in range(k):
        labels = given[:, column].astype(np.int64)
        learner = StandIn(features, labels, 2, modality=version.modality, seed=config.seed, fast=k > MOST_SET_CLASSES)
        found = cross_fit(learner, labels, 2, fold, order=order, settled=settled)
        chance[:, column], checked[:, column], name = found.probabilities[:, 1], found.checked, learner.name
    memberships = find_set_issues(given, chance, settled) & checked
    own = np.where(given, chance, 1.0 - chance)
    sure = np.asarray(checked.any(axis=1))
    return Judgement(
        flagged=np.asarray(memberships.any(axis=1)),
        checked=sure,
        margin=np.where(sure, np.where(checked, 2.0 * own - 1.0, 1.0).min(axis=1), np.nan),
        confidence=np.maximum(chance, 1.0 - chance).min(axis=1),
        suggested=given ^ memberships,
        method=_method(name, folds, len(rows))
        + ", each class against the rest; confident learning, pruned by noise rate",
        accuracy=(int((((chance > 0.5) == given) | ~checked).all(axis=1)[sure].sum()), int(sure.sum())),  # noqa: PLR2004
        memberships=memberships,
    )


def _numbers(rows: Rows, features: NDArray[np.floating], config: LabelsConfig, folds: int) -> Judgement:
    fold = fold_of_rows(np.zeros(len(rows), dtype=np.int64), rows.cluster, folds=folds, seed=config.seed)
    predicted = predict_numbers(
        features, rows.given, fold, order=_order(rows, config), seed=config.seed, settled=rows.settled
    )
    found = find_number_issues(rows.given, predicted)
    return Judgement(
        flagged=found.flagged & ~rows.settled,
        checked=np.ones(len(rows), dtype=np.bool_),
        margin=found.margin,
        confidence=found.confidence,
        suggested=predicted,
        method=_method("boosted trees averaged with ridge regression", folds, len(rows))
        + "; residuals in robust standard deviations, at most 5% of the flags false",
    )


def _order(rows: Rows, config: LabelsConfig) -> Ints | None:
    """The order from which a sample is taken; null where all rows are learned from."""
    return rows.stable_order(config.seed) if len(rows) > MOST_ROWS else None


def _method(name: str, folds: int, rows: int) -> str:
    sampled = f", fitted on a stable sample of {SAMPLE} rows" if rows > MOST_ROWS else ""
    return f"{folds}-fold cross-fitting of {name}{sampled}, in two rounds, the second without the rows flagged in the first"
