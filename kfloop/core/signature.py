"""What a packaged model takes and gives, as every step and the server read it from ``signature.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kfloop.errors import StateError

if TYPE_CHECKING:
    from pathlib import Path

SIGNATURE = "signature.json"
FORMAT = 2  # 1 held one image input, and nothing else was possible
# A step whose result is in the store is not repeated, --force or not: only what was removed is made again.
MEND = (
    "bring it back from a backup; a challenger's package is made again by removing its folder and: kfloop run --force"
)
OLD = (
    "a challenger of an older kfloop is packaged again by: kfloop run; a champion is never changed, so start a new loop "
    "under another name"
)

# Names of a model's outputs; the first is its answer, and every other is about the example alone.
OUTPUTS = {
    "classification": ("probabilities", "embedding"),
    "multilabel": ("probabilities", "embedding"),
    "regression": ("prediction", "embedding"),
    "forecasting": ("forecast", "embedding"),
    "anomaly": ("score", "embedding"),
    "generation": ("sample",),
}
OBJECTIVES = tuple(OUTPUTS)


@dataclass(frozen=True, kw_only=True)
class Port:
    """One tensor that goes into a model or comes out of it.

    Attributes:
        name: Its name.
        dtype: NumPy's name of its type, such as ``float32``.
        shape: Its axes; -1 is any length. Without the batch axis where the model answers in batches.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a model takes and gives.

    Attributes:
        objective: What is learned, one of ``OBJECTIVES``.
        modality: What an example is.
        family: Model family.
        inputs: Tensors in the order of the network's arguments.
        outputs: Tensors in the order of ``OUTPUTS[objective]``.
        labels: Class names by index; empty without classes.
        max_batch_size: Most examples in one request; 0 for models whose inputs have no common batch axis (graphs).
    """

    objective: str
    modality: str
    family: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    labels: tuple[str, ...]
    max_batch_size: int

    @property
    def batched(self) -> bool:
        """Whether all inputs and outputs share a first axis, one entry for each example."""
        return self.max_batch_size > 0

    @property
    def answer(self) -> str:
        """Name of the output that is the model's answer."""
        return OUTPUTS[self.objective][0]


def write_signature(folder: Path, signature: Signature) -> None:
    """Write ``signature.json``."""
    text = json.dumps({"format": FORMAT} | asdict(signature), indent=1, sort_keys=True)
    (folder / SIGNATURE).write_text(text + "\n", encoding="utf-8")


def read_signature(folder: Path) -> Signature:
    """The signature of a package or of a version in a model repository.

    Raises:
        StateError: It is missing, damaged or of another format.
    """
    path = folder / SIGNATURE
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StateError(f"the package '{folder}' has no {SIGNATURE}", hint=MEND) from error
    except (OSError, ValueError) as error:
        raise StateError(f"'{path}' is damaged: {error}", hint=MEND) from error
    try:
        found = raw["format"]
        if found != FORMAT:
            raise StateError(f"'{path}' has format {found!r}, this kfloop reads {FORMAT}", hint=OLD)
        signature = Signature(
            objective=str(raw["objective"]),
            modality=str(raw["modality"]),
            family=str(raw["family"]),
            inputs=tuple(_port(item) for item in raw["inputs"]),
            outputs=tuple(_port(item) for item in raw["outputs"]),
            labels=tuple(str(label) for label in raw["labels"]),
            max_batch_size=int(raw["max_batch_size"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateError(f"'{path}' is damaged: {error!r}", hint=MEND) from error
    named = tuple(port.name for port in signature.outputs)
    if not signature.inputs or signature.max_batch_size < 0 or named != OUTPUTS.get(signature.objective):
        raise StateError(
            f"'{path}' describes no model: inputs {len(signature.inputs)}, objective '{signature.objective}', "
            f"outputs {list(named)}, max_batch_size {signature.max_batch_size}",
            hint=MEND,
        )
    return signature


def _port(raw: dict[str, Any]) -> Port:
    return Port(name=str(raw["name"]), dtype=str(raw["dtype"]), shape=tuple(int(size) for size in raw["shape"]))
