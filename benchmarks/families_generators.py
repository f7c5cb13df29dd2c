"""Generators on Fashion-MNIST: their figures beside a simple generator's and beside real rows that nobody trained on.

    python benchmarks/families_generators.py --data DIR --seeds 3 [--only gan|diffusion] [--minutes 6] [--grids DIR]

Each model is trained by kfloop's own ingest and train with a fixed number of steps, chosen so that one seed takes about ``--minutes`` of one
core; the epoch is chosen on validation rows. Test rows are those of the data set. Half of them are the ceiling: real rows judged like
samples against the other half, which serves all generators.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from families_common import train_once

from kfloop.core.generation import GaussianBaseline, Judge
from kfloop.core.sections import DataConfig, TrainConfig
from kfloop.core.statistics.intervals import percentile
from kfloop.core.statistics.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kfloop.core.families.checkpoints import Checkpoint
    from kfloop.core.statistics.bootstrap import Replicates
    from kfloop.core.versions import DatasetVersion

CLASSES = 10
SAMPLES = 5000
AT_ONCE = 250
RESAMPLES = 500
EPOCHS_A_MINUTE = {"gan": 0.45, "diffusion": 0.7}  # of the training rows, on one busy core of 2024 that has bfloat16
SHOWN = 8  # pictures of each class in a grid
SEED = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, judge, print the table, draw the grids."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with fashion-mnist/*.idx.gz")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each model")
    parser.add_argument("--only", choices=sorted(EPOCHS_A_MINUTE), help="one model alone")
    parser.add_argument("--minutes", type=float, default=6.0, help="CPU minutes of one training, about")
    parser.add_argument(
        "--work", type=Path, default=Path("generators-work"), help="work folder; the version stays there"
    )
    parser.add_argument("--grids", type=Path, default=Path(), help="folder for the sample grids")
    told = parser.parse_args(arguments)
    return measure(told)


def measure(told: argparse.Namespace) -> int:
    """All rows of the table, printed as they come."""
    data = DataConfig(source=str(told.data / "fashion-mnist"))
    print("| generator | CPU min |", " | ".join(METRICS["generation"]), "|")
    print("|---|---|" + "---|" * len(METRICS["generation"]))
    judge: Judge | None = None
    for family in [told.only] if told.only else list(EPOCHS_A_MINUTE):
        for seed in range(told.seeds):
            epochs = max(1, round(told.minutes * EPOCHS_A_MINUTE[family]))
            config = TrainConfig(
                family=family, epochs=epochs, patience=epochs, seed=seed, accelerator="cpu", precision="bf16"
            )
            checkpoint, version, _, cpu = train_once(data, config, told.work)
            if judge is None:
                judge = first_rows(version, told.grids)
            labels = asked()
            samples = drawn(checkpoint, labels, seed)
            write_grid(told.grids / f"{family}-{seed}.png", samples)
            tell(f"{family}, seed {seed}", cpu / 60, judge.judge(samples, labels, resamples=RESAMPLES, seed=SEED))
    return 0


def first_rows(version: DatasetVersion, grids: Path) -> Judge:
    """The judge, and the rows of the table that need no network: held-out real rows and the simple generator."""
    train, test = split(version, "train"), split(version, "test")
    order = np.random.default_rng(SEED).permutation(len(test[0]))
    held, judged = order[: len(order) // 2], order[len(order) // 2 :]
    judge = Judge(*train, test[0][judged], test[1][judged], n_classes=CLASSES, seed=SEED)
    tell("real rows (ceiling)", 0.0, judge.judge(test[0][held], test[1][held], resamples=RESAMPLES, seed=SEED))
    labels = asked()
    started = time.process_time()
    simple = GaussianBaseline(*train, n_classes=CLASSES).sample(labels, seed=SEED)
    minutes = (time.process_time() - started) / 60
    write_grid(grids / "pca-gaussian.png", simple)
    tell("PCA Gaussian (baseline)", minutes, judge.judge(simple, labels, resamples=RESAMPLES, seed=SEED))
    return judge


def asked() -> NDArray[np.int64]:
    """Classes to draw, as many of each, in no order that a sample of them could fall in step with."""
    return np.random.default_rng(SEED).permutation(np.arange(SAMPLES) % CLASSES)


def split(version: DatasetVersion, name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images and labels of a split."""
    table = version.table(name)
    flat = table["image"].combine_chunks().flatten().to_numpy()
    return flat.reshape(-1, *version.image_shape), np.asarray(table["label"].to_numpy(), dtype=np.int64)


def drawn(checkpoint: Checkpoint, labels: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    """A sample for each label."""
    import torch

    noise = np.random.default_rng(seed).standard_normal((len(labels), *checkpoint.spec.inputs[0].shape))
    parts = []
    with torch.inference_mode():
        for start in range(0, len(labels), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            inputs = torch.from_numpy(noise[rows].astype(np.float32)), torch.from_numpy(labels[rows])
            parts.append(checkpoint.network(*inputs)[0].numpy())
    return np.concatenate(parts)


def write_grid(path: Path, samples: NDArray[Any]) -> None:
    """One column for each class; ``samples`` go through the classes in turn."""
    from PIL import Image

    cells = np.clip(np.rint(samples[: CLASSES * SHOWN, ..., 0]), 0, 255).astype(np.uint8)
    height, width = cells.shape[1:]
    grid = cells.reshape(SHOWN, CLASSES, height, width).transpose(0, 2, 1, 3).reshape(SHOWN * height, CLASSES * width)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(255 - grid).resize((CLASSES * width * 2, SHOWN * height * 2)).save(path)


def tell(name: str, minutes: float, found: dict[str, Replicates]) -> None:
    """One row of the table: each figure with its 95 % interval."""
    cells = []
    for item in found.values():
        estimate = percentile(item, 0.95)
        bounds = f" ({estimate.low:.3f}..{estimate.high:.3f})" if estimate.known else ""
        cells.append(f"{estimate.value:.3f}{bounds}")
    print(f"| {name} | {minutes:.1f} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    sys.exit(main())
