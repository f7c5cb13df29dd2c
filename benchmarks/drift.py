"""False alarms and power of the shipped drift detector, on digits, by seeded simulation.

Each repeat draws a reference and traffic from handwritten digits that the model was not trained on (traffic with replacement, so
that rows may outnumber the reference), and corrupts the traffic or not. Prints one line per case: the share of streams that alarmed with
its 95 % Wilson interval, and the delay in rows.

    python benchmarks/drift.py --repeats 200
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from kfloop.components.monitor.projection import fit_projection
from kfloop.core.statistics.betting import BettingState
from kfloop.core.statistics.estimate import wilson

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Answer = Callable[[Array], tuple[Array, Array]]

N_TRAINING = 600


def load() -> tuple[Array, Answer]:
    """Return the held-out images, [n, 64] in [0, 1], and the model: embedding and probabilities."""
    from sklearn.datasets import load_digits
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression

    digits = load_digits()
    pixels = digits.data / 16.0
    classifier = LogisticRegression(C=0.1).fit(pixels[:N_TRAINING], digits.target[:N_TRAINING])
    components = PCA(24, random_state=0).fit(pixels[:N_TRAINING])
    return pixels[N_TRAINING:], lambda images: (components.transform(images), classifier.predict_proba(images))


def blur(images: Array) -> Array:
    """Mean of 3 x 3 pixels."""
    padded = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)), mode="edge")
    return np.asarray(sum(padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)) / 9).reshape(-1, 64)


def noise(amount: float) -> Callable[[Array], Array]:
    """Gaussian noise, `amount` of the full range, clipped."""
    return lambda images: np.clip(images + np.random.default_rng(0).normal(0, amount, images.shape), 0, 1)


CASES: dict[str, Callable[[Array], Array]] = {
    "inverted": lambda images: 1 - images,
    "blur 3x3": blur,
    "noise .15": noise(0.15),
    "noise .30": noise(0.3),
    "dimmed to 60 %": lambda images: 0.6 * images,
    "a tenth inverted": lambda images: np.where((np.arange(len(images)) % 10 == 0)[:, None], 1 - images, images),
}


def alarm_row(
    images: Array, answer: Answer, seed: int, n_reference: int, change: Callable[[Array], Array] | None, rows: int
) -> int | None:
    """Return the row of the alarm, counted from the change at row 400, or from the start where nothing changes."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    projection = fit_projection(*answer(images[order[:n_reference]]))
    test = projection.betting(level=0.05, tolerance=0.1, batch=50)
    rest = images[order[n_reference:]]
    clean = rest[rng.integers(0, len(rest), 400 if change else rows)]
    state = test.advance(BettingState(), projection.features(*answer(clean)))
    if change is None or state.alarm_row is not None:
        return state.alarm_row
    state = test.advance(state, projection.features(*answer(change(rest[rng.integers(0, len(rest), rows)]))))
    return None if state.alarm_row is None else state.alarm_row - 400


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=100, help="streams per case (default 100)")
    parser.add_argument("--reference", type=int, default=400, help="rows of the reference (default 400)")
    repeats, n_reference = (arguments := parser.parse_args()).repeats, arguments.reference
    images, answer = load()
    for name, change, rows in [("no drift", None, 2000), *((name, change, 600) for name, change in CASES.items())]:
        started = time.perf_counter()
        found = [alarm_row(images, answer, seed, n_reference, change, rows) for seed in range(repeats)]
        delays = sorted(row for row in found if row is not None)
        share = wilson(len(delays), repeats)
        quick = wilson(sum(delay <= 150 for delay in delays), repeats)  # noqa: PLR2004 - three batches
        middle = f"{delays[len(delays) // 2]:4d}" if delays else "   -"
        sys.stdout.write(
            f"{name:18s} rows {rows:5d}  alarms {share.value:.3f} [{share.low:.3f}, {share.high:.3f}]  within 150 rows "
            f"{quick.value:.3f} [{quick.low:.3f}, {quick.high:.3f}]  median delay {middle}  "
            f"{(time.perf_counter() - started) / repeats:.2f} s each\n"
        )


if __name__ == "__main__":
    main()
