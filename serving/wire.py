"""One request on the wire, by HTTP or gRPC, over a connection that its thread keeps; and which failures are worth another try."""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import ConfigError, ServerUnavailable, ServingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROTOCOLS = ("http", "grpc")
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
MOST_CONNECTIONS = 8  # of one thread
BUSY = ("503", "StatusCode.UNAVAILABLE")
_kept = threading.local()


@dataclass(frozen=True, kw_only=True)
class TLS:
    """How a connection is secured.

    Attributes:
        ca: File of the authorities that are trusted (PEM); the system's own when empty.
        cert: File of this client's certificate (PEM), where the server wants one.
        key: File of its key (PEM).
    """

    ca: str = ""
    cert: str = ""
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a server is.

    Attributes:
        url: ``host:port``.
        protocol: ``http`` or ``grpc``.
        tls: How the connection is secured; null in plain.
    """

    url: str
    protocol: str = "http"
    tls: TLS | None = None

    def __post_init__(self) -> None:
        """Refuse what is no address.

        Raises:
            ConfigError: Another protocol, a URL instead of ``host:port``, or a file that is not there.
        """
        if self.protocol not in PROTOCOLS:
            raise ConfigError(f"protocol '{self.protocol}' is not one of {', '.join(PROTOCOLS)}")
        if "://" in self.url or ":" not in self.url:
            raise ConfigError(f"'{self.url}' is no host and port", hint="write it as HOST:PORT, without http://")
        for path in (self.tls.ca, self.tls.cert, self.tls.key) if self.tls else ():
            if path and not os.path.isfile(path):  # noqa: PTH113 - what tritonclient takes are strings
                raise ConfigError(f"no file '{path}'", hint="it has to hold certificates in PEM")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One inference request.

    Attributes:
        model: Name of the model.
        tensors: Its inputs by name, as they go on the wire.
        outputs: Names of the wanted outputs.
        version: Version in the address; the server's choice when null.
        request_id: Its id.
        parameters: Parameters of the request.
    """

    model: str
    tensors: Mapping[str, np.ndarray]
    outputs: tuple[str, ...]
    version: int | None = None
    request_id: str = ""
    parameters: Mapping[str, str | bool] = field(default_factory=dict)


def send(address: Address, call: Call, *, retries: int = 0, timeout: float = 30.0) -> dict[str, np.ndarray]:
    """Send a request, again with the same id while the failure is one that passes.

    Args:
        address: The server.
        call: The request.
        retries: Most further tries: after a refused or broken connection, or when the server says that it is busy.
        timeout: Longest time for all tries together, in seconds.

    Returns:
        The outputs by name; ``version`` is the version in the answer.

    Raises:
        ServingError: The server refused the request.
        ServerUnavailable: No answer.
    """
    return dict(_tried(lambda left, keep: _once(address, call, left, keep=keep), retries, timeout))


def _tried(action: Callable[[float, bool], Any], retries: int, timeout: float) -> Any:
    """Do something that may fail in passing; it is told the time that is left, and whether it may use the connection that is kept."""
    deadline = time.monotonic() + timeout
    for number in range(retries + 1):
        try:
            return action(timeout if number == 0 else deadline - time.monotonic(), number == 0)
        except (ServingError, ServerUnavailable) as error:
            # Half of the pause is chance: clients that were refused together do not come back together.
            pause = min(FIRST_PAUSE * 2.0 ** min(number, 10), LONGEST_PAUSE) * (0.5 + random.random() / 2)  # noqa: S311
            if not error.data.get("again") or number == retries or time.monotonic() + pause >= deadline:
                raise
            time.sleep(pause)
    raise AssertionError  # pragma: no cover - the last try returned or raised


def metadata(address: Address, model: str, *, retries: int = 0, timeout: float = 30.0) -> dict[str, Any]:
    """What the server says of a model: ``inputs`` and ``outputs``, each with name, datatype and shape.

    Raises:
        ServingError: It knows no such model.
        ServerUnavailable: No answer.
    """

    def ask(left: float, keep: bool) -> Any:
        with _Translated(address):
            client = _client(address, left) if keep else connect(address, left)
            try:
                if address.protocol == "grpc":
                    return client.get_model_metadata(model, as_json=True, client_timeout=left)
                return client.get_model_metadata(model)
            finally:
                if not keep:
                    client.close()

    return dict(_tried(ask, retries, timeout))


def input_tensors(kind: Any, tensors: Mapping[str, np.ndarray], **options: Any) -> list[Any]:
    """Tensors for ``tritonclient.http`` or ``tritonclient.grpc`` (``kind``)."""
    from tritonclient.utils import np_to_triton_dtype

    found = []
    for name, given in tensors.items():
        array = given.astype(object) if given.dtype.kind == "U" else given
        tensor = kind.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(array), **options)
        found.append(tensor)
    return found


def no_answer_errors() -> tuple[type[Exception], ...]:
    """What the HTTP client raises when the server goes away in the middle; its own errors are no ``OSError``."""
    from geventhttpclient.response import HTTPParseError

    return (OSError, HTTPParseError)


def _once(address: Address, call: Call, timeout: float, *, keep: bool) -> dict[str, np.ndarray]:
    """One try; a further one opens a connection of its own, whose time limit is what is left."""
    with _Translated(address):
        client = _client(address, timeout) if keep else connect(address, timeout)
        try:
            return (_grpc if address.protocol == "grpc" else _http)(client, call, timeout)
        finally:
            if not keep:
                client.close()


def _http(client: Any, call: Call, timeout: float) -> dict[str, Any]:
    from tritonclient import http

    del timeout  # it is the connection's
    result = client.infer(
        call.model,
        input_tensors(http, call.tensors, binary_data=True),
        model_version=str(call.version or ""),
        outputs=[http.InferRequestedOutput(name, binary_data=True) for name in call.outputs],
        request_id=call.request_id,
        parameters=dict(call.parameters) or None,
    )
    found = {name: result.as_numpy(name) for name in call.outputs}
    return found | {"version": result.get_response().get("model_version", "")}


def _grpc(client: Any, call: Call, timeout: float) -> dict[str, Any]:
    from tritonclient import grpc

    result = client.infer(
        call.model,
        input_tensors(grpc, call.tensors),
        model_version=str(call.version or ""),
        outputs=[grpc.InferRequestedOutput(name) for name in call.outputs],
        request_id=call.request_id,
        client_timeout=timeout,
        parameters=dict(call.parameters) or None,
    )
    return {name: result.as_numpy(name) for name in call.outputs} | {"version": result.get_response().model_version}


def _client(address: Address, timeout: float) -> Any:
    """This thread's connection to a server: the HTTP client works in the thread that made it, and nowhere else."""
    clients: dict[Any, Any] = _kept.__dict__.setdefault("clients", {})
    key = (address, timeout, os.getpid())
    if key not in clients:
        if len(clients) >= MOST_CONNECTIONS:
            clients.pop(next(iter(clients))).close()
        clients[key] = connect(address, timeout)
    return clients[key]


def forget(address: Address) -> None:
    """Close what this thread keeps open to a server."""
    clients: dict[Any, Any] = _kept.__dict__.get("clients", {})
    for key in [key for key in clients if key[0] == address]:
        clients.pop(key).close()


@atexit.register
def _forget_all() -> None:
    """Before the interpreter takes modules apart: a gRPC client that is closed after that complains on the terminal."""
    clients: dict[Any, Any] = _kept.__dict__.get("clients", {})
    for key in [key for key in clients if key[2] == os.getpid()]:
        with contextlib.suppress(Exception):
            clients.pop(key).close()


def connect(address: Address, timeout: float) -> Any:
    """A connection of its own to a server, of the kind its protocol has."""
    tls = address.tls
    if address.protocol == "grpc":
        from tritonclient import grpc

        if tls is None:
            return grpc.InferenceServerClient(address.url)
        return grpc.InferenceServerClient(
            address.url,
            ssl=True,
            # Left to itself gRPC trusts a list of its own.
            root_certificates=tls.ca or ssl.get_default_verify_paths().cafile,
            private_key=tls.key or None,
            certificate_chain=tls.cert or None,
        )
    from tritonclient import http

    secured: dict[str, Any] = {} if tls is None else {"ssl": True, "ssl_context_factory": lambda: _context(tls)}
    return http.InferenceServerClient(address.url, network_timeout=timeout, connection_timeout=timeout, **secured)


def _context(tls: TLS) -> ssl.SSLContext:
    from gevent import ssl as green

    context: ssl.SSLContext = green.create_default_context(cafile=tls.ca or None)
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key or None)
    return context


class _Translated:
    """Turns what a client raises into errors of kfloop; ``again`` in their data says whether another try may help."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def __enter__(self) -> None:
        """Nothing yet."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Raise what the error means."""
        from tritonclient.utils import InferenceServerException

        if isinstance(error, InferenceServerException):
            status, words = str(error.status()), str(error.message())
            again = status in BUSY
            if again and "failed to connect" in words.lower():
                raise ServerUnavailable(f"no answer from Triton at {self._address.url}: {words}", again=True) from error
            raise ServingError(
                f"Triton refused the request: {words}", hint="see: kfloop status", again=again, status=status
            ) from error
        if isinstance(error, no_answer_errors()):
            forget(self._address)
            raise ServerUnavailable(
                f"no answer from Triton at {self._address.url}: {error}",
                hint="is the address right, and does the server run? The loop's own: kfloop status",
                again=not isinstance(error, ssl.SSLCertVerificationError | TimeoutError),
            ) from error
