"""How much the latest rows differ from the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kfloop.components.monitor.projection import CLASSES, Projection, finite_rows
from kfloop.components.monitor.reporting import UNKNOWN
from kfloop.core.statistics.effects import Effect, c2st_auc, estimated_accuracy, feature_shifts, share_shifts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kfloop.components.monitor.traffic import Traffic
    from kfloop.core.statistics.estimate import Estimate


@dataclass(frozen=True, kw_only=True, eq=False)
class Sizes:
    """Effect sizes of the latest rows."""

    auc: Estimate = UNKNOWN
    accuracy: Estimate = UNKNOWN
    reference_accuracy: Estimate = UNKNOWN
    effects: tuple[Effect, ...] = ()


def measure(
    projection: Projection,
    reference: tuple[NDArray[np.float64], NDArray[np.float64]],
    traffic: Traffic,
    latest: NDArray[np.intp],
    labels: list[str],
) -> Sizes:
    """Measure the latest rows against the reference.

    Args:
        projection: The fitted features.
        reference: Embeddings [n, D] and answers [n, K] of the reference.
        traffic: The log.
        latest: Usable rows to measure, oldest first.
        labels: Names of the classes.
    """
    classes = projection.objective == CLASSES
    expected = reference[1][finite_rows(*reference, projection.objective)]
    before = Sizes(reference_accuracy=estimated_accuracy(expected) if classes else UNKNOWN)
    if not len(latest):
        return before
    answers = traffic.answers[latest]
    features = projection.features(traffic.embedding[latest], answers)
    shifts = feature_shifts(projection.reference, features, projection.names)
    auc = c2st_auc(projection.reference, features)
    if not classes:
        return Sizes(auc=auc, effects=tuple(shifts))
    confidence = feature_shifts(expected.max(axis=1)[:, None], answers.max(axis=1)[:, None], ["confidence"])
    shares = share_shifts(expected, answers, labels)
    return Sizes(
        auc=auc,
        accuracy=estimated_accuracy(answers),
        reference_accuracy=before.reference_accuracy,
        effects=(*confidence, *shares, *shifts),
    )
