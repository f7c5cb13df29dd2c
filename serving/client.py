"""Sending examples to the server; every row gets a request id, by which feedback can be joined later."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.signature import read_signature
from kfloop.errors import ServingError, StateError
from kfloop.serving.repository import served
from kfloop.serving.takes import BATCH, Takes, answer, by_name, on_the_wire, takes_of, takes_of_metadata
from kfloop.serving.wire import TLS, Address, Call, input_tensors, metadata, send

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kfloop.core.signature import Signature
    from kfloop.serving.endpoint import Endpoint
    from kfloop.serving.takes import Inputs

__all__ = ["TLS", "Address", "Client", "Prediction", "infer", "predict", "request_tensors"]

RETRIES = 4
ROUTING = "routing.py"  # beside a version whose process follows served.json, whichever process a request reaches


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


class Client:
    """A client of one served model, wherever it is served.

    It may be used by several threads: each keeps a connection of its own.

    Args:
        url: ``host:port`` of the server, or of ``kfloop serve --edge``.
        model: Name of the model.
        protocol: ``http`` or ``grpc``.
        tls: How the connection is secured; null in plain.
        retries: Most further tries of a request, when the connection is refused or breaks, or the server says that it is busy.
        timeout: Longest time for a request with all its tries, in seconds.
        takes: What the model takes; asked of the server when left out.

    Example:
        >>> answer = Client("127.0.0.1:8000", "photos").predict(images)  # doctest: +SKIP
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        protocol: str = "http",
        tls: TLS | None = None,
        retries: int = RETRIES,
        timeout: float = 30.0,
        takes: Takes | None = None,
    ) -> None:
        self.address = Address(url=url, protocol=protocol, tls=tls)
        self.model, self.retries, self.timeout = model, retries, timeout
        self._takes = takes

    @property
    def takes(self) -> Takes:
        """What the model takes.

        Raises:
            ServingError: The server knows no such model.
            ServerUnavailable: No answer.
        """
        if self._takes is None:
            self._takes = takes_of_metadata(
                metadata(self.address, self.model, retries=self.retries, timeout=self.timeout)
            )
        return self._takes

    def predict(
        self,
        inputs: Inputs,
        *,
        ids: Sequence[str] | None = None,
        key: str | None = None,
        version: int | None = None,
        pinned: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Prediction:
        """Send examples in small batches.

        Args:
            inputs: The model's tensors by name, or in their order; or the only one. First axis: the example, except for graphs.
            ids: Request id of each example, which then travels alone; fresh ones when left out.
            key: What a canary's split goes by, such as a customer: the same key gets the same version.
            version: Version in the address; the server's choice when null.
            pinned: Whether that very version is meant, whatever the server's routing says.
            progress: Called after each request with the number of answered examples and of all.

        Raises:
            ServingError: The server refused a request, or the inputs do not belong together.
            ServerUnavailable: No answer.
        """
        takes = self.takes
        tensors = by_name(takes.inputs, inputs)
        parameters = _parameters(key, pinned=pinned)
        parts, answered, sent = [], [], []
        for request, rows, batch in _requests(self.model, takes, tensors, ids):
            call = Call(
                model=self.model,
                tensors=on_the_wire(takes, batch),
                outputs=takes.asked,
                version=version,
                request_id=request,
                parameters=parameters,
            )
            found = answer(send(self.address, call, retries=self.retries, timeout=self.timeout), takes)
            answered.append(int(found.pop("version") or 0))
            parts.append(found)
            sent += rows
            if progress is not None and takes.limit:
                progress(len(sent), len(next(iter(tensors.values()))))
        outputs = (
            {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if takes.limit else parts[0]
        )
        return Prediction(outputs=outputs, version=answered[-1], ids=sent)


def predict(
    endpoint: Endpoint,
    model: str,
    inputs: Inputs,
    *,
    version: int | None = None,
    key: str | None = None,
    protocol: str = "http",
    ids: Sequence[str] | None = None,
    retries: int = RETRIES,
    timeout: float = 30.0,
    progress: Callable[[int, int], None] | None = None,
) -> Prediction:
    """Send examples to the loop's own server in small batches.

    Args:
        endpoint: The server.
        model: Name of the served model.
        inputs: Its tensors by name, or in the order of its signature; or the only one. First axis: the example, except for graphs.
        version: That very version; null for what ``served.json`` says: the champion, or its challenger by the split of a canary.
        key: What that split goes by; the request's id when null.
        protocol: ``http`` or ``grpc``.
        ids: Request id of each example, which then travels alone; fresh ones when left out.
        retries: Most further tries of a request.
        timeout: Longest time for a request with all its tries, in seconds.
        progress: Called after each request with the number of answered examples and of all.

    Raises:
        ServingError: The server refused the request.
        ServerUnavailable: No answer.
    """
    repository = Path(endpoint.repository)
    signature = _signature(repository, model, version)
    pinned = version is not None
    routed = _is_routed(repository, model)
    if version is None and not routed:
        # Packaged by an older kfloop: an unpinned request would reach the version with the highest number, verified or not.
        version, _ = served(repository, model)
    client = Client(
        endpoint.grpc if protocol == "grpc" else endpoint.http,
        model,
        protocol=protocol,
        retries=retries,
        timeout=timeout,
        takes=takes_of(signature, tells_version=routed),
    )
    return client.predict(inputs, ids=ids, key=key, version=version, pinned=pinned, progress=progress)


def infer(
    endpoint: Endpoint,
    model: str,
    inputs: Inputs,
    *,
    version: int | None = None,
    key: str | None = None,
    protocol: str = "http",
    request_id: str = "",
    timeout: float = 30.0,
) -> dict[str, Any]:
    """One request, sent once and as it is: what does not fit the model is for the server to refuse.

    Returns:
        The outputs by name, and the ``version`` that answered.

    Raises:
        ServingError: The server refused the request.
        ServerUnavailable: No answer.
    """
    repository = Path(endpoint.repository)
    takes = takes_of(_signature(repository, model, version), tells_version=_is_routed(repository, model))
    address = Address(url=endpoint.grpc if protocol == "grpc" else endpoint.http, protocol=protocol)
    parameters = _parameters(key, pinned=version is not None)
    return ask(
        address, model, takes, inputs, version=version, parameters=parameters, request_id=request_id, timeout=timeout
    )


def ask(
    address: Address,
    model: str,
    takes: Takes,
    inputs: Inputs,
    *,
    version: int | None = None,
    parameters: Mapping[str, str | bool] | None = None,
    request_id: str = "",
    timeout: float = 30.0,
) -> dict[str, Any]:
    """One request to any server, sent once and as it is.

    Returns:
        The outputs by name, and the ``version`` that answered.

    Raises:
        ServingError: The server refused the request.
        ServerUnavailable: No answer.
    """
    call = Call(
        model=model,
        tensors=on_the_wire(takes, by_name(takes.inputs, inputs)),
        outputs=takes.asked,
        version=version,
        request_id=request_id,
        parameters=parameters or {},
    )
    found = answer(send(address, call, timeout=timeout), takes)
    return found | {"version": int(found["version"])}


def _parameters(key: str | None, *, pinned: bool) -> dict[str, str | bool]:
    """What routing goes by (``model/routing.py``)."""
    return ({"key": key} if key else {}) | ({"pinned": True} if pinned else {})


def request_tensors(kind: Any, signature: Signature, inputs: Mapping[str, np.ndarray], **options: Any) -> list[Any]:
    """Input tensors of a request, for ``tritonclient.http`` or ``tritonclient.grpc`` (``kind``)."""
    return input_tensors(kind, on_the_wire(takes_of(signature), inputs), **options)


def _requests(
    model: str, takes: Takes, tensors: dict[str, np.ndarray], ids: Sequence[str] | None
) -> list[tuple[str, list[str], dict[str, np.ndarray]]]:
    """Id, ids of the rows, and tensors of each request."""
    if not takes.limit:
        request = ids[0] if ids else uuid.uuid4().hex
        return [(request, [request], tensors)]
    counts = {name: len(array) for name, array in tensors.items()}
    total = next(iter(counts.values()))
    if len(set(counts.values())) > 1:
        raise ServingError(f"the inputs of model '{model}' have different numbers of rows: {counts}")
    if not total:
        raise ServingError("no examples to send", hint="give at least one")
    if ids is not None and (len(ids) != total or len(set(ids)) != total):
        raise ServingError(f"{len(ids)} ids ({len(set(ids))} different ones) were given for {total} examples")
    found = []
    step = min(BATCH, takes.limit) if ids is None else 1
    for start in range(0, total, step):
        count = min(step, total - start)
        request = uuid.uuid4().hex if ids is None else ids[start]
        rows = [request] if count == 1 else [f"{request}#{number}" for number in range(count)]
        found.append((request, rows, {name: array[start : start + step] for name, array in tensors.items()}))
    return found


def _signature(repository: Path, model: str, version: int | None) -> Signature:
    """What a version takes and gives; of the champion when none is pinned."""
    if version is None:
        version, _ = served(repository, model)
    if version is None:
        raise ServingError(f"model '{model}' has no served version yet", hint="promote one with: kfloop run")
    try:
        return read_signature(repository / model / str(version))
    except StateError as error:
        raise ServingError(f"version {version} of model '{model}' is not served: {error.message}") from error


def _is_routed(repository: Path, model: str) -> bool:
    """Whether every version that is held follows ``served.json``."""
    _, versions = served(repository, model)
    return bool(versions) and all((repository / model / str(held) / ROUTING).is_file() for held in versions)
