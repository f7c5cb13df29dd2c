"""Thresholds by class in the package and its report, and what a package says of where it comes from."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import packages
from kfloop.components.package.facts import git_revision, made_with
from kfloop.components.package.packaging import run
from kfloop.components.package.reviewing import Review, check_review, review_of
from kfloop.core.sections import PackageConfig, ReviewConfig
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, TerminalError

LABELS = ["sure", "doubtful", "rare"]


class Model:
    """A model whose answers are given: class 0 is always right, class 1 only where it is sure, class 2 is hardly ever told."""

    def __init__(self, folder: Path, sizes: dict[str, int]) -> None:
        self.folder, self.labels = folder, LABELS
        self.signature = SimpleNamespace(objective="classification")
        self.encoder = self
        self._rows = {split: self._drawn(size, seed) for seed, (split, size) in enumerate(sizes.items())}

    def _drawn(self, size: int, seed: int) -> Any:
        dice = np.random.default_rng(seed)
        told = np.where(np.arange(size) % 50 == 0, 2, np.arange(size) % 2)
        confidence = dice.uniform(0.5, 1, size)
        right = np.where(told == 0, True, dice.random(size) < np.where(confidence > 0.8, 1.0, 0.6))
        probabilities = np.empty((size, 3), dtype=np.float32)
        probabilities[:] = ((1 - confidence) / 2)[:, None]
        probabilities[np.arange(size), told] = confidence
        target = np.where(right, told, (told + 1) % 3)
        target[::17] = -1  # unlabelled rows do not count
        return SimpleRows(probabilities, target)

    def examples(self, version: Any, split: str, objective: str) -> Any:
        del version, objective
        return self._rows[split]

    def score(self, rows: Any) -> dict[str, np.ndarray]:
        return {"probabilities": rows.probabilities}


class SimpleRows:
    def __init__(self, probabilities: np.ndarray, target: np.ndarray) -> None:
        self.probabilities, self.target = probabilities, target

    def take(self, kept: np.ndarray) -> SimpleRows:
        return SimpleRows(self.probabilities[kept], self.target[kept])

    def __len__(self) -> int:
        return len(self.target)


def found(folder: Path, config: ReviewConfig, validation: int = 1200, test: int = 2000) -> Review | None:
    folder.mkdir(exist_ok=True)
    return review_of(config, Model(folder, {"validation": validation, "test": test}), None)  # type: ignore[arg-type]


def test_each_class_has_the_threshold_that_its_rows_prove(tmp_path: Path) -> None:
    review = found(tmp_path, ReviewConfig(precision=0.95))
    assert review is not None
    sure, doubtful, rare = review.classes
    assert sure.threshold == pytest.approx(0.5, abs=0.01)  # everything is accepted
    assert doubtful.threshold is not None
    assert 0.7 < doubtful.threshold < 0.9
    assert rare.threshold is None  # too few rows
    assert rare.coverage.value == 0
    assert np.isnan(rare.precision.value)
    assert sure.coverage.value > 0.97
    assert review.precision.low <= review.precision.value <= review.precision.high
    assert review.precision.value > 0.95
    assert review.n_test == int((np.arange(2000) % 17 != 0).sum())
    told = json.loads((tmp_path / "review.json").read_text())
    assert [row["label"] for row in told["classes"]] == LABELS
    assert [row["threshold"] for row in told["classes"]] == [one.threshold for one in review.classes]
    coverage, risk = np.array(review.curve).T
    assert (np.diff(coverage) > 0).all()
    assert coverage[-1] == 1
    assert len(coverage) <= 100
    assert risk[-1] == pytest.approx(1 - 0.8, abs=0.12)
    assert json.dumps(review.plain())


def test_a_threshold_survives_the_way_through_json_as_the_same_float32(tmp_path: Path) -> None:
    review = found(tmp_path, ReviewConfig(precision=0.95))
    assert review is not None
    for row in json.loads((tmp_path / "review.json").read_text())["classes"]:
        if row["threshold"] is not None:
            assert float(np.float32(row["threshold"])) == row["threshold"]


def test_few_rows_flag_everything_and_nothing_asked_flags_nothing(tmp_path: Path) -> None:
    review = found(tmp_path, ReviewConfig(precision=0.95), validation=60)
    assert review is not None
    assert [one.threshold for one in review.classes] == [None, None, None]
    assert review.coverage.value == 0
    assert np.isnan(review.precision.value)
    assert found(tmp_path / "off", ReviewConfig()) is None
    assert not (tmp_path / "off" / "review.json").exists()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_without_labelled_rows_is_named(tmp_path: Path, split: str) -> None:
    with pytest.raises(TerminalError, match=f"the {split} split has none"):
        found(tmp_path, ReviewConfig(precision=0.9), **{split: 1})


@pytest.mark.parametrize("objective", ["regression", "multilabel", "anomaly", "forecasting", "generation"])
def test_thresholds_are_for_classification(objective: str) -> None:
    check_review(ReviewConfig(), objective)
    check_review(ReviewConfig(precision=0.9), "classification")
    with pytest.raises(ConfigError, match=f"but this model learned {objective}"):
        check_review(ReviewConfig(precision=0.9), objective)


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=n@example.org")
    return subprocess.run(
        ["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_revision_is_that_of_the_projects_folder(tmp_path: Path) -> None:
    assert git_revision(tmp_path) is None
    assert git_revision(tmp_path / "nowhere") is None
    git(tmp_path, "init", "-q")
    assert git_revision(tmp_path) == {"commit": None, "dirty": False}
    (tmp_path / "loop.yaml").write_text("name: a\n")
    git(tmp_path, "add", "loop.yaml")
    git(tmp_path, "commit", "-qm", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / ".kfloop").mkdir()
    (tmp_path / ".kfloop" / "new").write_text("")  # what kfloop itself writes makes no folder dirty
    assert git_revision(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "loop.yaml").write_text("name: b\n")
    assert git_revision(tmp_path) == {"commit": commit, "dirty": True}
    below = tmp_path / "below"
    below.mkdir()
    assert git_revision(below) == {"commit": commit, "dirty": False}


def test_a_machine_without_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_revision(tmp_path) is None


def test_versions_are_told() -> None:
    assert {"torch", "onnx", "onnxruntime", "numpy"} <= set(made_with())


@pytest.mark.slow
def test_a_real_package_holds_it_all_and_its_digest_knows_no_revision(tmp_path: Path) -> None:
    checkpoint = packages.untrained(tmp_path, "table", "multiclass")
    place = Workspace(loop="t", root=tmp_path, state="", store="", mlflow="")

    def made(name: str, config: PackageConfig, workspace: Workspace = place) -> Any:
        (tmp_path / name).mkdir()
        return run(
            config, dataset=tmp_path / "dataset", checkpoint=checkpoint, out=tmp_path / name, workspace=workspace
        )

    plain = made("plain", PackageConfig())
    assert (plain.review, plain.git) == (None, None)
    assert plain.files["model.onnx"] == hashlib.sha256((tmp_path / "plain" / "model.onnx").read_bytes()).hexdigest()
    assert set(plain.files) == {path.name for path in (tmp_path / "plain").iterdir()} - {"report.json"}
    project = tmp_path / "project"
    project.mkdir()
    git(project, "init", "-q")
    again = made("again", PackageConfig(), replace(place, root=project))
    assert again.git == {"commit": None, "dirty": False}
    assert again.digest == plain.digest
    reviewed = made("reviewed", PackageConfig(review=ReviewConfig(precision=0.9)))
    assert reviewed.digest != plain.digest
    assert reviewed.files["model.onnx"] == plain.files["model.onnx"]
    assert "review.json" in reviewed.files
    assert json.loads((tmp_path / "reviewed" / "report.json").read_text())["review"]["asked"] == 0.9
