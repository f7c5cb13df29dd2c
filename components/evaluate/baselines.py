"""Simple models that a deep one has to beat to be worth its cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import TerminalError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_TRAINING = 5000  # rows; a baseline must stay cheap beside the evaluation
NEIGHBOURS = 5
FEWEST_CLASSES = 2


def baseline_probabilities(
    kind: str,
    train_images: NDArray[np.uint8],
    train_labels: NDArray[np.int64],
    test_images: NDArray[np.uint8],
    classes: int,
    seed: int,
) -> NDArray[np.float64]:
    """Probabilities [N, K] of a scikit-learn model trained on pixels.

    Args:
        kind: ``logistic_regression`` or ``nearest_neighbour``.
        train_images: uint8 [M, H, W, C]; more than 5000 are thinned out at random.
        train_labels: int64 [M].
        test_images: uint8 [N, H, W, C].
        classes: Number of classes K; one without training rows gets probability 0.
        seed: Seed of the thinning.

    Raises:
        TerminalError: There are fewer than two classes among the training rows.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    present = np.unique(train_labels)
    if len(present) < FEWEST_CLASSES:
        raise TerminalError(
            f"the training rows hold {len(present)} class(es), the baseline '{kind}' needs at least 2",
            hint="add examples of another class, or set evaluate.baseline: none",
        )
    if len(train_labels) > LARGEST_TRAINING:
        rows = np.random.default_rng(seed).permutation(len(train_labels))[:LARGEST_TRAINING]
        train_images, train_labels = train_images[rows], train_labels[rows]
    model = _model(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a baseline that is nearly converged is still a baseline
        model.fit(_pixels(train_images), train_labels)
    probabilities = np.zeros((len(test_images), classes))
    probabilities[:, model.classes_] = model.predict_proba(_pixels(test_images))
    return probabilities


def _model(kind: str) -> Any:
    if kind == "logistic_regression":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=200)
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(NEIGHBOURS, weights="distance")


def _pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(images.reshape(len(images), -1) / 255, dtype=np.float32)
