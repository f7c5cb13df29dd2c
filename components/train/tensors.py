"""Which tensors a KServe v2 endpoint takes and gives: what its metadata say, and what the loop file says instead."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kfloop.core.external import kserve
from kfloop.core.external.answers import BadAnswer, parsed
from kfloop.core.external.calling import Caller, CallFailed
from kfloop.core.external.kserve import BYTES, TYPES
from kfloop.errors import ConfigError, ServerUnavailable, TerminalError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kfloop.core.encoding import Encoder
    from kfloop.core.sections import ExternalConfig

IMAGE_AXES = 3  # height, width, channels
LATER = "start the server, or wait until it answers again; then run the same command again"


def tensors_of(external: ExternalConfig, told: Mapping[str, Any], encoder: Encoder) -> dict[str, Any]:
    """``tensors`` (name, datatype, shape of one row, and column of a table), ``answer`` and ``embedding`` of the description.

    Args:
        external: Section ``train.external``.
        told: The rest of the description.
        encoder: Of the rows.

    Raises:
        ConfigError: The endpoint has no such tensors.
        TerminalError: It refuses to say what it takes.
        ServerUnavailable: It does not answer.
    """
    metadata = _metadata(told)
    inputs, outputs = (
        {str(item.get("name")): item for item in metadata.get(side) or []} for side in ("inputs", "outputs")
    )
    names = list(outputs)
    usual = next((name for name in (told["output"], *names) if name in outputs or not names), told["output"])
    for key, name in (("output", external.output), ("embedding", external.embedding)):
        if name and names and name not in outputs:
            raise ConfigError(
                f"train.external.{key} is '{name}', but the endpoint gives {names}", hint=nearest(name, names)
            )
    return {
        "tensors": _inputs(external, told, encoder, inputs),
        "answer": external.output or usual,
        "embedding": external.embedding,
    }


def _metadata(told: Mapping[str, Any]) -> dict[str, Any]:
    """What the endpoint says of its tensors; empty where it does not know the question (404 is a model that is not there)."""
    url = kserve.address(told)
    try:
        content, _ = Caller(told).call(url, None, {"Accept": "application/json"})
        found = parsed(content, url)
    except CallFailed as error:
        kind = ServerUnavailable if error.later else TerminalError
        raise kind(
            error.message, hint=LATER if error.later else "look at train.external in the loop file", url=url
        ) from error
    except BadAnswer as error:
        raise TerminalError(
            str(error), hint="is that the address of a server that speaks KServe v2?", url=url
        ) from error
    return found if isinstance(found, dict) else {}


def _inputs(
    external: ExternalConfig, told: Mapping[str, Any], encoder: Encoder, inputs: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The input tensors: one, or one for each column of a table."""
    columns = told["columns"] if told["modality"] == "table" else []
    if columns and external.input is None and set(columns) <= set(inputs):
        return [_tensor(external, name, inputs[name], [], column=name) for name in columns]
    if external.input is None and len(inputs) > 1:
        hint = (
            f"a table is sent by column where there is an input for each of {columns}"
            if columns
            else "name one in train.external.input"
        )
        raise ConfigError(f"the endpoint takes {len(inputs)} tensors {list(inputs)}, but a row is one", hint=hint)
    if external.input and inputs and external.input not in inputs:
        raise ConfigError(
            f"train.external.input is '{external.input}', but the endpoint takes {list(inputs)}",
            hint=nearest(external.input, inputs),
        )
    name = external.input or next(iter(inputs), None) or encoder.ports[0].name
    own = [len(columns)] if columns else [] if told["modality"] == "text" else list(encoder.ports[0].shape)
    tensor = _tensor(external, name, inputs.get(name, {}), own)
    texts = [column["name"] for column in getattr(encoder, "columns", []) if column["kind"] in {"category", "time"}]
    if columns and texts and tensor["datatype"] != BYTES:
        raise ConfigError(
            f"the endpoint takes one tensor '{name}' of {tensor['datatype']}, but the columns {texts} hold no numbers",
            hint="leave them out of the data, or serve the model with an input for each column",
        )
    return [tensor]


def _tensor(
    external: ExternalConfig, name: str, metadata: Mapping[str, Any], own: Sequence[int], column: str | None = None
) -> dict[str, Any]:
    """One input: its type, and the shape of one row there."""
    datatype = str(external.datatype or metadata.get("datatype") or "FP32")
    if datatype != BYTES and datatype not in TYPES:
        raise ConfigError(f"the input '{name}' is of type '{datatype}'", hint=nearest(datatype, [*TYPES, BYTES]))
    if external.channels_first and len(own) == IMAGE_AXES:
        own = [own[2], own[0], own[1]]
    axes = [int(axis) for axis in metadata.get("shape") or []][1:]  # without the batch's
    fitting = len(axes) == len(own) and all(axis in {-1, size} for axis, size in zip(axes, own, strict=True))
    shape = list(external.input_shape or (own if fitting or not metadata.get("shape") else axes))
    if any(size < 0 for size in shape) or math.prod(shape) != math.prod(own):
        raise ConfigError(
            f"the input '{name}' takes rows of the shape {axes or shape}, but a row of these data is {list(own)}",
            hint="set data.image_size and data.channels to what the endpoint takes, or train.external.input_shape",
        )
    return {
        "name": name,
        "datatype": datatype,
        "shape": shape,
        "column": column,
        "channels_first": external.channels_first,
    }
