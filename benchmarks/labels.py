"""How well wrong labels are found on handwritten digits, with cleanlab's default filter on the same probabilities beside, and how fast.

A tenth of all labels is flipped, to any other class or to the next one (k to k + 1). Each figure is the mean over the seeds, the worst beside
it: precision and recall of the flags, average precision of the ranking by normalized margin.

    python benchmarks/labels.py --seeds 5
    python benchmarks/labels.py --seeds 5 --model
    python benchmarks/labels.py --speed 1000000 --classes 100
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
import warnings
from typing import TYPE_CHECKING

import numpy as np

from kfloop.components.check_labels.features.image import image_features
from kfloop.components.check_labels.folds import fold_of_rows
from kfloop.components.check_labels.issues import find_issues, normalized_margin
from kfloop.components.check_labels.learners import StandIn
from kfloop.components.check_labels.probabilities import cross_fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kfloop.components.check_labels.learners import Learner

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

SHARE = 0.1
FOLDS = 5
CLASSES = 10


def flipped(labels: Ints, kind: str, seed: int) -> tuple[Ints, Bools]:
    """Labels with a tenth of them wrong, and which."""
    generator = np.random.default_rng(seed)
    wrong = generator.choice(len(labels), round(SHARE * len(labels)), replace=False)
    steps = generator.integers(1, CLASSES, len(wrong)) if kind == "uniform" else 1
    noisy = labels.copy()
    noisy[wrong] = (noisy[wrong] + steps) % CLASSES
    mask = np.zeros(len(labels), dtype=np.bool_)
    mask[wrong] = True
    return noisy, mask


def cleanlab_default(labels: Ints, probabilities: Floats) -> Bools:
    """The flags of cleanlab's default call."""
    from cleanlab.filter import find_label_issues

    return np.asarray(find_label_issues(labels, probabilities), dtype=np.bool_)


def scores(wrong: Bools, flagged: Bools, margin: Floats) -> list[float]:
    """Precision, recall, average precision, number of flags."""
    from sklearn.metrics import average_precision_score

    hits = float((flagged & wrong).sum())
    return [
        hits / max(1, flagged.sum()),
        hits / max(1, wrong.sum()),
        float(average_precision_score(wrong, -margin)) if wrong.any() else float("nan"),
        float(flagged.sum()),
    ]


def learner_of(labels: Ints, images: NDArray[np.uint8], seed: int, *, model: bool) -> Learner:
    """The stand-in, or the loop's own network."""
    if model:
        from kfloop.core.crossfit import NetworkLearner
        from kfloop.core.encoding.image import Encoder

        encoder = Encoder((8, 8, 1), [float(images.mean())], [float(images.std())])
        return NetworkLearner((images,), labels, [str(k) for k in range(CLASSES)], encoder, seed=seed)
    return StandIn(image_features(images), labels, CLASSES, modality="image", seed=seed)


def detection(seeds: int, *, model: bool) -> None:
    """Print one line for each kind of noise and each way to flag."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images * (255.0 / 16.0)).round().astype(np.uint8)[..., None]
    truth = digits.target.astype(np.int64)
    sys.stdout.write(f"{'noise':<16}{'flags by':<10}{'precision':>16}{'recall':>16}{'ranking AP':>16}{'flags':>8}\n")
    for kind in ("uniform", "class-dependent", "none"):
        lines: dict[str, list[list[float]]] = {"kfloop": [], "cleanlab": []}
        for seed in range(seeds if kind != "none" else 1):
            labels, wrong = flipped(truth, kind, seed) if kind != "none" else (truth, np.zeros(len(truth), np.bool_))
            fold = fold_of_rows(labels, np.arange(len(labels)), folds=FOLDS, seed=seed)
            found = cross_fit(learner_of(labels, images, seed, model=model), labels, CLASSES, fold).probabilities
            margin = normalized_margin(labels, found)
            lines["kfloop"].append(scores(wrong, find_issues(labels, found), margin))
            lines["cleanlab"].append(scores(wrong, cleanlab_default(labels, found), margin))
        for name, values in lines.items():
            mean, worst = np.mean(values, axis=0), np.min(values, axis=0)
            cells = "".join(f"{mean[k]:>9.3f} ({worst[k]:.3f})"[:17].rjust(16) for k in range(3))
            sys.stdout.write(f"{kind:<16}{name:<10}{cells}{mean[3]:>8.0f}\n")
            sys.stdout.flush()


def synthetic(rows: int, classes: int) -> tuple[Ints, Floats]:
    """Labels of which a tenth is wrong, and probabilities of a decent model."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, classes, rows)
    labels = truth.copy()
    wrong = np.flatnonzero(generator.random(rows) < SHARE)
    labels[wrong] = (labels[wrong] + generator.integers(1, classes, len(wrong))) % classes
    chances = np.exp(3.0 * generator.random((rows, classes)))
    chances[np.arange(rows), truth] += np.exp(generator.normal(4.5, 1.2, rows))
    return labels, chances / chances.sum(axis=1, keepdims=True)


def speed(rows: int, classes: int, which: str) -> Bools:
    """Time one way to flag; the peak memory is that of the process, probabilities included."""
    ways: dict[str, Callable[[Ints, Floats], Bools]] = {"kfloop": find_issues, "cleanlab": cleanlab_default}
    labels, chances = synthetic(rows, classes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    flagged = ways[which](labels, chances)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(
        f"{which:<10}{rows} x {classes}: {seconds:.2f} s, {int(flagged.sum())} flags, "
        f"peak {after:.0f} MB ({before:.0f} MB before)\n"
    )
    sys.stdout.flush()
    return flagged


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--model", action="store_true", help="probabilities of the loop's network, not of the stand-in")
    parser.add_argument(
        "--speed", type=int, default=0, metavar="ROWS", help="time the flagging of so many rows instead"
    )
    parser.add_argument("--classes", type=int, default=100, help="classes of the timed rows")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if arguments.speed:
        ours, theirs = (speed(arguments.speed, arguments.classes, which) for which in ("kfloop", "cleanlab"))
        sys.stdout.write(f"flags that differ: {int((ours != theirs).sum())}\n")
    else:
        detection(arguments.seeds, model=arguments.model)


if __name__ == "__main__":
    main()
