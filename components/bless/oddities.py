"""Odd requests: what a client may send by mistake must be refused, and the next right request must be answered."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.serving.model_config import TRITON_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfloop.core.signature import Port, Signature
    from kfloop.serving.endpoint import Endpoint

CLIENT_ERRORS = range(400, 500)
ANY_LENGTH = 2  # of an axis that may have any
FAR = 2**40  # no id, and no number of a node
Tensor = dict[str, Any]


def odd_requests(signature: Signature) -> dict[str, dict[str, Any]]:
    """Requests (heads of the V2 protocol, with a value that fills each tensor) that do not fit the signature, by name.

    Each spoils one input of an otherwise right request; the last input where there are several, because the first is the one
    that everybody checks.
    """
    spoilt = len(signature.inputs) - 1
    fixed = [place for place, port in enumerate(signature.inputs) if any(size > 0 for size in port.shape)]

    def body(place: int, change: Callable[[Tensor], Tensor | None]) -> dict[str, Any]:
        right = [_tensor(port, batched=signature.batched) for port in signature.inputs]
        tensors = [change(tensor) if number == place else tensor for number, tensor in enumerate(right)]
        return {"inputs": [_filled(tensor) for tensor in tensors if tensor is not None]}

    odd = {
        "wrong type": body(spoilt, lambda tensor: tensor | {"datatype": _other(tensor["datatype"])}),
        "wrong input name": body(spoilt, lambda tensor: tensor | {"name": "picture"}),
        "missing input": body(spoilt, lambda _: None),
    }
    if fixed:
        odd["wrong shape"] = body(fixed[-1], lambda tensor: tensor | {"shape": _longer(tensor, signature, fixed[-1])})
    if signature.batched:
        limit = signature.max_batch_size
        odd["no rows"] = {"inputs": [_filled(_tensor(port, batched=True, rows=0)) for port in signature.inputs]}
        odd["missing batch dimension"] = body(spoilt, lambda tensor: tensor | {"shape": tensor["shape"][1:]})
        odd["batch above the limit"] = {
            "inputs": [_filled(_tensor(port, batched=True, rows=limit + 1)) for port in signature.inputs]
        }
    else:
        odd["missing axis"] = body(spoilt, lambda tensor: tensor | {"shape": []})
    return odd


def far_requests(signature: Signature) -> dict[str, dict[str, Any]]:
    """Requests of the right form whose whole numbers (ids, nodes) are out of all bounds: answered or refused, but survived."""
    whole = [port for port in signature.inputs if port.dtype == "int64"]
    tensors = [_tensor(port, batched=signature.batched) for port in signature.inputs]
    return {
        f"{port.name} out of range": {
            "inputs": [_filled(tensor, FAR if tensor["name"] == port.name else 0) for tensor in tensors]
        }
        for port in whole
    }


def refused(endpoint: Endpoint, model: str, body: dict[str, Any], timeout: float) -> str:
    """Send one odd request.

    Returns:
        What is wrong with the answer; empty when it is a client error (4xx), as it should be.
    """
    status = _status(endpoint, model, body, timeout)
    return "" if status in CLIENT_ERRORS else f"{status} instead of a client error"


def survived(endpoint: Endpoint, model: str, body: dict[str, Any], timeout: float) -> str:
    """Send one request of :func:`far_requests`.

    Returns:
        What is wrong with the answer; empty when it is an answer or a client error.
    """
    status = _status(endpoint, model, body, timeout)
    return "" if status == 200 or status in CLIENT_ERRORS else f"{status} instead of an answer or a client error"  # noqa: PLR2004 - HTTP OK


def _status(endpoint: Endpoint, model: str, body: dict[str, Any], timeout: float) -> int | str:
    """HTTP status of the answer, or why there is none."""
    from tritonclient.utils import triton_to_np_dtype

    head, content = [], b""  # tensors travel as bytes: as text, a batch of recordings would be a hundred megabytes
    for tensor in body["inputs"]:
        values = np.full(math.prod(tensor["shape"]), tensor["value"], triton_to_np_dtype(tensor["datatype"])).tobytes()
        told = {key: tensor[key] for key in ("name", "datatype", "shape")}
        head.append(told | {"parameters": {"binary_data_size": len(values)}})
        content += values
    text = json.dumps({"inputs": head}).encode()
    request = urllib.request.Request(
        f"http://{endpoint.http}/v2/models/{model}/infer",
        data=text + content,
        headers={"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(text))},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 - as above
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return f"no answer ({error})"


def _tensor(port: Port, *, batched: bool, rows: int = 1) -> Tensor:
    """Name, type and shape of a right tensor; an example that is a number has one axis of length 1 on the wire."""
    shape = [ANY_LENGTH if size < 0 else size for size in port.shape]
    return {
        "name": port.name,
        "datatype": TRITON_TYPES[port.dtype].removeprefix("TYPE_"),
        "shape": [rows, *(shape or [1])] if batched else shape,
    }


def _filled(tensor: Tensor, value: int = 0) -> Tensor:
    return tensor | {"value": value}


def _other(datatype: str) -> str:
    return "INT32" if datatype.startswith("FP") else "FP32"


def _longer(tensor: Tensor, signature: Signature, place: int) -> list[int]:
    """The shape with one more along its first axis of fixed length."""
    shape, first = list(tensor["shape"]), 1 if signature.batched else 0
    axis = first + next(axis for axis, size in enumerate(signature.inputs[place].shape) if size > 0)
    shape[axis] += 1
    return shape
