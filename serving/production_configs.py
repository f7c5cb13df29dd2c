"""The configurations of a production repository, as messages of Triton's own schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.core.scoring import MODEL
from kfloop.serving.model_config import EXTRAS, TRITON_TYPES

if TYPE_CHECKING:
    import numpy as np

    from kfloop.core.encoding.bare.forms import RawInput
    from kfloop.core.signature import Signature

WARMED = 2  # golden requests that each instance answers before it is ready
WORKSPACE_BYTES = 2**30
CACHE = "/var/cache/tensorrt"


@dataclass(frozen=True, kw_only=True)
class Production:
    """What the repository is made for.

    Attributes:
        target: ``cpu`` or ``gpu``.
        gpus: Number of GPUs, each with instances of its own.
        instances: Instances of the graph on each GPU, or on the CPU.
        delay_us: Longest time in microseconds that a request waits for others to share a batch; on a CPU 0 is best.
        tensorrt: Whether onnxruntime hands the graph to TensorRT, in FP16.
        version: Number of the version folders.
        backend: What runs the graph: ``onnxruntime``, or ``python`` where the server has no such backend; then the python of its python backend
            needs NumPy and onnxruntime.
        logs_as: Name under which requests are logged; that of the ensemble when empty.
    """

    target: str = "cpu"
    gpus: int = 1
    instances: int = 1
    delay_us: int | None = None
    tensorrt: bool = False
    version: int = 1
    backend: str = "onnxruntime"
    logs_as: str = ""

    @property
    def waits_us(self) -> int:
        """The delay, as asked for or as suits the target."""
        if self.delay_us is not None:
            return self.delay_us
        return 2000 if self.target == "gpu" else 0


def _new(name: str, signature: Signature, backend: str = "") -> Any:
    from tritonclient.grpc import model_config_pb2 as schema

    return schema.ModelConfig(name=name, backend=backend, max_batch_size=signature.max_batch_size)


def _add(
    ports: Any, name: str, kind: str, shape: tuple[int, ...], *, scalar: bool = False, optional: bool = False
) -> None:
    added = ports.add(name=name, data_type=kind, dims=shape or (1,))
    if optional:
        added.optional = True
    if scalar and not shape:  # the graph knows a number of an example as no axis at all
        added.reshape.SetInParent()


def graph_config(model: str, signature: Signature, golden: dict[str, np.ndarray], options: Production) -> Any:
    """The graph, on the onnxruntime backend or in the hands of python."""
    config = _new(f"{model}_model", signature, options.backend)
    if options.backend == "onnxruntime":
        config.default_model_filename = MODEL
    for side, ports in (("input", signature.inputs), ("output", signature.outputs)):
        for port in ports:
            _add(getattr(config, side), port.name, TRITON_TYPES[port.dtype], port.shape, scalar=signature.batched)
    _place(config, options)
    if signature.batched:
        most = signature.max_batch_size
        batching = config.dynamic_batching
        batching.SetInParent()
        if options.target == "gpu":
            batching.preferred_batch_size.extend(sorted({max(1, most // 4), max(1, most // 2), most}))
        batching.max_queue_delay_microseconds = options.waits_us
    if options.tensorrt:
        _tensorrt(config, signature)
    _warm(config, signature, golden)
    return config


def _place(config: Any, options: Production) -> None:
    from tritonclient.grpc import model_config_pb2 as schema

    if options.target == "cpu":
        config.instance_group.add(kind=schema.ModelInstanceGroup.KIND_CPU, count=options.instances)
        threads = "intra_op_thread_count" if options.backend == "onnxruntime" else "intra_op_threads"  # model/_graph.py
        config.parameters[threads].string_value = "1"
        return
    for gpu in range(options.gpus):
        config.instance_group.add(kind=schema.ModelInstanceGroup.KIND_GPU, count=options.instances, gpus=[gpu])


def _tensorrt(config: Any, signature: Signature) -> None:
    """TensorRT through onnxruntime: engines are built at the first use of a shape, so they are kept, for a stated range of shapes."""
    accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    most = max(signature.max_batch_size, 1)
    told = {
        "precision_mode": "FP16",
        "max_workspace_size_bytes": str(WORKSPACE_BYTES),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": CACHE,
    }
    if signature.batched and all(-1 not in port.shape for port in signature.inputs):
        for word, rows in (("min", 1), ("opt", max(1, most // 4)), ("max", most)):
            sizes = (f"{port.name}:{'x'.join(map(str, (rows, *port.shape)))}" for port in signature.inputs)
            told[f"trt_profile_{word}_shapes"] = ",".join(sizes)
    for name, value in told.items():
        accelerator.parameters[name] = value
    config.optimization.input_pinned_memory.enable = config.optimization.output_pinned_memory.enable = True


def _warm(config: Any, signature: Signature, golden: dict[str, np.ndarray]) -> None:
    """Golden examples as warm-up: a graph that cannot answer them does not become ready."""
    for number in range(warmed(signature, golden)):
        sample = config.model_warmup.add(name=f"golden{number}", batch_size=1 if signature.batched else 0)
        for port in signature.inputs:
            array = golden[port.name]
            value = sample.inputs[port.name]
            value.data_type = next(one.data_type for one in config.input if one.name == port.name)
            value.dims.extend(array.shape[1:] or (1,) if signature.batched else array.shape)
            value.input_data_file = f"golden{number}.{port.name}"


def warmed(signature: Signature, golden: dict[str, np.ndarray]) -> int:
    """Number of golden requests that warm an instance up."""
    return min(WARMED, len(golden[signature.inputs[0].name])) if signature.batched else 1


def pre_config(model: str, signature: Signature, form: tuple[RawInput, ...], options: Production) -> Any:
    """The step that encodes raw rows, and passes on the tensors of those who have them."""
    config = _new(f"{model}_pre", signature, "python")
    _add_either(config, signature, form)
    for port in signature.inputs:
        _add(config.output, port.name, TRITON_TYPES[port.dtype], port.shape)
    return _python(config, options)


def _add_either(config: Any, signature: Signature, form: tuple[RawInput, ...]) -> None:
    """Raw rows or tensors as inputs: each is optional, and the first step checks that one form came whole."""
    for one in form:
        _add(config.input, one.name, "TYPE_STRING" if one.is_bytes else "TYPE_FP64", (1,), optional=True)
    for port in signature.inputs:
        _add(config.input, port.name, TRITON_TYPES[port.dtype], port.shape, optional=bool(form))


def post_config(model: str, signature: Signature, options: Production) -> Any:
    """The step that labels and logs."""
    config = _new(f"{model}_post", signature, "python")
    for port in signature.inputs:
        _add(config.input, f"input.{port.name}", TRITON_TYPES[port.dtype], port.shape)
    for port in signature.outputs:
        _add(config.input, f"output.{port.name}", TRITON_TYPES[port.dtype], port.shape)
        _add(config.output, port.name, TRITON_TYPES[port.dtype], port.shape)
    for name, kind in _extras(signature).items():
        _add(config.output, name, kind, (1,))
    config.parameters["ensemble"].string_value = options.logs_as or model
    return _python(config, options)


def _python(config: Any, options: Production) -> Any:
    from tritonclient.grpc import model_config_pb2 as schema

    config.instance_group.add(kind=schema.ModelInstanceGroup.KIND_CPU, count=options.instances)
    config.dynamic_batching.SetInParent()
    return config


def _extras(signature: Signature) -> dict[str, str]:
    return EXTRAS if signature.objective == "classification" and signature.batched else {}


def ensemble_config(model: str, signature: Signature, form: tuple[RawInput, ...]) -> Any:
    """What a client sees. Names between the steps begin with the step that wrote them, so that none is an output by chance."""
    config = _new(model, signature)
    config.platform = "ensemble"
    _add_either(config, signature, form)
    for port in signature.outputs:
        _add(config.output, port.name, TRITON_TYPES[port.dtype], port.shape)
    for name, kind in _extras(signature).items():
        _add(config.output, name, kind, (1,))
    steps = config.ensemble_scheduling.step
    places = {port.name: f"pre:{port.name}" if form else port.name for port in signature.inputs}
    answers = {port.name: f"model:{port.name}" if signature.batched else port.name for port in signature.outputs}
    if form:
        step = steps.add(model_name=f"{model}_pre", model_version=-1)
        step.input_map.update({port.name: port.name for port in config.input})
        step.output_map.update(places)
    step = steps.add(model_name=f"{model}_model", model_version=-1)
    step.input_map.update(places)
    step.output_map.update(answers)
    if signature.batched:
        step = steps.add(model_name=f"{model}_post", model_version=-1)
        step.input_map.update({f"input.{name}": place for name, place in places.items()})
        step.input_map.update({f"output.{name}": place for name, place in answers.items()})
        step.output_map.update({port.name: port.name for port in config.output})
    return config
