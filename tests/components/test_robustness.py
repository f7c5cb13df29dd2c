"""Corruptions: what they do to rows, that they are the same for every model, and that odd data leave a reason and no crash."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics

import packages
from kfloop.components.evaluate.corruptions import graphs as corrupting_graphs
from kfloop.components.evaluate.corruptions import rows as corrupting_rows
from kfloop.components.evaluate.corruptions.altered import AlteredVersion
from kfloop.components.evaluate.corruptions.kinds import KINDS, SEVERITIES, altered, numbers_for
from kfloop.components.evaluate.corruptions.robustness import FEWEST_ROWS, chosen_rows, corrupted
from kfloop.components.evaluate.main_figure import figure, pooled
from kfloop.components.evaluate.measuring import Task
from kfloop.components.evaluate.scoreboard import Board
from kfloop.core.sections import EvaluateConfig
from kfloop.core.statistics.bootstrap import Statistic, replicate
from kfloop.core.versions import DatasetVersion, read_version
from kfloop.errors import InputError

QUICK = EvaluateConfig(bootstrap=200, corrupted_rows=50)
TASKS = {"series": "forecasting", "vector": "regression"}


def dataset(folder: Path, modality: str, task: str) -> Any:
    return read_version(packages.write_dataset(folder, modality, task))


@pytest.mark.parametrize("modality", [name for name in KINDS if name not in {"series", "nodes"}])
def test_a_corruption_is_the_same_every_time_and_leaves_the_version_alone(tmp_path: Path, modality: str) -> None:
    version = dataset(tmp_path / "data", modality, TASKS.get(modality, "multiclass"))
    rows = np.arange(10)
    clean = version.table("test").take(rows).to_pylist()
    for name, kind in KINDS[modality].items():
        if (modality, name) == ("graphs", "noise"):
            with pytest.raises(InputError, match="all nodes have the same features"):
                altered(version, kind, 1, numbers_for(0, name, 1), rows)
            continue
        for severity in SEVERITIES:
            once, again = (
                altered(version, kind, severity, numbers_for(0, name, severity), rows).table("test").to_pylist()
                for _ in range(2)
            )
            assert repr(once) == repr(again)
            assert [row["id"] for row in once] == [row["id"] for row in clean]
        assert repr(once) != repr(clean)
    assert repr(version.table("test").take(rows).to_pylist()) == repr(clean)


def test_images_stay_pixels_and_do_what_their_name_says(tmp_path: Path) -> None:
    version = dataset(tmp_path / "data", "image", "multiclass")
    rows = np.arange(14)

    def pixels(name: str, severity: int) -> Any:
        other = altered(version, KINDS["image"][name], severity, numbers_for(0, name, severity), rows)
        return other.table("test")["image"].combine_chunks().flatten().to_numpy().reshape(14, -1).astype(float)

    clean = version.table("test")["image"].combine_chunks().flatten().to_numpy().reshape(14, -1).astype(float)
    assert (pixels("brightness", 1) >= clean).all()
    assert (pixels("contrast", 3).std(1) < 0.3 * clean.std(1)).all()
    rough = [np.abs(pixels("gaussian_noise", severity) - clean).mean() for severity in SEVERITIES]
    assert rough == sorted(rough)
    smooth = [pixels("blur", severity).std() for severity in SEVERITIES]
    assert smooth == sorted(smooth, reverse=True)


def test_words_are_mistyped_dropped_and_never_all_gone() -> None:
    table = pa.table({"text": ["a short text of some more words", "one", "", None]})
    random = np.random.default_rng(0)
    fewer = corrupting_rows.dropped_words(table, 0.999, random, cast("DatasetVersion", None))["text"].to_pylist()
    assert [len(text.split()) for text in fewer] == [1, 1, 0, 0]
    wrong = corrupting_rows.typos(table, 0.3, random, cast("DatasetVersion", None))["text"].to_pylist()
    assert wrong[0] != table["text"][0].as_py()
    assert wrong[0].count(" ") == 6
    assert wrong[2:] == ["", ""]


def test_a_table_of_words_alone_has_no_noise_and_one_of_numbers_no_swaps() -> None:
    def version(table: pa.Table) -> DatasetVersion:
        return cast(
            "DatasetVersion",
            SimpleNamespace(inputs=table.column_names, table=lambda _split, names: table.select(names)),
        )

    words, numbers = pa.table({"town": ["Ulm", "Bonn", None] * 40}), pa.table({"age": [1, 2, 3, None] * 30})
    random = np.random.default_rng(0)
    with pytest.raises(InputError, match="no column holds numbers"):
        corrupting_rows.noisy_numbers(words, 0.1, random, version(words))
    with pytest.raises(InputError, match="no column holds categories"):
        corrupting_rows.swapped_words(numbers, 0.1, random, version(numbers))
    swapped = corrupting_rows.swapped_words(words, 0.5, random, version(words))["town"].to_pylist()
    moved = [(a, b) for a, b in zip(words["town"].to_pylist(), swapped, strict=True) if a != b]
    assert 40 < len(moved) < 80
    assert {b for _, b in moved} == {"Ulm", "Bonn"}
    noisy = corrupting_rows.noisy_numbers(numbers, 0.5, random, version(numbers))["age"]
    assert noisy.null_count == 30
    assert np.nanstd(noisy.to_numpy() - numbers["age"].to_numpy()) == pytest.approx(0.5 * np.std([1, 2, 3]), rel=0.3)
    gaps = corrupting_rows.without_values(words, 0.5, random, version(words))
    assert 40 + 25 < gaps["town"].null_count < 40 + 55


def test_windows_lose_a_piece_and_an_edge_goes_in_both_directions() -> None:
    windows = np.random.default_rng(0).random((20, 50, 3))
    gaps = corrupting_graphs.gaps_in_windows(windows, 0.2, np.random.default_rng(0), np.ones(3))
    assert (np.isnan(gaps).sum(axis=1) == 10).all()
    moved = corrupting_graphs.jitter(
        np.tile(np.arange(50.0)[:, None], (20, 1, 1)), 2, np.random.default_rng(0), np.ones(1)
    )
    assert np.abs(moved[:, :, 0] - np.arange(50)).max() == 2
    ends = np.array([[0, 1], [1, 0], [1, 2], [3, 4], [2, 1]])
    for seed in range(10):
        kept = corrupting_graphs._kept_pairs(ends, 0.5, np.random.default_rng(seed))
        assert kept[0] == kept[1]
        assert kept[2] == kept[4]


class _Rows(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.inputs[0])


def _rows(values: Any) -> Any:
    return _Rows(inputs=(values,), batch_inputs=lambda rows: (values[rows],))


def _task(objective: str, target: Any, n: int) -> Task:
    return Task(
        objective=objective,
        target=target,
        origin=np.full(n, "base"),
        labels=["no", "yes"],
        channels=[],
        std=np.ones(1),
        block=1,
    )


def test_the_figure_of_some_rows_is_that_of_scikit_learn_and_counts_no_others() -> None:
    random = np.random.default_rng(0)
    n, rows = 80, np.arange(0, 80, 2)
    answer = random.random(n)
    target = (random.random(n) < answer).astype(np.int64)
    cases = {
        "classification": (np.stack([1 - answer, answer], 1), metrics.accuracy_score(target[rows], answer[rows] > 0.5)),
        "anomaly": (answer, metrics.roc_auc_score(target[rows], answer[rows])),
        "regression": (answer, metrics.root_mean_squared_error(target[rows], answer[rows])),
    }
    for objective, (answers, expected) in cases.items():
        task = _task(objective, target, n)
        item = figure(task, rows, answers[rows])
        other = figure(task, rows, answers[rows][::-1])
        found = replicate({"one": item, "both": pooled([item, other])}, n, resamples=50, seed=0)
        assert found["one"].point == pytest.approx(expected)
        alone = replicate({"other": other}, n, resamples=50, seed=0)["other"]
        if objective == "regression":  # squares are pooled, not roots
            both = np.sqrt((found["one"].values ** 2 + alone.values**2) / 2)
        else:
            both = (found["one"].values + alone.values) / 2
        np.testing.assert_allclose(found["both"].values, both)
    several = _task("multilabel", (random.random((n, 3)) < 0.4).astype(np.float32), n)
    told = random.random((len(rows), 3))
    micro = replicate({"f1": figure(several, rows, told)}, n, resamples=10, seed=0)["f1"].point
    assert micro == pytest.approx(metrics.f1_score(several.target[rows], told >= 0.5, average="micro"))
    with pytest.raises(ValueError, match="39 answers for 40 rows"):
        figure(several, rows, told[:39])


def test_fewer_rows_of_large_inputs_and_the_same_ones_every_time() -> None:
    small, large = (_rows(np.zeros((400, size), np.uint8)) for size in (10, 200_000))
    config = EvaluateConfig(corrupted_rows=300)
    assert len(chosen_rows(config, small, "image", 5)) == 300
    rows = chosen_rows(config, large, "image", 5)
    assert len(rows) == FEWEST_ROWS
    assert (rows == chosen_rows(config, large, "image", 5)).all()
    with pytest.raises(InputError, match="more than 20,000,000"):
        chosen_rows(config, large, "nodes", 2)


class _Encoder:
    """Rows as they are; a graph that breaks on a missing number."""

    def examples(self, version: Any, split: str, *_: Any, **__: Any) -> Any:
        return version.table(split)["age"].to_numpy()


class _Model:
    encoder = _Encoder()
    signature = SimpleNamespace(objective="regression", answer="prediction", modality="table")

    def score(self, examples: Any) -> Any:
        if np.isnan(examples).any():
            raise RuntimeError("no graph takes this")
        return {"prediction": examples}


class _Sturdy(_Model):
    """A graph that takes a missing number for 0."""

    def score(self, examples: Any) -> Any:
        return {"prediction": np.nan_to_num(examples)}


def _both(folder: Path) -> tuple[Any, Any, Task, dict[str, Any]]:
    version = dataset(folder, "table", "regression")
    target = version.table("test")["age"].to_numpy().astype(np.float32)
    models = {
        name: SimpleNamespace(model=model, normal=None, test=_rows(target))
        for name, model in (("challenger", _Model()), ("champion", _Sturdy()))
    }
    return version, target, _task("regression", target, len(target)), models


def test_a_model_that_fails_is_unknown_there_and_excuses_nobody(tmp_path: Path) -> None:
    version, target, task, models = _both(tmp_path / "data")
    found = corrupted(QUICK, version, task, models, dict.fromkeys(models, target), None)
    assert found.facts["missing"]["failed"] == {"challenger": "RuntimeError: no graph takes this"}
    assert found.facts["noise"]["failed"] == {}
    board = Board(objective="regression", n=len(target), n_slices=1, config=QUICK)
    ours, theirs = (board.resample(found.slices[name]) for name in models)
    assert set(ours) == set(theirs) == {f"slice/corruption:{kind}/rmse" for kind in ("noise", "missing", "swapped")}
    slices = [board.scores(one)["slices"]["corruption:missing"]["rmse"] for one in (ours, theirs)]
    assert np.isnan([slices[0].value, slices[0].low, slices[0].high]).all()
    assert slices[0].n == len(target)
    assert slices[1].value > 0
    assert slices[1].low < slices[1].value
    difference = board.differences(ours, theirs)["slices"]
    assert np.isnan(difference["corruption:missing"]["rmse"].value)
    assert difference["corruption:noise"]["rmse"].value == 0
    curves = found.report(board)["missing"]
    assert [np.isnan(item.value) for item in curves["challenger"]] == [False, True, True, True]
    assert not any(np.isnan(item.value) for item in curves["champion"])
    assert found.slice_facts()["corruption:missing"]["n"] == len(target)


def test_what_cannot_be_applied_is_left_out_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version, target, task, models = _both(tmp_path / "data")
    one = {"challenger": models["challenger"]}

    def nothing(*_: Any) -> Any:
        raise InputError("no column holds numbers", hint="nothing to do")

    monkeypatch.setitem(KINDS["table"], "missing", replace(KINDS["table"]["missing"], apply=nothing))
    found = corrupted(QUICK, version, task, one, {"challenger": target}, None)
    assert found.facts["missing"] == {"severities": [], "problem": "no column holds numbers"}
    report = found.report(Board(objective="regression", n=len(target), n_slices=1, config=QUICK))
    assert "challenger" not in report["missing"]
    curve = [item.value for item in report["noise"]["challenger"]]
    assert curve[0] == 0
    assert curve == sorted(curve)
    assert curve[3] == pytest.approx(0.5 * version.table("train")["age"].to_numpy().std(), rel=0.5)
    slices = found.slices["challenger"]
    assert set(slices) == {"slice/corruption:noise/rmse", "slice/corruption:swapped/rmse"}
    item = slices["slice/corruption:noise/rmse"]
    assert isinstance(item, Statistic)
    assert item.n == len(target)
    off = corrupted(EvaluateConfig(corrupted_rows=0), version, task, one, {"challenger": target}, None)
    assert (off.facts, off.slices) == ({}, {"challenger": {}})


def test_an_altered_version_gives_other_rows_and_keeps_the_rest(tmp_path: Path) -> None:
    version = dataset(tmp_path / "data", "nodes", "multiclass")
    other = altered(version, KINDS["nodes"]["dropped_edges"], 3, numbers_for(0, "x", 3), np.arange(3))
    assert isinstance(other, AlteredVersion)
    assert other.table("test").equals(version.table("test"))
    before, after = version.beside("edges"), other.beside("edges")
    assert before is not None
    assert after is not None
    assert 0.3 < after.num_rows / before.num_rows < 0.7
    noisy = altered(version, KINDS["nodes"]["noise"], 1, numbers_for(0, "x", 1), np.arange(3))
    assert not noisy.table("train", ["vector"]).equals(version.table("train", ["vector"]))
