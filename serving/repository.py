"""Triton's model repository: version folders that appear complete or not at all, and a checked ``config.pbtxt``."""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import file_sha256
from kfloop.errors import ServingError, StateError

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGE_FILES = ("model.onnx", "signature.json", "golden.npz")
CONFIG = "config.pbtxt"
SERVED = "served.json"


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a model takes and gives: image shape (H, W, C), labels, embedding width, largest batch."""

    image_shape: tuple[int, int, int]
    labels: tuple[str, ...]
    embedding: int
    max_batch_size: int


def read_signature(folder: Path) -> Signature:
    """The signature of a package or version folder.

    Raises:
        ServingError: It is missing or malformed.
    """
    try:
        raw = json.loads((folder / "signature.json").read_text(encoding="utf-8"))
        shapes = {tensor["name"]: tensor["shape"] for tensor in [*raw["inputs"], *raw["outputs"]]}
        height, width, channels = (int(size) for size in shapes["image"][1:])
        return Signature(
            image_shape=(height, width, channels),
            labels=tuple(raw["labels"]),
            embedding=int(shapes["embedding"][1]),
            max_batch_size=int(raw["max_batch_size"]),
        )
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ServingError(
            f"'{folder}' has no usable signature.json: {error}", hint="package the model again"
        ) from error


def add_version(repository: Path, model: str, version: int, package: Path) -> Path:
    """Put a package into the repository as a version; repeating it with the same package does nothing.

    Raises:
        StateError: The version is there with other content.
    """
    place = repository / model / str(version)
    if place.is_dir():
        if file_sha256(place / "model.onnx") != file_sha256(package / "model.onnx"):
            raise StateError(
                f"version {version} of model '{model}' is in the repository with other content",
                hint="a version is never overwritten; register the model again to get a new number",
            )
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    for leftover in place.parent.glob(".tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    staging = place.with_name(f".tmp-{version}-{uuid.uuid4().hex[:8]}")
    staging.mkdir()
    for name in PACKAGE_FILES:
        shutil.copy2(package / name, staging / name)
    shutil.copy2(Path(__file__).parent / "model" / "model.py", staging / "model.py")
    staging.rename(place)
    return place


def set_versions(repository: Path, model: str, served: Sequence[int], default: int) -> None:
    """Say which versions the server holds, and which one answers.

    Writes ``config.pbtxt`` and ``served.json``, each by rename.

    Raises:
        ServingError: A version is not in the repository, or the configuration is invalid.
    """
    folder = repository / model
    missing = [version for version in served if not (folder / str(version)).is_dir()]
    if missing or default not in served:
        raise ServingError(f"model '{model}': versions {missing or [default]} are not in the repository '{repository}'")
    signature = read_signature(folder / str(default))
    _replace(folder / CONFIG, config_text(model, signature, served))
    _replace(folder / SERVED, json.dumps({"default": default, "versions": sorted(served)}))


def served(repository: Path, model: str) -> tuple[int | None, list[int]]:
    """Default version and all versions to hold; null and none before the first promotion."""
    path = repository / model / SERVED
    if not path.is_file():
        return None, []
    raw = json.loads(path.read_text(encoding="utf-8"))
    return int(raw["default"]), [int(version) for version in raw["versions"]]


def served_signature(repository: Path, model: str) -> Signature:
    """Signature of the version that answers.

    Raises:
        ServingError: No version is served.
    """
    default, _ = served(repository, model)
    if default is None:
        raise ServingError(f"model '{model}' has no served version yet", hint="promote one with: kfloop run")
    return read_signature(repository / model / str(default))


def config_text(model: str, signature: Signature, served_versions: Sequence[int]) -> str:
    """``config.pbtxt`` for the embedded server, built through Triton's own schema and read back as a check."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as schema

    config: Any = schema.ModelConfig(name=model, backend="python", max_batch_size=signature.max_batch_size)
    config.input.add(name="image", data_type=schema.TYPE_UINT8, dims=signature.image_shape)
    config.output.add(name="probabilities", data_type=schema.TYPE_FP32, dims=[len(signature.labels)])
    config.output.add(name="embedding", data_type=schema.TYPE_FP32, dims=[signature.embedding])
    config.instance_group.add(kind=schema.ModelInstanceGroup.KIND_CPU, count=1)
    # Dynamic batching without a queue policy: with timeouts in the queue, the batcher of 2.51 now and then misses that an instance is free
    # and holds requests back for its idle wait of half a second.
    config.dynamic_batching.SetInParent()
    config.version_policy.specific.versions.extend(sorted(served_versions))
    config.parameters["intra_op_threads"].string_value = "1"
    if (
        min(signature.image_shape) < 1
        or not signature.labels
        or signature.max_batch_size < 1
        or signature.embedding < 1
    ):
        raise ServingError(f"model '{model}' cannot be served with signature {signature}", hint="package it again")
    text = text_format.MessageToString(config)
    text_format.Parse(text, schema.ModelConfig())
    return str(text)


def _replace(path: Path, text: str) -> None:
    staging = path.with_name(f".{path.name}.tmp")
    staging.write_text(text, encoding="utf-8")
    staging.replace(path)
