"""Simple models that a deep one has to beat to be worth its cost. Each fits in seconds; rows are thinned out where it would not."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.baselines.extrapolating import fit_lags, repeat_last
from kfloop.components.evaluate.baselines.features import features, tree_features, window_features
from kfloop.core.encoding.base import targets
from kfloop.errors import ConfigError, TerminalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kfloop.components.evaluate.opening import Contestant
    from kfloop.core.versions import DatasetVersion

    Answer = NDArray[np.float64]

KINDS = {  # the first is the usual one
    "classification": ("logistic_regression", "gradient_boosting", "nearest_neighbour"),
    "multilabel": ("logistic_regression",),
    "regression": ("ridge", "gradient_boosting", "nearest_neighbour"),
    "forecasting": ("ridge", "repeat_last"),
    "anomaly": ("isolation_forest",),
    "generation": ("gaussian",),
}
LARGEST = {"gradient_boosting": 50_000, "isolation_forest": 50_000}  # training rows
LARGEST_TRAINING = 5000  # of the others; a baseline must stay cheap beside the evaluation
LARGEST_TEXTS = 20_000  # sparse features are cheap
FEWEST_FOR_TREES = 1000  # rows of a table from which trees usually win
NEIGHBOURS = 5
FEWEST_CLASSES = 2


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A fitted baseline's answers.

    Attributes:
        kind: What it is.
        answer: For each test row, as a signature of the objective says.
        n_fitted: Rows it was fitted on.
        n_train: Rows there were.
        predict: Answers for other rows: a table with the version's columns, or windows [N, context, C] of a series.
        model: What was fitted, where there is such a thing; for its size.
        seconds: Time the fit took.
    """

    kind: str
    answer: Answer
    n_fitted: int
    n_train: int
    predict: Callable[[Any], Answer]
    model: Any = None
    seconds: float | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What the report says of it."""
        return {"kind": self.kind, "n_fitted": self.n_fitted, "n_train": self.n_train}


def kind_of(told: str | None, objective: str, modality: str, n_train: int) -> str | None:
    """The baseline of an objective: the one told, else the usual one; null for none.

    Raises:
        ConfigError: The one told cannot do this.
    """
    if told == "none":
        return None
    if told is None:
        trees = modality == "table" and objective in {"classification", "regression"} and n_train >= FEWEST_FOR_TREES
        return "gradient_boosting" if trees else KINDS[objective][0]
    fitting = [kind for kind in KINDS[objective] if kind != "gradient_boosting" or modality == "table"]
    if told not in fitting:
        raise ConfigError(
            f"evaluate.baseline is '{told}', which is no baseline for {objective} of {modality} data",
            hint=f"set it to {', '.join(fitting)}, or leave it out",
        )
    return told


def fit_baseline(told: str | None, version: DatasetVersion, challenger: Contestant, *, seed: int) -> Baseline | None:
    """The baseline's answers on the challenger's test rows; null when it is switched off.

    Args:
        told: ``evaluate.baseline``.
        version: Dataset version.
        challenger: The challenger; its encoder cuts a series into windows.
        seed: Seed of the thinning and of models that have one.

    Raises:
        ConfigError: The baseline told does not fit.
        TerminalError: The training rows hold fewer than two classes.
    """
    objective = challenger.model.signature.objective
    n_rows = int(version.card["splits"]["train"])
    kind = kind_of(told, objective, version.modality, n_rows)
    if kind is None:
        return None
    began = time.perf_counter()
    fit = _fit_windows if version.modality == "series" else _fit_rows
    fitted = fit(kind, version, challenger, seed)
    seconds = time.perf_counter() - began
    return Baseline(
        kind=kind,
        answer=fitted.predict(fitted.test),
        n_fitted=fitted.n_fitted,
        n_train=fitted.n_train,
        predict=fitted.predict,
        model=fitted.model,
        seconds=seconds,
    )


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    """A fitted baseline, and the test rows as it takes them."""

    predict: Callable[[Any], Answer]
    model: Any
    test: Any
    n_fitted: int
    n_train: int


def _fit_windows(kind: str, version: DatasetVersion, challenger: Contestant, seed: int) -> _Fitted:
    objective = challenger.model.signature.objective
    train = challenger.model.encoder.examples(version, "train", objective)
    rows = _thinned(np.arange(len(train)), LARGEST_TRAINING, seed, evenly=True)
    past, target = train.batch_inputs(rows)[0], train.target[rows]
    predict: Callable[[Any], Answer]
    model: Any = None
    if kind == "repeat_last":
        horizon = target.shape[1]

        def predict(test: NDArray[Any]) -> Answer:
            return repeat_last(test, horizon)
    elif objective == "forecasting":
        predict = fit_lags(past, target)
    else:
        describe = window_features(past)
        model, answer = _fitted(kind, version, objective, (describe(past), None), target, seed)

        def predict(test: NDArray[Any]) -> Answer:
            return answer(describe(test))

    test = challenger.test.batch_inputs(np.arange(len(challenger.test)))[0]
    return _Fitted(predict=predict, model=model, test=test, n_fitted=len(rows), n_train=len(train))


def _fit_rows(kind: str, version: DatasetVersion, challenger: Contestant, seed: int) -> _Fitted:
    objective = challenger.model.signature.objective
    whole = version.table("train")
    target = targets(whole, version, objective, challenger.normal)
    known = np.flatnonzero(target == 0) if objective == "anomaly" else np.arange(len(target))
    if objective == "classification":
        known = known[target >= 0]
    largest = LARGEST_TEXTS if version.modality == "text" else LARGEST.get(kind, LARGEST_TRAINING)
    rows = _thinned(known, largest, seed)
    table, test = whole.take(rows), version.table("test")
    describe, categorical = (
        tree_features(version, table, test) if kind == "gradient_boosting" else (features(version, table, test), None)
    )
    model, answer = _fitted(kind, version, objective, (describe(table), categorical), target[rows], seed)
    return _Fitted(
        predict=lambda other: answer(describe(other)), model=model, test=test, n_fitted=len(rows), n_train=len(known)
    )


def _fitted(
    kind: str,
    version: DatasetVersion,
    objective: str,
    described: tuple[Any, list[bool] | None],
    target: NDArray[Any],
    seed: int,
) -> tuple[Any, Callable[[Any], Answer]]:
    """A scikit-learn model, and its answers for features."""
    train, categorical = described
    if objective == "classification":
        return fit_classifier(_classifier(kind, seed, categorical), train, target, len(version.labels), kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a baseline that is nearly converged is still a baseline
        if objective == "multilabel":
            from sklearn.multiclass import OneVsRestClassifier

            several = OneVsRestClassifier(_classifier(kind, seed, None)).fit(train, target.astype(np.int64))
            return several, lambda rows: np.asarray(several.predict_proba(rows), dtype=np.float64)
        model = _regressor(kind, seed, categorical).fit(train, target)
    if objective == "anomaly":
        return model, lambda rows: np.asarray(-model.score_samples(rows), dtype=np.float64)
    return model, lambda rows: np.asarray(model.predict(rows), dtype=np.float64)


def fit_classifier(
    model: Any, train: Any, target: NDArray[np.int64], classes: int, kind: str
) -> tuple[Any, Callable[[Any], Answer]]:
    """The fitted model, and its probabilities [N, K] for features; a class without training rows gets 0.

    Raises:
        TerminalError: There are fewer than two classes among the training rows.
    """
    present = np.unique(target)
    if len(present) < FEWEST_CLASSES:
        raise TerminalError(
            f"the training rows hold {len(present)} class(es), the baseline '{kind}' needs at least 2",
            hint="add examples of another class, or set evaluate.baseline: none",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        model.fit(train, target)

    def answer(rows: Any) -> Answer:
        probabilities = np.zeros((rows.shape[0], classes))
        probabilities[:, model.classes_] = model.predict_proba(rows)
        return probabilities

    return model, answer


def _classifier(kind: str, seed: int, categorical: list[bool] | None) -> Any:
    if kind == "logistic_regression":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=200)
    if kind == "gradient_boosting":
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(categorical_features=categorical, random_state=seed)
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(NEIGHBOURS, weights="distance")


def _regressor(kind: str, seed: int, categorical: list[bool] | None) -> Any:
    if kind == "ridge":
        from sklearn.linear_model import RidgeCV

        return RidgeCV(alphas=np.logspace(-2, 4, 13))
    if kind == "gradient_boosting":
        from sklearn.ensemble import HistGradientBoostingRegressor

        return HistGradientBoostingRegressor(categorical_features=categorical, random_state=seed)
    if kind == "isolation_forest":
        from sklearn.ensemble import IsolationForest

        return IsolationForest(random_state=seed)
    from sklearn.neighbors import KNeighborsRegressor

    return KNeighborsRegressor(NEIGHBOURS, weights="distance")


def _thinned(rows: NDArray[np.int64], largest: int, seed: int, *, evenly: bool = False) -> NDArray[np.int64]:
    """At most ``largest`` of ``rows`` at random, or evenly spread."""
    if len(rows) <= largest:
        return rows
    if evenly:
        return rows[(np.arange(largest) * len(rows)) // largest]
    return np.sort(np.random.default_rng(seed).permutation(rows)[:largest])
