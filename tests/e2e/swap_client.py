"""Clients in a process of their own that compare every answer with the version it claims to come from.

``swap_client.py SPEC.json``: sends until stdin closes, then writes what happened into ``out`` of the spec (an ``.npz``): ``started`` and
``ended`` (monotonic seconds), ``version`` (the one claimed; 0 for a failed request), ``right`` (the answer is that version's), and
``said``, the first failures.

Kinds: ``kfloop`` (kfloop's own client) and ``plain`` (tritonclient); neither names a version.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from kfloop.serving.client import predict
from kfloop.serving.endpoint import Endpoint

TOLERANCE = 1e-4
ROWS = 4  # of one request
TIMEOUT = 20.0
VERSION_OUTPUT = "served_version"  # which version really answered


class Clients:
    """The clients of one process."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.endpoint = Endpoint(**json.loads(Path(spec["serve_file"]).read_text(encoding="utf-8")))
        with np.load(spec["references"]) as arrays:
            self.references = dict(arrays)
        self.images = self.references.pop("images")
        self.rows: list[tuple[float, float, int, bool]] = []
        self.said: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Send until stdin closes."""
        threads = [threading.Thread(target=self._client, args=(number,)) for number in range(self.spec["threads"])]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        self.over.set()
        for thread in threads:
            thread.join()
        started, ended, version, right = (np.array(column) for column in zip(*self.rows, strict=True))
        said = np.array(self.said or [""])
        np.savez(self.spec["out"], started=started, ended=ended, version=version, right=right, said=said)

    def _client(self, number: int) -> None:
        rng = np.random.default_rng(number)
        ask = self._ask_kfloop if self.spec["kind"] == "kfloop" else _Plain(self).ask
        while not self.over.is_set():
            rows = rng.integers(0, len(self.images), ROWS)
            started = time.monotonic()
            try:
                version, outputs = ask(self.images[rows])
            except Exception as error:  # noqa: BLE001 - whatever a caller would see is a failed request
                self._note(started, 0, f"{type(error).__name__}: {error}")
                time.sleep(0.02)
                continue
            right = all(
                f"{version}.{name}" in self.references
                and value.shape == self.references[f"{version}.{name}"][rows].shape
                and np.allclose(value, self.references[f"{version}.{name}"][rows], atol=TOLERANCE)
                for name, value in outputs.items()
            )
            self._note(started, version, "" if right else f"wrong answer of version {version}", right=right)

    def _note(self, started: float, version: int, said: str, *, right: bool = False) -> None:
        self.rows.append((started, time.monotonic(), version, right))
        if said and len(self.said) < 10:
            self.said.append(said)

    def _ask_kfloop(self, images: np.ndarray) -> tuple[int, dict[str, np.ndarray]]:
        answer = predict(self.endpoint, self.spec["model"], images, protocol=self.spec["protocol"])
        return answer.version, answer.outputs


class _Plain:
    """One tritonclient, of one thread: its HTTP client cannot be shared."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._spec = clients.spec
        self._client: Any = None

    def ask(self, images: np.ndarray) -> tuple[int, dict[str, np.ndarray]]:
        """One request; a failed connection is opened anew for the next one."""
        try:
            return self._ask(images)
        except BaseException:
            with suppress(Exception):
                self._client.close()
            self._client = None
            raise

    def _ask(self, images: np.ndarray) -> tuple[int, dict[str, np.ndarray]]:
        endpoint, model, grpc = self._clients.endpoint, self._spec["model"], self._spec["protocol"] == "grpc"
        if grpc:
            from tritonclient import grpc as kind
        else:
            from tritonclient import http as kind
        if self._client is None:
            options = {} if grpc else {"network_timeout": TIMEOUT, "connection_timeout": TIMEOUT}
            self._client = kind.InferenceServerClient(endpoint.grpc if grpc else endpoint.http, **options)
        tensor = kind.InferInput("image", list(images.shape), "UINT8")
        tensor.set_data_from_numpy(images)
        names = ["probabilities", "embedding"]
        asked = [*names, VERSION_OUTPUT]
        result = self._client.infer(
            model,
            [tensor],
            outputs=[kind.InferRequestedOutput(name) for name in asked],
            **({"client_timeout": TIMEOUT} if grpc else {}),
        )
        claimed = int(result.as_numpy(VERSION_OUTPUT).reshape(-1)[0])
        return claimed, {name: result.as_numpy(name) for name in names}


Clients(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).run()
