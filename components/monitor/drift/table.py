"""The table that is watched: columns of the request, what the model answered, and its embedding.

    inputs      the columns of a table or a vector as they came, by name
    outputs     log-odds of each class or label, or each predicted number; of many their first principal components
    embedding   its first principal components, at most 16
    distance    the logarithm of the mean square of all components: noise, and inputs unlike any in the reference
    confidence  the log-odds of the top class

Components are fitted on the learning half of the reference alone, so that the paying half stays untouched (see `kfloop.core.drift`). A row with an answer or an embedding that cannot be
has missing cells in the columns made of it: that is a matter of quality, not of drift.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.drift.features import oriented

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

CLASSES, LABELS = "classification", "multilabel"
DISTANCE, CONFIDENCE = "log distance from the reference", "log-odds of the top class"
MOST_COMPONENTS, MOST_OUTPUTS = 16, 12
_DISTANCE_COMPONENTS = 64
_ROWS_PER_COMPONENT = 8
_SMALLEST = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Components:
    """Principal components scaled to unit variance, the strongest first.

    Attributes:
        mean: Mean of the fitted rows, [D].
        axes: Scaled components, [D, k].
    """

    mean: Array
    axes: Array

    def apply(self, rows: Array) -> Array:
        """Return the components of [n, D] rows, [n, k]."""
        # Row by row: in one product the last bits of a row may depend on how many rows are in the call, and a resumed watch would differ.
        return np.asarray(np.matmul((rows - self.mean)[:, None, :], self.axes)[:, 0, :])


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """From rows to the columns that are watched.

    Attributes:
        objective: What the model learned.
        labels: Names of classes or labels.
        inputs: Columns of the request that are watched, with their kinds.
        embedding: Components of the embedding; None where it is not watched.
        outputs: Components of the answers; None where they are watched one by one.
        derived: Names of all columns that are no inputs, in order, without those that do not vary in the reference.
    """

    objective: str
    labels: tuple[str, ...]
    inputs: Mapping[str, str]
    embedding: Components | None
    outputs: Components | None
    derived: tuple[str, ...] = ()

    @property
    def kinds(self) -> dict[str, str]:
        """Every watched column, ``numeric`` or ``categorical``."""
        return {**self.inputs, **dict.fromkeys(self.derived, "numeric")}

    def columns(self, inputs: Mapping[str, NDArray[Any]], embedding: Array, answers: Array) -> dict[str, NDArray[Any]]:
        """The watched columns of rows; inputs that were not logged are absent.

        Args:
            inputs: Columns of the requests by name.
            embedding: [n, D].
            answers: [n, K].
        """
        made = self._made(embedding, answers)
        return {
            **{name: inputs[name] for name in self.inputs if name in inputs},
            **{name: made[name] for name in self.derived},
        }

    def _made(self, embedding: Array, answers: Array) -> dict[str, NDArray[Any]]:
        with np.errstate(invalid="ignore"):
            sane: NDArray[np.bool_] = usable_answers(answers, self.objective)
            answers = answers if sane.all() else np.where(sane[:, None], answers, np.nan)
            scaled = _scaled(answers, self.objective)
            outputs = scaled if self.outputs is None else self.outputs.apply(scaled)
            names = _output_names(self.objective, self.labels, outputs.shape[1], self.outputs is not None)
            made = dict(zip(names, outputs.T, strict=True))
            if self.objective == CLASSES and answers.shape[1] > 1:
                made[CONFIDENCE] = _log_odds(answers.max(axis=1))
            if self.embedding is not None:
                held = np.asarray(np.isfinite(embedding).all(axis=1))
                parts = self.embedding.apply(embedding if held.all() else np.where(held[:, None], embedding, np.nan))
                made |= {f"embedding {i + 1}": parts[:, i] for i in range(min(parts.shape[1], MOST_COMPONENTS))}
                if parts.shape[1]:
                    made[DISTANCE] = np.log(np.maximum((parts**2).mean(axis=1), _SMALLEST))
        return made


def fit_table(
    inputs: Mapping[str, str],
    embedding: Array,
    answers: Array,
    *,
    objective: str,
    labels: Sequence[str],
    learn: NDArray[np.intp],
) -> Table:
    """Fit on the learning half of the reference.

    Args:
        inputs: Columns of the request to watch, with their kinds.
        embedding: Embeddings of all reference rows, [n, D]; [n, 0] where they are not watched.
        answers: Their answers, [n, K].
        objective: What the model learned.
        labels: Names of classes or labels.
        learn: Rows of the learning half.
    """
    embedding, answers = embedding[learn], answers[learn]
    embedding = embedding[np.isfinite(embedding).all(axis=1)]
    answers = answers[usable_answers(answers, objective)]
    scaled = _scaled(answers, objective)
    parts = _components(embedding, _DISTANCE_COMPONENTS) if embedding.size else None
    draft = Table(
        objective=objective,
        labels=tuple(labels),
        inputs=dict(inputs),
        embedding=parts if parts is not None and parts.axes.shape[1] else None,
        outputs=_components(scaled, MOST_OUTPUTS) if scaled.shape[1] > MOST_OUTPUTS else None,
    )
    count = min(len(answers), len(embedding)) if draft.embedding is not None else len(answers)
    made = draft._made(embedding[:count], answers[:count])  # noqa: SLF001 - the draft is a Table
    varied = tuple(name for name, cells in made.items() if len(cells) and _varies(cells))
    return replace(draft, derived=varied)


def usable_answers(answers: Array, objective: str) -> NDArray[np.bool_]:
    """Which answers can be: finite throughout, and probabilities within [0, 1], bool [n]."""
    sane = np.isfinite(answers)
    if objective in (CLASSES, LABELS):
        sane &= (answers >= 0) & (answers <= 1 + _SMALLEST)
    return np.asarray(sane.all(axis=1))


def usable_rows(embedding: Array, answers: Array, objective: str) -> NDArray[np.bool_]:
    """Which rows hold an embedding and an answer that can be, bool [n]."""
    return np.asarray(usable_answers(answers, objective) & np.isfinite(embedding).all(axis=1))


def _varies(cells: Array) -> bool:
    """Whether a column moves at all; of numbers that a network made, the last digits do not count."""
    known = cells[np.isfinite(cells)]
    return len(known) > 0 and float(known.std()) > 1e-4 * (1e-3 + float(np.abs(known).max()))


def _components(rows: Array, most: int) -> Components:
    mean = rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1])
    if len(rows) < 2:  # noqa: PLR2004 - one row has no variance
        return Components(mean=mean, axes=np.zeros((rows.shape[1], 0)))
    _, values, axes = np.linalg.svd(rows - mean, full_matrices=False)
    spread = values / np.sqrt(len(rows))
    floor = max(_SMALLEST, 1e-3 * float(spread[0]))
    kept = min(most, max(len(rows) // _ROWS_PER_COMPONENT, 1), int((spread > floor).sum()))
    return Components(mean=mean, axes=oriented((axes[:kept] / spread[:kept, None]).T))


def _scaled(answers: Array, objective: str) -> Array:
    """Answers on the scale on which they are watched; of two classes one tells all."""
    if objective == CLASSES and answers.shape[1] == 2:  # noqa: PLR2004
        answers = answers[:, 1:]
    return _log_odds(answers) if objective in (CLASSES, LABELS) else answers


def _log_odds(probabilities: Array) -> Array:
    sure = np.clip(probabilities, _SMALLEST, 1 - _SMALLEST)
    return np.asarray(np.log(sure / (1 - sure)))


def _output_names(objective: str, labels: Sequence[str], width: int, reduced: bool) -> list[str]:
    if reduced:
        return [f"output component {i + 1}" for i in range(width)]
    if objective in (CLASSES, LABELS) and width in {len(labels), len(labels) - 1}:
        return [f"log-odds of '{label}'" for label in labels[-width:]]
    return ["answer"] if width == 1 else [f"answer {i + 1}" for i in range(width)]
