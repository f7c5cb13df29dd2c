"""ONNX export of a network, whatever it takes and gives."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from typing import TYPE_CHECKING, Any

from kfloop.components.package.looping import CARRIED, NUMBER, RESULT, looped
from kfloop.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from kfloop.core.signature import Signature

OPSET = 18  # what the exporter writes without converting; every onnxruntime of the last three years runs it
RANDOM_NODES = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
LIMIT_BYTES = 2**31 - 2**20  # protobuf's limit is 2 GiB for a message, less a little for all that is not weights
OUTPUT = "output."  # what the exporter calls an output: under its own name it may clash with a value inside
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
SAME_LENGTH = {"graph": "node"}  # inputs without a batch axis that are as long as another one, by name


def export_network(served: nn.Module, signature: Signature, example: Sequence[NDArray[np.generic]], path: Path) -> None:
    """Write a network as it is served (``kfloop.core.families.heads.Served``) as a graph.

    The file holds the computation alone: stack traces and other metadata are stripped, so that the same weights give the
    same bytes.

    Args:
        served: The network, in evaluation mode.
        signature: Names of its inputs and outputs, and which axes may have any length.
        example: Inputs it is traced with; at least two examples, because one is a length like no other.
        path: File to write.

    Raises:
        TerminalError: The exporter refuses the network, the graph draws random numbers, or it does not fit into one file.
    """
    import torch

    tensors = tuple(torch.from_numpy(array.copy()) for array in example)
    inputs, outputs = ([port.name for port in ports] for ports in (signature.inputs, signature.outputs))
    axes, results = _dynamic_axes(signature), [f"{OUTPUT}{name}" for name in outputs]
    repeating: Any = getattr(served, "network", None)
    if hasattr(repeating, "one_step"):  # a sampler: the same step again and again
        number = torch.tensor(1)
        names = [CARRIED, *inputs[1:], NUMBER]
        model = _exported(repeating.one_step(), (*tensors, number), names, [RESULT], (*axes, {}))
        model = looped(model, repeating.steps, inputs[0], results[0])
    else:
        # One entry for the axes of all inputs: the arguments are a variable number.
        model = _exported(served, tensors, inputs, results, (axes,))
    strip(model)
    _name_outputs(model, outputs)
    _check_size(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    check_nodes(path)


def _exported(
    network: nn.Module, tensors: tuple[Any, ...], inputs: Sequence[str], outputs: Sequence[str], axes: tuple[Any, ...]
) -> Any:
    """What torch makes of a network, as ``onnx.ModelProto``."""
    import torch

    try:
        with quiet():
            program = torch.onnx.export(
                network.eval(),
                tensors,
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=axes,
                opset_version=OPSET,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = error.__cause__ or error
        raise TerminalError(
            f"torch cannot export this network to ONNX: {_first_line(error)} ({_first_line(reason)})",
            hint="replace the operation it names; kfloop's own families export",
        ) from error
    if program is None:
        raise TerminalError("torch gave no ONNX graph for this network", hint="see its messages above")
    return program.model_proto


def _check_size(model: Any) -> None:
    """Refuse a graph whose weights would have to lie beside it: a package is one file that is complete or not there.

    Raises:
        TerminalError: It is too large for one file, or refers to another one.
    """
    import onnx

    weights = list(model.graph.initializer)
    outside = [item.name for item in weights if item.data_location == onnx.TensorProto.EXTERNAL]
    total = sum(len(item.raw_data) for item in weights)
    if outside or total > LIMIT_BYTES:
        found = (
            f"keeps weights in other files ({', '.join(outside[:3])})"
            if outside
            else f"has {total / 2**30:.2f} GiB of weights"
        )
        raise TerminalError(
            f"the exported graph {found}, and one ONNX file holds at most {LIMIT_BYTES / 2**30:.2f} GiB",
            hint="make the network smaller, or serve it elsewhere and give its address: train.external",
            bytes=total,
        )


def check_nodes(path: Path) -> None:
    """Refuse a graph that draws random numbers: its answers could never be proven.

    Raises:
        TerminalError: Such a node is in the graph or in one of its functions or subgraphs.
    """
    import onnx

    model = onnx.load(path)
    found = sorted({node.op_type for node in all_nodes(model) if node.op_type in RANDOM_NODES})
    if found:
        raise TerminalError(
            f"the exported graph draws random numbers ({', '.join(found)}), so the same example has no one answer",
            hint="make the noise an input of the network, or switch it off in evaluation mode",
            nodes=found,
        )


def _dynamic_axes(signature: Signature) -> tuple[dict[int, Any], ...]:
    """The axes of each input that may have any length; axes that are always equally long share their name."""
    from torch.export import Dim

    dims: dict[str, Any] = {}

    def dim(name: str) -> Any:
        return dims.setdefault(name, Dim(name))

    found = []
    for port in signature.inputs:
        first = 1 if signature.batched else 0
        axes = {0: dim("batch")} if signature.batched else {}
        name = SAME_LENGTH.get(port.name, port.name)
        axes |= {first + axis: dim(f"{name}_{axis}") for axis, size in enumerate(port.shape) if size < 0}
        found.append(axes)
    return tuple(found)


def all_nodes(model: Any) -> Iterator[Any]:
    """The nodes of a model: of its graph, its functions, and the graphs inside them."""
    for owner in (model.graph, *model.functions):
        yield from _graph_nodes(owner)


def _graph_nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph or function, and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _graph_nodes(inner)


def strip(model: Any) -> None:
    """Remove documentation, stack traces and shapes of inner values (which exporters get wrong) from a graph."""
    graph = model.graph
    for item in (model, graph, *model.functions, *graph.node, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for node in all_nodes(model):
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    graph.ClearField("value_info")
    model.ClearField("producer_version")
    graph.name = "model"


def _name_outputs(model: Any, names: Sequence[str]) -> None:
    """Give the outputs their names; an inner value that has one of these already gets another."""
    called = {name: f"{name}.inner" for name in names} | {f"{OUTPUT}{name}": name for name in names}
    for node in _graph_nodes(model.graph):
        for values in (node.input, node.output):
            values[:] = [called.get(value, value) for value in values]
    for item in (*model.graph.initializer, *model.graph.output):
        item.name = called.get(item.name, item.name)


def _first_line(error: BaseException) -> str:
    """Without the colours that exporters write for terminals."""
    return COLOURS.sub("", (str(error).strip() or repr(error)).splitlines()[0])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter's chatter stays off the console."""
    names = (
        "torch.onnx",
        "torch.export",
        "onnxscript",
        "onnx_ir",
        "torch._dynamo",
        "root",
    )  # the quantizer uses the root
    loggers = [logging.getLogger(name) for name in names]
    levels = [item.level for item in loggers]
    for item in loggers:
        item.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for item, level in zip(loggers, levels, strict=True):
            item.setLevel(level)
