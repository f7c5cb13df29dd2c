"""A packaged model on this machine: open the folder, run its ONNX graph on images.

Everything that scores a model (parity, evaluation, monitoring references) goes through here, so that all of them mean the
same graph run in the same way.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import StateError, TerminalError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

MODEL = "model.onnx"
SIGNATURE = "signature.json"
TRAIN_CONTENT = "train_content.txt"
INPUT = "image"
OUTPUTS = ("probabilities", "embedding")
BATCH = 256  # images in one call; large enough to keep one or two cores busy, small enough for any image here
THREADS = 2
SUM_TOLERANCE = 1e-3
IMAGE_AXES = 4  # batch, height, width, channels


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a model answered.

    Attributes:
        probabilities: float32 [N, K]; rows that are no distribution stay as they are, see ``invalid_rows``.
        embedding: float32 [N, D].
    """

    probabilities: NDArray[np.float32]
    embedding: NDArray[np.float32]


class PackagedModel:
    """A package folder opened for scoring.

    Args:
        folder: Output of ``package``.
        threads: Threads inside one operator.

    Raises:
        StateError: The folder is incomplete or its graph cannot be loaded.
    """

    def __init__(self, folder: Path, *, threads: int = THREADS) -> None:
        self.folder = folder
        self.signature = _signature(folder)
        self.labels: list[str] = [str(label) for label in self.signature["labels"]]
        height, width, channels = (int(size) for size in self.signature["inputs"][0]["shape"][1:])
        self.image_shape = (height, width, channels)
        self._session = open_session(folder / MODEL, threads=threads)

    def score(self, images: NDArray[np.uint8]) -> Scores:
        """Probabilities and embeddings of images uint8 [N, H, W, C].

        Raises:
            TerminalError: The images have another type or shape than the model takes.
        """
        self.require_shape(images.shape[1:], images.dtype)
        outputs = [run_session(self._session, images[at : at + BATCH]) for at in range(0, max(len(images), 1), BATCH)]
        probabilities, embedding = (np.concatenate([output[name] for output in outputs]) for name in OUTPUTS)
        return Scores(probabilities=probabilities, embedding=embedding)

    def require_shape(self, shape: Sequence[int], dtype: Any = np.uint8) -> None:
        """Refuse images that the model cannot take, before anything is computed.

        Raises:
            TerminalError: Type or shape differ.
        """
        if tuple(shape) == self.image_shape and np.dtype(dtype) == np.uint8:
            return
        raise TerminalError(
            f"model '{self.folder.name}' takes uint8 images {list(self.image_shape)} (height, width, channels), "
            f"but these are {np.dtype(dtype)} {list(shape)}",
            hint="set data.image_size and data.channels to what the model was trained on, or train it anew",
            expected=list(self.image_shape),
            observed=list(shape),
        )

    def train_content(self) -> frozenset[str]:
        """sha256 of the pixels of every row the model was trained on.

        Raises:
            StateError: The package lacks the list.
        """
        path = self.folder / TRAIN_CONTENT
        if not path.is_file():
            raise _incomplete(self.folder, TRAIN_CONTENT)
        return frozenset(path.read_text(encoding="utf-8").split())


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
    except _load_failures() as error:
        raise StateError(
            f"'{path}' cannot be loaded as an ONNX model: {str(error).splitlines()[0]}",
            hint="package the checkpoint again: kfloop run --force",
        ) from error


def _load_failures() -> tuple[type[Exception], ...]:
    """What onnxruntime raises for a file it cannot load; its errors share no base but ``Exception``."""
    from onnxruntime.capi import onnxruntime_pybind11_state as failures

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")
    return (*(getattr(failures, name) for name in names), ValueError)


def run_session(session: Any, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """The named outputs of one call on images uint8 [B, H, W, C]."""
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), {INPUT: np.ascontiguousarray(images)}), strict=True))


def _signature(folder: Path) -> dict[str, Any]:
    path = folder / SIGNATURE
    if not path.is_file():
        raise _incomplete(folder, SIGNATURE)
    try:
        signature = json.loads(path.read_text(encoding="utf-8"))
        if len(signature["inputs"][0]["shape"]) == IMAGE_AXES and signature["labels"]:
            return dict(signature)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise StateError(f"'{path}' is damaged: {error!r}", hint="package the checkpoint again") from error
    raise StateError(f"'{path}' does not describe one image input and its labels", hint="package the checkpoint again")


def _incomplete(folder: Path, name: str) -> StateError:
    return StateError(
        f"the package '{folder}' has no {name}",
        hint="bring the store back from a backup, or package the checkpoint again: kfloop run --force",
    )
