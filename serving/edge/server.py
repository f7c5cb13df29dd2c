"""The HTTP server of the edge: health, metadata and inference of one model, and nothing else.

aiohttp parses HTTP; its own answers to broken HTTP are replaced by the same JSON as all others. A request goes on to Triton only when
``checking`` wrote it anew.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from kfloop.serving.edge.checking import LENGTH_HEADER, LONGEST_WORD, Refused, check

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kfloop.core.sections import EdgeConfig
    from kfloop.serving.edge.contract import Contracts

FORWARDED = ("x-route-key", "traceparent")
AWAY = "the model server does not answer now; try again"
RETRY_SECONDS = "1"
ANSWER_SECONDS = 60.0
BODIES_AT_A_TIME = 16  # of the largest size: what may wait in memory
LINGER_SECONDS = 2.0
POOL = 64
OK, SERVER_SIDE, UNAVAILABLE = 200, 500, 503


class Gate:
    """Answers requests for one model.

    Args:
        triton: ``host:port`` of Triton's HTTP port.
        contracts: What the model takes.
        config: Section ``serve.edge``.
        count: Told the status of each answer.
    """

    def __init__(self, triton: str, contracts: Contracts, config: EdgeConfig, count: Callable[[int], None]) -> None:
        self._triton, self._contracts, self._config, self.count = triton, contracts, config, count
        self._reading = 0
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=POOL),
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS, connect=5.0),
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},  # answers are passed on as they are
        )

    async def close(self) -> None:
        """Close the connections to Triton."""
        await self._session.close()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; whatever happens, with JSON and without a word of the inside."""
        try:
            answer = await self._answer(request)
        except Refused as refused:
            answer = error_answer(refused.message, refused.status)
        except (aiohttp.ClientError, TimeoutError, OSError):
            answer = error_answer(AWAY, UNAVAILABLE)
        except Exception:  # noqa: BLE001 - a fault of ours is told as such, and its trace is for nobody
            answer = error_answer("the edge failed on this request", SERVER_SIDE)
        self.count(answer.status)
        return answer

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        path = request.raw_path.partition("?")[0]
        contract = self._contracts.get()
        routes: dict[str, tuple[str, Callable[[web.BaseRequest, str], Awaitable[web.Response]]]] = dict.fromkeys(
            ("/v2", "/v2/health/live", "/v2/health/ready"), ("GET", self._look)
        )
        if contract is not None:
            model = f"/v2/models/{contract.model}"
            routes |= {model: ("GET", self._look), f"{model}/ready": ("GET", self._look)}
            routes[f"{model}/infer"] = ("POST", self._infer)
        if path not in routes:
            raise Refused(f"nothing is at '{path[:80]}': this port has {', '.join(routes)}", 404)
        method, answer = routes[path]
        if request.method != method:
            refused = error_answer(f"'{path}' takes {method}, not {request.method[:20]}", 405)
            refused.headers["Allow"] = method
            return refused
        return await answer(request, path)

    async def _look(self, _: web.BaseRequest, path: str) -> web.Response:
        """Health and metadata, as Triton tells them."""
        async with self._session.get(f"http://{self._triton}{path}") as answer:
            return await self._passed(answer)

    async def _infer(self, request: web.BaseRequest, path: str) -> web.Response:
        contract = self._contracts.get()
        if contract is None:
            raise Refused(AWAY, UNAVAILABLE)
        body = await self._body(request)
        data, length = check(body, request.headers.get(LENGTH_HEADER), contract)
        headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
        for name, value in headers.items():
            if len(value) > LONGEST_WORD or not value.isprintable():
                raise Refused(f"header '{name}' must be at most {LONGEST_WORD} printable characters")
        headers |= {LENGTH_HEADER: str(length), "Content-Type": "application/octet-stream"}
        async with self._session.post(f"http://{self._triton}{path}", data=data, headers=headers) as answer:
            return await self._passed(answer)

    async def _body(self, request: web.BaseRequest) -> bytes:
        """The body, within its limits of size and time."""
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refused("compressed requests are not taken: send the body as it is", 415)
        most = self._config.max_body_bytes
        too_long = Refused(f"the body is longer than {most} bytes", 413)
        if (request.content_length or 0) > most:
            raise too_long
        if self._reading >= BODIES_AT_A_TIME and (request.content_length or most) > most // BODIES_AT_A_TIME:
            raise Refused("too many large requests at once; try again", UNAVAILABLE)
        self._reading += 1
        parts, length = [], 0
        try:
            async with asyncio.timeout(self._config.seconds):
                if request.headers.get("Expect", "").lower() == "100-continue":
                    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    request.writer.output_size = 0
                while part := await request.content.readany():
                    parts.append(part)
                    length += len(part)
                    if length > most:
                        raise too_long
        except TimeoutError:
            raise Refused(f"the body did not come within {self._config.seconds:g} s", 408) from None
        except (aiohttp.ClientPayloadError, web.RequestPayloadError, aiohttp.http_exceptions.HttpProcessingError):
            raise Refused("the body is cut off, or its chunks are malformed") from None
        finally:
            self._reading -= 1
        return b"".join(parts)

    async def _passed(self, answer: aiohttp.ClientResponse) -> web.Response:
        """Triton's answer; of a failure only what is the caller's business."""
        data = await answer.read()
        if answer.status < SERVER_SIDE:
            if answer.status != OK and not data:  # readiness that is not there
                return error_answer("not ready", answer.status)
            kept = {name: answer.headers[name] for name in ("Content-Type", LENGTH_HEADER) if name in answer.headers}
            return web.Response(status=answer.status, body=data, headers=kept)
        if answer.status == UNAVAILABLE or b"is not healthy" in data or b"not ready" in data:
            return error_answer(AWAY, UNAVAILABLE)
        return error_answer("the model failed on this request", answer.status)


def error_answer(message: str, status: int) -> web.Response:
    """The one form of every refusal; a caller that is told to come again is told when."""
    headers = {"Retry-After": RETRY_SECONDS} if status == UNAVAILABLE else {}
    body = json.dumps({"error": message}).encode()
    return web.Response(status=status, body=body, headers=headers | {"Content-Type": "application/json"})


class Protocol(RequestHandler):
    """One connection; broken HTTP is answered in JSON, too."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - its names are aiohttp's
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """The answer to what is no HTTP; the connection is closed after it."""
        words = "the request is not well-formed HTTP" if status < SERVER_SIDE else "the edge failed on this request"
        if isinstance(self._manager, Listener):  # no request came out of it, so the gate never saw it
            self._manager.count(status)
        answer = error_answer(words, status)
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **options: Any) -> None:
        """Nothing: what callers send is no event of ours."""


class Listener(web.Server):
    """Makes a protocol for each connection, up to a number; those above it are told to come again and closed.

    Args:
        gate: Answers the requests.
        config: Section ``serve.edge``.
    """

    def __init__(self, gate: Gate, config: EdgeConfig) -> None:
        self._most, self.count = config.connections, gate.count
        super().__init__(gate)
        self._limits: dict[str, Any] = {
            "keepalive_timeout": config.seconds,  # also the longest time for the head of a request
            "lingering_time": LINGER_SECONDS,
            "auto_decompress": False,
            "access_log": None,
        }

    def __call__(self) -> RequestHandler:
        """A protocol for a new connection."""
        return Protocol(self, loop=asyncio.get_running_loop(), **self._limits)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Take a connection, or turn it away."""
        super().connection_made(handler, transport)
        if len(self.connections) > self._most:
            body = json.dumps({"error": "too many connections; try again"}).encode()
            head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: {RETRY_SECONDS}\r\n"
            transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
            transport.close()
            self.count(UNAVAILABLE)
