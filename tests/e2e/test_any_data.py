"""Seven kinds of data: ``kfloop init``, ``kfloop run --until check_labels``, and nothing to edit."""

from __future__ import annotations

import csv
import json
import wave
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow


def table(folder: Path) -> None:
    from sklearn.datasets import load_wine

    wine = load_wine()
    with (folder / "wine.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*wine.feature_names, "label"])
        writer.writerows([*row, wine.target_names[label]] for row, label in zip(wine.data, wine.target, strict=True))


def photos(folder: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits(n_class=3)
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / "photos" / f"digit {label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).resize((24, 24)).save(place / f"{number}.png")


def sounds(folder: Path) -> None:
    """Flat, named like ``high_anna_3.wav``: label and speaker stand in the names."""
    random = np.random.default_rng(0)
    (folder / "sounds").mkdir()
    for number in range(120):
        name, pitch = (("low", 220), ("high", 880))[number % 2]
        time = np.arange(4000) / 8000
        tone = np.sin(2 * np.pi * pitch * (1 + 0.05 * random.normal()) * time) + 0.05 * random.normal(size=4000)
        with wave.open(
            str(folder / "sounds" / f"{name}_{'abcdefgh'[number // 2 % 8]}_{number // 16}.wav"), "wb"
        ) as stream:
            stream.setnchannels(1)
            stream.setsampwidth(2)
            stream.setframerate(8000)
            stream.writeframes((tone * 12000).astype("<i2").tobytes())


def reviews(folder: Path) -> None:
    random = np.random.default_rng(0)
    words = {"good": ["great", "lovely", "superb"], "bad": ["awful", "boring", "poor"]}
    lines = []
    for number in range(300):
        label = ("good", "bad")[number % 2]
        lines.append(
            f"{label}\tThe {random.choice(['film', 'plot', 'cast'])} was {random.choice(words[label])}, number {number}"
        )
    (folder / "reviews.txt").write_text("\n".join(lines) + "\n")


def arrays(folder: Path) -> None:
    from sklearn.datasets import load_wine

    wine = load_wine()
    np.savez(folder / "wine.npz", X=wine.data.astype(np.float32), y=wine.target)


def series(folder: Path) -> None:
    random = np.random.default_rng(0)
    with (folder / "load.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["date", "load", "temperature"])
        for hour in range(2400):
            moment = datetime(2024, 1, 1) + timedelta(hours=hour)  # noqa: DTZ001 - as such files have it
            wave_ = np.sin(hour / 24 * 2 * np.pi)
            writer.writerow([moment, f"{10 + 3 * wave_ + random.normal() / 3:.3f}", f"{15 - 5 * wave_:.3f}"])


def graph(folder: Path) -> None:
    random = np.random.default_rng(0)
    n = 300
    labels = random.integers(0, 3, n)
    chance = np.where(labels[:, None] == labels, 0.06, 0.005)
    adjacency = np.triu(random.random((n, n)) < chance, 1)
    features = random.normal(size=(n, 8)) + np.eye(3)[labels] @ random.normal(size=(3, 8))
    part = random.permutation(n)
    np.savez(
        folder / "papers.npz",
        adjacency=(adjacency | adjacency.T).astype(np.uint8),
        features=features.astype(np.float32),
        labels=labels,
        train_mask=part < 180,
        val_mask=(part >= 180) & (part < 220),
        test_mask=part >= 220,
    )


KINDS = {
    "table": (table, "table", "multiclass", 178, "stratified"),
    "images": (photos, "image", "multiclass", 537, "random"),
    "sounds": (sounds, "audio", "multiclass", 120, "group"),
    "text": (reviews, "text", "multiclass", 300, "random"),
    "arrays": (arrays, "vector", "multiclass", 178, "stratified"),
    "series": (series, "series", "forecasting", 2400, "time"),
    "graph": (graph, "nodes", "multiclass", 300, "official"),
}


def report_of(record: dict[str, Any], step: str) -> dict[str, Any]:
    place = next(item["artifact"]["path"] for item in record["steps"] if item["name"] == step)
    return dict(json.loads((Path(place) / "report.json").read_text()))


@pytest.mark.parametrize("kind", KINDS)
def test_init_and_run_until_check_labels(shell: Any, kind: str) -> None:
    make, modality, task, rows, method = KINDS[kind]
    make(shell.folder)
    made = shell.run("init")
    assert made.returncode == 0, made.stderr
    assert f"{rows} " in made.stderr
    done = shell.run("run", "--until", "check_labels", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert {step["name"]: step["status"] for step in record["steps"]} == dict.fromkeys(
        ("ingest", "validate_data", "check_labels", "notify"), "succeeded"
    )
    ingested = report_of(record, "ingest")
    assert (ingested["modality"], ingested["task"], ingested["n_rows"]) == (modality, task, rows)
    assert ingested["split_method"] == method
    assert all(ingested["splits"][split] for split in ("train", "validation", "test"))
    validated = report_of(record, "validate_data")
    assert validated["outcome_word"] == "pass"
    assert len(validated["results"]) >= 4
    checked = report_of(record, "check_labels")
    assert checked["n"] == (0 if task == "forecasting" else rows)  # what is forecast was not labelled by anybody
    page = Path(record["report"]).read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_a_family_that_cannot_learn_from_the_data_says_so_before_the_first_step(shell: Any) -> None:
    reviews(shell.folder)
    assert shell.run("init").returncode == 0
    loop = shell.folder / "loop.yaml"
    loop.write_text(loop.read_text().replace("family: transformer", "family: cnn"))
    refused = shell.run("run")
    assert refused.returncode == 2
    assert "this loop has text data for classification" in refused.stderr
    assert "families for that: rnn, transformer" in refused.stderr
    assert not (shell.folder / ".kfloop").exists()
    wrong = shell.run("run", "--until", "check_lables")
    assert wrong.returncode == 2
    assert "did you mean 'check_labels'?" in wrong.stderr


def test_a_suite_is_proposed_enforced_and_stops_other_data(shell: Any) -> None:
    table(shell.folder)
    shell.run("init")
    assert shell.run("run", "--until", "ingest").returncode == 0
    proposed = shell.run("step", "validate_data", "--propose")
    assert proposed.returncode == 0, proposed.stderr
    suite = json.loads((shell.folder / "suite.json").read_text())
    assert {item["severity"] for item in suite["expectations"]} == {"critical", "warning"}
    loop = shell.folder / "loop.yaml"
    loop.write_text(loop.read_text() + "\nvalidation:\n  suite: suite.json\n")
    assert shell.run("run", "--until", "validate_data").returncode == 0
    lines = (shell.folder / "wine.csv").read_text().splitlines()
    without = [",".join(line.split(",")[1:]) for line in lines]
    (shell.folder / "wine.csv").write_text("\n".join(without) + "\n")
    stopped = shell.run("run", "--until", "validate_data")
    assert stopped.returncode == 2
    assert "alcohol" in stopped.stderr
    suite["expectations"][0]["severity"] = "warning"
    (shell.folder / "suite.json").write_text(json.dumps(suite))
    kept = shell.run("step", "validate_data", "--propose")
    assert kept.returncode == 2
    assert "was edited" in kept.stderr


def test_a_folder_called_digits_is_the_folder_and_votes_beside_a_table_are_votes(shell: Any) -> None:
    photos(shell.folder)
    (shell.folder / "photos").rename(shell.folder / "digits")
    assert shell.run("init", "digits").returncode == 0
    assert "source: ./digits" in (shell.folder / "loop.yaml").read_text()
    assert "537 images" in (shell.folder / "loop.yaml").read_text()
    (shell.folder / "digits").rename(shell.folder.parent / "elsewhere")
    table(shell.folder)
    (shell.folder / "votes.csv").write_text("id,annotator,label\n0,ada,class_0\n0,bob,class_1\n1,ada,class_0\n")
    made = shell.run("init", "--force")
    assert made.returncode == 0, made.stderr
    assert "votes: votes.csv" in (shell.folder / "loop.yaml").read_text()
