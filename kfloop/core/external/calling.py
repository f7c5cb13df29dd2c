"""One HTTP call after another: the token, a deadline, retries of what may pass, and a clock."""

from __future__ import annotations

import email.utils
import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_WAIT = 30.0  # seconds between two attempts, whatever Retry-After says
FIRST_WAIT = 0.2  # doubled after each attempt
MOST_BYTES = 256 * 2**20  # of one answer
PART = 2**16
QUOTED = 160  # characters of an answer that an error shows
BUSY = (429, 502, 503, 504)  # what servers say when the same request may be answered later
HINTS = {
    401: "it wants a token, or another one",
    403: "the token does not open this model",
    404: "there is no such address or model: look at url, model and version",
}


class CallFailed(Exception):
    """The endpoint gave no answer that can be used.

    Args:
        message: What happened; never holds the token.
        later: Whether the same call may work later.
    """

    def __init__(self, message: str, *, later: bool) -> None:
        super().__init__(message)
        self.message, self.later = message, later


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer, not a command: the token and the rows go where the loop file says, and nowhere else."""

    def redirect_request(self, *arguments: Any) -> None:
        del arguments


class Caller:
    """Sends bodies and gives back answers.

    Args:
        told: ``external.json``: ``token_env``, ``token_header``, ``timeout_seconds``, ``retries``.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._told = told
        self._opener = urllib.request.build_opener(_Stay())
        self.seconds: list[float] = []  # of each answered call
        self.retries = 0
        self.failures = 0

    def call(self, url: str, body: bytes | None, headers: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
        """The answer to one request: its body and its headers, by names in lower case.

        Args:
            url: Where to.
            body: What is posted; null asks with GET.
            headers: Beside the token's.

        Raises:
            CallFailed: No answer with status 200, after the retries.
        """
        attempt = 0
        while True:
            try:
                return self._once(url, body, headers)
            except _Later as failed:
                self.failures += 1
                if attempt >= self._told["retries"]:
                    tries = f" ({attempt + 1} attempts)" if attempt else ""
                    raise CallFailed(self._clean(f"{failed.reason}{tries}"), later=True) from None
                wait = FIRST_WAIT * 2**attempt if failed.wait is None else failed.wait
                time.sleep(min(wait, LONGEST_WAIT))
                attempt += 1
                self.retries += 1

    def _once(self, url: str, body: bytes | None, headers: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
        request = urllib.request.Request(url, data=body, headers={**headers, **self._secret()})  # noqa: S310 - the loop file allows http and https alone
        timeout = self._told["timeout_seconds"]
        started = time.monotonic()
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                content = _content(answer, started + timeout)
                told = {name.lower(): value for name, value in answer.headers.items()}
        except urllib.error.HTTPError as error:
            with error:
                self._refused(url, error)
        except (OSError, http.client.HTTPException) as error:
            self._unanswered(url, error, timeout)
        self.seconds.append(time.monotonic() - started)
        return content, told

    def _secret(self) -> dict[str, str]:
        """The header with the token; none where the description names no variable."""
        name = self._told.get("token_env")
        if not name:
            return {}
        token = os.environ.get(name, "").strip()
        if not token:
            raise CallFailed(
                f"the environment variable {name} is not set in this process, but it should hold the token", later=False
            )
        if not token.isascii() or not token.isprintable():  # http.client would quote it in its error
            raise CallFailed(
                f"the environment variable {name} holds no token: it has signs that no header takes", later=False
            )
        header = self._told.get("token_header") or "Authorization"
        return {header: f"Bearer {token}" if header.lower() == "authorization" else token}

    def _refused(self, url: str, error: urllib.error.HTTPError) -> None:
        """Say what a status other than 200 means.

        Raises:
            CallFailed: Always; as ``_Later`` where another attempt may help.
        """
        status = error.code
        if status in BUSY:
            raise _Later(f"{url} answers {status} {error.reason}", _wait(error.headers.get("Retry-After")))
        said = self._quoted(error)
        where = error.headers.get("Location")
        if where:
            said = f": it sends elsewhere, to {where}; give that address in url if it is the right one"
        hint = f" ({HINTS[status]})" if status in HINTS else ""
        self.failures += 1
        raise CallFailed(self._clean(f"{url} answers {status} {error.reason}{hint}{said}"), later=False) from None

    def _unanswered(self, url: str, error: Exception, timeout: float) -> None:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            self.failures += 1
            message = (
                f"the certificate of {url} cannot be trusted: {reason.verify_message}; for an authority of your own, name its file in "
                "the environment variable SSL_CERT_FILE"
            )
            raise CallFailed(message, later=False) from None
        if isinstance(reason, ssl.SSLError):
            self.failures += 1
            raise CallFailed(f"{url} speaks no TLS that this machine accepts: {reason}", later=False) from None
        if isinstance(reason, _TooLong):
            self.failures += 1
            raise CallFailed(f"the answer of {url} is longer than {MOST_BYTES >> 20} MiB", later=False) from None
        if isinstance(reason, TimeoutError):
            raise _Later(f"no answer from {url} within {timeout:g} s") from None
        raise _Later(f"no answer from {url}: {reason}") from None

    def _quoted(self, error: urllib.error.HTTPError) -> str:
        try:
            text = error.read(4 * QUOTED).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            return ""
        return f": {shortened(text)}" if text.strip() else ""

    def _clean(self, text: str) -> str:
        """The text without the token, should the endpoint have repeated it."""
        token = os.environ.get(self._told.get("token_env") or "", "").strip()
        return text.replace(token, "***") if token else text


class _Later(Exception):
    """Another attempt may help, after ``wait`` seconds where the server says so."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.wait = reason, wait


class _TooLong(OSError):
    """More than anybody needs."""


def shortened(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= QUOTED else f"{line[:QUOTED]}..."


def _content(answer: Any, deadline: float) -> bytes:
    """The whole answer; one that drips slower than the deadline counts as none."""
    parts, size = [], 0
    while True:
        part = answer.read1(PART)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise _TooLong
        if time.monotonic() > deadline:
            raise TimeoutError
    if answer.length:  # fewer bytes than announced
        raise http.client.IncompleteRead(b"".join(parts), answer.length)
    return b"".join(parts)


def _wait(told: str | None) -> float | None:
    """Seconds that ``Retry-After`` asks for: a number, or a date (RFC 9110, 10.2.3); null without one."""
    if not told:
        return None
    if told.strip().isdigit():
        return float(told)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(told).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
