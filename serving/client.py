"""Sending examples to the server; every row gets a request id, by which feedback can be joined later."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.signature import read_signature
from kfloop.errors import ServerUnavailable, ServingError, StateError
from kfloop.serving.repository import served

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfloop.core.signature import Signature
    from kfloop.serving.endpoint import Endpoint

    Inputs = np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]

BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Answers to N examples.

    Attributes:
        outputs: The model's outputs by name, one entry for each example.
        version: Version that answered (the last one, should it have changed in between).
        ids: Request id of each example; of the request as a whole for models without a batch axis (graphs).
    """

    outputs: dict[str, np.ndarray]
    version: int
    ids: list[str]

    @property
    def labels(self) -> np.ndarray:
        """Most probable class of each example, int64 [N]; for classifiers."""
        return self.outputs["probabilities"].argmax(axis=1).astype(np.int64)


def predict(
    endpoint: Endpoint, model: str, inputs: Inputs, *, version: int | None = None, protocol: str = "http"
) -> Prediction:
    """Send examples in small batches.

    Args:
        endpoint: The server.
        model: Name of the served model.
        inputs: Its tensors by name, or in the order of its signature; or the only one. First axis: the example, except for graphs.
        version: A pinned version; null for the champion as ``served.json`` names it. A server that is verifying a challenger beside
            the champion would give an unpinned request to the challenger.
        protocol: ``http`` or ``grpc``.

    Raises:
        ServingError: The server refused the request.
        ServerUnavailable: No answer.
    """
    if version is None:
        version, _ = served(Path(endpoint.repository), model)
    signature = _signature(endpoint, model, version)
    tensors = named(signature, inputs)
    request = uuid.uuid4().hex
    if not signature.batched:
        answer = infer(endpoint, model, tensors, version=version, protocol=protocol, request_id=request)
        return Prediction(version=int(answer.pop("version")), outputs=answer, ids=[request])
    counts = {name: len(array) for name, array in tensors.items()}
    total = next(iter(counts.values()))
    if len(set(counts.values())) > 1:
        raise ServingError(f"the inputs of model '{model}' have different numbers of rows: {counts}")
    if not total:
        raise ServingError("no examples to send", hint="give at least one")
    parts, ids = [], []
    step = min(BATCH, signature.max_batch_size)
    for start in range(0, total, step):
        batch = {name: array[start : start + step] for name, array in tensors.items()}
        request, count = uuid.uuid4().hex, min(step, total - start)
        ids += [request if count == 1 else f"{request}#{number}" for number in range(count)]
        parts.append(infer(endpoint, model, batch, version=version, protocol=protocol, request_id=request))
    answered = [int(part.pop("version")) for part in parts]
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Prediction(outputs=outputs, version=answered[-1], ids=ids)


def infer(
    endpoint: Endpoint,
    model: str,
    inputs: Inputs,
    *,
    version: int | None = None,
    protocol: str = "http",
    request_id: str = "",
    timeout: float = 30.0,
) -> dict[str, Any]:
    """One request, sent as it is: what does not fit the model is for the server to refuse.

    Returns:
        The outputs by name, and the ``version`` that answered.

    Raises:
        ServingError: The server refused the request.
        ServerUnavailable: No answer.
    """
    from tritonclient.utils import InferenceServerException

    signature = _signature(endpoint, model, version)
    tensors = named(signature, inputs)
    send = _infer_grpc if protocol == "grpc" else _infer_http
    try:
        result, answered = send(endpoint, model, signature, tensors, version, request_id, timeout)
    except InferenceServerException as error:
        if "UNAVAILABLE" in str(error.status()) and "failed to connect" in str(error).lower():
            raise ServerUnavailable(f"no answer from Triton at {endpoint.grpc}: {error.message()}") from error
        raise ServingError(f"Triton refused the request: {error.message()}", hint="see: kfloop status") from error
    except no_answer_errors() as error:
        raise ServerUnavailable(
            f"no answer from Triton at {endpoint.http}: {error}", hint="see: kfloop status"
        ) from error
    outputs = {port.name: result.as_numpy(port.name) for port in signature.outputs}
    empty = [name for name, value in outputs.items() if value is None]
    if empty:
        raise ServingError(f"Triton answered without {', '.join(empty)}")
    for port in signature.outputs:
        if signature.batched and not port.shape:
            outputs[port.name] = outputs[port.name].reshape(-1)
    return outputs | {"version": int(answered)}


def no_answer_errors() -> tuple[type[Exception], ...]:
    """What the HTTP client raises when the server goes away in the middle; its own errors are no ``OSError``."""
    from geventhttpclient.response import HTTPParseError

    return (OSError, HTTPParseError)


def named(signature: Signature, inputs: Inputs) -> dict[str, np.ndarray]:
    """Tensors by name."""
    if isinstance(inputs, Mapping):
        return dict(inputs)
    arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    if len(arrays) != len(signature.inputs):
        names = ", ".join(port.name for port in signature.inputs)
        raise ServingError(f"the model takes {len(signature.inputs)} tensor(s) ({names}), but {len(arrays)} were given")
    return {port.name: array for port, array in zip(signature.inputs, arrays, strict=True)}


def request_tensors(kind: Any, signature: Signature, inputs: Mapping[str, np.ndarray], **options: Any) -> list[Any]:
    """Input tensors of a request, for ``tritonclient.http`` or ``tritonclient.grpc`` (``kind``)."""
    from tritonclient.utils import np_to_triton_dtype

    numbers = {port.name for port in signature.inputs if signature.batched and not port.shape}
    tensors = []
    for name, array in inputs.items():
        # On the wire a number of an example is an axis of length 1: Triton knows no example without axes.
        sent = array.reshape(-1, 1) if name in numbers and array.ndim == 1 else array
        tensor = kind.InferInput(name, list(sent.shape), np_to_triton_dtype(sent.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(sent), **options)
        tensors.append(tensor)
    return tensors


def _signature(endpoint: Endpoint, model: str, version: int | None) -> Signature:
    """What a version takes and gives; of the champion when none is pinned."""
    repository = Path(endpoint.repository)
    if version is None:
        version, _ = served(repository, model)
    if version is None:
        raise ServingError(f"model '{model}' has no served version yet", hint="promote one with: kfloop run")
    try:
        return read_signature(repository / model / str(version))
    except StateError as error:
        raise ServingError(f"version {version} of model '{model}' is not served: {error.message}") from error


def _infer_http(
    endpoint: Endpoint,
    model: str,
    signature: Signature,
    inputs: dict[str, np.ndarray],
    version: int | None,
    request_id: str,
    timeout: float,
) -> tuple[Any, str]:
    from tritonclient import http

    client = http.InferenceServerClient(endpoint.http, network_timeout=timeout, connection_timeout=timeout)
    try:
        result = client.infer(
            model,
            request_tensors(http, signature, inputs, binary_data=True),
            model_version=str(version or ""),
            outputs=[http.InferRequestedOutput(port.name, binary_data=True) for port in signature.outputs],
            request_id=request_id,
        )
        return result, result.get_response()["model_version"]
    finally:
        client.close()


def _infer_grpc(
    endpoint: Endpoint,
    model: str,
    signature: Signature,
    inputs: dict[str, np.ndarray],
    version: int | None,
    request_id: str,
    timeout: float,
) -> tuple[Any, str]:
    from tritonclient import grpc

    with grpc.InferenceServerClient(endpoint.grpc) as client:
        result = client.infer(
            model,
            request_tensors(grpc, signature, inputs),
            model_version=str(version or ""),
            outputs=[grpc.InferRequestedOutput(port.name) for port in signature.outputs],
            request_id=request_id,
            client_timeout=timeout,
        )
        return result, result.get_response().model_version
