"""A packaged model on this machine: open the folder, encode rows as it wants them, run its ONNX graph.

Everything that scores a model (parity, evaluation, monitoring references) goes through here, so that all of them mean the
same graph run in the same way. A model behind somebody else's endpoint has the same folder without a graph, and is asked.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.external import DESCRIPTION
from kfloop.core.external_client import ExternalSession
from kfloop.core.signature import MEND, read_signature
from kfloop.errors import StateError, TerminalError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.core.encoding import Encoder, Examples
    from kfloop.core.signature import Signature

    Arrays = tuple[NDArray[Any], ...]
    Outputs = dict[str, NDArray[Any]]

MODEL = "model.onnx"
EXTERNAL = DESCRIPTION  # instead of a graph
ENCODER = "encoder.json"
GOLDEN = "golden.npz"
TRAIN_CONTENT = "train_content.txt"
REVIEW = (
    "review.json"  # confidence below which a person should look, for each class; a package without it flags nothing
)
BATCH = 256  # examples in one call; large enough to keep one or two cores busy, small enough for any example here
THREADS = 2
SUM_TOLERANCE = 1e-3


class PackagedModel:
    """A package folder opened for scoring; ``external`` is the endpoint of a model that somebody else serves, null for one that runs here.

    Args:
        folder: Output of ``package``.
        threads: Threads inside one operator.

    Raises:
        StateError: The folder is incomplete, of an old format, or its graph cannot be loaded.
    """

    def __init__(self, folder: Path, *, threads: int = THREADS) -> None:
        self.folder = folder
        self.signature: Signature = read_signature(folder)
        self.labels: list[str] = list(self.signature.labels)
        self.encoder: Encoder = read_encoder(folder)
        self.external: ExternalSession | None = None
        if (folder / EXTERNAL).is_file():
            self._session: Any = ExternalSession(folder)
            self.external = self._session
            return
        self._session = open_session(folder / MODEL, threads=threads)
        told = ([port.name for port in self.signature.inputs], [port.name for port in self.signature.outputs])
        found = ([item.name for item in self._session.get_inputs()], [o.name for o in self._session.get_outputs()])
        if told != found:
            raise StateError(
                f"the graph in '{folder}' takes and gives {found}, but its signature says {told}",
                hint=MEND,
            )

    def run(self, inputs: Sequence[NDArray[Any]]) -> Outputs:
        """Outputs by name for tensors in the order of the signature; large batches are run in parts.

        Raises:
            TerminalError: The tensors have other types or shapes than the model takes, or the graph fails on them.
        """
        problem = misfit(inputs, self.signature)
        if problem:
            raise TerminalError(
                f"model '{self.folder.name}' {problem}",
                hint="give it rows like those it was trained on (for images: data.image_size, data.channels), "
                "or train it anew",
            )
        if not self.signature.batched:
            return run_session(self._session, self.signature, inputs)
        parts = [
            run_session(self._session, self.signature, [array[at : at + BATCH] for array in inputs])
            for at in range(0, len(inputs[0]), BATCH)
        ]
        if not parts:
            return self._nothing()
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def score(self, examples: Examples) -> Outputs:
        """Outputs by name, with one entry for each example.

        Args:
            examples: Rows that this model's own encoder has encoded.

        Raises:
            TerminalError: The examples were encoded for another model.
        """
        # Every part of a graph's nodes needs the whole graph: one call answers for all of them.
        step = max(1, len(examples)) if self.signature.modality == "nodes" else BATCH
        parts = []
        if not len(examples):
            return self._nothing()
        for start in range(0, len(examples), step):
            rows = np.arange(start, min(start + step, len(examples)))
            outputs = self.run(examples.batch_inputs(rows))
            places = examples.batch_rows(rows)
            parts.append({name: array[places] for name, array in outputs.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _nothing(self) -> Outputs:
        """The outputs for no examples; a network need not be able to run on none."""
        first = 0 if self.signature.batched else 1
        return {
            port.name: np.empty((0, *(max(size, 0) for size in port.shape[first:])), dtype=port.dtype)
            for port in self.signature.outputs
        }

    def train_content(self) -> frozenset[str] | None:
        """Content hash of every row the model was trained on; null where nobody knows (an external model that nobody vouches for).

        Raises:
            StateError: The package lacks the list.
        """
        path = self.folder / TRAIN_CONTENT
        if self.external is not None and not path.is_file():
            return None
        if not path.is_file():
            raise _incomplete(self.folder, TRAIN_CONTENT)
        return frozenset(path.read_text(encoding="utf-8").split())


def read_encoder(folder: Path) -> Encoder:
    """The encoder of a package, or of a version in a model repository.

    Raises:
        StateError: It is missing or damaged.
    """
    from kfloop.core.encoding import restore_encoder

    path = folder / ENCODER
    if not path.is_file():
        raise _incomplete(folder, ENCODER)
    try:
        return restore_encoder(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise StateError(f"'{path}' is damaged: {error!r}", hint=MEND) from error


def misfit(inputs: Sequence[NDArray[Any]], signature: Signature) -> str:
    """What is wrong with tensors for a model, as the end of a sentence; empty when they fit."""
    ports = signature.inputs
    if len(inputs) != len(ports):
        names = ", ".join(port.name for port in ports)
        return f"takes {len(ports)} tensor(s) ({names}), but {len(inputs)} were given"
    for array, port in zip(inputs, ports, strict=True):
        shape = array.shape[1:] if signature.batched else array.shape
        whole = not signature.batched or array.ndim == len(port.shape) + 1
        if str(array.dtype) != port.dtype or not whole or not _fits(shape, port.shape):
            each = " for each example" if signature.batched else ""
            seen = f"{list(shape)}{each}" if whole else f"{list(array.shape)} in all"
            return (
                f"takes '{port.name}' as {port.dtype} {list(port.shape)}{each} (-1: any length), "
                f"but this is {array.dtype} {seen}"
            )
    counts = {port.name: len(array) for array, port in zip(inputs, ports, strict=True)} if signature.batched else {}
    return f"takes tensors of one length, but these have {counts} rows" if len(set(counts.values())) > 1 else ""


def unit_of(name: str, expected: NDArray[Any]) -> float:
    """In which unit differences of an output are measured, so that one tolerance serves prices, pixels and errors alike.

    1 for probabilities; for everything else the largest magnitude that is expected, for embeddings at least 1.
    """
    if name == "probabilities":
        return 1.0
    largest = float(np.max(np.abs(expected.astype(np.float64)), initial=0.0))
    return max(1.0, largest) if name == "embedding" else largest or 1.0


def difference(expected: NDArray[Any], found: NDArray[Any], unit: float = 1.0) -> float:
    """Largest difference over ``unit``; infinite for nothing, another shape, or numbers that are not finite, on either side."""
    if not expected.size or expected.shape != found.shape:
        return float("inf")
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        return float("inf")
    return float(np.max(np.abs(expected.astype(np.float64) - found))) / unit


def invalid_rows(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Rows of [N, K] that are no probability distribution: not finite, negative, or not summing to 1; bool [N]."""
    finite = np.isfinite(probabilities).all(axis=1)
    sums = np.where(
        finite, np.where(np.isfinite(probabilities), probabilities, 0).sum(axis=1, dtype=np.float64), np.nan
    )
    with np.errstate(invalid="ignore"):
        return np.asarray(~(finite & (probabilities >= 0).all(axis=1) & (np.abs(sums - 1) <= SUM_TOLERANCE)))


def open_session(path: Path, *, threads: int = THREADS) -> Any:
    """An onnxruntime session on the CPU, silent below errors.

    Raises:
        StateError: The file is missing or is no graph that onnxruntime can load.
    """
    import onnxruntime

    if not path.is_file():
        raise _incomplete(path.parent, path.name)
    onnxruntime.set_default_logger_severity(3)
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(threads, os.cpu_count() or 1)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except _failures() as error:
        raise StateError(
            f"'{path}' cannot be loaded as an ONNX model: {str(error).splitlines()[0]}",
            hint=MEND,
        ) from error


def run_session(session: Any, signature: Signature, inputs: Sequence[NDArray[Any]]) -> Outputs:
    """The named outputs of one call.

    Raises:
        TerminalError: The graph fails on these inputs.
    """
    names = [port.name for port in signature.outputs]
    feed = {port.name: np.ascontiguousarray(array) for port, array in zip(signature.inputs, inputs, strict=True)}
    try:
        return dict(zip(names, session.run(names, feed), strict=True))
    except _failures() as error:
        shapes = {name: list(array.shape) for name, array in feed.items()}
        raise TerminalError(f"the graph fails on inputs {shapes}: {str(error).splitlines()[0]}") from error


def _failures() -> tuple[type[Exception], ...]:
    """What onnxruntime raises; its errors share no base but ``Exception``."""
    from onnxruntime.capi import onnxruntime_pybind11_state as failures

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")
    return (*(getattr(failures, name) for name in names), failures.RuntimeException, ValueError)


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(want in {-1, size} for size, want in zip(shape, wanted, strict=True))


def _incomplete(folder: Path, name: str) -> StateError:
    return StateError(
        f"the package '{folder}' has no {name}",
        hint=MEND,
    )
