"""Triton's model repository: version folders that appear complete or not at all, and a checked ``config.pbtxt``."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import file_sha256
from kfloop.core.scoring import ENCODER, GOLDEN, MODEL
from kfloop.core.signature import MEND, SIGNATURE, read_signature
from kfloop.errors import ServingError, StateError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kfloop.core.signature import Port, Signature

PACKAGE_FILES = (MODEL, SIGNATURE, ENCODER, GOLDEN)
CONFIG = "config.pbtxt"
SERVED = "served.json"
TRITON_TYPES = {
    "uint8": "TYPE_UINT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bool": "TYPE_BOOL",
}


def add_version(repository: Path, model: str, version: int, package: Path) -> Path:
    """Put a package into the repository as a version; repeating it with the same package does nothing.

    Raises:
        StateError: The version is there with other content, or a file of the package is missing.
    """
    place = repository / model / str(version)
    missing = [name for name in PACKAGE_FILES if not (package / name).is_file()]
    if missing:
        raise StateError(
            f"the package '{package}' has no {', '.join(missing)}",
            hint=MEND,
        )
    if place.is_dir():
        if file_sha256(place / MODEL) != file_sha256(package / MODEL):
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
        ServingError: A version is not in the repository, or the versions cannot be served side by side.
        StateError: The signature of a version cannot be read.
    """
    folder = repository / model
    missing = [version for version in served if not (folder / str(version)).is_dir()]
    if missing or default not in served:
        raise ServingError(f"model '{model}': versions {missing or [default]} are not in the repository '{repository}'")
    signatures = {version: read_signature(folder / str(version)) for version in served}
    _replace(folder / CONFIG, config_text(model, signatures))
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
        StateError: Its signature cannot be read.
    """
    default, _ = served(repository, model)
    if default is None:
        raise ServingError(f"model '{model}' has no served version yet", hint="promote one with: kfloop run")
    return read_signature(repository / model / str(default))


def config_text(model: str, signatures: Mapping[int, Signature]) -> str:
    """``config.pbtxt`` for the embedded server, built through Triton's own schema and read back as a check.

    Triton has one configuration for all versions of a model: an axis in which they differ may have any length there, and each
    version checks its own (``model/model.py``).

    Args:
        model: Name of the model.
        signatures: Signature of each version that is held.

    Raises:
        ServingError: The versions differ in more than the lengths of axes.
    """
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as schema

    every = list(signatures.values())
    config: Any = schema.ModelConfig(name=model, backend="python")
    config.max_batch_size = max(signature.max_batch_size for signature in every)
    if len({signature.batched for signature in every}) > 1:
        raise _unlike(model, signatures)
    for side in ("inputs", "outputs"):
        for ports in _side_by_side(model, signatures, side):
            _add_port(getattr(config, side.removesuffix("s")), ports, schema)
    config.instance_group.add(kind=schema.ModelInstanceGroup.KIND_CPU, count=1)
    if config.max_batch_size:
        # Dynamic batching without a queue policy: with timeouts in the queue, the batcher of 2.51 now and then misses that an instance
        # is free and holds requests back for its idle wait of half a second.
        config.dynamic_batching.SetInParent()
    config.version_policy.specific.versions.extend(sorted(signatures))
    config.parameters["intra_op_threads"].string_value = "1"
    text = text_format.MessageToString(config)
    text_format.Parse(text, schema.ModelConfig())
    return str(text)


def _side_by_side(model: str, signatures: Mapping[int, Signature], side: str) -> list[tuple[Port, ...]]:
    """The ports of all versions, those of one name together."""
    rows = list(zip(*(getattr(signature, side) for signature in signatures.values()), strict=False))
    lengths = {len(getattr(signature, side)) for signature in signatures.values()}
    if len(lengths) > 1 or any(len({(port.name, port.dtype, len(port.shape)) for port in row}) > 1 for row in rows):
        raise _unlike(model, signatures)
    return rows


def _add_port(ports: Any, versions: tuple[Port, ...], schema: Any) -> None:
    """One input or output; Triton knows no example without axes: it sees a number as one axis of length 1."""
    first = versions[0]
    axes = zip(*(port.shape for port in versions), strict=True)
    dims = [lengths[0] if len(set(lengths)) == 1 else -1 for lengths in axes]
    if first.dtype not in TRITON_TYPES or 0 in dims:
        raise ServingError(
            f"tensor '{first.name}' of type {first.dtype} and shape {list(first.shape)} cannot be served",
            hint=f"types are {', '.join(TRITON_TYPES)}, and no axis may have length 0",
        )
    added = ports.add(name=first.name, data_type=schema.DataType.Value(TRITON_TYPES[first.dtype]), dims=dims or [1])
    if not dims:
        added.reshape.SetInParent()


def _unlike(model: str, signatures: Mapping[int, Signature]) -> ServingError:
    told = "; ".join(
        f"version {version} takes {[port.name for port in signature.inputs]} "
        f"and gives {[port.name for port in signature.outputs]}"
        for version, signature in sorted(signatures.items())
    )
    return ServingError(
        f"the versions of model '{model}' cannot be served side by side: {told}",
        hint="a model that takes or gives something else needs a loop of its own: change 'name' in the loop file",
    )


def _replace(path: Path, text: str) -> None:
    staging = path.with_name(f".{path.name}.tmp")
    staging.write_text(text, encoding="utf-8")
    staging.replace(path)
