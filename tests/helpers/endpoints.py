"""Real HTTP servers that answer with a small scikit-learn model, and misbehave when they are told to."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

Answer = tuple[int, dict[str, str], bytes]
TOKEN = "s3cret-t0ken-of-the-owner"
HTML = b"<!doctype html><title>Sign in</title>"


class Endpoint:
    """One server: what it was sent, and what it answers.

    Attributes:
        url: Where it is.
        bodies: Bodies of all posts, in order.
        headers: Their headers.
        before: Asked first with the number of the post; an answer in place of the model's, or null.
    """

    def __init__(self, answer: Callable[[str, bytes], bytes]) -> None:
        self.answer = answer
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.before: Callable[[int], Answer | None] = lambda _: None
        self.metadata: dict[str, Any] | None = None
        self.url = ""


@contextlib.contextmanager
def serving(answer: Callable[[str, bytes], bytes], tls: ssl.SSLContext | None = None) -> Iterator[Endpoint]:
    """A server that lives as long as the block; over TLS with ``tls``."""
    endpoint = Endpoint(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = endpoint.metadata
            self._send((404, {}, b"no such page") if found is None else (200, {}, json.dumps(found).encode()))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            endpoint.bodies.append(body)
            endpoint.headers.append(dict(self.headers))
            told = endpoint.before(len(endpoint.bodies))
            self._send(told or (200, {"Content-Type": "application/json"}, endpoint.answer(self.path, body)))

        def _send(self, answer: Answer) -> None:
            status, headers, content = answer
            with contextlib.suppress(BrokenPipeError):  # the client has lost its patience
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            del arguments

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    endpoint.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def digits_model() -> Callable[[np.ndarray], np.ndarray]:
    """Probabilities float64 [N, 10] of digits from pixels [N, 64] in 0..255, learned from rows 500 to 900 of scikit-learn's digits."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    pixels, labels = load_digits(return_X_y=True)
    model = LogisticRegression(max_iter=300).fit(pixels[500:900] / 16, labels[500:900])
    return lambda rows: np.asarray(model.predict_proba(np.asarray(rows, dtype=float).reshape(len(rows), 64) / 255))


def json_answers(model: Callable[[np.ndarray], np.ndarray]) -> Callable[[str, bytes], bytes]:
    """Speaks ``{"instances": rows}`` and ``{"predictions": answers}``."""

    def answer(path: str, body: bytes) -> bytes:
        del path
        return json.dumps({"predictions": model(np.array(json.loads(body)["instances"])).tolist()}).encode()

    return answer
