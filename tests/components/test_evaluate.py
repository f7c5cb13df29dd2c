"""Evaluation of small trained-by-hand packages: what it compares, and what it refuses to compare."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression

from kfloop.components.evaluate.baselines.features import text_features
from kfloop.components.evaluate.baselines.fitting import (
    KINDS,
    fit_baseline,
    fit_classifier,
    fit_lags,
    kind_of,
    repeat_last,
)
from kfloop.components.evaluate.evaluation import EvaluationReport, run
from kfloop.components.evaluate.opening import check_same_task, contestant
from kfloop.core.artifacts import folder_digest, write_report
from kfloop.core.sections import EvaluateConfig
from kfloop.core.signature import Port, Signature, write_signature
from kfloop.core.statistics.estimate import Estimate, wilson
from kfloop.core.store import Store
from kfloop.core.versions import Rows, read_version, write_version
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, StateError, TerminalError

SHAPE = (8, 8, 1)
LABELS = [str(digit) for digit in range(10)]
QUICK = EvaluateConfig(bootstrap=200, corrupted_rows=0, explain=0)


def digits(folder: Path, limit: int = 500, fresh: int = 100) -> Path:
    from sklearn.datasets import load_digits

    folder.mkdir(parents=True)
    pixels, labels = load_digits(return_X_y=True)
    rows = Rows(
        ids=[f"r{row}" for row in range(limit)],
        images=(pixels[:limit].reshape(-1, *SHAPE) / 16 * 255).round().astype(np.uint8),
        labels=labels[:limit].astype(np.int64),
        origin=["fresh" if row < fresh else "base" for row in range(limit)],
    )
    write_version(folder, name="digits", rows=rows, labels=LABELS, validation=0.15, test=0.25)
    return folder


def graph(weights: np.ndarray, bias: np.ndarray, side: int = 8) -> onnx.ModelProto:
    """softmax(pixels @ weights + bias), the logits as embedding."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["embedding"]),
        helper.make_node("Softmax", ["embedding"], ["probabilities"], axis=-1),
    ]
    values = {"weights": weights.astype(np.float32), "bias": bias.astype(np.float32)}
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 10]) for name in ("probabilities", "embedding")
    ]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "linear",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", side, side, 1])],
            outputs,
            [numpy_helper.from_array(value, name) for name, value in values.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


def package(
    folder: Path, model: onnx.ModelProto, trained_on: list[str], side: int = 8, labels: list[str] = LABELS
) -> Path:
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    outputs = (
        Port(name="probabilities", dtype="float32", shape=(10,)),
        Port(name="embedding", dtype="float32", shape=(10,)),
    )
    signature = Signature(
        objective="classification",
        modality="image",
        family="cnn",
        inputs=(Port(name="image", dtype="uint8", shape=(side, side, 1)),),
        outputs=outputs,
        labels=tuple(labels),
        max_batch_size=64,
    )
    write_signature(folder, signature)
    encoder = {"modality": "image", "shape": [side, side, 1], "mean": [100.0], "std": [50.0]}
    (folder / "encoder.json").write_text(json.dumps(encoder))
    (folder / "train_content.txt").write_text("".join(f"{line}\n" for line in sorted(trained_on)))
    write_report(folder, {"digest": folder_digest(folder)})
    return folder


class Scene:
    """A dataset, a good and a worse package, and who is champion."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dataset = digits(root / "dataset")
        self.workspace = Workspace(loop="digits", root=root, state="", store=str(root / "store"), mlflow="")
        train = read_version(self.dataset).split("train")
        fit = LogisticRegression(max_iter=300).fit(train.images.reshape(-1, 64) / 255, train.labels)
        self.weights, self.bias = fit.coef_.T / 255, fit.intercept_
        self.content = train.content.tolist()
        self.good = package(root / "good", graph(self.weights, self.bias), self.content)
        self.worse = package(root / "worse", graph(self.weights * 0.01, self.bias * 0 + np.arange(10)), self.content)

    def evaluate(
        self,
        model: Path,
        champion: Path | str | None,
        name: str,
        config: EvaluateConfig = QUICK,
        dataset: Path | None = None,
    ) -> EvaluationReport:
        incumbent, out = self.root / name / "incumbent", self.root / name / "out"
        incumbent.mkdir(parents=True)
        out.mkdir()
        digest = champion
        if isinstance(champion, Path):
            digest = json.loads((champion / "report.json").read_text())["digest"]
            Store(self.workspace.store).publish(champion, "models", digest)
        write_report(incumbent, {"champion_digest": digest, "champion_version": 1 if digest else None})
        return run(
            config,
            dataset=dataset or self.dataset,
            model=model,
            incumbent=incumbent,
            out=out,
            workspace=self.workspace,
        )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("evaluate"))


def test_the_better_model_is_better_by_an_interval_above_zero(scene: Scene) -> None:
    report = scene.evaluate(scene.good, scene.worse, "better")
    gain = report.differences["champion"]["overall"]["accuracy"]
    assert 0 < gain.low < gain.value < gain.high
    assert report.champion is not None
    assert gain.value == pytest.approx(
        report.challenger["overall"]["accuracy"].value - report.champion["overall"]["accuracy"].value
    )
    assert report.overlap == {"challenger": 0, "champion": 0}
    assert report.confusion is not None
    assert sum(map(sum, report.confusion)) == report.n_test
    ours = report.challenger["overall"]["accuracy"]
    assert ours == wilson(round(ours.value * ours.n), ours.n)
    written = json.loads((scene.root / "better" / "out" / "report.json").read_text())
    assert written["tests"]["champion"][0]["p_value"] < 0.001
    assert written["differences"]["champion"]["overall"]["accuracy"]["low"] == pytest.approx(gain.low)


def test_roles_are_not_swapped(scene: Scene) -> None:
    report = scene.evaluate(scene.worse, scene.good, "swapped")
    assert report.differences["champion"]["overall"]["accuracy"].high < 0
    assert report.differences["champion"]["overall"]["log_loss"].low > 0


def test_equal_models_may_differ_in_what_their_rows_do_not_show(scene: Scene) -> None:
    report = scene.evaluate(scene.good, scene.good, "equal")
    overall, slices = report.differences["champion"]["overall"], report.differences["champion"]["slices"]
    for found, n in ((overall["accuracy"], report.n_test), (slices["class:3"]["accuracy"], None)):
        unseen = wilson(0, n or found.n, found.level).high
        assert (found.value, found.low, found.high) == pytest.approx((0, -unseen, unseen))
    loss = overall["log_loss"]  # the same probabilities on every row come from the same model
    assert (loss.value, loss.low, loss.high) == (0, 0, 0)


def test_without_a_champion_there_is_no_comparison_with_one(scene: Scene) -> None:
    report = scene.evaluate(scene.good, None, "alone")
    assert report.champion is None
    assert report.differences["champion"] is None
    assert report.tests["champion"] is None
    assert [item.test for item in report.tests["baseline"] or []] == ["mcnemar_exact"]
    assert report.overlap["champion"] is None
    assert report.baseline is not None
    assert report.baseline["kind"] == "logistic_regression"
    assert abs(report.differences["baseline"]["overall"]["accuracy"].value) < 0.03


def test_slices_have_their_own_rows_and_a_corrected_level(scene: Scene) -> None:
    report = scene.evaluate(scene.good, scene.worse, "slices")
    slices = report.challenger["slices"]
    test = read_version(scene.dataset).split("test")
    assert set(slices) == {*(f"class:{label}" for label in LABELS), "origin:base", "origin:fresh", "origin:new"}
    assert slices["class:3"]["accuracy"].n == int((test.labels == 3).sum())
    assert slices["origin:fresh"]["accuracy"].n == int((test.origin == "fresh").sum())
    assert slices["class:3"]["accuracy"].level == pytest.approx(1 - 0.05 / 13)
    assert set(report.differences["champion"]["slices"]) == set(slices)


def test_only_fresh_rows_that_the_champion_s_data_lacked_are_new(scene: Scene, tmp_path: Path) -> None:
    """The champion was made when 300 of the 400 fresh rows were there."""
    held, whole = digits(tmp_path / "held", limit=300), digits(tmp_path / "whole", fresh=400)
    digest, now = read_version(held).digest, read_version(whole)
    test = now.split("test")
    fresh = test.origin == "fresh"
    later = fresh & np.array([int(name[1:]) >= 300 for name in test.ids])
    assert 0 < later.sum() < fresh.sum()

    def compared(name: str, factor: float, made_with: str) -> EvaluationReport:
        champion = package(scene.root / name, graph(scene.weights * factor, scene.bias), scene.content)
        write_report(champion, {"digest": folder_digest(champion), "dataset_digest": made_with})
        return scene.evaluate(scene.good, champion, f"new-{name}", dataset=whole)

    pruned = compared("pruned", 0.5, digest)
    assert pruned.challenger["slices"]["origin:new"]["accuracy"].n == fresh.sum()
    assert (
        f"all taken as new: the champion's dataset version is unknown (datasets '{digest}' is not in the store"
        in (pruned.slice_facts["origin:new"]["text"])
    )
    Store(scene.workspace.store).publish(held, "datasets", digest)
    known = compared("known", 0.6, digest)
    for part in (known.challenger, known.champion, known.differences["champion"]):
        assert part is not None
        assert part["slices"]["origin:new"]["accuracy"].n == later.sum()
        assert part["slices"]["origin:fresh"]["accuracy"].n == fresh.sum()
    assert known.slice_facts["origin:new"] == {
        "kind": "origin",
        "n": later.sum(),
        "text": "freshly labelled rows that were not in the champion's dataset version",
    }
    same = compared("same", 0.7, now.digest)
    assert "origin:new" not in same.challenger["slices"]
    assert "origin:fresh" in same.challenger["slices"]


def test_a_perfect_share_is_not_certain(scene: Scene) -> None:
    report = scene.evaluate(scene.good, None, "perfect")
    perfect = [item["accuracy"] for item in report.challenger["slices"].values() if item["accuracy"].value == 1.0]
    assert perfect
    assert all(item.low < 1.0 for item in perfect)


def test_no_fresh_rows_no_fresh_slice(scene: Scene, tmp_path: Path) -> None:
    report = scene.evaluate(scene.good, None, "base", dataset=digits(tmp_path / "base", fresh=0))
    assert "origin:fresh" not in report.challenger["slices"]


def test_a_missing_champion_is_never_no_champion(scene: Scene) -> None:
    with pytest.raises(StateError, match="champion 'feedface' is not in the store"):
        scene.evaluate(scene.good, "feedface", "missing")


@pytest.mark.parametrize("content", ["{}", "not json", '{"champion_digest": ""}', '{"champion_digest": 3}'])
def test_an_incumbent_that_does_not_say_is_an_error(scene: Scene, tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(StateError):
        run(QUICK, dataset=scene.dataset, model=scene.good, incumbent=tmp_path, out=out, workspace=scene.workspace)


def test_a_champion_for_another_image_size_cannot_be_compared(scene: Scene) -> None:
    other = package(scene.root / "large", graph(np.zeros((256, 10)), np.zeros(10), side=16), [], side=16)
    with pytest.raises(TerminalError, match=r"champion '\w+' takes images \[16, 16, 1\]") as caught:
        scene.evaluate(scene.good, other, "size")
    assert "data.image_size" in caught.value.hint


def test_a_champion_with_other_classes_cannot_be_compared(scene: Scene) -> None:
    labels = [*LABELS[:9], "nine"]
    other = package(scene.root / "renamed", graph(scene.weights, scene.bias), [], labels=labels)
    with pytest.raises(TerminalError, match=r"they differ in \['9', 'nine'\]"):
        scene.evaluate(scene.good, other, "classes")


def test_nan_answers_give_null_and_never_a_number(scene: Scene) -> None:
    bias = scene.bias.copy()
    bias[0] = math.nan
    broken = package(scene.root / "broken", graph(scene.weights, bias), [])
    report = scene.evaluate(broken, scene.good, "nan")
    numbers: list[Estimate] = [
        *report.challenger["overall"].values(),
        *report.differences["champion"]["overall"].values(),
    ]
    numbers += [item["accuracy"] for item in report.challenger["slices"].values()]
    assert all(math.isnan(item.value) and math.isnan(item.low) for item in numbers)
    written: Any = json.loads((scene.root / "nan" / "out" / "report.json").read_text())
    assert written["challenger"]["overall"]["accuracy"]["value"] is None
    assert report.champion is not None
    assert report.champion["overall"]["accuracy"].known
    assert report.examples[0]["predicted"] is None


def test_test_rows_that_a_model_was_trained_on_are_counted(scene: Scene) -> None:
    test = read_version(scene.dataset).split("test")
    leaky = package(
        scene.root / "leaky", graph(scene.weights, scene.bias), [*scene.content, *test.content[:3].tolist()]
    )
    assert scene.evaluate(leaky, scene.good, "leak1").overlap == {"challenger": 3, "champion": 0}
    assert scene.evaluate(scene.good, leaky, "leak2").overlap == {"challenger": 0, "champion": 3}
    blind = scene.root / "blind"
    shutil.copytree(scene.good, blind)
    (blind / "train_content.txt").unlink()
    with pytest.raises(StateError, match=r"no train_content\.txt"):
        scene.evaluate(blind, None, "blind-run")


def test_mistakes_are_listed_with_the_most_confident_first(scene: Scene) -> None:
    examples = scene.evaluate(scene.worse, None, "mistakes").examples
    assert len(examples) == 24
    assert all(item["label"] != item["predicted"] for item in examples)
    confidence = [item["confidence"] for item in examples]
    assert confidence == sorted(confidence, reverse=True)


def test_baselines_know_every_class_and_refuse_a_single_one() -> None:
    pixels = np.random.default_rng(0).random((60, 64))
    labels = np.repeat([0, 2], 30)
    model = LogisticRegression()
    probabilities = fit_classifier(model, pixels, labels, 3, "logistic_regression")[1](pixels[:5])
    assert probabilities[:, 1].tolist() == [0] * 5
    np.testing.assert_allclose(probabilities.sum(1), 1)
    with pytest.raises(TerminalError, match="at least 2"):
        fit_classifier(model, pixels, labels * 0, 3, "logistic_regression")


def test_each_objective_has_its_usual_baseline_and_refuses_what_does_not_fit() -> None:
    assert {name: kind_of(None, name, "vector", 10) for name in KINDS} == {
        name: kinds[0] for name, kinds in KINDS.items()
    }
    assert kind_of(None, "regression", "table", 5000) == "gradient_boosting"
    assert kind_of("none", "regression", "table", 5000) is None
    with pytest.raises(ConfigError, match="'repeat_last', which is no baseline for classification of table data"):
        kind_of("repeat_last", "classification", "table", 50)
    with pytest.raises(ConfigError, match="gradient_boosting"):
        kind_of("gradient_boosting", "classification", "image", 50)


def test_forecast_baselines() -> None:
    steps = np.arange(400)
    wave = np.stack([np.sin(steps / 5), 100 + 30 * np.cos(steps / 9)], axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(wave, 50, axis=0).transpose(0, 2, 1)
    past, future = windows[:, :40].copy(), windows[:, 40:]
    found = fit_lags(past[:250], future[:250])(past[300:])
    assert np.abs((found - future[300:]) / wave.std(0)).max() < 0.05  # a sum of waves is a linear function of its past
    past[300, -1, 0] = np.nan
    last = repeat_last(past[300:], 10)
    assert last.shape == (51, 10, 2)
    assert (last[0, :, 0] == past[300, -2, 0]).all()
    assert (last[1] == past[301, -1]).all()


def test_other_baselines_of_pictures(scene: Scene) -> None:
    version = read_version(scene.dataset)
    challenger = contestant(scene.good, "challenger", version)
    found = fit_baseline("nearest_neighbour", version, challenger, seed=0)
    assert found is not None
    again = found.predict(version.table("test").slice(3, 5))
    np.testing.assert_array_equal(again, found.answer[3:8])
    assert found.facts == {"kind": "nearest_neighbour", "n_fitted": len(scene.content), "n_train": len(scene.content)}
    assert (found.answer.argmax(1) == challenger.test.target).mean() > 0.9


def test_models_of_different_tasks_cannot_be_compared(scene: Scene) -> None:
    version = read_version(scene.dataset)
    one = contestant(scene.good, "challenger", version)
    other = replace(one, role="champion", test=one.test.take(np.arange(5)))
    with pytest.raises(TerminalError, match=r"read different test rows: \d+ and 5, 5 of them in common"):
        check_same_task(one, other)
    with pytest.raises(TerminalError, match="challenger's label of normal rows is 3, the champion's 4"):
        check_same_task(replace(one, normal="3"), replace(one, role="champion", normal="4"))


def test_the_report_says_what_is_better_and_what_it_is_about(scene: Scene) -> None:
    report = scene.evaluate(scene.good, scene.worse, "about")
    assert (report.objective, report.modality, report.primary) == ("classification", "image", "accuracy")
    assert report.direction == {"accuracy": "higher", "macro_f1": "higher", "log_loss": "lower", "ece": "lower"}
    relative = report.differences["champion"]["relative"]["overall"]
    assert set(relative) == {"log_loss", "ece"}
    assert report.champion is not None
    ours, theirs = (side["overall"]["log_loss"].value for side in (report.challenger, report.champion))
    assert relative["log_loss"].value == pytest.approx(ours / theirs - 1)
    assert report.calibration is not None
    assert sum(line["n"] for line in report.calibration["challenger"]) == report.n_test


def test_the_baseline_can_be_switched_off(scene: Scene) -> None:
    report = scene.evaluate(
        scene.good, None, "off", EvaluateConfig(bootstrap=200, corrupted_rows=0, explain=0, baseline="none")
    )
    assert report.baseline is None
    assert report.differences["baseline"] is None


def test_cost_robustness_and_explanations_of_pictures(scene: Scene) -> None:
    config = EvaluateConfig(bootstrap=200, corrupted_rows=60, latency_seconds=0.02)
    report = scene.evaluate(scene.good, scene.worse, "trials", config)
    out = scene.root / "trials" / "out"
    assert set(report.cost) == {"challenger", "champion", "baseline"}
    assert report.cost["challenger"]["parameters"] == 650
    noise = report.robustness["gaussian_noise"]
    assert (noise["severities"], noise["n"], noise["metric"]) == ([0, 1, 2, 3], 60, "accuracy")
    assert all(len(noise[name]) == 4 for name in report.cost)
    assert noise["challenger"][0].value > 0.85
    kinds = {f"corruption:{kind}" for kind in report.robustness}
    assert len(kinds) == 5
    for side in (report.challenger, report.champion, report.baseline, report.differences["champion"]):
        assert side is not None
        assert kinds <= set(side["slices"])
    item = report.challenger["slices"]["corruption:gaussian_noise"]["accuracy"]
    assert item.n == 60
    assert item.value == pytest.approx(np.mean([one.value for one in noise["challenger"][1:]]))
    told = json.loads((out / "explanations.json").read_text())
    assert (told["problem"], told["kind"], len(told["examples"])) == ("", "image", 6)
    with np.load(out / "explanations.npz") as arrays:
        assert arrays["heat"].shape == (6, 8, 8)
    again = scene.evaluate(scene.good, scene.worse, "trials-again", config)
    assert again.robustness == report.robustness
    assert (scene.root / "trials-again" / "out" / "explanations.json").read_text() == (
        out / "explanations.json"
    ).read_text()


def test_answers_of_nan_are_no_crash_of_the_trials(scene: Scene) -> None:
    bias = scene.bias.copy()
    bias[0] = math.nan
    broken = package(scene.root / "broken-trials", graph(scene.weights, bias), [])
    config = EvaluateConfig(bootstrap=200, corrupted_rows=20, latency_seconds=0.02)
    report = scene.evaluate(broken, scene.good, "nan-trials", config)
    assert all(math.isnan(item.value) for item in report.robustness["blur"]["challenger"])
    assert report.robustness["blur"]["champion"][0].known
    assert json.loads((scene.root / "nan-trials" / "out" / "explanations.json").read_text())["examples"] == []


def test_evaluation_imports_no_torch() -> None:
    code = "import sys, kfloop.components.evaluate.evaluation; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("train", "test"), [(["good day", "x"], ["day"]), (["! ?", "? :-)"], ["?"]), (["", " "], ["day"])]
)
def test_texts_without_words_still_have_a_baseline(train: list[str], test: list[str]) -> None:
    describe = text_features(train)
    left, right = describe(train), describe(test)
    found = fit_classifier(LogisticRegression(), left, np.array([0, 1]), 2, "logistic_regression")[1](right)
    assert left.shape == (2, right.shape[1])
    np.testing.assert_allclose(found.sum(1), 1)
