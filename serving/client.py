"""Sending images to the server; every row gets a request id, by which feedback can be joined later."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import ServerUnavailable, ServingError
from kfloop.serving.repository import served

if TYPE_CHECKING:
    from kfloop.serving.endpoint import Endpoint

BATCH = 16
OUTPUTS = ("probabilities", "embedding")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Answers to N images.

    Attributes:
        labels: Most probable class of each row, int64 [N].
        probabilities: float32 [N, K].
        embedding: float32 [N, D].
        version: Version that answered (the last one, should it have changed in between).
        ids: Request id of each row.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    embedding: np.ndarray
    version: int
    ids: list[str]


def predict(
    endpoint: Endpoint, model: str, images: np.ndarray, *, version: int | None = None, protocol: str = "http"
) -> Prediction:
    """Send images in small batches.

    Args:
        endpoint: The server.
        model: Name of the served model.
        images: uint8 [N, H, W, C].
        version: A pinned version; null for the champion as ``served.json`` names it. A server that is verifying a challenger beside
            the champion would give an unpinned request to the challenger.
        protocol: ``http`` or ``grpc``.

    Raises:
        ServingError: The server refused the request.
        ServerUnavailable: No answer.
    """
    if version is None:
        version, _ = served(Path(endpoint.repository), model)
    parts, ids, answered = [], [], version or 0
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        request = uuid.uuid4().hex
        ids += [request if len(batch) == 1 else f"{request}#{number}" for number in range(len(batch))]
        answer = infer(endpoint, model, batch, version=version, protocol=protocol, request_id=request)
        answered = int(answer["version"])
        parts.append(answer)
    if not parts:
        raise ServingError("no images to send", hint="give at least one image")
    probabilities, embedding = (np.concatenate([part[name] for part in parts]) for name in OUTPUTS)
    return Prediction(
        labels=probabilities.argmax(axis=1).astype(np.int64),
        probabilities=probabilities,
        embedding=embedding,
        version=answered,
        ids=ids,
    )


def infer(
    endpoint: Endpoint,
    model: str,
    images: np.ndarray,
    *,
    version: int | None = None,
    protocol: str = "http",
    request_id: str = "",
    timeout: float = 30.0,
) -> dict[str, Any]:
    """One request.

    Returns:
        ``probabilities``, ``embedding`` and the ``version`` that answered.
    """
    from tritonclient.utils import InferenceServerException

    try:
        if protocol == "grpc":
            return _infer_grpc(endpoint, model, images, version, request_id, timeout)
        return _infer_http(endpoint, model, images, version, request_id, timeout)
    except InferenceServerException as error:
        if "UNAVAILABLE" in str(error.status()) and "failed to connect" in str(error).lower():
            raise ServerUnavailable(f"no answer from Triton at {endpoint.grpc}: {error.message()}") from error
        raise ServingError(f"Triton refused the request: {error.message()}", hint="see: kfloop status") from error
    except no_answer_errors() as error:
        raise ServerUnavailable(
            f"no answer from Triton at {endpoint.http}: {error}", hint="see: kfloop status"
        ) from error


def no_answer_errors() -> tuple[type[Exception], ...]:
    """What the HTTP client raises when the server goes away in the middle; its own errors are no ``OSError``."""
    from geventhttpclient.response import HTTPParseError

    return (OSError, HTTPParseError)


def _infer_http(
    endpoint: Endpoint, model: str, images: np.ndarray, version: int | None, request_id: str, timeout: float
) -> dict[str, Any]:
    from tritonclient import http

    client = http.InferenceServerClient(endpoint.http, network_timeout=timeout, connection_timeout=timeout)
    try:
        tensor = http.InferInput("image", list(images.shape), "UINT8")
        tensor.set_data_from_numpy(np.ascontiguousarray(images), binary_data=True)
        wanted = [http.InferRequestedOutput(name, binary_data=True) for name in OUTPUTS]
        result = client.infer(model, [tensor], model_version=str(version or ""), outputs=wanted, request_id=request_id)
        version_text = result.get_response()["model_version"]
    finally:
        client.close()
    return _answer(result, version_text)


def _infer_grpc(
    endpoint: Endpoint, model: str, images: np.ndarray, version: int | None, request_id: str, timeout: float
) -> dict[str, Any]:
    from tritonclient import grpc

    with grpc.InferenceServerClient(endpoint.grpc) as client:
        tensor = grpc.InferInput("image", list(images.shape), "UINT8")
        tensor.set_data_from_numpy(np.ascontiguousarray(images))
        wanted = [grpc.InferRequestedOutput(name) for name in OUTPUTS]
        result = client.infer(
            model,
            [tensor],
            model_version=str(version or ""),
            outputs=wanted,
            request_id=request_id,
            client_timeout=timeout,
        )
        version_text = result.get_response().model_version
    return _answer(result, version_text)


def _answer(result: Any, version: str) -> dict[str, Any]:
    outputs = {name: result.as_numpy(name) for name in OUTPUTS}
    empty = [name for name, value in outputs.items() if value is None]
    if empty:
        raise ServingError(f"Triton answered without {', '.join(empty)}")
    return outputs | {"version": int(version)}
