"""The ``config.pbtxt`` of all versions that are held side by side, built through Triton's own schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kfloop.core.encoding.bare.forms import RawInput, raw_inputs
from kfloop.core.scoring import ENCODER
from kfloop.core.signature import MEND
from kfloop.errors import ServingError, StateError
from kfloop.serving.config_check import check_config
from kfloop.serving.takes import ANSWERED_BY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kfloop.core.signature import Port, Signature

EXTRAS = {"label": "TYPE_STRING", "confidence": "TYPE_FP32", "review": "TYPE_BOOL"}  # as in model/raw.py
TRITON_TYPES = {
    "uint8": "TYPE_UINT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bool": "TYPE_BOOL",
}


def config_text(
    model: str, signatures: Mapping[int, Signature], raw: Mapping[int, Sequence[RawInput]] | None = None
) -> str:
    """``config.pbtxt`` for the embedded server, built through Triton's own schema and read back as a check.

    Triton has one configuration for all versions of a model: an axis in which they differ may have any length there, and each
    version checks its own (``model/model.py``).

    Args:
        model: Name of the model.
        signatures: Signature of each version that is held.
        raw: Raw form of each version, taken instead of the tensors, and with it the outputs of ``EXTRAS`` for classes; null for versions
            that were made before there was such a thing.

    Raises:
        ServingError: The versions differ in more than the lengths of axes and the columns of raw rows.
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
    if raw is not None:
        _add_raw(config, model, signatures, raw)
        if config.max_batch_size and all(signature.objective == "classification" for signature in every):
            for name, kind in EXTRAS.items():
                config.output.add(name=name, data_type=kind, dims=[1])
    # Which version really answered: by served.json that may be another one than the process's own.
    config.output.add(name=ANSWERED_BY, data_type=schema.DataType.Value("TYPE_INT64"), dims=[1])
    config.instance_group.add(kind=schema.ModelInstanceGroup.KIND_CPU, count=1)
    if config.max_batch_size:
        # Dynamic batching without a queue policy: with timeouts in the queue, the batcher of 2.51 now and then misses that an instance
        # is free and holds requests back for its idle wait of half a second.
        config.dynamic_batching.SetInParent()
    config.version_policy.specific.versions.extend(sorted(signatures))
    config.parameters["intra_op_threads"].string_value = "1"
    text = text_format.MessageToString(config)
    check_config(text_format.Parse(text, schema.ModelConfig()), signatures)
    return str(text)


def _add_raw(
    config: Any, model: str, signatures: Mapping[int, Signature], raw: Mapping[int, Sequence[RawInput]]
) -> None:
    """The columns of raw rows as optional inputs; the tensors are optional then, too, and a version checks that one form came whole."""
    kinds: dict[str, bool] = {}
    for one in (one for form in raw.values() for one in form):
        if kinds.setdefault(one.name, one.is_bytes) != one.is_bytes:
            raise _unlike(model, signatures, f"column '{one.name}' is text in one version and a number in another")
    if kinds:
        for port in config.input:
            port.optional = True
    for name, is_bytes in kinds.items():
        config.input.add(name=name, data_type="TYPE_STRING" if is_bytes else "TYPE_FP64", dims=[1], optional=True)


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


def _unlike(model: str, signatures: Mapping[int, Signature], why: str = "") -> ServingError:
    told = why or "; ".join(
        f"version {version} takes {[port.name for port in signature.inputs]} "
        f"and gives {[port.name for port in signature.outputs]}"
        for version, signature in sorted(signatures.items())
    )
    return ServingError(
        f"the versions of model '{model}' cannot be served side by side: {told}",
        hint="a model that takes or gives something else needs a loop of its own: change 'name' in the loop file",
    )


def raw_form(folder: Path, signature: Signature) -> tuple[RawInput, ...]:
    """The raw form that a version takes beside its tensors; nothing where a client has the tensors themselves.

    Raises:
        StateError: Its encoder cannot be read.
    """
    if signature.objective == "generation":
        return ()
    try:
        encoder = json.loads((folder / ENCODER).read_text(encoding="utf-8"))
        return raw_inputs(encoder, [port.name for port in (*signature.inputs, *signature.outputs)])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(f"'{folder / ENCODER}' is damaged: {error!r}", hint=MEND) from error
