"""From a model's answers to the features that are bet on.

Everything is fitted on the learning half of the reference, so that the paying half stays untouched (see
`kfloop.core.statistics.betting`): five views, each of which sees what the others miss.

    embedding   whitened principal components: the mean of the representation
    outputs     whitened principal components of the answers (of classes their log-probabilities, of several labels their log-odds)
    quadratic   squares of the components and products of the first ones: spread and correlation
    distance    the log of the mean square of all components, bet to rise: noise, and inputs unlike any in the reference
    confidence  the log-odds of the top class, bet to fall; where there are classes

The last two have nothing to learn and bet from the first batch on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.statistics.betting import Betting, View
from kfloop.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MIN_REFERENCE = 40
CLASSES, LABELS = "classification", "multilabel"
_LEARNING_SHARE = 0.4
_SEED = 0
_EMBEDDING_COLUMNS = 16
_OUTPUT_COLUMNS = 8
_QUADRATIC_BASE = 6
_ROWS_PER_COLUMN = 8
_CLIP = 6.0
_SMALLEST = 1e-6
_DIRECTIONS = {"distance": (1.0,), "confidence": (-1.0,)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Whitening:
    """Principal components scaled to unit variance.

    Attributes:
        mean: Mean of the fitted rows, [D].
        axes: Scaled components, [k, D].
    """

    mean: Array
    axes: Array

    def apply(self, rows: Array) -> Array:
        """Return the components of [n, D] rows, clipped to 6 standard deviations, [n, k]."""
        # einsum and not @: a row's result must not depend on how many rows are in the call, or a resumed monitor would differ.
        return np.asarray(np.clip(np.einsum("nd,kd->nk", rows - self.mean, self.axes, optimize=False), -_CLIP, _CLIP))


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """The fitted map from answers to features, and the reference that went through it.

    Attributes:
        objective: What the model learned.
        embedding: Whitening of the embedding.
        outputs: Whitening of the answers.
        products: Mean and standard deviation of the quadratic features, [2, q].
        fixed: Mean and standard deviation of distance and confidence, [2, 0 to 2].
        learn: Features of the learning half, [n, d].
        pay: Features of the paying half, [m, d].
    """

    objective: str
    embedding: Whitening
    outputs: Whitening
    products: Array
    fixed: Array
    learn: Array
    pay: Array

    @property
    def reference(self) -> Array:
        """Features of all reference rows, [n + m, d]."""
        return np.concatenate([self.learn, self.pay])

    @property
    def views(self) -> tuple[View, ...]:
        """The blocks of columns; a block that does not vary in the reference is left out."""
        widths = {
            "embedding": len(self.embedding.axes),
            "outputs": len(self.outputs.axes),
            "quadratic": self.products.shape[1],
            "distance": int(len(self.embedding.axes) > 0),
            "confidence": int(self.objective == CLASSES),
        }
        views, start = [], 0
        for name, width in widths.items():
            if width:
                views.append(View(name=name, start=start, stop=start + width, direction=_DIRECTIONS.get(name)))
            start += width
        return tuple(views)

    @property
    def names(self) -> list[str]:
        """A name for every column."""
        names = [f"embedding component {i + 1}" for i in range(len(self.embedding.axes))]
        names += [f"output component {i + 1}" for i in range(len(self.outputs.axes))]
        first, second = _pairs(self.embedding)
        names += [f"components {i + 1} x {j + 1}" for i, j in zip(first, second, strict=True)]
        distance = ["log distance from the reference"] if len(self.embedding.axes) else []
        confidence = ["log-odds of the top class"] if self.objective == CLASSES else []
        return [*names, *distance, *confidence]

    def betting(self, *, level: float, tolerance: float, batch: int) -> Betting:
        """Return the betting test over these views."""
        return Betting(learn=self.learn, pay=self.pay, views=self.views, level=level, tolerance=tolerance, batch=batch)

    def features(self, embedding: Array, answers: Array) -> Array:
        """Return the features of rows, [n, d]; a row that holds a value that is not finite gives NaN throughout."""
        valid = finite_rows(embedding, answers, self.objective)
        raw = _raw(
            self.embedding,
            self.outputs,
            np.where(valid[:, None], embedding, 0.0),
            np.where(valid[:, None], answers, 1.0),
            self.objective,
        )
        features = self._standardised(raw)
        features[~valid] = np.nan
        return features

    def _standardised(self, raw: tuple[Array, Array, Array, Array]) -> Array:
        components, outputs, products, fixed = raw
        products = np.clip((products - self.products[0]) / self.products[1], -_CLIP, _CLIP)
        fixed = np.clip((fixed - self.fixed[0]) / self.fixed[1], -_CLIP, _CLIP)
        return np.concatenate([components, outputs, products, fixed], axis=1)


class SmallReferenceError(InputError):
    """There are too few reference rows to compare anything with."""

    code = "small_reference"


def fit_projection(embedding: Array, answers: Array, objective: str = CLASSES) -> Projection:
    """Fit the projection on a reference.

    Args:
        embedding: Embeddings of the reference rows, [n, D].
        answers: The model's answers to the same rows, [n, K].
        objective: What the model learned.

    Raises:
        SmallReferenceError: Fewer than 40 usable rows.
    """
    valid = finite_rows(embedding, answers, objective)
    embedding, answers = embedding[valid].astype(float), answers[valid].astype(float)
    if len(embedding) < MIN_REFERENCE:
        message = f"the champion's reference has {len(embedding)} usable rows, expected at least {MIN_REFERENCE}"
        raise SmallReferenceError(
            message, hint="give the dataset larger validation and test splits, or more images, and train again"
        )
    # The rows come sorted (by class, by split): halves must be drawn, always the same way.
    order = np.random.default_rng(_SEED).permutation(len(embedding))
    embedding, answers = embedding[order], answers[order]
    cut = max(int(len(order) * _LEARNING_SHARE), MIN_REFERENCE // 4)
    whitened = _whitening(embedding[:cut], _EMBEDDING_COLUMNS)
    scaled = _scaled(answers[:cut], objective)
    outputs = _whitening(scaled, _OUTPUT_COLUMNS, _SMALLEST * float(np.abs(scaled).max()))
    _, _, products, fixed = _raw(whitened, outputs, embedding[:cut], answers[:cut], objective)
    empty = np.zeros((0, 0))
    draft = Projection(
        objective=objective,
        embedding=whitened,
        outputs=outputs,
        products=_moments(products),
        fixed=_moments(fixed),
        learn=empty,
        pay=empty,
    )
    features = draft.features(embedding, answers)
    return Projection(**{**draft.__dict__, "learn": features[:cut], "pay": features[cut:]})


def finite_rows(embedding: Array, answers: Array, objective: str = CLASSES) -> NDArray[np.bool_]:
    """Return which rows can be used: finite throughout, and probabilities within [0, 1]."""
    sane = np.isfinite(answers)
    if objective in (CLASSES, LABELS):
        sane &= (answers >= 0) & (answers <= 1 + _SMALLEST)
    return np.asarray(np.isfinite(embedding).all(axis=1) & sane.all(axis=1))


def _whitening(rows: Array, most: int, smallest: float = _SMALLEST) -> Whitening:
    mean = rows.mean(axis=0)
    _, values, axes = np.linalg.svd(rows - mean, full_matrices=False)
    spread = values / np.sqrt(len(rows))
    # Answers have the units of what was learned: a column that does not vary is small beside its own values.
    floor = max(smallest, 1e-3 * float(spread[0]))
    kept = min(most, max(len(rows) // _ROWS_PER_COLUMN, 1), int((spread > floor).sum()))
    return Whitening(mean=mean, axes=axes[:kept] / spread[:kept, None])


def _scaled(answers: Array, objective: str) -> Array:
    """Return answers on the scale on which their components are taken."""
    if objective == CLASSES:
        return np.asarray(np.log(np.clip(answers, _SMALLEST, 1.0)))
    if objective == LABELS:
        return _log_odds(answers)
    return answers


def _log_odds(probabilities: Array) -> Array:
    sure = np.clip(probabilities, _SMALLEST, 1 - _SMALLEST)
    return np.asarray(np.log(sure / (1 - sure)))


def _moments(rows: Array) -> Array:
    """Return mean and standard deviation of every column, the latter never 0, [2, d]."""
    return np.stack([rows.mean(axis=0), np.maximum(rows.std(axis=0), _SMALLEST)])


def _pairs(whitening: Whitening) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return which components are multiplied: each with itself, and the first six with each other."""
    every = np.arange(len(whitening.axes))
    first, second = np.triu_indices(min(len(every), _QUADRATIC_BASE), k=1)
    return np.concatenate([every, first]), np.concatenate([every, second])


def _raw(
    embedding: Whitening, outputs: Whitening, rows: Array, answers: Array, objective: str
) -> tuple[Array, Array, Array, Array]:
    """Return components, output components, products, and the columns with a fixed direction."""
    components = embedding.apply(rows.astype(float))
    first, second = _pairs(embedding)
    answers = answers.astype(float)
    fixed = [_log_odds(answers.max(axis=1))] if objective == CLASSES else []
    if components.shape[1]:
        fixed.insert(0, np.log(np.maximum((components**2).mean(axis=1), _SMALLEST)))
    return (
        components,
        outputs.apply(_scaled(answers, objective)),
        components[:, first] * components[:, second],
        np.column_stack(fixed) if fixed else np.zeros((len(components), 0)),
    )
