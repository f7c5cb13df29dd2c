"""What an answer costs, on a real package: figures that can be counted by hand, and clocks that are at least plausible."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import packages
from kfloop.components.evaluate.baselines.fitting import Baseline
from kfloop.components.evaluate.costs.costing import FIGURES, costs, inputs_of, parameters_of
from kfloop.components.evaluate.costs.footprint import footprints
from kfloop.components.evaluate.opening import Contestant
from kfloop.core.scoring import PackagedModel
from kfloop.core.sections import EvaluateConfig
from kfloop.core.signature import Port
from kfloop.core.timing import FEWEST_CALLS, medians_ms


def make_package(store: Path, digest: str) -> Path:
    found = packages.make_package(store, digest)
    assert isinstance(found, Path)
    return found


class Rows(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.images)

    def batch_inputs(self, rows: Any) -> Any:
        return (self.images[rows],)


def one_of(folder: Path, n: int = 40) -> Contestant:
    images = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
    return Contestant(
        role="challenger", digest="x", normal=None, model=PackagedModel(folder), test=cast("Any", Rows(images=images))
    )


def test_every_figure_of_a_package_and_of_a_baseline(tmp_path: Path) -> None:
    folder = make_package(tmp_path, "a")
    report = {"digest": "a", "train_seconds": 12.5, "train_cost": 0.25}
    (folder / "report.json").write_text(json.dumps(report))
    fitted = SimpleNamespace(coef_=np.zeros((3, 5)), intercept_=np.zeros(3))
    simple = Baseline(
        kind="ridge",
        answer=np.zeros(40),
        n_fitted=9,
        n_train=9,
        predict=lambda rows: np.zeros(rows.num_rows),
        model=fitted,
        seconds=2.0,
    )
    rows = SimpleNamespace(slice=lambda _first, count: SimpleNamespace(num_rows=count))
    version: Any = SimpleNamespace(modality="image", table=lambda _split: rows)
    config = EvaluateConfig(price_per_hour=3600.0, latency_seconds=0.02)
    found = costs(config, version, {"challenger": one_of(folder)}, simple)
    ours, theirs = found["challenger"], found["baseline"]
    assert tuple(ours) == tuple(theirs) == FIGURES
    assert ours["parameters"] == 64 * 2 + 1  # the weights and the scale; the shape of the reshape is no parameter
    served = sum((folder / name).stat().st_size for name in ("model.onnx", "encoder.json", "signature.json"))
    assert ours["size_mb"] == pytest.approx(served / 2**20)
    assert (ours["train_seconds"], ours["train_cost"]) == (12.5, 0.25)
    assert ours["batch"] == theirs["batch"] == 16  # as many as the package takes
    for figures in (ours, theirs):
        assert 0 < cast("float", figures["cpu_ms_1"]) < 1000
        per_answer = cast("float", figures["cpu_ms_batch"]) / 1000 / 16
        assert figures["price_per_1000"] == pytest.approx(1000 * per_answer)  # one unit a second
    assert ours["memory_mb"] is not None
    assert 1 < cast("float", ours["memory_mb"]) < 500
    assert (theirs["parameters"], theirs["memory_mb"], theirs["train_seconds"], theirs["train_cost"]) == (
        18,
        None,
        2,
        2,
    )


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    one = one_of(make_package(tmp_path, "a"), n=3)
    found = costs(EvaluateConfig(latency_seconds=0.01), cast("Any", None), {"challenger": one}, None)["challenger"]
    assert found["batch"] == 3
    assert [found[name] for name in ("train_seconds", "train_cost", "price_per_1000")] == [None] * 3


def test_models_are_timed_in_turn_and_a_slow_one_only_a_few_times() -> None:
    order: list[str] = []
    found = medians_ms({name: lambda name=name: order.append(name) for name in ("a", "b")}, 1e-9)  # type: ignore[misc]
    assert order == ["a", "b"] * (1 + FEWEST_CALLS)
    assert set(found) == {"a", "b"}


def test_a_larger_model_takes_more_memory(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    pairs = []
    for side in (8, 2048):
        weights = numpy_helper.from_array(np.random.default_rng(0).random((side, side), dtype=np.float32), "w")
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", side]) for name in ("x", "y")]
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weights])
        path = tmp_path / f"{side}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
        assert parameters_of(path) == side * side
        np.savez(tmp_path / f"{side}.npz", x=np.ones((1, side), np.float32))
        pairs.append((path, tmp_path / f"{side}.npz"))
    small, large = footprints(pairs)
    if small is None or large is None:
        pytest.skip("no /proc here")
    assert large - small > 2048 * 2048 * 4 / 2**20 * 0.9


def test_memory_of_what_is_no_model_is_unknown_and_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("no model")
    np.savez(tmp_path / "i.npz", x=np.zeros(1))
    assert footprints([(tmp_path / "m.onnx", tmp_path / "i.npz")]) == [None]
    assert footprints([]) == []


def test_a_generator_is_given_noise() -> None:
    ports = (Port(name="noise", dtype="float32", shape=(4, 4, 1)), Port(name="label", dtype="int64", shape=()))
    one: Any = SimpleNamespace(model=SimpleNamespace(signature=SimpleNamespace(objective="generation", inputs=ports)))
    noise, label = inputs_of(one, 5)
    assert (noise.shape, str(noise.dtype), label.tolist()) == ((5, 4, 4, 1), "float32", [0] * 5)
