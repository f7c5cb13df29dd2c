"""check_labels: planted label errors are found on digits; policies do what they say; tiny data work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

from kfloop.components.check_labels.component import check_labels
from kfloop.components.check_labels.labels import normalized_margin, run
from kfloop.components.check_labels.probabilities import folds_for, out_of_sample, pixel_features
from kfloop.components.ingest.sources import digit_arrays
from kfloop.core.artifacts import read_report
from kfloop.core.config import LabelsConfig
from kfloop.core.versions import Rows, content_hash, split_of, write_version
from kfloop.core.workspace import Workspace
from kfloop.errors import InputError
from kfloop.testing.harness import Harness

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(
        loop="t", root=tmp_path, state=f"sqlite:///{tmp_path}/s.db", store=str(tmp_path / "store"), mlflow=""
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


def write(folder: Path, images: np.ndarray, labels: np.ndarray, names: list[str]) -> Path:
    folder.mkdir()
    rows = Rows(ids=[str(i) for i in range(len(labels))], images=images, labels=labels, origin=["base"] * len(labels))
    write_version(folder, name="t", rows=rows, labels=names, validation=0.15, test=0.25)
    return folder


def noisy_digits(folder: Path, seed: int, share: float = 0.1) -> tuple[Path, set[str]]:
    """Digits with ``share`` of the training labels replaced by another, uniformly; the ids of the wrong ones."""
    images, labels = digit_arrays()
    generator = np.random.default_rng(seed)
    train = np.flatnonzero([split_of(content_hash(image), 0.15, 0.25) == "train" for image in images])
    wrong = generator.choice(train, round(share * len(train)), replace=False)
    labels = labels.copy()
    labels[wrong] = (labels[wrong] + generator.integers(1, 10, len(wrong))) % 10
    return write(folder, images, labels, [str(digit) for digit in range(10)]), {str(row) for row in wrong}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_errors_are_found(tmp_path: Path, out: Path, workspace: Workspace, seed: int) -> None:
    version, wrong = noisy_digits(tmp_path / "v", seed)
    report = run(LabelsConfig(), dataset=version, out=out, workspace=workspace)
    issues = pq.read_table(out / "issues.parquet").to_pydict()
    flagged = {name for name, flag in zip(issues["id"], issues["flagged"], strict=True) if flag}
    assert len(flagged) == report.n_flagged
    recall, precision = len(flagged & wrong) / len(wrong), len(flagged & wrong) / len(flagged)
    assert recall >= 0.8, (recall, precision)
    assert precision >= 0.8, (recall, precision)
    assert report.noise.low <= len(wrong) / report.n <= report.noise.high
    _, truth = digit_arrays()
    suggested = dict(zip(issues["id"], issues["suggested"], strict=True))
    assert np.mean([suggested[name] == truth[int(name)] for name in flagged & wrong]) > 0.9


def test_clean_digits_have_few_flags_and_none_is_changed(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    images, labels = digit_arrays()
    report = run(
        LabelsConfig(), dataset=write(tmp_path / "v", images, labels, list("0123456789")), out=out, workspace=workspace
    )
    assert report.n == 1797
    assert report.noise.value < 0.03
    weights = pq.read_table(out / "weights.parquet").to_pydict()
    assert set(weights["weight"]) == {1.0}
    assert not any(weights["quarantined"])


def test_policies(tmp_path: Path, workspace: Workspace) -> None:
    version, _ = noisy_digits(tmp_path / "v", 0)
    tables = {}
    for policy in ("report", "weight", "quarantine"):
        out = tmp_path / policy
        out.mkdir()
        run(LabelsConfig(policy=policy), dataset=version, out=out, workspace=workspace)
        tables[policy] = pq.read_table(out / "weights.parquet").to_pydict()
    issues = pq.read_table(out / "issues.parquet").to_pydict()
    train = [flag and split == "train" for flag, split in zip(issues["flagged"], issues["split"], strict=True)]
    assert any(flag and split != "train" for flag, split in zip(issues["flagged"], issues["split"], strict=True))
    assert len({tuple(table["id"]) for table in tables.values()}) == 1
    assert tables["report"]["weight"] == [1.0] * 1797
    assert tables["weight"]["weight"] == [0.5 if flag else 1.0 for flag in train]
    assert not any(tables["weight"]["quarantined"])
    assert tables["quarantine"]["quarantined"] == train


def test_the_report_is_ranked_by_margin_and_repeatable(tmp_path: Path, workspace: Workspace) -> None:
    version, _ = noisy_digits(tmp_path / "v", 3)
    reports = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run(LabelsConfig(seed=4, folds=3), dataset=version, out=tmp_path / name, workspace=workspace)
        reports.append(read_report(tmp_path / name))
    assert reports[0] == reports[1]
    margins = [line["margin"] for line in reports[0]["ranked"]]
    assert margins == sorted(margins)
    assert set(reports[0]["ranked"][0]) == {"id", "given", "suggested", "margin", "split"}
    assert "3-fold" in reports[0]["method"]


@pytest.mark.parametrize("per_class", [30, 60])
def test_two_small_classes(tmp_path: Path, out: Path, workspace: Workspace, per_class: int) -> None:
    generator = np.random.default_rng(1)
    labels = np.arange(2 * per_class) % 2
    images = generator.integers(0, 100, (2 * per_class, 32, 32, 3), dtype=np.uint8)
    images[labels == 1, :16] += 120
    given = labels.copy()
    given[:4] = 1 - given[:4]
    report = run(LabelsConfig(), dataset=write(tmp_path / "v", images, given, ["a", "b"]), out=out, workspace=workspace)
    assert {line["id"] for line in report.ranked} == {"0", "1", "2", "3"}


def test_rare_classes_use_fewer_folds() -> None:
    assert folds_for(np.array([0] * 9 + [1] * 3), 5) == 3
    assert folds_for(np.array([0] * 9 + [1] * 9), 5) == 5


def test_a_class_with_one_example_is_an_input_error(
    tmp_path: Path, out: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kfloop.core.versions._refuse_empty", lambda _counts: None)  # ingest would not let it through
    labels = np.arange(60) % 2
    labels[0] = 2
    images = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 1), dtype=np.uint8)
    with pytest.raises(InputError, match="'c' has a single example"):
        run(
            LabelsConfig(), dataset=write(tmp_path / "v", images, labels, ["a", "b", "c"]), out=out, workspace=workspace
        )


def test_probabilities_are_out_of_sample_and_sum_to_one() -> None:
    images, labels = digit_arrays()
    images, labels = images[:300], labels[:300]
    probabilities = out_of_sample(pixel_features(images), labels, 10, folds=5, seed=0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    random = np.random.default_rng(0).permutation(labels)
    fitted = out_of_sample(pixel_features(images), random, 10, folds=5, seed=0)
    assert (fitted.argmax(axis=1) == random).mean() < 0.25  # a model that saw its rows would remember them


def test_margin() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    np.testing.assert_allclose(normalized_margin(np.array([0, 1]), probabilities), [0.5, -0.5])


@pytest.mark.parametrize("shape", [(5, 8, 8, 1), (5, 20, 20, 3), (5, 64, 64, 3), (5, 1, 1, 1)])
def test_features_are_bounded_in_number_and_size(shape: tuple[int, ...]) -> None:
    features = pixel_features(np.full(shape, 255, np.uint8))
    assert features.shape[0] == 5
    assert features.shape[1] <= 31 * 31 * 3
    np.testing.assert_allclose(features, 1.0)


def test_the_component(tmp_path: Path, workspace: Workspace) -> None:
    images, labels = digit_arrays()
    version = write(tmp_path / "v", images[:400], labels[:400], list("0123456789"))
    done = Harness(tmp_path / "kfp", workspace).run(
        check_labels, config_json=LabelsConfig().model_dump_json(), dataset_digest=version.name, dataset=version
    )
    assert read_report(done.artifacts["labels"])["n"] == 400
    assert done.value == done.metadata["labels"]["digest"]
