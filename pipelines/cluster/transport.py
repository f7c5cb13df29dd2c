"""One question to the REST API of Kubeflow Pipelines, asked so that it never hangs, lies or does a thing twice.

Why not ``kfp.Client`` or ``kfp_server_api``: measured with 2.17.3, the generated client takes the HTML of a login page for an empty run
(``state`` null, so that its waiting loops never end), follows a proxy's redirect to the login as if it were the answer, ignores a timeout
given as a float, and multiplies every other by four. So this module speaks HTTP itself; the tests hold what it sends and what it is sent
against the routes, parameters and models of ``kfp_server_api``, which are generated from the published OpenAPI file.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from kfloop.errors import ConfigError, InputError, KfloopError, ServerUnavailable, TerminalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from kfloop.pipelines.cluster.auth import Credentials

TOLD = 400
CHUNK = 65536
LONGEST = 256 << 20  # bytes
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
OK = range(200, 300)
MOVED = range(300, 400)
UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, TOO_MANY = 401, 403, 404, 409, 429
SERVER_ERRORS = range(500, 600)
WHERE = "the API is at http(s)://HOST, or http(s)://HOST/pipeline behind a Kubeflow dashboard"

JSON = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait, and how often to ask again.

    Attributes:
        connect: Longest wait for a connection, in seconds.
        answer: Longest silence while an answer is read, in seconds.
        whole: Longest time of one answer, in seconds: a server that drips must not hold us.
        attempts: Attempts of one call; only what may work later is repeated.
        pause: Seconds before the second attempt; doubled each time.
        longest_pause: Longest of these pauses, in seconds.
    """

    connect: float = 5.0
    answer: float = 30.0
    whole: float = 120.0
    attempts: int = 6
    pause: float = 0.5
    longest_pause: float = 15.0

    def pauses(self) -> Iterator[float]:
        """The pause after each attempt but the last."""
        for attempt in range(self.attempts - 1):
            yield min(self.longest_pause, self.pause * 2**attempt)


class Transport:
    """Asks one Kubeflow Pipelines API as one user.

    Args:
        endpoint: URL that ``/apis/v2beta1`` follows.
        credentials: Who asks.
        ca: File with the certificates to trust; null means those of the system (or ``SSL_CERT_FILE``). Certificates are always checked.
        patience: Timeouts and repetitions.
    """

    def __init__(
        self, endpoint: str, credentials: Credentials, *, ca: Path | None = None, patience: Patience | None = None
    ) -> None:
        import urllib3

        if ca is not None and not ca.is_file():
            raise ConfigError(
                f"--ca: no file '{ca}'", hint="the PEM file with the certificate of the cluster's authority"
            )
        self.endpoint = endpoint.rstrip("/")
        self.credentials = credentials
        self.patience = patience or Patience()
        self._pool = urllib3.PoolManager(
            retries=False,
            timeout=urllib3.Timeout(connect=self.patience.connect, read=self.patience.answer),
            maxsize=4,
            ca_certs=str(ca) if ca else None,
        )

    def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: JSON | None = None,
        arrived: Callable[[], JSON | None] | None = None,
    ) -> JSON:
        """Ask until there is an answer, or patience ends.

        Args:
            method: HTTP method.
            path: What follows ``/apis/v2beta1/``.
            query: Query parameters.
            body: JSON body.
            arrived: For what must not happen twice: asked before each repetition, because an attempt without an answer may have worked.

        Raises:
            ConfigError: The server does not know us, or asks for a login.
            InputError: No such thing on the server.
            TerminalError: It refuses, or speaks something else than the API.
            ServerUnavailable: No good answer in time.
        """
        pauses = self.patience.pauses()
        while True:
            try:
                return self._once(method, path, query, body)
            except TerminalError as error:  # somebody else made the same at the same moment
                found = arrived() if arrived is not None and error.data.get("status") == CONFLICT else None
                if found is None:
                    raise
                return found
            except ServerUnavailable as error:
                pause = next(pauses, None)
                if pause is None:
                    raise ServerUnavailable(
                        f"{error.message} ({self.patience.attempts} attempts)", hint=error.hint, **error.data
                    ) from error
                time.sleep(pause)
                found = arrived() if arrived is not None else None
                if found is not None:
                    return found

    def page(self, path: str, query: Mapping[str, str]) -> str | None:
        """A text of KFP's web server beside the API, such as a log; null where there is none to be had. Asked once.

        Args:
            path: What follows the endpoint.
            query: Query parameters.
        """
        try:
            answer, text = self._ask("GET", f"{path}?{urlencode(query)}", self.credentials.headers(), None)
        except KfloopError:
            return None
        return text if answer.status in OK and text and not _is_html(answer.headers, text) else None

    def _once(self, method: str, path: str, query: Mapping[str, str] | None, body: JSON | None) -> JSON:
        headers = {"Accept": "application/json", **self.credentials.headers()}
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body).encode()
        whole = f"apis/v2beta1/{path}" + (f"?{urlencode(query)}" if query else "")
        answer, text = self._ask(method, whole, headers, content)
        return self._read(method, path, answer, text)

    def _ask(self, method: str, path: str, headers: dict[str, str], content: bytes | None) -> tuple[Any, str]:
        """One request: the answer and its whole text."""
        import urllib3

        try:
            answer = self._pool.request(
                method, f"{self.endpoint}/{path}", body=content, headers=headers, redirect=False, preload_content=False
            )
            return answer, self._content(answer)
        except urllib3.exceptions.LocationValueError as error:
            raise ConfigError(f"cluster.endpoint '{self.endpoint}' is no URL: {error}") from error
        except urllib3.exceptions.HTTPError as error:
            if UNTRUSTED in str(error):
                raise ConfigError(
                    f"the certificate of '{self.endpoint}' is not trusted: {error}"[:TOLD],
                    hint="give the certificate of its authority with --ca FILE (or SSL_CERT_FILE); kfloop always checks it",
                ) from error
            raise ServerUnavailable(
                f"no answer from '{self.endpoint}': {_reason(error)}",
                hint="is the address right, and does it run? (kubectl -n kubeflow get pods; a port-forward may have ended)",
            ) from error

    def _content(self, answer: Any) -> str:
        """The whole text of an answer, read within its time."""
        deadline = time.monotonic() + self.patience.whole
        parts, size = [], 0
        try:
            while part := answer.read1(CHUNK):
                parts.append(part)
                size += len(part)
                if size > LONGEST:
                    raise TerminalError(
                        f"'{self.endpoint}' sent more than {LONGEST >> 20} MiB: this is no answer of the API"
                    )
                if time.monotonic() > deadline:
                    raise ServerUnavailable(
                        f"'{self.endpoint}' was still sending its answer after {self.patience.whole:g} s",
                        hint="the network between is slow, or something before the API holds it up",
                    )
        finally:
            answer.close()
        return b"".join(parts).decode("utf-8", errors="replace")

    def _read(self, method: str, path: str, answer: Any, text: str) -> JSON:
        """The JSON object of an answer, or the error that it is."""
        status = answer.status
        if status in (UNAUTHORIZED, FORBIDDEN):
            what = "does not know who asks" if status == UNAUTHORIZED else "does not allow it"
            raise ConfigError(
                f"'{self.endpoint}' {what} (HTTP {status} to {method} {path}): {self._told(text)}",
                hint=f"auth used: {self.credentials}; log in again, or mend cluster.auth in loop.yaml",
                status=status,
            )
        if status in MOVED or (status in OK and _is_html(answer.headers, text)):
            place = answer.headers.get("Location", "").partition("?")[0]
            raise ConfigError(
                f"'{self.endpoint}' answered {method} {path} with a web page"
                + (f" at '{place}'" if place else "")
                + ": something before the API asks for a login, or the address is not the API's",
                hint=f"auth used: {self.credentials}; {WHERE}",
                status=status,
            )
        if status in SERVER_ERRORS or status == TOO_MANY:
            raise ServerUnavailable(
                f"'{self.endpoint}' answered {method} {path} with HTTP {status}: {self._told(text)}",
                hint="the server is in trouble: its log says more (kubectl -n kubeflow logs deployment/ml-pipeline)",
                status=status,
            )
        if status == NOT_FOUND:
            raise InputError(
                f"'{self.endpoint}' has no {path}: {self._told(text)}",
                hint=f"is the id right, and the endpoint? {WHERE}",
                status=status,
            )
        if status not in OK:
            raise TerminalError(
                f"'{self.endpoint}' refused {method} {path} (HTTP {status}): {self._told(text)}", status=status
            )
        try:
            content = json.loads(text or "{}")
        except json.JSONDecodeError as error:
            raise ServerUnavailable(  # half an answer through a broken proxy looks like this, so it is asked again
                f"'{self.endpoint}' answered {method} {path} with what is not JSON: {self._told(text)!r}",
                hint="is this address the API of Kubeflow Pipelines?",
            ) from error
        if not isinstance(content, dict):
            raise TerminalError(
                f"'{self.endpoint}' answered {method} {path} with {type(content).__name__}, expected an object",
                hint="is this address the API of Kubeflow Pipelines?",
            )
        return content

    def _told(self, text: str) -> str:
        """What the server said: the message of its error object, or the start of its text."""
        try:
            content = json.loads(text)
            said = content.get("message") or content.get("error") or text if isinstance(content, dict) else text
        except json.JSONDecodeError:
            said = text
        said = " ".join(self.credentials.hide(str(said)).split())
        return (said[:TOLD] + "...") if len(said) > TOLD else said or "no reason given"


def _is_html(headers: Mapping[str, str], text: str) -> bool:
    return "html" in headers.get("Content-Type", "").lower() or text.lstrip()[:1] == "<"


def _reason(error: Exception) -> str:
    """The kind of failure in few words: urllib3's own text repeats the whole pool."""
    return f"{type(error).__name__}: {str(error).rsplit(': ', 1)[-1]}"[:TOLD]
