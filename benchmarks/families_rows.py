"""Figures of the families for rows: Adult (mlp), Fashion-MNIST (cnn), spoken digits (cnn), each beside a simple baseline.

Every training goes through kfloop itself: ingest, then ``train``, then the test rows through the checkpoint's network. Settings were chosen
on validation rows; the best epoch of a training is chosen on validation rows too. Needs the data, which kfloop does not ship.

    python benchmarks/families_rows.py --data DIR [--seeds 3] [--only adult|fashion|spoken] [--out rows.json]
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from families_common import Row, ingested, predict, table, train_once

from kfloop.core.sections import DataConfig, SplitConfig, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

ADULT_COLUMNS = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education_num",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
    "native_country",
    "income",
]
ADULT: dict[str, Any] = {}
FASHION: dict[str, Any] = {
    "epochs": 24,
    "patience": 24,
    "augment": True,
    "augment_flip": True,  # clothes have no side
    "precision": "bf16",  # 1.7 times the speed, also on a CPU
    "channels_last": True,
}
SPOKEN: dict[str, Any] = {}
TEST_TAKES = 5  # of each digit and speaker
VALIDATION_TAKES = 10  # takes 5 to 9


def adult(data: Path, folder: Path, seeds: int) -> list[Row]:
    """AUC on the official test rows."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    source = adult_source(data, folder)
    found, costs = _seeds(source, ADULT, folder, seeds, lambda p: roc_auc_score(p["target"], p["probabilities"][:, 1]))
    version = ingested(source, folder)
    parts = {split: _numeric(version.table(split), version.inputs) for split in version.splits}
    train = np.concatenate([parts["train"][0], parts["validation"][0]])
    labels = np.concatenate([parts["train"][1], parts["validation"][1]])
    model = HistGradientBoostingClassifier(categorical_features=parts["train"][2], random_state=0).fit(train, labels)
    baseline = float(roc_auc_score(parts["test"][1], model.predict_proba(parts["test"][0])[:, 1]))
    return [_row("Adult, AUC (mlp)", found, costs, baseline, "boosted trees", 0.910)]


def adult_source(data: Path, folder: Path) -> DataConfig:
    """One CSV with a header and the official split as a column."""
    path = folder / "adult.csv"
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*ADULT_COLUMNS, "part"])
        for part in ("train", "test"):
            for line in (data / "adult" / f"adult-{part}.csv").read_text(encoding="utf-8").splitlines():
                cells = [cell.strip() for cell in line.split(",")]
                if len(cells) == len(ADULT_COLUMNS):
                    *features, label = ["" if cell == "?" else cell for cell in cells]
                    writer.writerow([*features, label.rstrip("."), part])
    return DataConfig(source=str(path), label="income", split=SplitConfig(method="official", column="part"))


def _numeric(rows: Any, names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.int64], list[bool]]:
    """Numbers, category codes (by a crc, so that splits agree) and labels."""
    import zlib

    columns, categorical = [], []
    for name in names:
        values = rows[name].to_pylist()
        words = any(isinstance(value, str) for value in values)
        categorical.append(words)
        columns.append([np.nan if v is None else zlib.crc32(v.encode()) % 251 if words else float(v) for v in values])
    return np.array(columns).T, rows["label"].to_numpy().astype(np.int64), categorical


def fashion(data: Path, folder: Path, seeds: int) -> list[Row]:
    """Accuracy on the official test rows."""
    from sklearn.linear_model import LogisticRegression

    source = DataConfig(source=str(data / "fashion-mnist"))
    found, costs = _seeds(source, FASHION, folder, seeds, accuracy)
    version = ingested(source, folder)
    train, test = version.split("train"), version.split("test")
    model = LogisticRegression(max_iter=30, tol=1e-2)
    model.fit(train.images.reshape(len(train), -1) / 255.0, train.labels)
    baseline = float(model.score(test.images.reshape(len(test), -1) / 255.0, test.labels))
    return [_row("Fashion-MNIST, accuracy (cnn)", found, costs, baseline, "logistic regression", 0.925)]


def spoken(data: Path, folder: Path, seeds: int) -> list[Row]:
    """Accuracy on takes 0 to 4, and on a speaker that was not heard before."""
    source = spoken_source(data, folder / "spoken-takes", by_takes)
    found, costs = _seeds(source, SPOKEN, folder, seeds, accuracy)
    name = "MFCC + SVM"
    rows = [_row("spoken digits, takes 0-4, accuracy (cnn)", found, costs, _svm(source, folder), name, 0.975)]
    speakers = sorted({path.stem.split("_")[1] for path in (data / "spoken-digits").glob("*.wav")})
    values, costs, baselines = [], [], []
    for speaker in speakers:

        def part(who: str, take: int, held: str = speaker) -> str:
            return "test" if who == held else "validation" if take < VALIDATION_TAKES else "train"

        source = spoken_source(data, folder / f"spoken-without-{speaker}", part)
        one, cost = _seeds(source, SPOKEN, folder, 1, accuracy)
        values += one
        costs += cost
        baselines.append(_svm(source, folder))
    label = f"spoken digits, held-out speaker ({', '.join(speakers)})"
    return [*rows, _row(label, values, costs, float(np.mean(baselines)), name, None)]


def by_takes(speaker: str, take: int) -> str:
    """Takes 0-4 are the test, 5-9 the validation."""
    del speaker
    return "test" if take < TEST_TAKES else "validation" if take < VALIDATION_TAKES else "train"


def spoken_source(data: Path, folder: Path, part: Callable[[str, int], str]) -> DataConfig:
    """The recordings in folders by split and digit."""
    for path in sorted((data / "spoken-digits").glob("*.wav")):
        digit, speaker, take = path.stem.split("_")
        place = folder / part(speaker, int(take)) / digit
        place.mkdir(parents=True, exist_ok=True)
        if not (place / path.name).exists():
            shutil.copyfile(path, place / path.name)
    return DataConfig(source=str(folder), modality="audio", split=SplitConfig(method="official"))


def _svm(source: DataConfig, folder: Path) -> float:
    """Test accuracy of a support vector machine on mel-frequency cepstral coefficients."""
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    from kfloop.components.check_labels.features.audio import sound_features

    version = ingested(source, folder)
    rate = int(version.schema["sample_rate"])
    features, labels = {}, {}
    for split in version.splits:
        rows = version.table(split)
        sounds = [np.array(sound, dtype=np.int16) for sound in rows["audio"].to_pylist()]
        features[split] = np.array([sound_features(sound, rate) for sound in sounds])
        labels[split] = rows["label"].to_numpy()
    scaler = StandardScaler().fit(features["train"])
    model = SVC(C=10).fit(scaler.transform(features["train"]), labels["train"])
    return float(model.score(scaler.transform(features["test"]), labels["test"]))


def accuracy(found: dict[str, Any]) -> float:
    """Share of right answers."""
    return float((found["probabilities"].argmax(1) == found["target"]).mean())


def _seeds(
    source: DataConfig, options: dict[str, Any], folder: Path, seeds: int, metric: Callable[[dict[str, Any]], Any]
) -> tuple[list[float], list[tuple[float, float]]]:
    """The figure, and minutes (wall, CPU), of each seed."""
    values, costs = [], []
    for seed in range(seeds):
        config = TrainConfig(seed=seed, accelerator="cpu", **options)
        checkpoint, version, seconds, cpu = train_once(source, config, folder)
        values.append(float(metric(predict(checkpoint, version, "test"))))
        costs.append((seconds / 60, cpu / 60))
        sys.stderr.write(f"seed {seed}: {values[-1]:.4f} in {cpu / 60:.1f} CPU minutes\n")
    return values, costs


def _row(
    name: str,
    values: Sequence[float],
    costs: Sequence[tuple[float, float]],
    baseline: float,
    baseline_name: str,
    target: float | None,
) -> Row:
    minutes, cpu = np.mean(costs, axis=0).tolist()
    return Row(
        name=name,
        values=tuple(values),
        baseline=baseline,
        baseline_name=baseline_name,
        target=target,
        cpu_minutes=cpu,
        minutes=minutes,
    )


FIGURES = {"adult": adult, "fashion": fashion, "spoken": spoken}


def main() -> None:
    """Measure, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with adult, fashion-mnist, spoken-digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=sorted(FIGURES), help="one of the three")
    parser.add_argument("--work", type=Path, help="folder of dataset versions, to keep them for the next time")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    told = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = told.work or Path(temporary)
        for name in [told.only] if told.only else FIGURES:
            rows += FIGURES[name](told.data, folder, told.seeds)
            print(table(rows), flush=True)
    if told.out:
        told.out.write_text(json.dumps([asdict(row) | {"mean": row.mean, "met": row.met} for row in rows], indent=1))


if __name__ == "__main__":
    main()
