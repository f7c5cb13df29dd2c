"""A graph whose weights and inner values are whole numbers of 8 bits.

Activations are unsigned, weights signed with 7 of their 8 bits. CPUs without VNNI add pairs of products in 16 bits, which 255 * 127 * 2 would
overflow and 255 * 64 * 2 does not: so the answers are the same with and without VNNI. Signed activations, which need no such care, were slower
than single precision on x86.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.components.package.exporting import quiet, strip
from kfloop.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    Feed = dict[str, NDArray[Any]]

WEIGHTED = ("Conv", "Gemm", "MatMul")
TABLES = ("Gather",)  # embeddings of words and categories are most of a small text model
# Between convolutions these keep the values in 8 bits; in a transformer the same operations ruin what they touch (masks, residuals).
BETWEEN = ("Add", "AveragePool", "GlobalAveragePool", "MaxPool", "Relu")
FRONT = "Log"  # what a logarithm is taken of spans more orders of magnitude than 8 bits: the spectrum of sound
OPTIONS = {
    "MatMulConstBOnly": True,  # products of two activations (attention) stay as they are
    "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
}


def make_int8(source: Path, out: Path, feeds: Sequence[Feed]) -> None:
    """Write the graph with quantized convolutions, products with weights, and tables, per channel; inputs and outputs keep their types.

    Args:
        source: The graph in single precision.
        out: File to write.
        feeds: Inputs by name, of training rows: the ranges of inner values are measured on them.

    Raises:
        TerminalError: The quantizer refuses the graph, or finds nothing to quantize.
    """
    import onnx

    try:
        with tempfile.TemporaryDirectory() as folder, quiet(), _same_path():
            _quantize(source, Path(folder), out, feeds)
    except Exception as error:  # the quantizer raises whatever its parts do
        raise TerminalError(
            f"onnxruntime cannot quantize this graph: {(str(error).strip() or repr(error)).splitlines()[0]}",
            hint="leave int8 out of package.variants, and serve fp32",
        ) from error
    model = onnx.load(out)
    kinds = {node.op_type for node in model.graph.node}
    if "DequantizeLinear" not in kinds:
        raise TerminalError(
            f"nothing in this graph can be int8: it has no {', '.join(WEIGHTED)} with weights of its own",
            hint="leave int8 out of package.variants, and serve fp32",
        )
    strip(model)
    out.write_bytes(model.SerializeToString(deterministic=True))


def _quantize(source: Path, folder: Path, out: Path, feeds: Sequence[Feed]) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Rows(CalibrationDataReader):
        """The feeds, one after the other."""

        def __init__(self) -> None:
            self.left = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self.left, None)

    prepared = folder / "prepared.onnx"
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    nodes = onnx.load(prepared).graph.node
    convolves = any(node.op_type == "Conv" for node in nodes)
    quantize_static(
        prepared,
        out,
        Rows(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=[*WEIGHTED, *TABLES, *(BETWEEN if convolves else ())],
        nodes_to_exclude=sorted(_front(nodes)),
        extra_options=OPTIONS,
    )


def _front(nodes: Iterable[Any]) -> set[str]:
    """Names of the nodes that lead to a logarithm."""
    makers = {name: node for node in nodes for name in node.output}
    waiting = [name for node in nodes if node.op_type == FRONT for name in node.input]
    found: set[str] = set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting.extend(node.input)
    return found


@contextlib.contextmanager
def _same_path() -> Iterator[None]:
    """The quantizer's imports add a folder to the places modules come from, with names such as ``metrics``."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before
