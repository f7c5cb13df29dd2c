"""Odd requests: what a client may send by mistake must be refused, and the next right request must be answered."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfloop.serving.endpoint import Endpoint
    from kfloop.serving.repository import Signature

CLIENT_ERRORS = range(400, 500)


def odd_requests(signature: Signature) -> dict[str, dict[str, Any]]:
    """Request bodies (V2 protocol, JSON) that do not fit the signature, by name."""
    height, width, channels = signature.image_shape
    return {
        "wrong shape": _body("UINT8", [1, height + 1, width, channels]),
        "missing batch dimension": _body("UINT8", [height, width, channels]),
        "wrong type": _body("FP32", [1, height, width, channels]),
        "batch above the limit": _body("UINT8", [signature.max_batch_size + 1, height, width, channels]),
        "wrong input name": _body("UINT8", [1, height, width, channels], name="picture"),
    }


def refused(endpoint: Endpoint, model: str, body: dict[str, Any], timeout: float) -> str:
    """Send one odd request.

    Returns:
        What is wrong with the answer; empty when it is a client error (4xx), as it should be.
    """
    request = urllib.request.Request(
        f"http://{endpoint.http}/v2/models/{model}/infer",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 - as above
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    except OSError as error:
        return f"no answer ({error})"
    return "" if status in CLIENT_ERRORS else f"HTTP {status} instead of a client error"


def _body(kind: str, shape: list[int], name: str = "image") -> dict[str, Any]:
    return {"inputs": [{"name": name, "datatype": kind, "shape": shape, "data": [0] * math.prod(shape)}]}
