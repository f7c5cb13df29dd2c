"""Texts and time series: what ``rnn`` and ``transformer`` reach, each beside its simple baseline.

    python benchmarks/families_sequences.py --data DIR --seeds 3 [--only trec] [--families rnn transformer]

TREC keeps its own 500 test questions; a tenth of the others, the same for every seed, is for validation. rt-polarity has no split of its own: a tenth each is
held out. ETTh1 is split 8640/2880/2880 in time, all 7 channels, 96 hours ahead from the 336 before; errors are in standard deviations of the training
rows. The best epoch is chosen on validation rows; test rows are only scored.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from families_common import Row, ingested, predict, table, train_once

from kfloop.core.encoding import fit_encoder
from kfloop.core.sections import DataConfig, SeriesConfig, SplitConfig, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

CONTEXT, HORIZON = 336, 96
ETT_ROWS = 14_400  # 20 months of 30 days: 12 to learn from, 4 and 4 held out
HELD_OUT = 10  # every tenth row of TREC's training questions is for validation
TARGETS = {"trec": 0.85, "etth1": 0.385}
PENALTIES = (1.0, 10.0, 100.0, 1000.0)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with text/ and etth1/")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=sorted(SOURCES))
    parser.add_argument("--families", nargs="+", choices=("rnn", "transformer"), default=["rnn", "transformer"])
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in [arguments.only] if arguments.only else SOURCES:
            source = SOURCES[name](arguments.data, Path(folder))
            baseline = baseline_of(name, ingested(source, Path(folder)))
            for family in arguments.families:
                rows.append(measured(name, family, source, baseline, range(arguments.seeds), Path(folder)))
                sys.stderr.write(table(rows[-1:]).splitlines()[-1] + "\n")
    print(table(rows))


def measured(
    name: str, family: str, source: DataConfig, baseline: tuple[float, str], seeds: Sequence[int], folder: Path
) -> Row:
    """Train once with each seed and score the test rows."""
    values, wall, cpu = [], [], []
    for seed in seeds:
        config = TrainConfig.model_validate({"family": family, "seed": seed, "accelerator": "cpu"})
        checkpoint, version, seconds, cpu_seconds = train_once(source, config, folder)
        found = predict(checkpoint, version, "test")
        if name == "etth1":
            values.append(squared_error(found["forecast"], found["target"], checkpoint.spec.facts["std"]))
        else:
            values.append(float((found["probabilities"].argmax(1) == found["target"]).mean()))
        sys.stderr.write(f"{name}, {family}, seed {seed}: {values[-1]:.4f} in {cpu_seconds:.0f} CPU seconds\n")
        wall.append(seconds / 60)
        cpu.append(cpu_seconds / 60)
    return Row(
        name=f"{name}, {'MSE' if name == 'etth1' else 'accuracy'} ({family})",
        values=tuple(values),
        baseline=baseline[0],
        baseline_name=baseline[1],
        target=TARGETS.get(name),
        higher=name != "etth1",
        cpu_minutes=float(np.mean(cpu)),
        minutes=float(np.mean(wall)),
    )


def squared_error(forecast: NDArray[Any], target: NDArray[Any], std: list[float]) -> float:
    """Mean squared error in standard deviations of each channel's training rows."""
    return float(np.square((forecast - target) / np.asarray(std), dtype=np.float64).mean())


def trec(data: Path, folder: Path) -> DataConfig:
    """TREC's questions with its own test split."""
    rows = []
    for split in ("train", "test"):
        for number, (label, text) in enumerate(lines(data / "text" / f"TREC.{split}.all")):
            held_out = split == "train" and number % HELD_OUT == 0
            rows.append((label, text, "validation" if held_out else split))
    return written(folder / "trec.csv", rows, SplitConfig(method="official", column="split"))


def polarity(data: Path, folder: Path) -> DataConfig:
    """Sentences of film reviews; two classes."""
    rows = [(label, text, "") for label, text in lines(data / "text" / "rt-polarity.all")]
    return written(folder / "polarity.csv", rows, SplitConfig(method="random", validation=0.1, test=0.1))


def etth1(data: Path, folder: Path) -> DataConfig:
    """The first 20 months of ETTh1."""
    del folder
    return DataConfig(
        source=str(data / "etth1" / "ETTh1.csv"),
        limit=ETT_ROWS,
        series=SeriesConfig(context=CONTEXT, horizon=HORIZON),
        split=SplitConfig(validation=0.2, test=0.2),
    )


SOURCES = {"trec": trec, "etth1": etth1, "polarity": polarity}


def lines(path: Path) -> list[tuple[str, str]]:
    """Label and text of each line of a file in Latin-1."""
    pairs = (line.split(" ", 1) for line in path.read_bytes().decode("latin-1").split("\n") if line.strip())
    return [(f"class {label}", text.strip()) for label, text in pairs]


def written(path: Path, rows: list[tuple[str, str, str]], split: SplitConfig) -> DataConfig:
    """A CSV file of label, text and split, and how it is read."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        official = split.method == "official"
        writer.writerow(["label", "text", "split"][: 3 if official else 2])
        writer.writerows([row[: 3 if official else 2] for row in rows])
    return DataConfig(source=str(path), text="text", label="label", split=split)


def baseline_of(name: str, version: DatasetVersion) -> tuple[float, str]:
    """Figure and name of the simple baseline, its one setting chosen on validation rows."""
    return ridge(version) if name == "etth1" else words(version, support_vectors=name == "polarity")


def words(version: DatasetVersion, *, support_vectors: bool) -> tuple[float, str]:
    """TF-IDF of words and pairs of words, and a linear model."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    parts = {split: version.table(split, ["text", "label"]).to_pydict() for split in ("train", "validation", "test")}
    told = {"ngram_range": (1, 2), "sublinear_tf": True, "token_pattern": r"\S+"}
    scores = []
    for penalty in (0.1, 1.0, 10.0):
        linear = LinearSVC(C=penalty) if support_vectors else LogisticRegression(C=10 * penalty, max_iter=1000)
        model = make_pipeline(TfidfVectorizer(**told), linear)
        model.fit(parts["train"]["text"], parts["train"]["label"])
        score = [model.score(parts[split]["text"], parts[split]["label"]) for split in ("validation", "test")]
        scores.append(score)
    name = "TF-IDF, linear SVC" if support_vectors else "TF-IDF, logistic regression"
    return float(max(scores, key=lambda score: score[0])[1]), name


def ridge(version: DatasetVersion) -> tuple[float, str]:
    """Ridge regression of the next 96 values of a channel on its last 336, the last one taken off, one model for all channels; repeats of the last value beside it."""
    encoder = fit_encoder(version)
    parts = {}
    for split in ("train", "validation", "test"):
        examples = encoder.examples(version, split, "forecasting")
        mean, std = np.float32(encoder.facts["mean"]), np.float32(encoder.facts["std"])
        window = (examples.batch_inputs(np.arange(len(examples)))[0] - mean) / std
        last = window[:, -1:]
        flat = [
            part.transpose(0, 2, 1).reshape(-1, part.shape[1])
            for part in (window - last, (examples.target - mean) / std - last)
        ]
        parts[split] = flat[0], flat[1]
    lags, ahead = parts["train"]
    gram, moment = lags.T @ lags, lags.T @ ahead
    scores = []
    for penalty in PENALTIES:
        weights = np.linalg.solve(gram + penalty * np.eye(len(gram), dtype=np.float32), moment)
        scores.append(tuple(float(np.square(x @ weights - y).mean()) for x, y in (parts["validation"], parts["test"])))
    repeated = float(np.square(parts["test"][1]).mean())
    return min(scores)[1], f"ridge on {CONTEXT} lags; repeating the last value {repeated:.3f}"


if __name__ == "__main__":
    main()
