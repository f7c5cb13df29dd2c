"""Control of a running server: load, readiness of one version, and the golden request that alone counts as ready."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from kfloop.core.external import ALIVE_ID
from kfloop.core.scoring import difference, unit_of
from kfloop.errors import KfloopError, ServerUnavailable, ServingError
from kfloop.serving.endpoint import KEY_HEADER
from kfloop.serving.repository import set_versions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kfloop.serving.endpoint import Endpoint

GOLDEN_ID = "kfloop-golden"  # rows with this id are not traffic: the collector leaves them out
POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class GoldenResult:
    """Golden answers of one version, compared by value.

    Attributes:
        n: Number of golden answers.
        max_abs_diff: Largest difference over all outputs: absolute for probabilities, else in units of the output's largest magnitude;
            infinite when an output has another shape or is not finite.
        tolerance: Largest difference allowed.
        passed: Whether the answers are right.
    """

    n: int
    max_abs_diff: float
    tolerance: float
    passed: bool


class ModelControl:
    """What every server with explicit model control can be told.

    Args:
        client: A ``tritonclient.http`` client.
        headers: What opens its restricted APIs.
        where: Its address, for messages.
    """

    def __init__(self, client: Any, headers: Mapping[str, str], where: str) -> None:
        self._client, self._headers, self._where = client, dict(headers), where

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

    def is_ready(self, model: str, version: int) -> bool:
        """Whether the server says so; it also says so of a version whose process died."""
        try:
            return bool(self._call(self._client.is_model_ready, model, str(version)))
        except KfloopError:
            return False

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

    def _call(self, method: Any, *arguments: Any, **options: Any) -> Any:
        from tritonclient.utils import InferenceServerException

        from kfloop.serving.wire import no_answer_errors

        try:
            return method(*arguments, **options)
        except InferenceServerException as error:
            raise ServingError(f"Triton refused: {error.message()}") from error
        except no_answer_errors() as error:
            raise ServerUnavailable(
                f"no answer from Triton at {self._where}: {error}", hint="is it running? see: kfloop status"
            ) from error


class Control(ModelControl):
    """The control API of kfloop's own server, over HTTP with its key.

    Args:
        endpoint: The server.
        timeout: Network timeout of one call, in seconds; loads may take this long.
    """

    def __init__(self, endpoint: Endpoint, timeout: float = 60.0) -> None:
        from tritonclient import http

        client = http.InferenceServerClient(endpoint.http, network_timeout=timeout, connection_timeout=10.0)
        super().__init__(client, {KEY_HEADER: endpoint.key}, endpoint.http)
        self._endpoint = endpoint

    def swap(self, repository: Path, model: str, versions: Sequence[int], default: int) -> None:
        """Write which versions are held, and load them."""
        set_versions(repository, model, versions, default)
        self.load(model)

    def golden(
        self, model: str, version: int, golden: Path, *, tolerance: float, protocol: str = "http"
    ) -> GoldenResult:
        """Send the golden request to one version and compare its answers by value.

        A status is not enough: with a mismatched NumPy the server answers zeros, or nothing, with HTTP 200.

        Raises:
            ServingError: The server refused it, or the file proves nothing.
        """
        from kfloop.serving.client import infer

        inputs, expected = read_golden(golden)
        answers = infer(self._endpoint, model, inputs, version=version, protocol=protocol, request_id=GOLDEN_ID)
        return compared(answers, expected, tolerance)

    def alive(self, model: str, version: int, golden: Path) -> None:
        """See that the process of an external model answers, without asking the endpoint behind it.

        Raises:
            ServingError: It refuses.
            ServerUnavailable: It does not answer.
        """
        from kfloop.serving.client import infer

        inputs, _ = read_golden(golden)
        infer(self._endpoint, model, inputs, version=version, request_id=ALIVE_ID, timeout=10.0)


def compared(answers: Mapping[str, Any], expected: Mapping[str, np.ndarray], tolerance: float) -> GoldenResult:
    """Answers against those that are expected, by value."""
    worst = max(difference(value, answers[name], unit_of(name, value)) for name, value in expected.items())
    count = len(next(iter(expected.values())))
    return GoldenResult(n=count, max_abs_diff=worst, tolerance=tolerance, passed=worst <= tolerance)


def read_golden(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and expected outputs, by name, of a package's golden request.

    Raises:
        ServingError: The file holds none.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            inputs, outputs = (
                {name.removeprefix(f"{side}."): arrays[name] for name in arrays.files if name.startswith(f"{side}.")}
                for side in ("input", "output")
            )
    except (OSError, ValueError, BadZipFile) as error:
        raise ServingError(
            f"'{path}' cannot be read as golden answers: {error}", hint="package the model again"
        ) from error
    if not inputs or not outputs or not all(len(array) for array in outputs.values()):
        raise ServingError(f"'{path}' holds no golden answers", hint="package the model again")
    return inputs, outputs
