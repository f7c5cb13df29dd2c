"""The streams and changes of benchmarks/drift.py."""
# ruff: noqa: ARG001, ARG005 - draws and changes of one kind are called alike, whether they need all arguments or not

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.drift.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Change = Callable[[Any, Array, Ints], tuple[Array, Ints]]

COLUMNS, CHECK = 20, 200
NEW_SHARE = 0.03


def iid(rng: Any, n: int) -> Array:
    """Independent standard normal columns."""
    return np.asarray(rng.normal(size=(n, COLUMNS)))


def _shift(size: float, columns: int) -> Change:
    def apply(rng: Any, rows: Array, codes: Ints) -> tuple[Array, Ints]:
        rows[:, :columns] += size
        return rows, codes

    return apply


def _variance(rng: Any, rows: Array, codes: Ints) -> tuple[Array, Ints]:
    rows[:, :5] *= 1.2
    return rows, codes


def _covariance(rng: Any, rows: Array, codes: Ints) -> tuple[Array, Ints]:
    return np.sqrt(0.8) * rows + np.sqrt(0.2) * rng.normal(size=(len(rows), 1)), codes


def _pairs(rng: Any, rows: Array, codes: Ints) -> tuple[Array, Ints]:
    for first in (0, 2, 4):
        rows[:, first + 1] = 0.3 * rows[:, first] + np.sqrt(1 - 0.09) * rows[:, first + 1]
    return rows, codes


def _category(rng: Any, rows: Array, codes: Ints) -> tuple[Array, Ints]:
    return rows, np.where(rng.random(len(codes)) < NEW_SHARE, 3, codes)


CHANGES: dict[str, Change] = {
    **{f"+{size} sd in {count}": _shift(size, count) for size in (0.1, 0.2, 0.5) for count in (1, 5, 20)},
    "sd x 1.2 in 5": _variance,
    "correlation .2": _covariance,
    "pairs .3": _pairs,
    "new category 3 %": _category,
}


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A stream without drift: how it is drawn, and the settings that match it."""

    draw: Callable[[Any, int, int], tuple[Array, Ints]]
    settings: Settings


def _independent(rng: Any, n: int, start: int) -> tuple[Array, Ints]:
    return iid(rng, n), np.zeros(n, dtype=np.int64)


def _seasonal(rng: Any, n: int, start: int) -> tuple[Array, Ints]:
    """A daily wave of .5 sd, another phase in each column; the reference is spread over all hours, a check has rows of one."""
    hour = (np.arange(start, start + n) // CHECK) % 24 if start else np.arange(n) % 24
    wave = 0.5 * np.sin(2 * np.pi * hour[:, None] / 24 + np.arange(COLUMNS))
    return iid(rng, n) + wave, hour.astype(np.int64)


def _correlated(rng: Any, n: int, start: int) -> tuple[Array, Ints]:
    """First-order autoregression with coefficient .8, unit variance."""
    from scipy.signal import lfilter

    noise = rng.normal(size=(n + 100, COLUMNS))
    return lfilter([0.6], [1, -0.8], noise, axis=0)[100:], np.zeros(n, dtype=np.int64)


STREAMS = {
    "iid": Stream(draw=_independent, settings=Settings(batch=200)),
    "seasonal": Stream(draw=_seasonal, settings=Settings(batch=200, n_seasons=24)),
    "autocorrelated": Stream(draw=_correlated, settings=Settings(batch=4, unit=50)),
}


def digits() -> tuple[Array, Callable[[Array], Array]]:
    """Handwritten digits that a classifier did not see, [n, 64] in [0, 1], and its embedding beside its log-probabilities."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    data = load_digits()
    pixels = data.data / 16.0
    model = MLPClassifier((32,), random_state=0, max_iter=400, early_stopping=True).fit(pixels[:600], data.target[:600])

    def answer(images: Array) -> Array:
        hidden = np.maximum(images @ model.coefs_[0] + model.intercepts_[0], 0.0)
        return np.concatenate([hidden, np.log(np.clip(model.predict_proba(images), 1e-6, 1.0))], axis=1)

    return pixels[600:], answer


def corrupted() -> dict[tuple[str, int], Callable[[Any, Array], Array]]:
    """Four corruptions at five severities each."""
    cases: dict[tuple[str, int], Callable[[Any, Array], Array]] = {}
    for severity in range(1, 6):
        cases["noise", severity] = lambda rng, x, s=severity: np.clip(x + rng.normal(0, 0.06 * s, x.shape), 0, 1)
        cases["dimmed", severity] = lambda rng, x, s=severity: x * (1 - 0.1 * s)
        cases["blurred", severity] = lambda rng, x, s=severity: _blurred(x, 0.2 * s)
        cases["pixels lost", severity] = lambda rng, x, s=severity: np.where(rng.random(x.shape) < 0.04 * s, 0.0, x)
    return dict(sorted(cases.items()))


def _blurred(images: Array, amount: float) -> Array:
    padded = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)), mode="edge")
    smooth = np.asarray(sum(padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)) / 9).reshape(-1, 64)
    return (1 - amount) * images + amount * smooth
