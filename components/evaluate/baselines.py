"""Simple models that a deep one has to beat to be worth its cost. Each fits in seconds; rows are thinned out where it would not."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.features import features, tree_features, window_features
from kfloop.core.encoding.base import targets
from kfloop.errors import ConfigError, TerminalError

if TYPE_CHECKING:
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
PENALTY = 1.0  # of a ridge on lags, in standard deviations
CELLS = 20_000_000  # numbers of windows held at a time


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A fitted baseline's answers.

    Attributes:
        kind: What it is.
        answer: For each test row, as a signature of the objective says.
        n_fitted: Rows it was fitted on.
        n_train: Rows there were.
    """

    kind: str
    answer: Answer
    n_fitted: int
    n_train: int

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
    if version.modality == "series":
        train = challenger.model.encoder.examples(version, "train", objective)
        rows = _thinned(np.arange(len(train)), LARGEST_TRAINING, seed, evenly=True)
        past, target = train.batch_inputs(rows)[0], train.target[rows]
        test = challenger.test.batch_inputs(np.arange(len(challenger.test)))[0]
        if objective == "forecasting":
            answer = repeat_last(test, target.shape[1]) if kind == "repeat_last" else ridge_on_lags(past, target, test)
            return Baseline(kind=kind, answer=answer, n_fitted=len(rows), n_train=len(train))
        answer = _fitted(kind, version, objective, (*window_features(past, test), None), target, seed)
        return Baseline(kind=kind, answer=answer, n_fitted=len(rows), n_train=len(train))
    whole = version.table("train")
    target = targets(whole, version, objective, challenger.normal)
    known = np.flatnonzero(target == 0) if objective == "anomaly" else np.arange(len(target))
    if objective == "classification":
        known = known[target >= 0]
    largest = LARGEST_TEXTS if version.modality == "text" else LARGEST.get(kind, LARGEST_TRAINING)
    rows = _thinned(known, largest, seed)
    table, test_table = whole.take(rows), version.table("test")
    described: tuple[Any, Any, Any]
    if kind == "gradient_boosting":
        described = tree_features(version, table, test_table)
    else:
        described = (*features(version, table, test_table), None)
    answer = _fitted(kind, version, objective, described, target[rows], seed)
    return Baseline(kind=kind, answer=answer, n_fitted=len(rows), n_train=len(known))


def _fitted(
    kind: str,
    version: DatasetVersion,
    objective: str,
    described: tuple[Any, Any, list[bool] | None],
    target: NDArray[Any],
    seed: int,
) -> Answer:
    """A scikit-learn model's answers on the test rows."""
    train, test, categorical = described
    if objective == "classification":
        return class_probabilities(_classifier(kind, seed, categorical), train, target, test, len(version.labels), kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a baseline that is nearly converged is still a baseline
        if objective == "multilabel":
            from sklearn.multiclass import OneVsRestClassifier

            several = OneVsRestClassifier(_classifier(kind, seed, None)).fit(train, target.astype(np.int64))
            return np.asarray(several.predict_proba(test), dtype=np.float64)
        model = _regressor(kind, seed, categorical).fit(train, target)
        answer = -model.score_samples(test) if objective == "anomaly" else model.predict(test)
        return np.asarray(answer, dtype=np.float64)


def class_probabilities(
    model: Any, train: Any, target: NDArray[np.int64], test: Any, classes: int, kind: str
) -> Answer:
    """Probabilities [N, K]; a class without training rows gets 0.

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
    probabilities = np.zeros((test.shape[0], classes))
    probabilities[:, model.classes_] = model.predict_proba(test)
    return probabilities


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


def repeat_last(past: NDArray[Any], horizon: int) -> Answer:
    """The last known value of each channel, repeated: [N, horizon, C] from windows [N, context, C]."""
    return np.repeat(_last(past)[:, None, :], horizon, axis=1)


def ridge_on_lags(past: NDArray[Any], target: NDArray[Any], test: NDArray[Any]) -> Answer:
    """Ridge regression of the next steps on the last ones, all channels sharing one set of weights.

    Values are taken from the last one and in standard deviations of their channel, which copes with levels that move (after Zeng et al.,
    "Are transformers effective for time series forecasting?", AAAI 2023, NLinear).

    Args:
        past: Windows to learn from, [N, context, C].
        target: What follows them, [N, horizon, C].
        test: Windows to forecast, [M, context, C].

    Returns:
        Forecasts [M, horizon, C].
    """
    deviation = np.nanstd(past.astype(np.float64), axis=(0, 1))
    spread = np.where(deviation > 0, deviation, 1.0)
    context, horizon, channels = past.shape[1], target.shape[1], past.shape[2]
    products, moments = np.zeros((context, context)), np.zeros((context, horizon))
    for rows in _parts(len(past), context * channels):
        lags, last = _lags(past[rows], spread)
        wanted = ((target[rows] - last[:, None]) / spread).transpose(0, 2, 1).reshape(-1, horizon)
        products += lags.T @ lags
        moments += lags.T @ wanted
    weights = np.linalg.solve(products + PENALTY * np.eye(context), moments)
    found: list[Answer] = []
    for rows in _parts(len(test), context * channels):
        lags, last = _lags(test[rows], spread)
        ahead = (lags @ weights).reshape(-1, channels, horizon).transpose(0, 2, 1)
        found.append(ahead * spread + last[:, None])
    return np.concatenate(found) if found else np.empty((0, horizon, channels))


def _lags(windows: NDArray[Any], spread: Answer) -> tuple[Answer, Answer]:
    """Windows relative to their last value, [N * C, context], and that value, [N, C]."""
    last = _last(windows)
    relative: NDArray[Any] = np.nan_to_num((windows - last[:, None]) / spread)  # a gap counts as no change
    return relative.transpose(0, 2, 1).reshape(-1, windows.shape[1]), last


def _last(windows: NDArray[Any]) -> Answer:
    """The last value of each channel that is there, [N, C]; 0 where there is none."""
    known = np.isfinite(windows)
    place = windows.shape[1] - 1 - known[:, ::-1].argmax(axis=1)
    found = np.take_along_axis(windows, place[:, None], axis=1)[:, 0]
    return np.nan_to_num(found.astype(np.float64))


def _parts(total: int, size: int) -> list[slice]:
    step = max(1, CELLS // max(1, size))
    return [slice(start, start + step) for start in range(0, total, step)]


def _thinned(rows: NDArray[np.int64], largest: int, seed: int, *, evenly: bool = False) -> NDArray[np.int64]:
    """At most ``largest`` of ``rows`` at random, or evenly spread."""
    if len(rows) <= largest:
        return rows
    if evenly:
        return rows[(np.arange(largest) * len(rows)) // largest]
    return np.sort(np.random.default_rng(seed).permutation(rows)[:largest])
