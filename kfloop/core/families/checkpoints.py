"""The checkpoint file ``model.ckpt``: a network's description and weights, loaded without running any code in it."""

from __future__ import annotations

import io
import pickle
import zipfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kfloop.core.encoding import restore_encoder
from kfloop.core.families import NetworkSpec, build_network
from kfloop.core.signature import Port
from kfloop.errors import StateError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from kfloop.core.encoding import Encoder

FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        spec: Description of the network.
        encoder: Turns rows into the network's inputs.
        network: The network, in evaluation mode on the CPU.
    """

    spec: NetworkSpec
    encoder: Encoder
    network: nn.Module


def save_checkpoint(path: Path, spec: NetworkSpec, encoder: Encoder, weights: dict[str, Any]) -> None:
    """Write a network's description, its encoder and its weights (a ``state_dict``) to ``path``."""
    import torch

    # Through a buffer: torch names the records after the file, and the bytes should not depend on where it lies.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "spec": plain_spec(spec), "encoder": encoder.plain(), "state_dict": weights}, buffer)
    path.write_bytes(buffer.getvalue())


def load_checkpoint(path: Path) -> Checkpoint:
    """The network stored at ``path``, in evaluation mode on the CPU, with its encoder.

    Raises:
        StateError: The file is missing, damaged, or not a kfloop checkpoint.
    """
    content = read_tensors(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise StateError(
            f"'{path}' is not a kfloop checkpoint of format {FORMAT}",
            hint="train again with this version of kfloop: kfloop run --force",
        )
    spec = restore_spec(content["spec"])
    network = build_network(spec)
    try:
        network.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise StateError(
            f"the weights in '{path}' do not fit a '{spec.family}' for {[port.shape for port in spec.inputs]}: {error}",
            hint="train again with this version of kfloop: kfloop run --force",
        ) from error
    return Checkpoint(spec=spec, encoder=restore_encoder(content["encoder"]), network=network.eval())


def read_tensors(path: Path) -> Any:
    """Content of a torch file, after a check of every record's CRC; pickled code is refused.

    Raises:
        OSError: The file is there, and the disk or the share does not give it at this moment.
        StateError: The file is missing, damaged, or holds more than tensors and plain values.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise StateError(f"'{path}' is damaged at record '{damaged}'", hint="train again: kfloop run --force")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        FileNotFoundError,
        EOFError,
        RuntimeError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
    ) as error:
        raise StateError(
            f"'{path}' cannot be read as a checkpoint: {str(error).splitlines()[0] if str(error) else error!r}",
            hint="train again: kfloop run --force",
        ) from error


def plain_spec(spec: NetworkSpec) -> dict[str, Any]:
    """A spec as plain values, for a file that is loaded without pickled code."""
    found = asdict(spec)
    found["inputs"] = [port | {"shape": list(port["shape"])} for port in found["inputs"]]
    return found | {"labels": list(spec.labels), "target_shape": list(spec.target_shape)}


def restore_spec(plain: dict[str, Any]) -> NetworkSpec:
    """The spec that ``plain_spec`` described."""
    ports = tuple(Port(**(port | {"shape": tuple(port["shape"])})) for port in plain["inputs"])
    told = {"inputs": ports, "labels": tuple(plain["labels"]), "target_shape": tuple(plain["target_shape"])}
    return NetworkSpec(**(plain | told))
