"""check_labels: planted label errors are found, policies do what they say, every modality and task goes through."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfloop.components.check_labels.component import check_labels
from kfloop.components.check_labels.labels import LabelReport, run
from kfloop.core.artifacts import read_report
from kfloop.core.config import LabelsConfig
from kfloop.core.versions import Rows, VersionWriter, content_hash, split_of, write_version
from kfloop.core.versions.assigning import Splitter
from kfloop.core.versions.keys import Hasher
from kfloop.core.versions.splitting import Cutoffs
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError
from kfloop.testing.harness import Harness

if TYPE_CHECKING:
    from pathlib import Path


def digit_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [1797, 8, 8, 1] and labels of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images * (255.0 / 16.0)).round().astype(np.uint8)[..., None], digits.target.astype(np.int64)


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
    assert report.n_flagged <= 3
    assert report.noise.value < 0.005
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


def save(
    folder: Path,
    modality: str,
    task: str,
    columns: dict[str, Any],
    *,
    labels: tuple[str, ...] = (),
    inputs: tuple[str, ...],
    schema: dict[str, Any] | None = None,
    extras: dict[str, pa.Table] | None = None,
    method: str = "random",
) -> Path:
    """A version of any modality; row ids are their numbers."""
    folder.mkdir()
    n = len(next(iter(columns.values())))
    table = pa.table({"id": [str(row) for row in range(n)], **columns, "origin": ["base"] * n})
    hasher = Hasher(modality=modality, task=task, labels=labels, schema=schema or {}, inputs=inputs)
    splitter = Splitter(Cutoffs(method=method, validation=0.15, test=0.25), labels, modality)
    if splitter.must_learn:
        splitter.learn([(table, hasher.contents(table)[2])])
    writer = VersionWriter(folder, name="t", hasher=hasher, splitter=splitter)
    writer.add(table)
    writer.finish(extras=extras or {})
    return folder


def vectors(values: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def found(report: LabelReport, wrong: set[str]) -> tuple[float, float]:
    """Precision and recall of the flagged rows."""
    flagged = {line["id"] for line in report.ranked}
    return len(flagged & wrong) / max(1, len(flagged)), len(flagged & wrong) / len(wrong)


def flipped(labels: np.ndarray, classes: int, share: float = 0.08) -> tuple[np.ndarray, set[str]]:
    generator = np.random.default_rng(1)
    wrong = generator.choice(len(labels), round(share * len(labels)), replace=False)
    labels = labels.copy()
    labels[wrong] = (labels[wrong] + generator.integers(1, classes, len(wrong))) % classes
    return labels, {str(row) for row in wrong}


def blobs(n: int, classes: int, dimensions: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Points around one centre for each class."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, n)
    return generator.normal(0, 1, (n, dimensions)) + generator.normal(0, 4, (classes, dimensions))[labels], labels


def test_a_class_seen_once_is_reported_and_the_rest_is_checked(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    points, labels = blobs(150, 2)
    labels[:1] = 2
    version = save(
        tmp_path / "v",
        "vector",
        "multiclass",
        {"vector": vectors(points), "label": labels, "split": (["train", "validation", "test"] * 50)},
        labels=("a", "b", "rare"),
        inputs=("vector",),
        schema={"vector_shape": [5]},
        method="official",
    )
    report = run(LabelsConfig(), dataset=version, out=out, workspace=workspace)
    assert report.n == 149
    assert report.n_unchecked == 1
    assert (report.unchecked[0]["id"], report.unchecked[0]["given"]) == ("0", "rare")
    assert "0" not in {line["id"] for line in report.ranked}
    issues = {line["id"]: line for line in pq.read_table(out / "issues.parquet").to_pylist()}
    assert issues["0"]["margin"] is None
    assert issues["1"]["margin"] is not None


def test_the_review_queue(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    version, wrong = noisy_digits(tmp_path / "v", 0)
    report = run(LabelsConfig(policy="relabel_queue"), dataset=version, out=out, workspace=workspace)
    lines = [json.loads(line) for line in (out / "queue.jsonl").read_text().splitlines()]
    assert len(lines) == report.queued >= report.n_flagged > 0
    assert [line["priority"] for line in lines] == list(range(1, len(lines) + 1))
    assert [line["margin"] for line in lines] == sorted(line["margin"] for line in lines)
    keys = {"content", "id", "split", "given", "suggested", "confidence", "margin", "reasons", "priority"}
    assert set(lines[0]) == keys
    assert {line["id"] for line in lines if "label_issue" in line["reasons"]} >= {line["id"] for line in report.ranked}
    assert np.mean([line["id"] in wrong for line in lines[:50]]) > 0.9
    weights = pq.read_table(out / "weights.parquet").to_pydict()
    assert set(weights["weight"]) == {1.0}
    assert not any(weights["quarantined"])


def test_a_table_with_a_worse_group(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    points, truth = blobs(600, 2)
    generator = np.random.default_rng(3)
    site = np.array(["north", "south", "west"])[generator.integers(0, 3, 600)]
    wrong = np.flatnonzero((site == "south") & (generator.random(600) < 0.25))
    labels = truth.copy()
    labels[wrong] = 1 - labels[wrong]
    columns = {f"x{k}": points[:, k] for k in range(5)} | {"site": site}
    version = save(
        tmp_path / "v", "table", "multiclass", columns | {"label": labels}, labels=("a", "b"), inputs=tuple(columns)
    )
    report = run(LabelsConfig(), dataset=version, out=out, workspace=workspace)
    precision, recall = found(report, {str(row) for row in wrong})
    assert precision > 0.8
    assert recall > 0.6
    assert report.groups[0]["value"] == "south"
    assert report.groups[0]["p_adjusted"] < 0.01
    assert "boosted trees" in report.method
    assert report.imbalance is not None
    with pytest.raises(ConfigError, match="'sight'"):
        run(LabelsConfig(groups=("sight",)), dataset=version, out=out, workspace=workspace)


def test_texts(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    generator = np.random.default_rng(0)
    words = [["goal", "match", "team", "score", "coach"], ["bank", "stock", "price", "loan", "tax"]]
    truth = generator.integers(0, 2, 300)
    texts = [" ".join([*generator.choice(words[k], 5), f"word{row}"]) for row, k in enumerate(truth)]
    labels, wrong = flipped(truth, 2)
    version = save(
        tmp_path / "v", "text", "multiclass", {"text": texts, "label": labels}, labels=("a", "b"), inputs=("text",)
    )
    precision, recall = found(run(LabelsConfig(), dataset=version, out=out, workspace=workspace), wrong)
    assert precision > 0.9
    assert recall > 0.9


def test_sounds(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, 150)
    time = np.arange(1600) / 8000
    sounds = [
        (6000 * np.sin(2 * np.pi * pitch * time) + generator.normal(0, 300, 1600)).astype(np.int16)
        for pitch in np.array([300, 700, 1500])[truth] * generator.uniform(0.9, 1.1, 150)
    ]
    labels, wrong = flipped(truth, 3)
    columns = {"audio": pa.array(sounds, type=pa.list_(pa.int16())), "label": labels}
    schema = {"sample_rate": 8000}
    version = save(
        tmp_path / "v", "audio", "multiclass", columns, labels=("a", "b", "c"), inputs=("audio",), schema=schema
    )
    precision, recall = found(run(LabelsConfig(), dataset=version, out=out, workspace=workspace), wrong)
    assert precision > 0.8
    assert recall > 0.9


def test_nodes_are_judged_by_their_neighbours(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    generator = np.random.default_rng(0)
    truth = np.arange(300) % 2
    source, target = generator.integers(0, 300, 3000), generator.integers(0, 300, 3000)
    same = truth[source] == truth[target]
    edges = pa.table({"source": source[same], "target": target[same]})
    weak = np.abs(generator.normal(0.3 * np.eye(4)[truth], 0.3))  # alone they say little
    labels, wrong = flipped(truth, 2)
    version = save(
        tmp_path / "v",
        "nodes",
        "multiclass",
        {"vector": vectors(weak), "node": np.arange(300), "label": labels},
        labels=("a", "b"),
        inputs=("vector", "node"),
        extras={"edges": edges},
    )
    precision, recall = found(run(LabelsConfig(), dataset=version, out=out, workspace=workspace), wrong)
    assert precision > 0.8
    assert recall > 0.9


def test_small_graphs(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    generator = np.random.default_rng(0)
    truth = np.arange(160) % 2
    nodes, edges = [], []
    for kind in truth:
        n = int(generator.integers(6, 12))
        ring = np.stack([np.arange(n), (np.arange(n) + 1) % n], axis=1)
        star = np.stack([np.zeros(n - 1, int), np.arange(1, n)], axis=1)
        nodes.append(generator.normal(size=2 * n).astype(np.float32))
        edges.append((ring if kind else star).ravel())
    labels, wrong = flipped(truth, 2)
    columns = {
        "nodes": pa.array(nodes, type=pa.list_(pa.float32())),
        "edges": pa.array(edges, type=pa.list_(pa.int64())),
        "label": labels,
    }
    schema = {"node_features": 2}
    version = save(
        tmp_path / "v",
        "graphs",
        "multiclass",
        columns,
        labels=("star", "ring"),
        inputs=("nodes", "edges"),
        schema=schema,
    )
    precision, recall = found(run(LabelsConfig(), dataset=version, out=out, workspace=workspace), wrong)
    assert precision > 0.9
    assert recall > 0.9


def test_sets_of_classes(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    generator = np.random.default_rng(0)
    truth = generator.random((400, 3)) < [0.5, 0.3, 0.2]
    points = truth @ generator.normal(0, 4, (3, 6)) + generator.normal(0, 0.7, (400, 6))
    given = truth.copy()
    wrong = generator.choice(400, 30, replace=False)
    given[wrong, generator.integers(0, 3, 30)] ^= True
    sets = pa.array([np.flatnonzero(row).tolist() for row in given], type=pa.list_(pa.int64()))
    version = save(
        tmp_path / "v",
        "vector",
        "multilabel",
        {"vector": vectors(points), "label": sets},
        labels=("a", "b", "c"),
        inputs=("vector",),
        schema={"vector_shape": [6]},
    )
    report = run(LabelsConfig(policy="relabel_queue"), dataset=version, out=out, workspace=workspace)
    precision, recall = found(report, {str(row) for row in wrong})
    assert precision > 0.8
    assert recall > 0.65
    first = report.ranked[0]
    assert isinstance(first["given"], list)
    assert set(first["suggested"]) == {"abc"[k] for k in np.flatnonzero(truth[int(first["id"])])}
    assert report.noise_matrix is None
    assert [line["label"] for line in report.per_class] == ["a", "b", "c"]
    issues = pq.read_table(out / "issues.parquet").to_pylist()
    assert isinstance(issues[0]["given"], list)


def test_numbers(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    generator = np.random.default_rng(0)
    points = generator.uniform(-1, 1, (500, 3))
    targets = points @ [3.0, -2.0, 1.0] + generator.normal(0, 0.2, 500)
    wrong = generator.choice(500, 15, replace=False)
    targets[wrong] += np.where(generator.random(15) < 0.5, -6, 6)
    columns = {f"x{k}": points[:, k] for k in range(3)}
    version = save(tmp_path / "v", "table", "regression", columns | {"label": targets}, inputs=tuple(columns))
    report = run(LabelsConfig(policy="quarantine"), dataset=version, out=out, workspace=workspace)
    precision, recall = found(report, {str(row) for row in wrong})
    assert precision > 0.85
    assert recall > 0.9
    assert report.noise.value == pytest.approx(report.n_flagged / 500)
    assert report.per_class == []
    assert report.imbalance is None
    weights = pq.read_table(out / "weights.parquet").to_pydict()
    assert 0 < sum(weights["quarantined"]) <= report.n_flagged


def test_series_without_labels_have_outliers_only(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    generator = np.random.default_rng(0)
    values = np.sin(np.arange(1200) / 5) + generator.normal(0, 0.1, 1200)
    strange = generator.choice(np.arange(50, 600), 8, replace=False)
    values[strange] += 3
    version = save(
        tmp_path / "v",
        "series",
        "forecasting",
        {"a": values, "time": np.arange(1200)},
        inputs=("a",),
        schema={"series": {"context": 24, "horizon": 4, "stride": 1, "channels": ["a"]}},
        method="time",
    )
    report = run(LabelsConfig(), dataset=version, out=out, workspace=workspace)
    assert read_report(out)["noise"]["value"] is None
    assert "no labels" in report.method
    assert report.n == report.n_flagged == report.n_unchecked == 0
    assert {str(row) for row in strange} <= {line["id"] for line in report.outliers["ranked"]}
    assert report.outliers["n"] <= 12
    assert pq.read_table(out / "weights.parquet").num_rows == 1200


def test_votes_are_studied_and_disputes_queued(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    points, labels = blobs(120, 2)
    names = np.array(["a", "b"])
    votes = [
        {"id": str(row), "annotator": f"p{person}", "label": str(names[labels[row]])}
        for row in range(120)
        for person in range(3)
    ]
    votes[0]["label"] = votes[1]["label"] = votes[2]["label"] = str(names[1 - labels[0]])
    version = save(
        tmp_path / "v",
        "vector",
        "multiclass",
        {"vector": vectors(points), "label": labels},
        labels=("a", "b"),
        inputs=("vector",),
        schema={"vector_shape": [5]},
        extras={"votes": pa.Table.from_pylist(votes)},
    )
    report = run(LabelsConfig(policy="relabel_queue"), dataset=version, out=out, workspace=workspace)
    assert report.annotators is not None
    assert report.annotators["n_annotators"] == 3
    assert (out / "consensus.parquet").is_file()
    queue = {line["id"]: line for line in map(json.loads, (out / "queue.jsonl").read_text().splitlines())}
    assert "annotators" in queue["0"]["reasons"]


@pytest.mark.slow
def test_the_loops_own_model_judges_images(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    generator = np.random.default_rng(0)
    truth = np.arange(160) % 2
    images = generator.integers(0, 60, (160, 8, 8, 1), dtype=np.uint8)
    images[truth == 0, :4] += 120
    images[truth == 1, 4:] += 120
    labels, wrong = flipped(truth, 2)
    version = write(tmp_path / "v", images, labels, ["up", "down"])
    report = run(LabelsConfig(probabilities="model", folds=2), dataset=version, out=out, workspace=workspace)
    precision, recall = found(report, wrong)
    assert precision > 0.9
    assert recall > 0.9
    assert "'cnn'" in report.method


def test_models_judge_rows_of_one_class_only(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    version = save(
        tmp_path / "v", "table", "regression", {"x": np.arange(60.0), "label": np.arange(60.0)}, inputs=("x",)
    )  # fmt: skip
    with pytest.raises(ConfigError, match="table for regression") as error:
        run(LabelsConfig(probabilities="model"), dataset=version, out=out, workspace=workspace)
    assert "stand_in" in error.value.hint


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "least"), [("uniform", (0.93, 0.90)), ("next", (0.90, 0.88))])
def test_flips_of_all_digits_are_found(
    tmp_path: Path, workspace: Workspace, kind: str, least: tuple[float, float]
) -> None:
    images, truth = digit_arrays()
    figures = []
    for seed in range(5):
        generator = np.random.default_rng(seed)
        wrong = generator.choice(len(truth), 180, replace=False)
        labels = truth.copy()
        labels[wrong] = (labels[wrong] + (generator.integers(1, 10, 180) if kind == "uniform" else 1)) % 10
        (tmp_path / f"out{seed}").mkdir()
        version = write(tmp_path / f"v{seed}", images, labels, list("0123456789"))
        report = run(LabelsConfig(seed=seed), dataset=version, out=tmp_path / f"out{seed}", workspace=workspace)
        figures.append(found(report, {str(row) for row in wrong}))
    precision, recall = np.mean(figures, axis=0)
    assert precision >= least[0]
    assert recall >= least[1]


def test_the_component(tmp_path: Path, workspace: Workspace) -> None:
    images, labels = digit_arrays()
    version = write(tmp_path / "v", images[:400], labels[:400], list("0123456789"))
    done = Harness(tmp_path / "kfp", workspace).run(
        check_labels, config_json=LabelsConfig().model_dump_json(), dataset_digest=version.name, dataset=version
    )
    assert read_report(done.artifacts["labels"])["n"] == 400
    assert done.value == done.metadata["labels"]["digest"]


def test_the_word_of_a_person_stands(tmp_path: Path, workspace: Workspace) -> None:
    points, truth = blobs(200, 2)
    labels, wrong = flipped(truth, 2)
    asked = sorted(wrong, key=int)[:8]
    columns = {"vector": vectors(points), "label": labels}
    said = {"label_by": "ann", "label_at": "2026-01-01T00:00:00Z"}
    settled = {name: [value if str(row) in asked else None for row in range(200)] for name, value in said.items()}
    queues = []
    for place, more in enumerate(({}, settled)):
        folder, out = tmp_path / f"v{place}", tmp_path / f"o{place}"
        out.mkdir()
        version = save(
            folder, "vector", "multiclass", columns | more, labels=("a", "b"), inputs=("vector",),
            schema={"vector_shape": [5]},
        )  # fmt: skip
        report = run(LabelsConfig(policy="relabel_queue"), dataset=version, out=out, workspace=workspace)
        queues.append({json.loads(line)["id"] for line in (out / "queue.jsonl").read_text().splitlines()})
        assert (set(asked) <= {line["id"] for line in report.ranked}) == (place == 0)
        assert report.noise.value == pytest.approx((len(wrong) - place * len(asked)) / 200, abs=0.011)
    assert set(asked) <= queues[0]
    assert queues[1] == queues[0] - set(asked)
    (tmp_path / "quarantine").mkdir()
    run(LabelsConfig(policy="quarantine"), dataset=version, out=tmp_path / "quarantine", workspace=workspace)
    weights = pq.read_table(tmp_path / "quarantine" / "weights.parquet").to_pylist()
    quarantined = {line["id"] for line in weights if line["quarantined"]}
    assert quarantined
    assert not quarantined & set(asked)


def test_weak_models_say_so(tmp_path: Path, workspace: Workspace) -> None:
    points, labels = blobs(300, 2)
    reports = []
    for place, given in enumerate((labels, np.random.default_rng(7).integers(0, 2, 300))):
        (tmp_path / f"o{place}").mkdir()
        version = save(
            tmp_path / f"v{place}", "vector", "multiclass", {"vector": vectors(points), "label": given},
            labels=("a", "b"), inputs=("vector",), schema={"vector_shape": [5]},
        )  # fmt: skip
        reports.append(run(LabelsConfig(), dataset=version, out=tmp_path / f"o{place}", workspace=workspace))
    good, bad = reports
    assert good.accuracy.value > 0.97
    assert good.warnings == []
    assert bad.accuracy.n == 300
    assert bad.accuracy.value < 0.7
    assert bad.noise.value <= 1 - bad.accuracy.value + 1e-9
    assert "upper bounds" in bad.warnings[0]


TEXTLESS = {"text": [""] * 90}
NUMBERS = {"x": np.arange(90.0)}
WILD = {"x": np.where(np.arange(90) % 9, np.arange(90.0), np.nan), "y": np.r_[1e300, np.inf, -np.inf, np.zeros(87)]}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("modality", "task", "inputs", "label"),
    [
        ("text", "multiclass", TEXTLESS, np.arange(90) // 3 % 2),
        ("table", "multiclass", {"x": ["one"] * 90}, np.arange(90) // 3 % 2),
        ("table", "multiclass", WILD, np.arange(90) // 3 % 2),
        ("table", "multiclass", NUMBERS, np.arange(90) // 3 % 29),
        ("table", "regression", NUMBERS, np.full(90, 2.5)),
        ("table", "regression", WILD, np.arange(90.0) * 1e300),
        ("table", "multilabel", NUMBERS, pa.array([[]] * 90, pa.list_(pa.int64()))),
    ],
)
def test_odd_data_goes_through(
    tmp_path: Path, out: Path, workspace: Workspace, modality: str, task: str, inputs: dict[str, Any], label: Any
) -> None:
    names = tuple(f"c{k}" for k in range(29)) if task != "regression" else ()
    if task == "multiclass":
        names = names[: int(label.max()) + 1]
    columns = inputs | {"label": label, "split": ["train", "validation", "test"] * 30}
    version = save(tmp_path / "v", modality, task, columns, labels=names, inputs=tuple(inputs), method="official")
    report = run(LabelsConfig(policy="relabel_queue"), dataset=version, out=out, workspace=workspace)
    assert report.n + report.n_unchecked == 90
    assert read_report(out)["n"] == report.n


def test_many_classes_of_few_rows_do_not_take_long(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    points, _ = blobs(1800, 600)
    version = save(
        tmp_path / "v", "vector", "multiclass",
        {"vector": vectors(points), "label": np.arange(1800) // 3, "split": ["train", "validation", "test"] * 600},
        labels=tuple(f"c{k}" for k in range(600)), inputs=("vector",), schema={"vector_shape": [5]}, method="official",
    )  # fmt: skip
    report = run(LabelsConfig(), dataset=version, out=out, workspace=workspace)
    assert report.n == 1800
    assert "landmarks" in report.method
    assert report.warnings


def test_rows_outside_all_masks_are_checked_too(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    points, labels = blobs(200, 2)
    split = ["train", "validation", "test", "rest"] * 50
    version = save(
        tmp_path / "v", "vector", "multiclass", {"vector": vectors(points), "label": labels, "split": split},
        labels=("a", "b"), inputs=("vector",), schema={"vector_shape": [5]}, method="official",
    )  # fmt: skip
    report = run(LabelsConfig(policy="quarantine"), dataset=version, out=out, workspace=workspace)
    assert report.n == 200
    assert report.leakage.n == 100


def test_rows_of_a_coarse_table_neither_leak_nor_contradict(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    """Two columns of few values: equal rows come by chance, and the report says so instead of counting leaks."""
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, 900)
    columns = {
        "age": np.round(40 + 10 * label + 8 * generator.normal(size=900)),
        "town": np.array(["Ulm", "Bern"])[generator.integers(0, 2, 900)],
    }
    version = save(
        tmp_path / "v", "table", "multiclass", columns | {"label": label}, labels=("a", "b"), inputs=("age", "town")
    )
    report = run(LabelsConfig(), dataset=version, out=out, workspace=workspace)
    assert report.duplicates["exact"] > 500
    assert report.duplicates["coincidences"] > 1
    assert (report.duplicates["conflicting"], report.duplicates["leaking"]) == (0, 0)
    assert not report.leakage.known
    assert any("equal rows are no evidence" in line for line in report.warnings)


def test_equal_rows_of_a_fine_table_do_leak(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    points, label = blobs(300, 2)
    columns = {f"x{k}": np.concatenate([points[:, k], points[:20, k]]) for k in range(4)}
    given = np.concatenate([label, 1 - label[:20]])
    version = save(
        tmp_path / "v", "table", "multiclass", columns | {"label": given}, labels=("a", "b"), inputs=tuple(columns)
    )
    report = run(LabelsConfig(), dataset=version, out=out, workspace=workspace)
    assert report.duplicates["coincidences"] < 0.01
    assert report.duplicates["exact"] == report.duplicates["conflicting"] == 20
    assert report.leakage.known
