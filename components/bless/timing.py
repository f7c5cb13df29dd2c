"""Timing: latency and throughput of single examples at a given concurrency, one client per thread."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.serving.client import request_tensors
from kfloop.serving.control import GOLDEN_ID

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfloop.core.signature import Signature
    from kfloop.serving.endpoint import Endpoint

WARM_UP = 8  # requests per client before the clock starts


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Latency percentiles in milliseconds, and requests per second.

    Attributes:
        p50: Median.
        p95: 95th percentile.
        p99: 99th percentile.
        n: Timed requests.
        concurrency: Clients at the same time.
        throughput_rps: Requests per second over the whole trial.
    """

    p50: float
    p95: float
    p99: float
    n: int
    concurrency: int
    throughput_rps: float


def time_requests(
    endpoint: Endpoint,
    model: str,
    signature: Signature,
    inputs: dict[str, np.ndarray],
    *,
    requests: int,
    concurrency: int,
    timeout: float,
    protocol: str = "http",
) -> Timing:
    """Send ``requests`` requests.

    Args:
        endpoint: The server.
        model: Name of the served model.
        signature: What it takes.
        inputs: Tensors by name; their examples are taken in turn, one for each request, or all at once for graphs.
        requests: Number of timed requests.
        concurrency: Number of clients.
        timeout: Longest wait for one answer, in seconds.
        protocol: ``http`` or ``grpc``.

    Raises:
        InferenceServerException: A request failed.
    """
    shares = [requests // concurrency + (client < requests % concurrency) for client in range(concurrency)]
    singles = _singles(signature, inputs)
    client = _grpc if protocol == "grpc" else _http
    started = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        parts = list(
            pool.map(
                lambda share: client(endpoint, model, signature, singles, share, timeout), [s for s in shares if s]
            )
        )
    wall = time.perf_counter() - started
    seconds = np.concatenate(parts)
    p50, p95, p99 = (float(value) for value in np.percentile(seconds, (50, 95, 99)) * 1000)
    sent = len(seconds) + WARM_UP * len(parts)
    return Timing(p50=p50, p95=p95, p99=p99, n=len(seconds), concurrency=concurrency, throughput_rps=sent / wall)


def _singles(signature: Signature, inputs: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Single examples; all at once where there is no batch axis."""
    if not signature.batched:
        return [inputs]
    count = len(next(iter(inputs.values())))
    return [{name: array[row : row + 1] for name, array in inputs.items()} for row in range(count)]


def _http(
    endpoint: Endpoint,
    model: str,
    signature: Signature,
    singles: list[dict[str, np.ndarray]],
    share: int,
    timeout: float,
) -> np.ndarray:
    """Seconds of each of ``share`` requests of one client."""
    from tritonclient import http

    client = http.InferenceServerClient(endpoint.http, connection_timeout=timeout, network_timeout=timeout)
    try:
        inputs = [request_tensors(http, signature, single, binary_data=True) for single in singles]
        return _timed(inputs, share, lambda tensors: client.infer(model, tensors, request_id=GOLDEN_ID))
    finally:
        client.close()


def _grpc(
    endpoint: Endpoint,
    model: str,
    signature: Signature,
    singles: list[dict[str, np.ndarray]],
    share: int,
    timeout: float,
) -> np.ndarray:
    """As :func:`_http`, over gRPC."""
    from tritonclient import grpc

    with grpc.InferenceServerClient(endpoint.grpc) as client:
        inputs = [request_tensors(grpc, signature, single) for single in singles]
        return _timed(
            inputs,
            share,
            lambda tensors: client.infer(model, tensors, request_id=GOLDEN_ID, client_timeout=timeout),
        )


def _timed(inputs: list[Any], share: int, ask: Callable[[Any], Any]) -> np.ndarray:
    """Seconds of ``share`` requests, after some that do not count."""
    seconds = []
    for number in range(-WARM_UP, share):
        before = time.perf_counter()
        ask(inputs[number % len(inputs)])
        if number >= 0:
            seconds.append(time.perf_counter() - before)
    return np.array(seconds)
