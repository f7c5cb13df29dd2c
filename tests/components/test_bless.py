"""Bless against the real embedded Triton."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import packages
from kfloop.components.bless import blessing
from kfloop.components.bless.blessing import BlessingReport, run
from kfloop.core.sections import BlessConfig
from kfloop.core.workspace import Workspace

pytestmark = [pytest.mark.triton, pytest.mark.slow]


def _bless(tmp_path: Path, package: Path, **limits: Any) -> BlessingReport:
    dataset, out = tmp_path / "dataset", tmp_path / "out"
    dataset.mkdir()
    out.mkdir()
    (dataset / "card.json").write_text('{"digest": "data"}')
    workspace = Workspace(loop="t", root=tmp_path, state="", store="", mlflow="")
    config = BlessConfig(requests=40, concurrency=4, **limits)
    report = run(config, dataset=dataset, model=package, out=out, workspace=workspace)
    assert json.loads((out / "report.json").read_text())["passed"] == report.passed
    return report


def test_sound_package_is_blessed_with_numbers(tmp_path: Path) -> None:
    report = _bless(tmp_path, packages.make_package(tmp_path, "good"), latency_ms_p95=60_000, memory_mb=100_000)
    assert report.passed, report.failures
    assert report.failure_logs == {}
    assert (report.model_digest, report.dataset_digest, report.triton_version) == ("good", "data", "2.51.0")
    assert set(report.odd_requests.values()) == {"refused"}
    assert report.latency_ms is not None
    assert report.latency_ms["n"] == 40
    assert 0 < report.latency_ms["p50"] <= report.latency_ms["p95"] <= report.latency_ms["p99"]
    for protocol in ("http", "grpc"):
        found = report.latency_ms["protocols"][protocol]
        assert found["n"] == 40
        assert 0 < found["p50"] <= found["p95"] <= found["p99"]
        assert found["throughput_rps"] > 0
    assert report.memory_mb is not None
    assert report.memory_mb > 20


def test_wrong_answers_are_a_report_that_did_not_pass(tmp_path: Path) -> None:
    report = _bless(tmp_path, packages.make_package(tmp_path, "wrong", golden_error=0.1))
    assert not report.passed
    assert "differ by 0.1" in report.failures[0]
    assert report.latency_ms is None


def test_model_that_does_not_load_is_a_report_with_the_servers_reason(tmp_path: Path) -> None:
    package = packages.make_package(tmp_path, "junk")
    (package / "model.onnx").write_bytes(b"junk")
    report = _bless(tmp_path, package)
    assert not report.passed
    assert "load failed" in report.failures[0]
    assert report.load_seconds is None
    assert any("Protobuf" in line for line in report.failure_logs[report.failures[0]])


def _make_slow(package: Path) -> None:
    """The embedding goes through four hundred products with a matrix of four megabytes, times zero."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(package / "model.onnx")
    graph = model.graph
    next(node for node in graph.node if "embedding" in node.output).output[0] = "quick"
    for node in graph.node:
        node.input[:] = ["quick" if name == "embedding" else name for name in node.input]
    rng = np.random.default_rng(0)
    tensors = {
        "widen": rng.standard_normal((64, 1024)).astype(np.float32) / 8,
        "wide": rng.standard_normal((1024, 1024)).astype(np.float32) / 32,
        "times": np.array(400),
        "nothing": np.float32(0),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in tensors.items())
    inputs = [
        helper.make_tensor_value_info("number", TensorProto.INT64, []),
        helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        helper.make_tensor_value_info("before", TensorProto.FLOAT, ["batch", 1024]),
    ]
    outputs = [
        helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("after", TensorProto.FLOAT, ["batch", 1024]),
    ]
    steps = [
        helper.make_node("MatMul", ["before", "wide"], ["product"]),
        helper.make_node("Tanh", ["product"], ["after"]),
        helper.make_node("Identity", ["going"], ["goes_on"]),
    ]
    graph.node.extend(
        [
            helper.make_node("MatMul", ["rows", "widen"], ["start"]),
            helper.make_node(
                "Loop", ["times", "", "start"], ["end"], body=helper.make_graph(steps, "body", inputs, outputs)
            ),
            helper.make_node("ReduceMean", ["end"], ["level"], keepdims=0),
            helper.make_node("Mul", ["level", "nothing"], ["zero"]),
            helper.make_node("Add", ["quick", "zero"], ["embedding"]),
        ]
    )
    onnx.save(model, package / "model.onnx")


def test_slow_answers_and_much_memory_do_not_pass(tmp_path: Path) -> None:
    package = packages.make_package(tmp_path, "slow")
    _make_slow(package)
    report = _bless(tmp_path, package, latency_ms_p95=2.0, memory_mb=10, protocol="grpc")
    assert not report.passed
    assert report.golden is not None
    assert report.golden["passed"]
    slow, large = report.failures
    assert "answers over grpc are slow" in slow
    assert "bless.latency_ms_p95 allows 2 ms" in slow
    assert "MiB of memory, bless.memory_mb allows 10" in large
    assert report.latency_ms is not None
    assert set(report.latency_ms["protocols"]) == {"grpc"}


def test_a_backend_that_dies_during_the_trial_is_a_report_that_did_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that the kernel ends for its memory: the server's own health stays green."""
    whole = blessing.odd_requests

    def and_kill(signature: Any) -> Any:
        for process in psutil.Process().children(recursive=True):
            if process.name().startswith("triton_python"):
                process.kill()
        return whole(signature)

    monkeypatch.setattr(blessing, "odd_requests", and_kill)
    report = _bless(tmp_path, packages.make_package(tmp_path, "dies"))
    assert not report.passed
    assert report.load_seconds is not None
    assert any("is not healthy" in failure for failure in report.failures), report.failures


@pytest.mark.parametrize(
    ("family", "modality", "task"),
    [
        ("mlp", "table", "regression"),
        ("rnn", "text", "multiclass"),
        ("rnn", "series", "forecasting"),
        ("gnn", "nodes", "multiclass"),
        ("gnn", "graphs", "multiclass"),
        ("gan", "image", "multiclass"),
    ],
)
def test_models_of_every_kind_are_blessed(tmp_path: Path, family: str, modality: str, task: str) -> None:
    _, package = packages.make_any(tmp_path / "made", modality, task, family=family)
    report = _bless(tmp_path, package)
    assert report.passed, report.failures
    assert {"refused"} <= set(report.odd_requests.values()) <= {"refused", "survived"}


def test_a_package_of_the_old_format_is_a_report_that_did_not_pass(tmp_path: Path) -> None:
    package = packages.make_package(tmp_path, "old")
    (package / "signature.json").write_text('{"format": 1}')
    report = _bless(tmp_path, package)
    assert not report.passed
    assert "format 1" in report.failures[0]
