"""A graph in half precision, and what would overflow in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.package.exporting import quiet, strip
from kfloop.core.scoring import open_session
from kfloop.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Feed = dict[str, NDArray[Any]]

WITHOUT = "leave fp16 out of package.variants, and serve fp32"
FIRST = "first."  # begins the names of the numbers that nodes before the first weights use
LARGEST = 65504  # in half precision
WEIGHTED = {"Conv", "ConvTranspose", "Einsum", "GRU", "Gather", "Gemm", "LSTM", "MatMul", "RNN"}
BOUNDING = {"Clip", "Sigmoid", "Softmax", "Tanh"}  # what they make of infinity is what they make of a very large number


def make_fp16(source: Path, out: Path, feeds: Sequence[Feed]) -> None:
    """Write the graph with weights and computation in half precision; inputs and outputs keep their types, and what comes before the first
    weights stays as it is.

    A CPU computes most of such a graph in single precision, where nothing overflows. So each inner value is looked at as a GPU would keep it.

    Args:
        source: The graph in single precision.
        out: File to write.
        feeds: Inputs by name, of training rows.

    Raises:
        TerminalError: An inner value that is finite in single precision is not in half precision.
    """
    import onnx

    try:
        with quiet():
            model = _halved(onnx.load(source))
    except TerminalError:
        raise
    except Exception as error:  # the converter raises whatever its parts do
        raise TerminalError(
            f"onnxruntime cannot convert this graph to half precision: {(str(error).strip() or repr(error)).splitlines()[0]}",
            hint=WITHOUT,
        ) from error
    strip(model)
    out.write_bytes(model.SerializeToString(deterministic=True))
    found = _overflows(source, out, feeds)
    if found:
        raise TerminalError(
            f"in half precision, whose largest number is {LARGEST}, {len(found)} inner value(s) of the graph are no finite numbers: "
            f"{', '.join(found[:3])}",
            hint="scale inputs or weights down (a network that normalises them), or leave fp16 out",
        )


def _halved(model: Any) -> Any:
    """The model with all nodes from the first weights on in half precision."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    graph = model.graph
    first, rest = _split(graph)
    known = onnx.shape_inference.infer_shapes(model).graph
    described = {item.name: item for item in (*known.value_info, *known.input)}
    weights, made = {item.name for item in graph.initializer}, {name for node in rest for name in node.output}
    crossing = dict.fromkeys(name for node in rest for name in node.input if name not in made | weights | {""})
    part = onnx.ModelProto()
    part.CopyFrom(model)
    outputs = [item for item in graph.output if item.name in made]
    part.graph.CopyFrom(
        onnx.helper.make_graph(rest, "rest", [described[name] for name in crossing], outputs, graph.initializer)
    )
    half = convert_float_to_float16(part, keep_io_types=True).graph
    used = {name for node in half.node for name in node.input}
    own = [item for item in half.initializer if item.name in used]
    # A number that both parts use, such as 1, is kept in both types.
    for node in first:
        node.input[:] = [f"{FIRST}{name}" if name in weights else name for name in node.input]
    for item in graph.initializer:
        item.name = f"{FIRST}{item.name}"
    kept = [item for item in graph.initializer if any(item.name in node.input for node in first)]
    graph.CopyFrom(
        onnx.helper.make_graph([*first, *_in_order(half.node)], "model", graph.input, graph.output, [*kept, *own])
    )
    return model


def _split(graph: Any) -> tuple[list[Any], list[Any]]:
    """Nodes before the first weights, and all others. Rows in their own units, such as prices and dates, do not fit into half precision.

    Raises:
        TerminalError: There are no weights, or a node holds a graph of its own.
    """
    from_weights: set[str] = set()
    from_rows, early = {item.name for item in graph.input}, []
    for node in graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise TerminalError(
                f"'{node.op_type}' repeats or chooses graphs, which stay in single precision", hint=WITHOUT
            )
        from_rows.update(() if from_rows.isdisjoint(node.input) else node.output)
        if node.op_type in WEIGHTED or not from_weights.isdisjoint(node.input):
            from_weights.update(node.output)
        else:
            early.append(node)
    if not from_weights:
        raise TerminalError("nothing in this graph can be fp16: it has no weights", hint=WITHOUT)
    # What arranges weights, without a look at the rows, belongs to them.
    needed: set[str] = set()
    made: set[str] = set()
    for node in reversed(early):
        if not (from_rows | needed).isdisjoint(node.output):
            needed.update(node.input)
            made.update(node.output)
    first = [node for node in early if not made.isdisjoint(node.output)]
    return first, [node for node in graph.node if made.isdisjoint(node.output)]


def _in_order(nodes: Iterable[Any]) -> list[Any]:
    """The nodes, each after those it needs: the converter puts its own at the end."""
    waiting = list(nodes)
    missing = {name for node in waiting for name in node.output}
    found: list[Any] = []
    while waiting:
        later = []
        for node in waiting:
            if missing.isdisjoint(node.input):
                missing.difference_update(node.output)
                found.append(node)
            else:
                later.append(node)
        if len(later) == len(waiting):
            message = f"{len(later)} nodes need each other"
            raise ValueError(message)
        waiting = later
    return found


def _overflows(source: Path, half: Path, feeds: Sequence[Feed]) -> list[str]:
    """Operation and name of each inner value that is finite in the one graph and not in the other."""
    import onnx

    models = [onnx.load(path) for path in (source, half)]
    makers = [{name: node.op_type for node in model.graph.node for name in node.output if name} for model in models]
    users: dict[str, set[str]] = {}
    for node in models[1].graph.node:
        for name in node.input:
            users.setdefault(name, set()).add(node.op_type)
    names = [name for name in makers[0] if name in makers[1]]
    sessions = []
    for model, path in zip(models, (source, half), strict=True):
        known = {item.name for item in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
        place = half.with_name(f"{path.stem}.inside.onnx")
        place.write_bytes(model.SerializeToString())
        sessions.append(open_session(place, threads=1))
        place.unlink()
    found: dict[str, str] = {}
    for feed in feeds:
        for name, whole, small in zip(names, *(session.run(names, feed) for session in sessions), strict=True):
            if small.dtype == np.float16 and _lost(whole, small, bounded=users.get(name, {""}) <= BOUNDING):
                found[name] = f"{makers[0][name]} '{name}'"
    return [found[name] for name in names if name in found]


def _lost(whole: NDArray[Any], small: NDArray[Any], *, bounded: bool) -> bool:
    """Whether a finite number has become none that serves as well."""
    told = small[np.isfinite(whole)]
    return bool(np.isnan(told).any() if bounded else not np.isfinite(told).all())
