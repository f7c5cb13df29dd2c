"""What an answer costs: parameters, size, latency, memory, training and price of challenger, champion and baseline.

Latency is the median over calls in turn, one model after the other, so that a busy moment of the machine hits all alike. A packaged model is
timed as a graph in onnxruntime on one thread, its encoder not counted; the baseline from rows to answers, on one thread too.
"""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.costs.footprint import footprints
from kfloop.core.artifacts import read_report
from kfloop.core.scoring import GOLDEN, MODEL, TRAIN_CONTENT, open_session, run_session
from kfloop.core.timing import medians_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from kfloop.components.evaluate.baselines.fitting import Baseline
    from kfloop.components.evaluate.opening import Contestant
    from kfloop.core.sections import EvaluateConfig
    from kfloop.core.versions import DatasetVersion

FIGURES = (
    "parameters",
    "size_mb",
    "cpu_ms_1",
    "cpu_ms_batch",
    "batch",
    "gpu_ms_1",
    "memory_mb",
    "train_seconds",
    "train_cost",
    "price_per_1000",
    "call_ms_p50",
    "call_ms_p95",
)
MEBIBYTE = 2**20
UNSERVED = (GOLDEN, TRAIN_CONTENT, "reference.npz", "report.json")  # files of a package that no server needs
CUDA = "CUDAExecutionProvider"
QUANTIZED = ("QuantizeLinear", "DequantizeLinear")
COUNTS = ("INT32", "INT64", "BOOL")  # types of initializers that are shapes and places, not parameters


def costs(
    config: EvaluateConfig, version: DatasetVersion, models: Mapping[str, Contestant], baseline: Baseline | None
) -> dict[str, dict[str, float | int | None]]:
    """The figures of ``FIGURES`` by model, null where one is unknown.

    Args:
        config: Section ``evaluate``: calls, batch and price.
        version: Dataset version; its test rows are what is answered.
        models: Challenger and champion.
        baseline: The baseline, if there is one that answers rows.
    """
    everyone, models = models, {name: one for name, one in models.items() if one.model.external is None}
    found: dict[str, dict[str, float | int | None]] = {name: _still(one) for name, one in models.items()}
    if baseline is not None:
        found["baseline"] = _still_of_baseline(config, baseline)
    batch = _batch(config, everyone)
    for count, name in ((1, "cpu_ms_1"), (batch, "cpu_ms_batch")):
        calls = _calls(version, everyone["challenger"], models, baseline, count)
        for model, milliseconds in medians_ms(calls, config.latency_seconds).items():
            found[model][name] = milliseconds
    for name, one in models.items():
        found[name]["gpu_ms_1"] = _on_gpu(one, inputs_of(one, 1), config.latency_seconds)
    for name, memory in (_memory(models, batch) if models else {}).items():
        found[name]["memory_mb"] = memory
    for figures in found.values():
        figures["batch"] = batch
        spent = figures["cpu_ms_batch"]
        if config.price_per_hour is not None and spent is not None:
            # 1000 answers, in hours of one thread.
            figures["price_per_1000"] = config.price_per_hour * spent / batch / 3600
    # Of a model that somebody else serves the calls tell; none is made for a timing, since each is paid.
    found |= {name: asked for name, one in everyone.items() if (asked := one.asked()) is not None}
    return {name: {key: figures.get(key) for key in FIGURES} for name, figures in found.items()}


def inputs_of(one: Contestant, count: int) -> tuple[NDArray[Any], ...]:
    """Tensors of the first ``count`` test rows; a generator gets noise and the first class."""
    signature = one.model.signature
    if signature.objective == "generation":
        noise, label = signature.inputs
        drawn = np.random.default_rng(0).standard_normal((count, *noise.shape)).astype(noise.dtype)
        return drawn, np.zeros((count, *label.shape), dtype=label.dtype)
    return one.test.batch_inputs(np.arange(count))


def parameters_of(path: Path) -> int:
    """Number of parameters of an ONNX graph: the numbers in its initializers, but for whole numbers, which are shapes and places.

    Of a quantized graph scales and zero points do not count, and biases, which are whole numbers there, do.
    """
    import onnx

    counts = {onnx.TensorProto.DataType.Value(name) for name in COUNTS}
    graph = onnx.load(path, load_external_data=False).graph
    steps = [node.input for node in graph.node if node.op_type in QUANTIZED]
    weights, grids = {names[0] for names in steps}, {name for names in steps for name in names[1:]}
    return sum(
        int(np.prod(tensor.dims))
        for tensor in graph.initializer
        if tensor.name not in grids and (tensor.name in weights or tensor.data_type not in counts)
    )


def _still(one: Contestant) -> dict[str, float | int | None]:
    """What needs no clock."""
    folder = one.model.folder
    report = read_report(folder)
    files = [path for path in folder.iterdir() if path.is_file() and path.name not in UNSERVED]
    return {
        "parameters": parameters_of(folder / MODEL),
        "size_mb": sum(path.stat().st_size for path in files) / MEBIBYTE,
        "train_seconds": report.get("train_seconds"),
        "train_cost": report.get("train_cost"),
    }


def _still_of_baseline(config: EvaluateConfig, baseline: Baseline) -> dict[str, float | int | None]:
    fitted = [getattr(baseline.model, name, None) for name in ("coef_", "intercept_")]
    size = None
    if baseline.model is not None:
        size = len(pickle.dumps(baseline.model)) / MEBIBYTE
    price, seconds = config.price_per_hour, baseline.seconds
    return {
        "parameters": None if fitted[0] is None else sum(int(np.size(item)) for item in fitted if item is not None),
        "size_mb": size,
        "train_seconds": seconds,
        "train_cost": price * seconds / 3600 if price is not None and seconds is not None else None,
    }


def _batch(config: EvaluateConfig, models: Mapping[str, Contestant]) -> int:
    """Examples in a call: as many as all models take and the test rows hold; of the nodes of one graph always all."""
    sizes = [len(one.test) for one in models.values()]
    if any(one.model.signature.modality == "nodes" for one in models.values()):
        return min(sizes)
    most = [one.model.signature.max_batch_size for one in models.values() if one.model.signature.batched]
    return min([config.latency_batch, *sizes, *most])


def _calls(
    version: DatasetVersion,
    challenger: Contestant,
    models: Mapping[str, Contestant],
    baseline: Baseline | None,
    count: int,
) -> dict[str, Callable[[], Any]]:
    """One answer for ``count`` rows, by model."""
    found: dict[str, Callable[[], Any]] = {}
    for name, one in models.items():
        session = open_session(one.model.folder / MODEL, threads=1)
        found[name] = _call(session, one, inputs_of(one, count))
    if baseline is not None:
        rows: Any = (
            challenger.test.batch_inputs(np.arange(count))[0]
            if version.modality == "series"
            else version.table("test").slice(0, count)
        )
        found["baseline"] = lambda: baseline.predict(rows)
    return found


def _call(session: Any, one: Contestant, inputs: tuple[NDArray[Any], ...]) -> Callable[[], Any]:
    return lambda: run_session(session, one.model.signature, inputs)


def _on_gpu(one: Contestant, inputs: tuple[NDArray[Any], ...], seconds: float) -> float | None:
    """Median time of one answer on the GPU, copies included; null where onnxruntime has none."""
    import onnxruntime

    if CUDA not in onnxruntime.get_available_providers():
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(one.model.folder / MODEL, options, providers=[CUDA])
        if session.get_providers()[0] != CUDA:  # it fell back to the CPU
            return None
        return medians_ms({"gpu": _call(session, one, inputs)}, seconds)["gpu"]
    except Exception:  # noqa: BLE001  # whatever a driver raises: there is no usable GPU, which is not this model's fault
        return None


def _memory(models: Mapping[str, Contestant], batch: int) -> dict[str, float | None]:
    """Peak memory of loading each model and answering a batch, in MiB, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = []
        for name, one in models.items():
            path = Path(folder) / f"{name}.npz"
            ports = one.model.signature.inputs
            arrays: dict[str, Any] = {p.name: a for p, a in zip(ports, inputs_of(one, batch), strict=True)}
            np.savez(path, **arrays)
            pairs.append(((one.model.folder / MODEL).resolve(), path))
        return dict(zip(models, footprints(pairs), strict=True))
