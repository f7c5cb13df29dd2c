"""The checkpoint file ``model.ckpt``: a network's description and weights, loaded without running any code in it."""

from __future__ import annotations

import io
import pickle
import zipfile
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kfloop.core.families import NetworkSpec, build_network
from kfloop.errors import StateError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

FORMAT = 1


def save_checkpoint(path: Path, spec: NetworkSpec, weights: dict[str, Any]) -> None:
    """Write ``spec`` and ``weights`` (a ``state_dict``) to ``path``."""
    import torch

    # Through a buffer: torch names the records after the file, and the bytes should not depend on where it lies.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "spec": _plain(spec), "state_dict": weights}, buffer)
    path.write_bytes(buffer.getvalue())


def load_checkpoint(path: Path) -> tuple[NetworkSpec, nn.Module]:
    """The network stored at ``path``, in evaluation mode on the CPU.

    Raises:
        StateError: The file is missing, damaged, or not a kfloop checkpoint.
    """
    content = read_tensors(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise StateError(
            f"'{path}' is not a kfloop checkpoint of format {FORMAT}",
            hint="train again with this version of kfloop: kfloop run --force",
        )
    fields: dict[str, Any] = content["spec"]
    plain: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in fields.items()}
    spec = NetworkSpec(**plain)
    network = build_network(spec)
    try:
        network.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise StateError(
            f"the weights in '{path}' do not fit a '{spec.family}' for images {spec.image_shape}: {error}",
            hint="train again with this version of kfloop: kfloop run --force",
        ) from error
    return spec, network.eval()


def read_tensors(path: Path) -> Any:
    """Content of a torch file, after a check of every record's CRC; pickled code is refused.

    Raises:
        StateError: The file is missing, damaged, or holds more than tensors and plain values.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise StateError(f"'{path}' is damaged at record '{damaged}'", hint="train again: kfloop run --force")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise StateError(
            f"'{path}' cannot be read as a checkpoint: {str(error).splitlines()[0] if str(error) else error!r}",
            hint="train again: kfloop run --force",
        ) from error


def _plain(spec: NetworkSpec) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(spec).items()}
