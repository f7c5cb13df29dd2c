"""The Open Inference Protocol (KServe v2) over HTTP, with JSON tensors or with its binary extension.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md and Triton's "binary tensor data extension".
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from .answers import BadAnswer, parsed
from .calling import shortened
from .rows import BadRows, unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

BYTES = "BYTES"
TYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
HEAD_LENGTH = "Inference-Header-Content-Length"


def address(told: Mapping[str, Any]) -> str:
    """Where the model is, without ``/infer``."""
    version = f"/versions/{told['version']}" if told.get("version") else ""
    return f"{told['url'].rstrip('/')}/v2/models/{told['model']}{version}"


def request(told: Mapping[str, Any], rows: NDArray[Any]) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request for some rows.

    Raises:
        BadRows: They cannot be said in the endpoint's types.
    """
    heads, content = [], b""
    for tensor in told["tensors"]:
        array = _tensor(told, tensor, rows)
        head = {"name": tensor["name"], "datatype": tensor["datatype"], "shape": list(array.shape)}
        if told["binary"]:
            raw = _raw(array)
            head["parameters"] = {"binary_data_size": len(raw)}
            content += raw
        else:
            head["data"] = _listed(array, tensor["name"])
        heads.append(head)
    wanted = [told["answer"], *([told["embedding"]] if told.get("embedding") else [])]
    flag = {"parameters": {"binary_data": True}} if told["binary"] else {}
    body = json.dumps({"inputs": heads, "outputs": [{"name": name, **flag} for name in wanted]}).encode()
    if not told["binary"]:
        return body, {"Content-Type": "application/json"}
    return body + content, {"Content-Type": "application/octet-stream", HEAD_LENGTH: str(len(body))}


def outputs(told: Mapping[str, Any], content: bytes, headers: Mapping[str, str], where: str) -> dict[str, NDArray[Any]]:
    """The tensors of an answer, by name.

    Raises:
        BadAnswer: It is no answer of this protocol, or one that was asked for is missing.
    """
    length = headers.get(HEAD_LENGTH.lower())
    text, rest = (content[: int(length)], content[int(length) :]) if length and length.isdigit() else (content, b"")
    answer = parsed(text, where)
    listed = answer.get("outputs") if isinstance(answer, dict) else None
    if not isinstance(listed, list):
        raise BadAnswer(f"{where} answers without 'outputs', which KServe v2 asks for: {shortened(str(answer))}")
    found: dict[str, NDArray[Any]] = {}
    for head in listed:
        try:
            size = int(head.get("parameters", {}).get("binary_data_size", 0))
            raw, rest = rest[:size], rest[size:]
            found[head["name"]] = _array(head, raw, size)
        except (KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
            raise BadAnswer(f"{where} answers with a damaged tensor: {shortened(repr(error))}") from None
    for name in (told["answer"], told.get("embedding")):
        if name and name not in found:
            raise BadAnswer(f"{where} answers with {sorted(found)}, but not with '{name}'")
    return found


def _tensor(told: Mapping[str, Any], tensor: Mapping[str, Any], rows: NDArray[Any]) -> NDArray[Any]:
    """One tensor of a request: the rows themselves, or one column of them."""
    if told["modality"] == "table":
        listed = unpacked(rows)
        wanted = tensor.get("column")
        names = [wanted] if wanted else told["columns"]
        found = _typed([[row.get(name) for name in names] for row in listed], tensor)
        return found.reshape(len(rows), *tensor["shape"])
    if told["modality"] == "text":
        return _typed([[text] for text in unpacked(rows)], tensor).reshape(len(rows), *tensor["shape"])
    if tensor["channels_first"]:
        rows = np.moveaxis(rows, -1, 1)
    try:
        found = rows.reshape(len(rows), *tensor["shape"])
    except ValueError:
        raise BadRows(f"rows of the shape {list(rows.shape[1:])} cannot be sent as {tensor['shape']}") from None
    return found.astype(TYPES[tensor["datatype"]])


def _typed(values: list[list[Any]], tensor: Mapping[str, Any]) -> NDArray[Any]:
    """Values of rows as one array; what is missing is NaN, or an empty text."""
    datatype = tensor["datatype"]
    if datatype == BYTES:
        return np.array([["" if value is None else str(value) for value in row] for row in values], dtype=object)
    kind = TYPES[datatype]
    if any(value is None for row in values for value in row) and "f" not in kind:
        raise BadRows(f"a value of '{tensor['name']}' is missing, which {datatype} cannot say")
    try:
        return np.array([[np.nan if value is None else value for value in row] for row in values]).astype(kind)
    except (TypeError, ValueError):
        raise BadRows(f"'{tensor['name']}' is {datatype}, but the rows hold {shortened(str(values[0]))}") from None


def _listed(array: NDArray[Any], name: str) -> list[Any]:
    """The values in one line, as JSON can say them."""
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise BadRows(f"'{name}' has missing numbers, which JSON cannot say: set binary: true")
    flat: list[Any] = array.reshape(-1).tolist()
    return flat


def _raw(array: NDArray[Any]) -> bytes:
    if array.dtype != object:
        return np.ascontiguousarray(array).tobytes()
    texts = [text.encode() for text in array.reshape(-1)]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def _array(head: Mapping[str, Any], raw: bytes, size: int) -> NDArray[Any]:
    """A tensor of an answer; BYTES are no numbers, so they are left as they are."""
    shape = [int(axis) for axis in head["shape"]]
    if head["datatype"] not in TYPES:
        return np.array(head.get("data", []), dtype=object)
    kind = TYPES[head["datatype"]]
    flat = np.frombuffer(raw, kind) if size else np.asarray(head["data"], dtype=np.float64).reshape(-1)
    if math.prod(shape) != flat.size:
        message = f"'{head['name']}' has {flat.size} values, but its shape is {shape}"
        raise ValueError(message)
    return flat.reshape(shape)
