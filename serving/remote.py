"""Control of a Triton that somebody else runs: load, unload, readiness and golden requests, with errors that say what to change there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kfloop.core.scoring import GOLDEN
from kfloop.core.signature import read_signature
from kfloop.errors import ConfigError, ServerUnavailable, ServingError
from kfloop.serving.client import ask
from kfloop.serving.control import GOLDEN_ID, ModelControl, compared, read_golden
from kfloop.serving.takes import takes_of
from kfloop.serving.wire import TLS, Address, connect

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.sections import TargetConfig
    from kfloop.serving.control import GoldenResult

# What the server says, and what helps. The words are those of Triton 2.51.
HINTS = (
    (
        "restricted",
        "give the key of its restricted APIs: deploy.target.key_env names the variable that holds it, key_header the header",
    ),
    ("explicit model load / unload is not allowed", "the server has to be started with --model-control-mode=explicit"),
    (
        "unable to find backend library",
        "deploy.target.backend: python runs the graph where the server has no onnxruntime backend",
    ),
    ("No module named", "the python of the server's python backend needs NumPy and onnxruntime"),
)


class RemoteControl(ModelControl):
    """The control API of the server of a target, over HTTP with its key.

    Args:
        target: Section ``deploy.target`` of kind ``triton``.
        timeout: Network timeout of one call, in seconds; loads may take this long.

    Raises:
        ConfigError: The variable that ``key_env`` names is not set, or there is no such file of authorities.
    """

    def __init__(self, target: TargetConfig, timeout: float = 60.0) -> None:
        self._addresses = addresses(target)
        self._timeout = timeout
        headers = {target.key_header: _key(target)} if target.key_env else {}
        super().__init__(connect(self._addresses[0], timeout), headers, str(target.url))

    def load(self, model: str) -> None:
        """Load a model; what answers under its name now keeps answering until it is ready.

        Raises:
            ServingError: The server refused, or reads another repository than the one that was written.
        """
        try:
            super().load(model)
        except ServingError as error:
            hint = next((hint for words, hint in HINTS if words in error.message), "")
            if not hint and all(entry["name"] != model for entry in self.index()):
                raise ServingError(
                    f"the server at {self._where} knows no model '{model}', which was written for it: it reads another repository",
                    hint="deploy.target.repository must be the place that its --model-repository reads",
                ) from error
            raise ServingError(
                f"the server at {self._where} did not load '{model}': {error.message}",
                hint=hint or "its log says more; the champion keeps serving",
            ) from error

    def serves(self, model: str, version: int) -> bool | None:
        """Whether the server says that this very version is ready; null where nobody answers."""
        try:
            return bool(self._call(self._client.is_model_ready, model, str(version)))
        except ServerUnavailable:
            return None

    def golden_of(self, model: str, version: int, package: Path, tolerance: float) -> GoldenResult:
        """Send a package's golden request over every protocol and compare the answers by value.

        Args:
            model: Name that is asked.
            version: Version that has to answer.
            package: The package.
            tolerance: Largest difference allowed.

        Returns:
            The worst result.

        Raises:
            ServingError: The server refused it, or another version answered.
        """
        inputs, expected = read_golden(package / GOLDEN)
        takes = takes_of(read_signature(package))
        results = []
        for address in self._addresses:
            found = ask(address, model, takes, inputs, request_id=GOLDEN_ID, timeout=self._timeout)
            if found["version"] != version:
                raise ServingError(f"'{model}' at {address.url} answers with version {found['version']}, not {version}")
            results.append(compared(found, expected, tolerance))
        return max(results, key=lambda result: result.max_abs_diff)


def addresses(target: TargetConfig) -> list[Address]:
    """Where the server of a target is: over HTTP, and over gRPC where that is told."""
    parts = urlsplit(str(target.url))
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    tls = TLS(ca=target.ca or "") if parts.scheme == "https" else None
    found = [Address(url=f"{host}:{parts.port}", tls=tls)]
    return [*found, Address(url=target.grpc, protocol="grpc", tls=tls)] if target.grpc else found


def _key(target: TargetConfig) -> str:
    found = os.environ.get(str(target.key_env), "")
    if not found:
        raise ConfigError(
            f"deploy.target.key_env names {target.key_env}, but that variable is not set",
            hint=f"export {target.key_env}=... before kfloop is called",
        )
    return found
