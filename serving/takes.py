"""What a served model takes and gives, from its signature or from what a server says of it, and its tensors on the way there and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import ServingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfloop.core.signature import Signature

    Inputs = np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]

BATCH = 16  # examples in a request where more are allowed
ANSWERED_BY = "served_version"  # output of a version whose process follows ``served.json``


@dataclass(frozen=True, kw_only=True)
class Takes:
    """What a model takes and gives, as far as a client has to know.

    Attributes:
        inputs: Names of the inputs, in their order.
        outputs: Names of the outputs to ask for.
        numbers: Inputs and outputs that are one number for each example: an axis of length 1 on the wire, none in NumPy.
        limit: Most examples in one request; 0 where inputs share no axis of examples.
        tells_version: Whether the answer says which version it is of.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: frozenset[str]
    limit: int
    tells_version: bool = False

    @property
    def asked(self) -> tuple[str, ...]:
        """Names of all outputs to ask for."""
        return self.outputs + ((ANSWERED_BY,) if self.tells_version else ())


def takes_of(signature: Signature, *, tells_version: bool = False) -> Takes:
    """What a model takes, from its signature."""
    ports = (*signature.inputs, *signature.outputs)
    return Takes(
        inputs=tuple(port.name for port in signature.inputs),
        outputs=tuple(port.name for port in signature.outputs),
        numbers=frozenset(port.name for port in ports if signature.batched and not port.shape),
        limit=signature.max_batch_size,
        tells_version=tells_version,
    )


def takes_of_metadata(told: Mapping[str, Any]) -> Takes:
    """What a model takes, from what a server says of it; how many examples a request may hold is not said."""
    ports = {
        side: [(port["name"], [int(size) for size in port["shape"]]) for port in told[side]]
        for side in ("inputs", "outputs")
    }
    every = [*ports["inputs"], *ports["outputs"]]
    batched = all(shape[:1] == [-1] for _, shape in every)
    names = [name for name, _ in ports["outputs"]]
    return Takes(
        inputs=tuple(name for name, _ in ports["inputs"]),
        outputs=tuple(name for name in names if name != ANSWERED_BY),
        numbers=frozenset(name for name, shape in every if batched and shape == [-1, 1]),
        limit=BATCH if batched else 0,
        tells_version=ANSWERED_BY in names,
    )


def by_name(names: Sequence[str], inputs: Inputs) -> dict[str, np.ndarray]:
    """Tensors by name.

    Raises:
        ServingError: They are more or fewer than the model takes.
    """
    if isinstance(inputs, Mapping):
        return dict(inputs)
    arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    if len(arrays) != len(names):
        raise ServingError(f"the model takes {len(names)} tensor(s) ({', '.join(names)}), but {len(arrays)} were given")
    return dict(zip(names, arrays, strict=True))


def on_the_wire(takes: Takes, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A number of an example is an axis of length 1 there: Triton knows no example without axes."""
    return {
        name: array.reshape(-1, 1) if name in takes.numbers and array.ndim == 1 else array
        for name, array in inputs.items()
    }


def answer(found: dict[str, Any], takes: Takes) -> dict[str, Any]:
    """The outputs as NumPy has them, and the version that answered."""
    empty = [name for name, value in found.items() if value is None]
    if empty:
        raise ServingError(f"Triton answered without {', '.join(empty)}")
    outputs = {name: found[name].reshape(-1) if name in takes.numbers else found[name] for name in takes.outputs}
    told = found[ANSWERED_BY].reshape(-1)[-1] if takes.tells_version else found["version"]
    return outputs | {"version": told}
