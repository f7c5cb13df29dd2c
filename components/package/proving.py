"""The proof that an exported graph answers like torch, on real examples of several sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.scoring import difference, open_session, run_session, unit_of
from kfloop.core.signature import OUTPUTS
from kfloop.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from kfloop.core.encoding import Examples
    from kfloop.core.families import NetworkSpec
    from kfloop.core.signature import Signature

    Arrays = tuple[NDArray[Any], ...]

BATCH_SIZES = (1, 2, 7, 32)  # the traced example has another size: exports were seen that are right at one size alone
TRACED = 3  # examples the network is traced with
GOLDEN_ROWS = 16
GOLDEN_NODES = 48  # of the part of a graph that is a golden request: a health check should not send a whole graph
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Largest difference between torch and the graph for one output at one batch size.

    Attributes:
        output: Name of the output.
        batch_size: Answers in the call.
        max_abs_diff: Largest difference, in the unit of ``kfloop.core.scoring.unit_of``.
    """

    output: str
    batch_size: int
    max_abs_diff: float


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Inputs that a graph is made and judged with.

    Attributes:
        traced: What the network is traced with.
        golden: What a server is asked, and whose answers travel with the package.
        proofs: What torch and the graph must agree on, smallest first.
    """

    traced: Arrays
    golden: Arrays
    proofs: tuple[Arrays, ...]


def trials_of(spec: NetworkSpec, examples: Examples, max_batch_size: int) -> Trials:
    """Real test examples, one of each class first, so that the golden answers cover the classes.

    Generators are tried on seeded noise and all their classes; nodes on the whole graph and on parts of it.

    Args:
        spec: What the network is.
        examples: Encoded test rows.
        max_batch_size: Most examples that a server takes in one request; a golden request has no more.

    Raises:
        TerminalError: There are no examples.
    """
    golden_rows = min(GOLDEN_ROWS, max_batch_size)
    if spec.objective == "generation":
        return Trials(
            traced=_drawn(spec, TRACED),
            golden=_drawn(spec, golden_rows),
            proofs=tuple(_drawn(spec, size) for size in BATCH_SIZES),
        )
    if not len(examples):
        raise TerminalError(
            "the test split has no examples, but the export is proven on real ones",
            hint="add examples, or raise data.split.test",
        )
    order = _classes_first(examples)
    if spec.modality == "nodes":
        node, edges = examples.batch_inputs(order)
        places = examples.batch_rows(order)
        parts = tuple(_part(node, edges, places, count) for count in (GOLDEN_NODES, 4 * GOLDEN_NODES))
        traced = (parts[0][0], parts[0][1] if parts[0][1].shape[1] > 1 else np.zeros((2, TRACED), dtype=np.int64))
        return Trials(traced=traced, golden=parts[0], proofs=(*parts, (node, edges)))
    return Trials(
        traced=examples.batch_inputs(order[np.arange(TRACED) % len(order)]),
        golden=examples.batch_inputs(order[:golden_rows]),
        proofs=tuple(examples.batch_inputs(order[np.arange(size) % len(order)]) for size in BATCH_SIZES),
    )


def check_parity(
    served: nn.Module, path: Path, signature: Signature, proofs: Sequence[Arrays], tolerance: float
) -> list[Parity]:
    """Compare torch with onnxruntime.

    Args:
        served: Network as it is served, in evaluation mode.
        path: The exported graph.
        signature: Its inputs and outputs.
        proofs: Inputs of each call, the largest last.
        tolerance: Largest allowed difference, in the unit of ``kfloop.core.scoring.unit_of``.

    Raises:
        TerminalError: An output differs by more, is not finite, or has another shape.
    """
    session = open_session(path, threads=1)
    expected = [eager(served, signature.objective, inputs) for inputs in proofs]
    units = {port.name: unit_of(port.name, expected[-1][port.name]) for port in signature.outputs}
    rows = []
    for inputs, right in zip(proofs, expected, strict=True):
        size = len(right[signature.answer])
        try:
            observed = run_session(session, signature, inputs)
        except TerminalError as error:
            raise TerminalError(
                f"{error.message} (batch size {size})",
                hint="the network fixes a size somewhere: use shapes of its inputs instead of constants",
                batch_size=size,
            ) from error
        for name, unit in units.items():
            found = difference(right[name], observed[name], unit)
            rows.append(Parity(output=name, batch_size=size, max_abs_diff=found))
            if not found <= tolerance:
                raise TerminalError(
                    f"ONNX output '{name}' differs from torch by {found:.3g} at batch size {size}, "
                    f"tolerance {tolerance:.3g}",
                    hint="the export is wrong: replace the operation behind it (scatter_reduce 'mean' is a known one)",
                    output=name,
                    batch_size=size,
                    difference=found if np.isfinite(found) else None,
                )
    return rows


def eager(served: nn.Module, objective: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Torch's own answers."""
    import torch

    with torch.inference_mode():
        outputs = served.eval()(*(torch.from_numpy(array.copy()) for array in inputs))
    return {name: output.numpy() for name, output in zip(OUTPUTS[objective], outputs, strict=True)}


def _classes_first(examples: Examples) -> NDArray[np.int64]:
    """All rows, one of each class first; in their own order where there are no classes."""
    every = np.arange(len(examples))
    if examples.target.ndim != 1 or not np.issubdtype(examples.target.dtype, np.integer):
        return every
    _, first = np.unique(examples.target, return_index=True)
    return np.concatenate([first, np.setdiff1d(every, first)])


def _drawn(spec: NetworkSpec, count: int) -> Arrays:
    """Inputs of a generator: the same noise in every process, the classes in turn."""
    rng = np.random.default_rng(SEED)
    noise = rng.standard_normal((count, *spec.inputs[0].shape)).astype(np.float32)
    return noise, np.arange(count) % len(spec.labels)


def _part(node: NDArray[Any], edges: NDArray[Any], first: NDArray[np.int64], count: int) -> Arrays:
    """The graph of some nodes and the edges among them: neighbours are taken in until there are ``count``."""
    inside = np.zeros(len(node), dtype=bool)
    inside[first[:1]] = True
    for start in first:
        if inside.sum() >= count:
            break
        inside[start] = True
        reached = edges[1][np.isin(edges[0], start)]
        inside[reached[: max(0, count - int(inside.sum()))]] = True
    kept = np.flatnonzero(inside)
    number = np.full(len(node), -1)
    number[kept] = np.arange(len(kept))
    among = inside[edges[0]] & inside[edges[1]]
    return node[kept], np.ascontiguousarray(number[edges[:, among]])
