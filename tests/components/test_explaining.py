"""Explanations of models that truly use one corner, one word, one column: it comes first; and what fails, fails alone."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kfloop.components.evaluate.explanations.attributing import ablation, occlusion
from kfloop.components.evaluate.explanations.explaining import chosen_rows, explain, mistakes
from kfloop.components.evaluate.explanations.tables import typical_value
from kfloop.components.evaluate.measuring import Task
from kfloop.components.evaluate.scoreboard import Board
from kfloop.core.encoding.graphs import GraphExamples
from kfloop.core.encoding.nodes import NodeExamples
from kfloop.core.sections import EvaluateConfig

CONFIG = EvaluateConfig(bootstrap=200)
LABELS = ["no", "yes"]


class Rows(SimpleNamespace):
    """Test rows of one tensor."""

    def __len__(self) -> int:
        return len(self.inputs[0])

    def batch_inputs(self, rows: Any) -> Any:
        return tuple(array[rows] for array in self.inputs)


class Model:
    """A model whose answer is a given function of its inputs."""

    def __init__(self, answer: Callable[..., Any], encoder: Any, objective: str) -> None:
        self.answer, self.encoder = answer, encoder
        self.signature = SimpleNamespace(answer="answer", objective=objective)

    def run(self, inputs: Any) -> Any:
        return {"answer": self.answer(*inputs)}


def told_of(
    modality: str,
    objective: str,
    model: Callable[..., Any],
    *,
    inputs: Any,
    encoder: Any = None,
    table: Any = None,
    target: Any = None,
    config: EvaluateConfig = CONFIG,
) -> Any:
    """What is explained of a model, with its own answers as the truth unless told otherwise."""
    test = inputs if hasattr(inputs, "batch_inputs") else Rows(inputs=inputs)
    n = len(test) if target is None else len(target)
    test.__dict__.setdefault("ids", np.array([f"r{row}" for row in range(n)]))
    one: Any = SimpleNamespace(role="challenger", model=Model(model, encoder, objective), test=test)
    whole = one.model.encoder.encode(table) if table is not None else test.inputs
    answer = np.asarray(model(*whole))
    if modality == "nodes":
        answer = answer[test.place]
    truth = (answer.argmax(1) if answer.ndim == 2 else answer) if target is None else target
    task = Task(
        objective=objective,
        target=truth,
        origin=np.full(n, "base"),
        labels=LABELS,
        channels=["a", "b"],
        std=np.array([1.0, 2.0]) if objective == "forecasting" else np.empty(0),
        block=1,
    )
    columns = [] if table is None else table.column_names

    def read(_split: str, names: Any = None) -> Any:
        return table if names is None else table.select(list(names))

    version: Any = SimpleNamespace(modality=modality, inputs=columns, table=read, splits=["test"])
    board = Board(objective=objective, n=n, n_slices=1, config=config)
    return explain(config, version, one, task, answer, board)


def two_classes(score: Any) -> Any:
    """Probabilities [N, 2] of a score."""
    yes = 1 / (1 + np.exp(-np.asarray(score, dtype=np.float64)))
    return np.stack([1 - yes, yes], axis=1)


def test_captum_on_functions_with_known_answers() -> None:
    weights = np.arange(12.0).reshape(3, 4)

    def output(copies: Any) -> Any:
        return (copies * weights).sum(axis=(1, 2))

    example = np.full((3, 4), 2.0)
    found = occlusion(output, example, (1, 1), (1, 1), np.zeros((3, 4)))
    np.testing.assert_allclose(found, 2 * weights)
    halves = occlusion(output, example, (3, 2), (3, 2), np.ones((3, 4)))  # each column pair as a whole
    np.testing.assert_allclose(halves[:, 0], weights[:, :2].sum())
    np.testing.assert_allclose(halves[:, 3], weights[:, 2:].sum())
    np.testing.assert_allclose(ablation(lambda kept: kept @ np.array([1.0, -2.0, 0.0]), 3), [1, -2, 0])


def test_an_image_model_that_sees_one_corner() -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 1), dtype=np.uint8)
    images[:, :4, 12:] = np.where(np.arange(30) % 2, 250, 5)[:, None, None, None]
    found = told_of(
        "image",
        "classification",
        lambda pixels: two_classes(pixels[:, :4, 12:].astype(float).mean(axis=(1, 2, 3)) / 32 - 4),
        inputs=(images,),
        encoder=SimpleNamespace(facts={"mean": [127.0]}),
    )
    assert found.told["problem"] == ""
    assert len(found.told["examples"]) == len(found.arrays["heat"]) == 6
    for heat in found.arrays["heat"]:
        place = np.unravel_index(heat.argmax(), heat.shape)
        assert place[0] < 4
        assert place[1] >= 12
        assert heat[8:, :8].max() == pytest.approx(0, abs=1e-6)
    assert found.arrays["pictures"].dtype == np.uint8
    assert found.told["examples"][0]["right"] is True


def test_a_forecast_from_the_end_of_one_channel() -> None:
    windows = np.random.default_rng(0).normal(5, 1, (20, 48, 2)).astype(np.float32)

    def forecast(past: Any) -> Any:
        return np.repeat(past[:, None, -4:, :].mean(axis=2) * [0.0, 1.0], 3, axis=1)

    encoder = SimpleNamespace(facts={"mean": [0.0, 0.0]}, channels=["a", "b"])
    target = forecast(windows) + np.random.default_rng(1).normal(size=(20, 3, 2))
    found = told_of("series", "forecasting", forecast, inputs=(windows,), encoder=encoder, target=target)
    for example in found.told["examples"]:
        first, second = (np.array(channel["weights"]) for channel in example["channels"])
        assert np.abs(first).max() == pytest.approx(0, abs=1e-6)
        assert second.argmax() >= 44
        assert second[:40].max() == pytest.approx(0, abs=1e-6)
        assert second.min() >= -1e-6
    assert "forecast moves" in found.told["caption"]


def test_a_sound_model_that_hears_its_beginning_and_gaps_stay_gaps() -> None:
    sounds = np.random.default_rng(0).integers(-9000, 9000, (10, 2400)).astype(np.int16)
    found = told_of(
        "audio",
        "classification",
        lambda wave: two_classes(np.abs(wave[:, :200].astype(float)).mean(axis=1) / 1000 - 2),
        inputs=(sounds,),
        encoder=SimpleNamespace(facts={"sample_rate": 8000}),
    )
    example = found.told["examples"][0]
    assert example["seconds"] == pytest.approx(0.3)
    weights = example["channels"][0]["weights"]
    assert np.argmax(np.abs(weights)) < len(weights) / 10
    vectors = np.random.default_rng(0).normal(size=(20, 10)).astype(np.float32)
    vectors[:, 3] = np.nan
    found = told_of(
        "vector",
        "regression",
        lambda values: 2 * np.nan_to_num(values)[:, 7],
        inputs=(vectors,),
        encoder=SimpleNamespace(facts={"mean": [0.0] * 10}),
    )
    for example in found.told["examples"]:
        channel = example["channels"][0]
        assert np.argmax(np.abs(channel["weights"])) == 7
        assert channel["weights"][7] == pytest.approx(2 * channel["values"][7], rel=1e-5)
    json.dumps(found.told)


class Words:
    """Counts of one word."""

    facts: dict[str, Any] = {}  # noqa: RUF012

    def encode(self, table: Any) -> Any:
        return (np.array([(text or "").split().count("awful") for text in table["text"].to_pylist()]),)


def test_a_text_model_that_knows_one_word() -> None:
    texts = ["what an awful film", "a nice film", "it was not awful but long " + "and " * 90, "fine", "", None] * 3
    found = told_of(
        "text",
        "classification",
        lambda count: two_classes(3 * count - 1.5),
        inputs=(np.zeros(18),),
        encoder=Words(),
        table=pa.table({"text": pa.array(texts, type=pa.string())}),
    )
    seen = 0
    for example in found.told["examples"]:
        weights = dict(zip(example["tokens"], example["weights"], strict=True))
        if "awful" in weights:
            seen += 1
            assert weights["awful"] == max(weights.values()) > 0.3
            assert abs(weights.get("what", 0.0)) < 1e-9
    assert seen


def table_of(n: int) -> Any:
    random = np.random.default_rng(0)
    town = np.array(["Ulm", "Bonn", "Kiel"])[random.integers(0, 3, n)]
    age = random.integers(18, 80, n)
    return pa.table({"age": age, "town": town, "idle": random.random(n)})


class Columns:
    """Columns as arrays."""

    facts: dict[str, Any] = {}  # noqa: RUF012

    def encode(self, table: Any) -> Any:
        return table["age"].to_numpy(), np.array(table["town"].to_pylist())


@pytest.mark.parametrize("used", ["age", "town"])
def test_a_table_model_that_uses_one_column(used: str) -> None:
    def answer(age: Any, town: Any) -> Any:
        return two_classes((age - 49) / 5.0 if used == "age" else np.where(town == "Kiel", 2.0, -1.0))

    found = told_of("table", "classification", answer, inputs=(np.zeros(200),), encoder=Columns(), table=table_of(200))
    columns = found.told["importance"]["columns"]
    assert columns[0]["name"] == used
    assert 0.2 < columns[0]["low"] < columns[0]["value"] < columns[0]["high"]
    assert [line["value"] for line in columns[1:]] == [0, 0]
    moved = [{bar["name"]: bar["weight"] for bar in example["bars"]} for example in found.told["examples"]]
    assert any(abs(weights[used]) > 0.1 for weights in moved)  # a row with the typical value is not moved
    assert all(weights[name] == 0 for weights in moved for name in weights if name != used)


def test_importance_of_an_error_is_how_much_it_grows() -> None:
    found = told_of(
        "table",
        "regression",
        lambda age, _town: age.astype(float),
        inputs=(np.zeros(100),),
        encoder=Columns(),
        table=table_of(100),
    )
    first = found.told["importance"]["columns"][0]
    age = table_of(100)["age"].to_numpy()
    # Two independent draws of a column differ by the root of two standard deviations.
    assert first["value"] == pytest.approx(np.sqrt(2) * age.std(), rel=0.1)
    example = found.told["examples"][0]
    assert example["bars"][0]["weight"] == pytest.approx(example["predicted"] - np.sort(age)[50])


def test_typical_values() -> None:
    assert typical_value(pa.chunked_array([[3, 1, None, 2]])) == 2
    assert typical_value(pa.chunked_array([["b", "a", "b", None]])) == "b"
    assert typical_value(pa.chunked_array([[True, True, False]])) is True
    assert typical_value(pa.chunked_array([pa.array([None, None], type=pa.float64())])) is None


def graph_rows(n: int) -> Any:
    node = np.random.default_rng(0).random((5 * n, 2)).astype(np.float32)
    ring = np.stack([np.arange(5), (np.arange(5) + 1) % 5])
    both = np.concatenate([ring, ring[::-1]], axis=1)
    return GraphExamples(
        inputs=(
            node,
            np.concatenate([both + 5 * at for at in range(n)], axis=1),
            np.repeat(np.arange(n), 5),
            np.full(n, 5),
        ),
        target=np.zeros(n),
        weights=np.ones(n, np.float32),
        ids=np.array([f"g{row}" for row in range(n)]),
        content=np.array([""] * n),
        origin=np.array(["base"] * n),
        first_node=np.arange(n + 1) * 5,
        first_edge=np.arange(n + 1) * 10,
        place=np.arange(n),
    )


def test_a_graph_model_that_looks_at_one_node() -> None:
    def answer(node: Any, edges: Any, graph: Any, sizes: Any) -> Any:
        del edges, graph
        return two_classes(6 * node.reshape(len(sizes), 5, 2)[:, 3, 0] - 1)

    found = told_of(
        "graphs",
        "classification",
        answer,
        inputs=graph_rows(8),
        encoder=SimpleNamespace(facts={"mean": [0.0, 0.0]}),
        target=np.ones(8, np.int64),
    )
    for example in found.told["examples"]:
        weights = np.abs(example["weights"])
        assert weights.argmax() == 3
        assert np.delete(weights, 3).max() == pytest.approx(0, abs=1e-9)
        assert len(example["edges"]) == 10


def test_a_node_that_is_what_its_neighbour_is() -> None:
    node = np.ones((6, 1), np.float32)
    edges = np.array([[0, 1, 0, 2], [1, 0, 2, 0]])

    def answer(features: Any, ends: Any) -> Any:
        total = np.zeros(len(features))
        np.add.at(total, ends[1], features[ends[0], 0] * (ends[0] == 2))
        return two_classes(4 * total - 1)

    test = NodeExamples(
        inputs=(node, edges),
        target=np.array([1]),
        weights=np.ones(1, np.float32),
        ids=np.array(["n0"]),
        content=np.array([""]),
        origin=np.array(["base"]),
        place=np.array([0]),
    )
    names = pa.table({"id": [f"n{row}" for row in range(6)]})
    encoder = SimpleNamespace(facts={"mean": [0.0]}, encode=lambda _table: (node, edges))
    found = told_of("nodes", "classification", answer, inputs=test, encoder=encoder, table=names, target=np.array([1]))
    bars = {bar["name"]: abs(bar["weight"]) for bar in found.told["examples"][0]["bars"]}
    assert set(bars) == {"its own features", "neighbour n1", "neighbour n2"}
    assert bars["neighbour n2"] > 0.1
    assert bars["its own features"] == bars["neighbour n1"] == pytest.approx(0, abs=1e-9)


def _images(model: Callable[..., Any], config: EvaluateConfig = CONFIG) -> Any:
    images = np.zeros((4, 8, 8, 1), np.uint8)
    encoder = SimpleNamespace(facts={"mean": [127.0]})
    return told_of("image", "classification", model, inputs=(images,), encoder=encoder, config=config)


def test_an_explanation_that_fails_says_why_and_fails_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[int] = []

    def breaks(pixels: Any) -> Any:
        calls.append(len(pixels))
        if len(calls) > 1:
            raise RuntimeError("out of numbers\nand more")
        return two_classes(np.zeros(len(pixels)))

    found = _images(breaks)
    assert found.told["problem"] == "RuntimeError: out of numbers"
    found.write(tmp_path)
    assert json.loads((tmp_path / "explanations.json").read_text())["examples"] == []
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    assert "captum" in _images(lambda pixels: two_classes(np.zeros(len(pixels)))).told["problem"]
    assert _images(lambda pixels: two_classes(np.zeros(len(pixels))), EvaluateConfig(explain=0)) is None


def test_answers_that_are_no_numbers_are_not_explained() -> None:
    found = _images(lambda pixels: np.full((len(pixels), 2), np.nan))
    assert (found.told["problem"], found.told["examples"]) == ("", [])


def test_the_worst_mistakes_are_chosen_and_some_that_are_right() -> None:
    answer = two_classes(np.linspace(-3, 3, 20))
    target = answer.argmax(1)
    target[[0, 9, 19]] ^= 1
    task: Any = SimpleNamespace(objective="classification", target=target, labels=LABELS, std=np.empty(0))
    rows = chosen_rows(task, answer, 4)
    assert set(rows[2:]) == {0, 19}
    assert not set(rows[:2]) & {0, 9, 19}
    assert len(chosen_rows(task, answer, 24)) == 20
    odd: Any = SimpleNamespace(objective="anomaly", target=np.array([0, 0, 1, 1]), std=np.empty(0))
    wrong, _ = mistakes(odd, np.array([0.1, 0.9, 0.05, 0.8]))
    assert wrong.tolist() == [False, True, True, False]
    numbers: Any = SimpleNamespace(objective="regression", target=np.zeros(20), std=np.empty(0))
    assert chosen_rows(numbers, np.arange(20.0), 2)[-1] == 19
