"""ONNX export of a network, and the proof that the graph answers like torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.scoring import INPUT, OUTPUTS, open_session, run_session
from kfloop.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

OPSET = 18  # what the exporter writes without converting; every onnxruntime of the last three years runs it
BATCH_SIZES = (1, 2, 7, 32)  # the example has another size: exports were seen that are right at one size alone
RANDOM_NODES = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Largest difference between torch and the graph for one output at one batch size.

    Attributes:
        output: Name of the output.
        batch_size: Images in the call.
        max_abs_diff: Largest absolute difference.
    """

    output: str
    batch_size: int
    max_abs_diff: float


def export_network(network: nn.Module, image_shape: tuple[int, int, int], path: Path) -> None:
    """Write ``network`` (images to logits and embedding) as a graph of images to probabilities and embedding.

    The file holds the computation alone: stack traces and other metadata are stripped, so that the same weights give the
    same bytes.

    Raises:
        TerminalError: The exporter refuses the network, or the graph draws random numbers.
    """
    import onnx
    import torch

    class Served(torch.nn.Module):
        """The network as it is served."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits, embedding = self.network(image)
            return torch.softmax(logits, dim=-1), embedding

    example = torch.zeros((3, *image_shape), dtype=torch.uint8)
    try:
        with _quiet():
            torch.onnx.export(
                Served().eval(),
                (example,),
                str(path),
                dynamo=True,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise TerminalError(
            f"torch cannot export this network to ONNX: {str(error).splitlines()[0]}",
            hint="replace the operation it names; kfloop's own families export",
        ) from error
    model = onnx.load(path)
    _strip(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    check_nodes(path)


def check_nodes(path: Path) -> None:
    """Refuse a graph that draws random numbers: its answers could never be proven.

    Raises:
        TerminalError: Such a node is in the graph or in one of its functions or subgraphs.
    """
    import onnx

    model = onnx.load(path)
    found = sorted({node.op_type for node in _all_nodes(model) if node.op_type in RANDOM_NODES})
    if found:
        raise TerminalError(
            f"the exported graph draws random numbers ({', '.join(found)}), so the same image has no one answer",
            hint="make the noise an input of the network, or switch it off in evaluation mode",
            nodes=found,
        )


def check_parity(network: nn.Module, path: Path, images: NDArray[np.uint8], tolerance: float) -> list[Parity]:
    """Compare torch with onnxruntime on real images at several batch sizes.

    Args:
        network: Network in evaluation mode.
        path: The exported graph.
        images: uint8 [N, H, W, C]; repeated when there are fewer than the largest batch.
        tolerance: Largest allowed absolute difference.

    Raises:
        TerminalError: An output differs by more, is not finite, or has another shape.
    """
    session = open_session(path, threads=1)
    rows = []
    for size in BATCH_SIZES:
        batch = images[np.arange(size) % len(images)]
        expected, observed = eager(network, batch), _run(session, batch)
        for name in OUTPUTS:
            difference = _difference(expected[name], observed[name])
            rows.append(Parity(output=name, batch_size=size, max_abs_diff=difference))
            if not difference <= tolerance:
                raise TerminalError(
                    f"ONNX output '{name}' differs from torch by {difference:.3g} at batch size {size}, "
                    f"tolerance {tolerance:.3g}",
                    hint="the export is wrong: replace the operation behind it (scatter_reduce 'mean' is a known one)",
                    output=name,
                    batch_size=size,
                    difference=difference if np.isfinite(difference) else None,
                )
    return rows


def eager(network: nn.Module, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Torch's own answers for images uint8 [B, H, W, C]."""
    import torch

    with torch.inference_mode():
        logits, embedding = network.eval()(torch.from_numpy(np.array(images)))
        return {OUTPUTS[0]: torch.softmax(logits, dim=-1).numpy(), OUTPUTS[1]: embedding.numpy()}


def _run(session: Any, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    from onnxruntime.capi import onnxruntime_pybind11_state as failures

    try:
        return run_session(session, batch)
    except (failures.Fail, failures.InvalidArgument, failures.RuntimeException) as error:
        raise TerminalError(
            f"the exported graph fails at batch size {len(batch)}: {str(error).splitlines()[0]}",
            hint="the network fixes its batch size somewhere: use shapes of its inputs instead of constants",
            batch_size=len(batch),
        ) from error


def _difference(expected: NDArray[np.float32], observed: NDArray[np.float32]) -> float:
    """Largest absolute difference; infinite for another shape or for numbers that are not finite."""
    if expected.shape != observed.shape or not (np.isfinite(expected).all() and np.isfinite(observed).all()):
        return float("inf")
    return float(np.max(np.abs(expected.astype(np.float64) - observed), initial=0.0))


def _all_nodes(model: Any) -> Iterator[Any]:
    pending = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while pending:
        node = pending.pop()
        yield node
        for attribute in node.attribute:
            graphs = [attribute.g, *attribute.graphs]
            pending.extend(inner for graph in graphs for inner in graph.node)


def _strip(model: Any) -> None:
    """Remove documentation, stack traces and shapes of inner values (which exporters get wrong) from a graph."""
    graph = model.graph
    for item in (model, graph, *model.functions, *graph.node, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for node in _all_nodes(model):
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    graph.ClearField("value_info")
    model.ClearField("producer_version")
    graph.name = "model"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's chatter stays off the console."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "torch._dynamo")
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
