"""Control of a running server: load, readiness of one version, and the golden request that alone counts as ready."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import ServerUnavailable, ServingError
from kfloop.serving.endpoint import KEY_HEADER
from kfloop.serving.repository import set_versions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kfloop.serving.endpoint import Endpoint

GOLDEN_ID = "kfloop-golden"  # rows with this id are not traffic: the collector leaves them out
POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class GoldenResult:
    """Golden answers of one version, compared by value.

    Attributes:
        n: Number of golden images.
        max_abs_diff: Largest absolute difference over all outputs; infinite when an output has another shape or is not finite.
        tolerance: Largest difference allowed.
        passed: Whether the answers are right.
    """

    n: int
    max_abs_diff: float
    tolerance: float
    passed: bool


class Control:
    """The control API of one server, over HTTP with its key.

    Args:
        endpoint: The server.
        timeout: Network timeout of one call, in seconds; loads may take this long.
    """

    def __init__(self, endpoint: Endpoint, timeout: float = 60.0) -> None:
        from tritonclient import http

        self._endpoint = endpoint
        self._client = http.InferenceServerClient(endpoint.http, network_timeout=timeout, connection_timeout=10.0)
        self._headers = {KEY_HEADER: endpoint.key}

    def server_version(self) -> str:
        """Version of tritonserver."""
        return str(self._call(self._client.get_server_metadata)["version"])

    def load(self, model: str) -> None:
        """Load what ``config.pbtxt`` asks for; the versions that answer now keep answering until the new ones are ready.

        Raises:
            ServingError: The server refused; its reason is in the message.
        """
        self._call(self._client.load_model, model, headers=self._headers)

    def unload(self, model: str) -> None:
        """Stop serving the model."""
        self._call(self._client.unload_model, model, headers=self._headers)

    def index(self) -> list[dict[str, Any]]:
        """Every model version the server knows, with state and reason."""
        return list(self._call(self._client.get_model_repository_index, headers=self._headers))

    def swap(self, repository: Path, model: str, versions: Sequence[int], default: int) -> None:
        """Write which versions are held, and load them."""
        set_versions(repository, model, versions, default)
        self.load(model)

    def wait_ready(self, model: str, version: int, timeout: float) -> None:
        """Wait until the server says that this very version is ready.

        Raises:
            ServingError: It is not, in time; the index entry is in the message.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._call(self._client.is_model_ready, model, str(version)):
                return
            time.sleep(POLL_SECONDS)
        entries = [entry for entry in self.index() if entry["name"] == model]
        raise ServingError(f"version {version} of model '{model}' is not ready after {timeout:.0f} s: {entries}")

    def golden(
        self, model: str, version: int, golden: Path, *, tolerance: float, protocol: str = "http"
    ) -> GoldenResult:
        """Send the golden images to one version and compare its answers by value.

        A status is not enough: with a mismatched NumPy the server answers zeros, or nothing, with HTTP 200.
        """
        from kfloop.serving.client import infer

        with np.load(golden, allow_pickle=False) as arrays:
            images, expected = arrays["images"], {name: arrays[name] for name in ("probabilities", "embedding")}
        if not len(images):
            raise ServingError(f"'{golden}' holds no golden images", hint="package the model again")
        answers = infer(self._endpoint, model, images, version=version, protocol=protocol, request_id=GOLDEN_ID)
        worst = max(_difference(answers[name], value) for name, value in expected.items())
        return GoldenResult(n=len(images), max_abs_diff=worst, tolerance=tolerance, passed=worst <= tolerance)

    def _call(self, method: Any, *arguments: Any, **options: Any) -> Any:
        from tritonclient.utils import InferenceServerException

        from kfloop.serving.client import no_answer_errors

        try:
            return method(*arguments, **options)
        except InferenceServerException as error:
            raise ServingError(f"Triton refused: {error.message()}") from error
        except no_answer_errors() as error:
            raise ServerUnavailable(
                f"no answer from Triton at {self._endpoint.http}: {error}", hint="is it running? see: kfloop status"
            ) from error


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference; infinite for nothing, another shape, or numbers that are none, on either side."""
    if not found.size or found.shape != expected.shape:
        return float("inf")
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return float("inf")
    return float(np.abs(found.astype(np.float64) - expected).max())
