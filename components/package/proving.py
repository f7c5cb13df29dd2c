"""The proof that an exported graph answers like torch, on real examples of several sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.scoring import difference, open_session, run_session, unit_of
from kfloop.core.signature import OUTPUTS
from kfloop.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from kfloop.core.encoding import Examples
    from kfloop.core.families import NetworkSpec
    from kfloop.core.signature import Port, Signature

    Arrays = tuple[NDArray[Any], ...]
    Outputs = dict[str, NDArray[Any]]

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
    order = classes_first(examples)
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
        TerminalError: An output differs by more, is not finite, or has another shape or type; or torch itself has no one answer for an
            example: it draws random numbers, or answers by what else is in the batch.
    """
    session = open_session(path, threads=1)
    expected = [eager(served, signature.objective, inputs) for inputs in proofs]
    units = {port.name: unit_of(port.name, expected[-1][port.name]) for port in signature.outputs}
    again = eager(served, signature.objective, proofs[0])
    for port in signature.outputs:
        _check_answers(port, expected)
        _check_repeated(port.name, expected[0], again, units[port.name], tolerance)
        if signature.batched:
            _check_alone(port.name, proofs, expected, units[port.name], tolerance)
    rows = []
    for row in compare(session, signature, proofs, expected):
        rows.append(row)
        if not row.max_abs_diff <= tolerance:
            raise TerminalError(
                f"ONNX output '{row.output}' differs from torch by {row.max_abs_diff:.3g} at batch size {row.batch_size}, "
                f"tolerance {tolerance:.3g}",
                hint="the export is wrong: replace the operation behind it (scatter_reduce 'mean' is a known one)",
                output=row.output,
                batch_size=row.batch_size,
                difference=row.max_abs_diff if np.isfinite(row.max_abs_diff) else None,
            )
    return rows


def compare(
    session: Any, signature: Signature, proofs: Sequence[Arrays], expected: Sequence[Outputs]
) -> Iterator[Parity]:
    """The difference between a graph and torch's answers, for each call and output.

    Args:
        session: The graph, opened.
        signature: Its inputs and outputs.
        proofs: Inputs of each call, the largest last.
        expected: Torch's answers to them (``eager``).

    Raises:
        TerminalError: The graph fails on inputs of a size.
    """
    units = {port.name: unit_of(port.name, expected[-1][port.name]) for port in signature.outputs}
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
            yield Parity(output=name, batch_size=size, max_abs_diff=difference(right[name], observed[name], unit))


def eager(served: nn.Module, objective: str, inputs: Arrays) -> Outputs:
    """Torch's own answers."""
    import torch

    try:
        with torch.inference_mode():
            outputs = served.eval()(*(torch.from_numpy(array.copy()) for array in inputs))
    except (RuntimeError, ValueError, IndexError) as error:
        shapes = ", ".join(str(list(array.shape)) for array in inputs)
        raise TerminalError(
            f"the network itself fails on inputs of shape {shapes}: {str(error).splitlines()[0]}",
            hint="it must take any number of examples, one alone too: no fixed batch size, no statistics of the batch",
        ) from error
    return {name: output.numpy() for name, output in zip(OUTPUTS[objective], outputs, strict=True)}


def _check_answers(port: Port, expected: Sequence[dict[str, NDArray[Any]]]) -> None:
    """Refuse answers that are not finite, or of another type than the signature tells: a server passes them on as they are."""
    for found in (answers[port.name] for answers in expected):
        if str(found.dtype) != port.dtype:
            raise TerminalError(
                f"torch's output '{port.name}' is {found.dtype}, the signature says {port.dtype}",
                hint="a constant in double precision makes all that follows double: cast it with .float()",
                output=port.name,
            )
        if not np.isfinite(found).all():
            rows = len({int(row) for row in np.argwhere(~np.isfinite(found))[:, 0]})
            raise TerminalError(
                f"torch's output '{port.name}' is not finite in {rows} of {len(found)} answers to real test examples",
                hint="look for a division by zero or a logarithm of nothing in the network, or for a training that diverged",
                output=port.name,
                batch_size=len(found),
            )


def _check_repeated(
    name: str, once: dict[str, NDArray[Any]], again: dict[str, NDArray[Any]], unit: float, tolerance: float
) -> None:
    """Refuse a network that answers the same inputs differently the second time."""
    found = difference(once[name], again[name], unit)
    if not found <= tolerance:
        raise TerminalError(
            f"torch's output '{name}' is another one when the same examples are asked again: it differs by {found:.3g}",
            hint="dropout that is on in evaluation mode, other random numbers, or a network that changes itself when it is asked: "
            "switch them off in evaluation mode, or make the noise an input",
            output=name,
            difference=found if np.isfinite(found) else None,
        )


def _check_alone(
    name: str, proofs: Sequence[Arrays], expected: Sequence[dict[str, NDArray[Any]]], unit: float, tolerance: float
) -> None:
    """Refuse answers that depend on the batch: a server puts requests of strangers into one."""
    together = expected[-1][name]
    for inputs, alone in zip(proofs[:-1], expected, strict=False):
        size = len(alone[name])
        same = all(np.array_equal(part, whole[:size]) for part, whole in zip(inputs, proofs[-1], strict=True))
        if not same:  # padded to another length, for one
            continue
        found = difference(together[:size], alone[name], unit)
        if not found <= tolerance:
            raise TerminalError(
                f"torch's output '{name}' of the same {size} example(s) differs by {found:.3g} when others are in the batch "
                f"({len(together)} together)",
                hint="no answer may depend on its neighbours: batch statistics (batch norm in training mode, a mean over the batch) "
                "or the size of the batch are in it",
                output=name,
                batch_size=size,
                difference=found if np.isfinite(found) else None,
            )


def classes_first(examples: Examples) -> NDArray[np.int64]:
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
