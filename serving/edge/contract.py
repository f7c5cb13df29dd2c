"""What the served model takes, as the edge holds requests against it: read from the repository, anew when a deployment changed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.core.signature import read_signature
from kfloop.errors import KfloopError
from kfloop.serving.repository import CONFIG, policy_path, served

if TYPE_CHECKING:
    from pathlib import Path

NUMPY = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
GAPS = frozenset({"table", "vector"})  # where NaN stands for a missing number; every other encoder leaves none in


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor that a request may hold.

    Attributes:
        name: Its name.
        datatype: Its type in the words of the protocol, such as ``FP32``.
        shape: Its axes without that of the examples; -1 is any length.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What one model takes and gives.

    Attributes:
        model: Its name.
        inputs: Its inputs by name.
        forms: Sets of names that make a complete request: the tensors, or what they are made of.
        outputs: Names of its outputs.
        limit: Most examples in a request; 0 where inputs share no axis of examples.
        gaps: Whether NaN is allowed.
    """

    model: str
    inputs: dict[str, Tensor]
    forms: tuple[frozenset[str], ...]
    outputs: frozenset[str]
    limit: int
    gaps: bool

    def expected(self, name: str) -> str:
        """Type and shape of an input, for messages."""
        tensor = self.inputs[name]
        axes = [*(["n"] if self.limit else []), *map(str, tensor.shape)]
        return f"{tensor.datatype} [{', '.join(axes)}]"


class Contracts:
    """The contract of one model, read again when its files changed.

    Args:
        repository: Triton's model repository.
        model: Name of the model; there is no other on the edge.
        missing: As ``serve.edge.missing``.
    """

    def __init__(self, repository: Path, model: str, missing: str) -> None:
        self._repository, self._model, self._missing = repository, model, missing
        self._stamp: tuple[int, ...] = ()
        self._contract: Contract | None = None

    def get(self) -> Contract | None:
        """The contract; null while nothing is served."""
        try:
            watched = (self._repository / self._model / CONFIG, policy_path(self._repository, self._model))
            stamp = tuple(path.stat().st_mtime_ns for path in watched)
            if stamp != self._stamp:
                self._contract = read_contract(self._repository, self._model, self._missing)
                self._stamp = stamp
        except (OSError, ValueError, KfloopError):  # nothing was promoted yet, or a deployment is at it just now
            return self._contract
        return self._contract


def read_contract(repository: Path, model: str, missing: str) -> Contract | None:
    """The contract of a model's default version; null while there is none.

    Raises:
        KfloopError: Its signature cannot be read.
        ValueError: Its configuration cannot be read.
    """
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as schema

    default, _ = served(repository, model)
    if default is None:
        return None
    config: Any = schema.ModelConfig()
    try:
        text_format.Parse((repository / model / CONFIG).read_text(encoding="utf-8"), config)
    except text_format.ParseError as error:
        raise ValueError(str(error)) from error
    signature = read_signature(repository / model / str(default))
    inputs = {
        port.name: Tensor(
            name=port.name,
            datatype=schema.DataType.Name(port.data_type).removeprefix("TYPE_").replace("STRING", "BYTES"),
            shape=tuple(port.dims),
        )
        for port in config.input
    }
    tensors = frozenset(port.name for port in signature.inputs)
    others = frozenset(inputs) - tensors
    return Contract(
        model=model,
        inputs=inputs,
        forms=tuple(form for form in (tensors, others) if form),
        outputs=frozenset(port.name for port in config.output),
        limit=int(config.max_batch_size),
        gaps=missing == "allow" or (missing == "auto" and signature.modality in GAPS),
    )
