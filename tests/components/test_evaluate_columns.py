"""The whole step on a table: slices, segments, groups and the temperature of one report, and what they cost."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import versions
from kfloop.components.evaluate.evaluation import EvaluationReport, run
from kfloop.components.evaluate.generating import compare_generators
from kfloop.components.evaluate.measuring import n_slices
from kfloop.components.evaluate.scoreboard import Board
from kfloop.core.artifacts import folder_digest, read_report, write_report
from kfloop.core.encoding import fit_encoder
from kfloop.core.sections import EvaluateConfig
from kfloop.core.signature import Port, Signature, write_signature
from kfloop.core.statistics.bootstrap import Statistic
from kfloop.core.statistics.temperature import fit_temperature
from kfloop.core.store import Store
from kfloop.core.versions import DatasetVersion, read_version
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, StateError

N = 1500
TEST = slice(N * 7 // 10, None)
DICE = np.random.default_rng(4)
AGE = DICE.integers(17, 80, N)
SCORE = DICE.normal(size=N)
SEX = DICE.choice(["f", "m"], N)
# The truth follows the score, except among the young, where it is half chance.
LABEL = ((DICE.random(N) < 1 / (1 + np.exp(-4 * SCORE))) ^ ((AGE < 30) & (DICE.random(N) < 0.45))).astype(np.int64)
QUICK = EvaluateConfig(bootstrap=200, groups=("sex",), corrupted_rows=0, explain=0)


def make_dataset(folder: Path) -> DatasetVersion:
    columns = {"age": AGE, "score": SCORE, "sex": SEX}
    versions.write_table(folder, columns, LABEL, labels=["no", "yes"], inputs=["age", "score"])
    return read_version(folder)


def package(folder: Path, version: DatasetVersion, slope: float, **report: Any) -> Path:
    """softmax of (-slope, slope) * score: the steeper, the surer."""
    folder.mkdir(parents=True)
    weights = np.array([[0, 0], [-slope, slope]], dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["number", "weights"], ["embedding"]),
        helper.make_node("Softmax", ["embedding"], ["probabilities"], axis=-1),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("probabilities", "embedding")
    ]
    inputs = [helper.make_tensor_value_info("number", TensorProto.FLOAT, ["n", 2])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(weights, "weights")])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "model.onnx"
    )
    encoder = fit_encoder(version)
    write_signature(
        folder,
        Signature(
            objective="classification",
            modality="table",
            family="mlp",
            inputs=encoder.ports,
            outputs=tuple(Port(name=name, dtype="float32", shape=(2,)) for name in ("probabilities", "embedding")),
            labels=("no", "yes"),
            max_batch_size=64,
        ),
    )
    (folder / "encoder.json").write_text(json.dumps(encoder.plain()))
    (folder / "train_content.txt").write_text("".join(f"{row:032x}\n" for row in range(N // 2)))
    write_report(folder, {"digest": folder_digest(folder)} | report)
    return folder


def evaluate(root: Path, model: Path, champion: Path | None = None, config: EvaluateConfig = QUICK) -> EvaluationReport:
    workspace = Workspace(loop="t", root=root, state="", store=str(root / "store"), mlflow="")
    incumbent, out = root / "incumbent", root / "out"
    incumbent.mkdir(parents=True)
    out.mkdir()
    digest = read_report(champion)["digest"] if champion else None
    if champion:
        Store(workspace.store).publish(champion, "models", digest)
    write_report(incumbent, {"champion_digest": digest, "champion_version": 1 if digest else None})
    return run(config, dataset=model.parent / "dataset", model=model, incumbent=incumbent, out=out, workspace=workspace)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("columns")
    version = make_dataset(root / "dataset")
    package(root / "ours", version, 8.0)
    package(root / "theirs", version, -0.5)
    return root


@pytest.fixture(scope="module")
def report(scene: Path) -> EvaluationReport:
    return evaluate(scene / "both", scene / "ours", scene / "theirs")


def test_every_slice_has_facts_figures_and_differences(report: EvaluationReport) -> None:
    slices = report.challenger["slices"]
    assert {name.partition(":")[0] for name in slices} == {"class", "origin", "column", "group", "segment"}
    assert set(report.slice_facts) == set(slices) == set(report.differences["champion"]["slices"])
    for name, fact in report.slice_facts.items():
        assert fact["kind"] == name.partition(":")[0]
        assert fact["text"]
        if fact["kind"] != "group":
            assert fact["n"] == slices[name]["accuracy"].n
    assert report.slice_facts["class:yes"]["n"] == int(LABEL[TEST].sum())
    assert report.slice_facts["group:sex"] == {
        "kind": "group",
        "n": report.n_test,
        "text": "the largest minus the smallest of the 2 groups of sex",
    }


def test_the_report_knows_which_columns_it_told_apart(report: EvaluationReport) -> None:
    assert report.slice_columns == {"column": ["age", "score"], "group": ["sex"]}
    assert report.left_out == {}


def test_a_slice_has_the_figures_of_its_rows(report: EvaluationReport) -> None:
    hits = (SCORE > 0) == (LABEL == 1)
    name = next(name for name in report.challenger["slices"] if name.startswith("column:age=below"))
    rows = AGE[TEST] < float(name.rsplit(" ", 1)[1])
    found = report.challenger["slices"][name]["accuracy"]
    assert (found.value, found.n) == (pytest.approx(hits[TEST][rows].mean()), int(rows.sum()))


def test_the_weak_segment_is_judged_on_the_test_rows(report: EvaluationReport) -> None:
    assert report.segments is not None
    assert report.segments["note"] == ""
    name = report.segments["found"][0]["name"]
    assert name.startswith("segment:")
    assert "age below" in name
    found = report.challenger["slices"][name]["accuracy"]
    assert found.value < report.challenger["overall"]["accuracy"].low
    assert report.segments["found"][0]["n"] == found.n


def test_groups_have_rates_and_gaps_with_intervals(report: EvaluationReport) -> None:
    rates = report.challenger["slices"]["group:sex=f"]
    assert set(rates) == {"accuracy", "selection_rate", "tpr", "fpr", "ece"}
    women = SEX[TEST] == "f"
    assert rates["selection_rate"].value == pytest.approx((SCORE[TEST][women] > 0).mean())
    gaps = report.challenger["slices"]["group:sex"]
    other = report.challenger["slices"]["group:sex=m"]
    for figure in ("selection_rate", "tpr", "fpr", "ece", "accuracy"):
        found = gaps[f"{figure}_gap"]
        assert found.value == pytest.approx(abs(rates[figure].value - other[figure].value))
        assert 0 <= found.low <= found.value <= found.high < 1
    assert report.direction["tpr_gap"] == "lower"
    assert "selection_rate" not in report.direction
    change = report.differences["champion"]["slices"]["group:sex"]["selection_rate_gap"]
    assert report.champion is not None
    assert change.value == pytest.approx(
        gaps["selection_rate_gap"].value - report.champion["slices"]["group:sex"]["selection_rate_gap"].value
    )


def test_each_family_of_slices_is_corrected_by_itself(report: EvaluationReport) -> None:
    slices = report.challenger["slices"]
    kinds = [name.partition(":")[0] for name in slices]
    level = {name.partition(":")[0]: next(iter(figures.values())).level for name, figures in slices.items()}
    assert level["class"] == level["origin"] == pytest.approx(1 - 0.05 / 3)  # two classes and one origin, as before
    assert level["column"] == pytest.approx(1 - 0.05 / kinds.count("column"))
    assert level["group"] == pytest.approx(1 - 0.05 / 3)
    assert level["segment"] == pytest.approx(1 - 0.05 / kinds.count("segment"))


def test_families_are_counted_by_kind() -> None:
    one = Statistic(features=np.zeros((3, 1)), value=lambda sums: sums[:, 0], n=3)
    names = (
        "class:a/b",
        "class:c",
        "origin:base",
        "column:x=1/2",
        "column:x=3",
        "segment:a=1 and b/c = 2",
        "corruption:noise",
    )
    statistics = {f"slice/{name}/accuracy": one for name in names} | {"slice/class:a/b/f1": one, "accuracy": one}
    assert n_slices(statistics) == (3, {"column": 2, "segment": 1, "corruption": 1})
    board = Board(objective="classification", n=3, n_slices=3, config=QUICK, families={"column": 2})
    replicates = board.resample({"slice/column:x=1/2/accuracy": one, "slice/class:a/b/accuracy": one})
    slices = board.scores(replicates)["slices"]
    assert slices["column:x=1/2"]["accuracy"].level == pytest.approx(0.975)
    assert slices["class:a/b"]["accuracy"].level == pytest.approx(1 - 0.05 / 3)


def test_the_temperature_says_what_it_would_give(report: EvaluationReport) -> None:
    found = report.temperature
    assert found is not None
    assert (found["adopted"], found["n_fitted"]) == (False, 300)
    held = slice(N // 2, N * 7 // 10)
    logits = np.column_stack([-8 * SCORE, 8 * SCORE])[held]
    assert found["value"] == pytest.approx(fit_temperature(logits, LABEL[held]), rel=0.01)
    assert found["value"] > 2
    assert found["ece_before"].value == pytest.approx(report.challenger["overall"]["ece"].value)
    assert found["ece_after"].value < found["ece_before"].value
    assert found["ece_change"].high < 0
    assert found["ece_change"].value == pytest.approx(found["ece_after"].value - found["ece_before"].value)


def test_an_adopted_temperature_is_told_from_the_other_side(scene: Path, report: EvaluationReport) -> None:
    told = report.temperature
    assert told is not None
    cooled = package(
        scene / "cooled",
        read_version(scene / "dataset"),
        8.0 / told["value"],
        temperature={"value": told["value"], "n_fitted": 300},
    )
    found = evaluate(scene / "adopted", cooled).temperature
    assert found is not None
    assert found["adopted"] is True
    assert found["value"] == told["value"]
    for name in ("ece_before", "ece_after", "ece_change"):
        assert found[name].value == pytest.approx(told[name].value, abs=1e-5)


@pytest.mark.parametrize("told", [{"value": 0, "n_fitted": 3}, {"value": "warm", "n_fitted": 3}, {"n_fitted": 3}, 2.0])
def test_a_temperature_that_is_none_stops_the_step(scene: Path, tmp_path: Path, told: Any) -> None:
    version = read_version(scene / "dataset")
    (tmp_path / "dataset").symlink_to(scene / "dataset")
    model = package(tmp_path / "ours", version, 8.0, temperature=told)
    with pytest.raises(StateError, match="has the temperature"):
        evaluate(tmp_path, model)


@pytest.mark.parametrize("key", ["slices", "groups"])
def test_a_generator_has_no_rows_to_tell_apart(key: str) -> None:
    nothing: Any = None
    config = EvaluateConfig(**{key: ("age",)})
    with pytest.raises(ConfigError, match=f"evaluate.{key} names 'age', but a generator answers no rows"):
        compare_generators(config, nothing, nothing, nothing)


def test_what_is_switched_off_is_not_there(scene: Path) -> None:
    off = EvaluateConfig(bootstrap=200, slices=(), segments=0, corrupted_rows=0, explain=0)
    found = evaluate(scene / "off", scene / "ours", config=off)
    assert set(found.challenger["slices"]) == {"class:no", "class:yes", "origin:base"}
    assert found.segments is not None
    assert found.segments["note"] == "evaluate.segments is 0"
    written = json.loads((scene / "off" / "out" / "report.json").read_text())
    assert written["slice_facts"]["class:no"]["text"] == "class no"
    assert math.isfinite(written["temperature"]["ece_after"]["value"])


@pytest.mark.parametrize("key", ["slices", "groups"])
def test_an_unknown_column_stops_the_step(scene: Path, tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=f"evaluate.{key} names the column 'agee'") as caught:
        evaluate(tmp_path, scene / "ours", config=EvaluateConfig(**{"bootstrap": 200, key: ("agee",)}))
    assert caught.value.hint == "did you mean 'age'?"
