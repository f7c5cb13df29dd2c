"""Fast models that stand in for the loop's own: fitted on some rows, they give class probabilities of others.

Two that err differently are averaged. Small sets: an RBF support vector machine and 12 nearest neighbours; on digits with a tenth of the labels
flipped, the average finds flips better than either. Beyond 6000 rows, where the cost of those grows with the square of the rows: ridge
regression on the kernel to 500 landmarks (Williams & Seeger, "Using the Nystroem method to speed up kernel machines", NIPS 2000), which finds more
than logistic regression and is faster. Tables: boosted trees and logistic regression. Texts: ridge regression on the sparse terms, which
finds more than anything tried on their folded form.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Predict = Callable[[Floats], Floats]
    Fit = Callable[[Floats, Ints, bool], tuple[Predict, Ints]]

MOST_SVM_ROWS = 6000
MOST_SVM_CLASSES = 100  # one machine for each pair of them
NEIGHBOURS = 12
SHARPNESS = 2.0
FLOOR = 0.01
RIDGE_PENALTY = 1.0
RIDGE_SHARPNESS = 3.0
LANDMARKS = 500
LANDMARK_PENALTY = 0.1
NOISY_COST, CLEAN_COST = 2.0, 10.0  # of the machine: a softer margin while wrong labels are among the rows
MOST_TREE_CLASSES = 30  # one tree per class and iteration
TREES = 100
ITERATIONS = 200
MOST_CALM_ROWS = 10_000


class Learner(Protocol):
    """Learns from some rows and judges others."""

    name: str

    def __call__(self, fit: Ints, held: Ints, *, clean: bool) -> Floats:
        """Probabilities of the held rows, float64 [H, K], zero for classes that no fit row has.

        Args:
            fit: Rows to learn from.
            held: Rows to judge.
            clean: Whether doubtful rows have been taken out of ``fit``.
        """
        ...


class StandIn:
    """The fast models that suit the modality and the number of rows.

    Args:
        features: Scaled features of all rows, [N, D]; for texts a sparse matrix of terms.
        labels: Classes, int64 [N].
        classes: Number of classes K.
        modality: What a row is.
        seed: Seed of the models that have one.
        fast: Logistic regression alone, because many such learners are needed.
    """

    def __init__(
        self,
        features: Any,
        labels: Ints,
        classes: int,
        *,
        modality: str,
        seed: int,
        fast: bool = False,
    ) -> None:
        self.features, self.labels, self.classes, self.seed = features, labels, classes, seed
        self.models: list[Fit] = []
        if modality == "text":
            self.models, self.name = [self._ridge], "ridge regression on words, pairs of words and pieces of words"
        elif modality == "table" and classes <= MOST_TREE_CLASSES and not fast:
            self.models, self.name = [self._trees, self._logistic], "boosted trees averaged with logistic regression"
        elif modality != "table" and len(labels) <= MOST_SVM_ROWS and classes <= MOST_SVM_CLASSES and not fast:
            self.models = [self._neighbours, self._machine]
            self.name = f"an RBF support vector machine averaged with {NEIGHBOURS} nearest neighbours"
        elif modality == "table" or fast:
            self.models, self.name = [self._logistic], "logistic regression"
        else:
            self.models, self.name = [self._landmarks], f"ridge regression on an RBF kernel to {LANDMARKS} landmarks"

    def __call__(self, fit: Ints, held: Ints, *, clean: bool) -> Floats:
        """Average of the models' probabilities."""
        result = np.zeros((len(held), self.classes))
        known = np.unique(self.labels[fit])
        if len(known) == 1:
            result[:, known[0]] = 1.0
            return result
        rows, learned = (_dense(self.features[part]) for part in (held, fit))
        with calm(len(fit)), _quiet():
            for model in self.models:
                predict, columns = model(learned, self.labels[fit], clean)
                result[:, columns] += predict(rows) / len(self.models)
        return result / result.sum(axis=1, keepdims=True)

    def _neighbours(self, features: Floats, labels: Ints, clean: bool) -> tuple[Predict, Ints]:  # noqa: ARG002 - one signature
        from sklearn.neighbors import KNeighborsClassifier

        model = KNeighborsClassifier(min(NEIGHBOURS, len(labels)), weights="distance").fit(features, labels)
        return lambda rows: _smoothed(model.predict_proba(rows)), model.classes_

    def _machine(self, features: Floats, labels: Ints, clean: bool) -> tuple[Predict, Ints]:
        from sklearn.svm import SVC

        cost = CLEAN_COST if clean else NOISY_COST
        model = SVC(C=cost, gamma="scale", decision_function_shape="ovr").fit(features, labels)
        return lambda rows: _softmax(_columns(model.decision_function(rows))), model.classes_

    def _logistic(self, features: Floats, labels: Ints, clean: bool) -> tuple[Predict, Ints]:  # noqa: ARG002 - one signature
        return logistic(features, labels)

    def _ridge(
        self,
        features: Floats,
        labels: Ints,
        clean: bool,  # noqa: ARG002 - one signature
    ) -> tuple[Predict, Ints]:
        from sklearn.linear_model import RidgeClassifier

        model = RidgeClassifier(alpha=RIDGE_PENALTY).fit(features, labels)
        return lambda rows: _softmax(_columns(model.decision_function(rows)), RIDGE_SHARPNESS), model.classes_

    def _landmarks(
        self,
        features: Floats,
        labels: Ints,
        clean: bool,  # noqa: ARG002 - one signature
    ) -> tuple[Predict, Ints]:
        from sklearn.kernel_approximation import Nystroem
        from sklearn.linear_model import RidgeClassifier

        width = 1.0 / max(features.shape[1] * float(features.var()), 1e-12)
        kernel = Nystroem(gamma=width, n_components=min(LANDMARKS, len(labels)), random_state=self.seed).fit(features)
        model = RidgeClassifier(alpha=LANDMARK_PENALTY).fit(kernel.transform(features), labels)
        return (
            lambda rows: _softmax(_columns(model.decision_function(kernel.transform(rows))), RIDGE_SHARPNESS),
            model.classes_,
        )

    def _trees(self, features: Floats, labels: Ints, clean: bool) -> tuple[Predict, Ints]:  # noqa: ARG002 - one signature
        from sklearn.ensemble import HistGradientBoostingClassifier

        model = HistGradientBoostingClassifier(
            max_iter=TREES,
            early_stopping=False,
            min_samples_leaf=min(20, max(1, len(labels) // 20)),
            random_state=self.seed,
        ).fit(features, labels)
        return model.predict_proba, model.classes_


def calm(rows: int) -> Any:
    """One thread for small sets: on a busy machine, threads that wait for each other take ten times as long as one."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1 if rows <= MOST_CALM_ROWS else None)


def logistic(features: Floats, labels: Ints) -> tuple[Predict, Ints]:
    """A fitted logistic regression on standardised features, and its classes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=ITERATIONS, tol=1e-3))
    model.fit(features, labels)
    return model.predict_proba, model.classes_


@contextmanager
def _quiet() -> Iterator[None]:
    """A linear model that has not quite converged is good enough to judge labels; classes of two rows are no regression."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        warnings.filterwarnings("ignore", message="The number of unique classes", category=UserWarning)
        yield


def _columns(scores: Floats) -> Floats:
    """One score per class; with two classes scikit-learn gives the second one's only."""
    return np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores


def _dense(rows: Any) -> Any:
    """Sparse rows stay as they are."""
    return np.asarray(rows, dtype=np.float64) if isinstance(rows, np.ndarray) else rows


def _softmax(scores: Floats, sharpness: float = SHARPNESS) -> Floats:
    powers = np.exp(sharpness * (scores - scores.max(axis=1, keepdims=True)))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _smoothed(votes: Floats) -> Floats:
    return np.asarray((votes + FLOOR) / (votes + FLOOR).sum(axis=1, keepdims=True))
