"""What labels are worth: accuracy after labelling the k requests that kfloop asks about, beside k drawn at random.

``python benchmarks/review_queue.py`` (about 3 minutes). A small network learns clean digits; the traffic is another kind of picture (blurred and noisy, as
from a camera out of focus). k requests are labelled and learned together with the old rows; accuracy is that on pictures of the new kind that
nobody labelled. Each repeat draws rows, network and noise anew; the interval is that of the paired difference over repeats.
"""

from __future__ import annotations

import argparse
import json
import warnings

import numpy as np
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from kfloop.core.review.choosing import most_telling

CLEAN, TRAFFIC = 400, 800
PIXELS = load_digits().data / 16.0
DIGITS = load_digits().target


def camera(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same digits out of focus and in bad light."""
    padded = np.pad(rows.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)), mode="edge")
    blurred = sum(padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)) / 9
    return np.clip(blurred.reshape(len(rows), -1) * 0.7 + rng.normal(0, 0.08, rows.shape), 0, 1)


def network(rows: np.ndarray, labels: np.ndarray, seed: int) -> MLPClassifier:
    """A small network, trained."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MLPClassifier((48,), max_iter=150, random_state=seed).fit(rows, labels)


def hidden(model: MLPClassifier, rows: np.ndarray) -> np.ndarray:
    """Its embedding of rows [N, H]."""
    return np.maximum(rows @ model.coefs_[0] + model.intercepts_[0], 0)


def choose(model: MLPClassifier, rows: np.ndarray, count: int, how: str, rng: np.random.Generator) -> np.ndarray:
    """Places of the rows that get a label."""
    if how == "random":
        return rng.permutation(len(rows))[:count]
    top = np.sort(model.predict_proba(rows), axis=1)
    margin = top[:, -1] - top[:, -2]
    order = np.argsort(margin, kind="stable")
    if how == "uncertain":
        return order[:count]
    return order[most_telling(hidden(model, rows[order]), 1 - margin[order], count)]


def repeat(seed: int, counts: tuple[int, ...]) -> dict[tuple[str, int], float]:
    """Accuracy by way of choosing and number of labels."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(PIXELS))
    clean, traffic, test = np.split(order, [CLEAN, CLEAN + TRAFFIC])
    seen, held = camera(PIXELS[traffic], rng), camera(PIXELS[test], rng)
    model = network(PIXELS[clean], DIGITS[clean], seed)
    found = {("champion", 0): float(model.score(held, DIGITS[test]))}
    for count in counts:
        for how in ("kfloop", "random", "uncertain"):
            taken = choose(model, seen, count, how, rng)
            rows = np.concatenate([PIXELS[clean], seen[taken]])
            labels = np.concatenate([DIGITS[clean], DIGITS[traffic[taken]]])
            found[how, count] = float(network(rows, labels, seed).score(held, DIGITS[test]))
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--counts", type=int, nargs="+", default=[30, 100])
    arguments = parser.parse_args()
    runs = [repeat(seed, tuple(arguments.counts)) for seed in range(arguments.repeats)]
    champion = np.mean([run["champion", 0] for run in runs])
    print(f"champion on the new pictures: {champion:.3f}; {arguments.repeats} repeats")
    print(
        "| labels | kfloop | random | most uncertain | kfloop minus random (95 %) | kfloop minus most uncertain (95 %) |"
    )
    print("|---|---|---|---|---|---|")
    rows = []
    for count in arguments.counts:
        mean = {how: float(np.mean([run[how, count] for run in runs])) for how in ("kfloop", "random", "uncertain")}
        told = []
        for other in ("random", "uncertain"):
            gain = np.array([run["kfloop", count] - run[other, count] for run in runs])
            half = stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain))
            told.append(f"{gain.mean():+.3f} ({gain.mean() - half:+.3f} to {gain.mean() + half:+.3f})")
        print(f"| {count} | " + " | ".join(f"{value:.3f}" for value in mean.values()) + f" | {told[0]} | {told[1]} |")
        rows.append({"labels": count, **mean, "versus": told})
    print(json.dumps({"champion": champion, "rows": rows}))


if __name__ == "__main__":
    main()
