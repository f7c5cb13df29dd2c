"""A server that speaks Kubeflow Pipelines' v2beta1 REST API for experiments, runs and recurring runs, and misbehaves when told to.

Every request and every answer is held against what KFP publishes (``helpers.kfp_api``); what does not fit is a fault, and a test with faults fails.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kfp_api import problems, route_of

JSON = dict[str, Any]
LOGIN = b"<!doctype html><html><title>Sign in to your account</title></html>"
# Fields that the backend lets lists be filtered by (its API names); another is refused there too.
FILTERED = {
    "experiments": ("display_name",),
    "runs": ("display_name", "description"),
    "recurringruns": ("display_name", "description"),
}
MORE = 100_000  # bytes that are promised and do not come
LISTS = {"experiments": "experiments", "runs": "runs", "recurringruns": "recurringRuns"}
IDS = {"experiments": "experiment_id", "runs": "run_id", "recurringruns": "recurring_run_id"}


@dataclass(frozen=True)
class Step:
    """One moment of a run: its state, and the state of each task; an error where there is one."""

    state: str
    tasks: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Trouble:
    """How to answer instead: a status with a body, or not at all.

    Attributes:
        status: HTTP status; 0 closes the connection without a word.
        body: Content.
        headers: More headers.
        done: Do what was asked first, and lose only the answer.
        cut: Promise more bytes than are sent, then close.
        hang: Send nothing until the server ends.
        drip: Send spaces after the body, one by one, for as long as somebody listens.
    """

    status: int = 0
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    done: bool = False
    cut: bool = False
    hang: bool = False
    drip: bool = False


class KfpServer:
    """State of the server, and what it was asked.

    Attributes:
        url: Where it is.
        requests: ``METHOD path`` of every request, in order.
        bodies: Bodies of all posts.
        headers: Headers of every request.
        faults: What did not fit the published API.
        story: What a run does: one moment for each look at it, the last stays.
        trouble: Asked before each answer with ``METHOD path``; a trouble in place of the answer, or null.
        secret: Value that ``Authorization`` or ``Cookie`` must have; null lets everybody in.
        page: Longest page of a list.
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[str] = []
        self.bodies: list[JSON] = []
        self.headers: list[dict[str, str]] = []
        self.faults: list[str] = []
        self.story: list[Step] = [Step("SUCCEEDED")]
        self.trouble: Callable[[str], Trouble | None] = lambda _: None
        self.secret: str | None = None
        self.forbidden = False
        self.page = 2
        self.stored: dict[str, dict[str, JSON]] = {"experiments": {}, "runs": {}, "recurringruns": {}}
        self.looks: dict[str, int] = {}
        self.ended = threading.Event()
        self._lock = threading.RLock()
        self._clock = 0

    @property
    def runs(self) -> list[JSON]:
        """Runs in the order they were made."""
        return list(self.stored["runs"].values())

    @property
    def recurring(self) -> list[JSON]:
        """Recurring runs in the order they were made."""
        return list(self.stored["recurringruns"].values())

    def count(self, request: str) -> int:
        """Requests that began with ``request``."""
        return sum(line.startswith(request) for line in self.requests)

    def handle(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, JSON]:
        """The answer to one request."""
        with self._lock:
            if self.secret is not None and self.secret not in (headers.get("Authorization"), headers.get("Cookie")):
                return 401, {
                    "code": 16,
                    "message": f"Request header error: {headers.get('Authorization')} is not known",
                }
            if self.forbidden:
                return 403, {"code": 7, "message": "User 'ada' is not authorized to create runs in namespace kubeflow"}
            return self._checked(method, target, json.loads(body) if body else None)

    def _checked(self, method: str, target: str, content: Any) -> tuple[int, JSON]:
        """The answer, where request and answer fit the published API."""
        url = urlsplit(target)
        found = route_of(method, url.path)
        if found is None:
            return self._fault(f"{method} {url.path} is no route of the API")
        route, parameters = found
        query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        if set(query) - route.query:
            return self._fault(f"{route.name} has no query parameter {sorted(set(query) - route.query)}")
        if (content is None) != (route.body is None):
            return self._fault(f"{route.name}: a body {'is missing' if content is None else 'was not expected'}")
        if route.body is not None:
            self.bodies.append(content)
            wrong = problems(route.body, content)
            if wrong:
                return self._fault(*wrong)
        status, answer = self._act(route.name, parameters, query, content)
        kind = route.answer if status < 400 else "GoogleRpcStatus"
        wrong = problems(kind, answer)
        return self._fault(*wrong) if wrong else (status, answer)

    def _fault(self, *texts: str) -> tuple[int, JSON]:
        self.faults += texts
        return 400, {"code": 3, "message": "; ".join(texts)}

    def _act(self, name: str, parameters: dict[str, str], query: dict[str, str], body: Any) -> tuple[int, JSON]:
        service, _, verb = name.partition("_service_")
        folder = {"experiment": "experiments", "run": "runs", "recurring_run": "recurringruns"}[service]
        action = verb.split("_")[0]
        if action == "list":
            return self._list(folder, query)
        if action == "create":
            return self._create(folder, body)
        key = parameters[IDS[folder]]
        there = self.stored[folder].get(key)
        if there is None:
            return 404, {"code": 5, "message": f"{service} {key} not found"}
        if action == "get":
            return 200, self._look(key, there) if folder == "runs" else there
        if action == "delete":
            del self.stored[folder][key]
        elif action == "terminate":
            self.looks.pop(key, None)
            there |= {"state": "CANCELING", "cancelled": True}
        elif action in {"enable", "disable"}:
            there["status"] = "ENABLED" if action == "enable" else "DISABLED"
        return 200, {}

    def _create(self, folder: str, body: JSON) -> tuple[int, JSON]:
        self._clock += 1
        key = str(uuid.UUID(int=self._clock))
        made = body | {IDS[folder]: key, "created_at": f"2026-01-01T00:{self._clock // 60:02d}:{self._clock % 60:02d}Z"}
        if folder == "experiments" and any(
            one["display_name"] == body["display_name"] for one in self.stored[folder].values()
        ):
            return 409, {"code": 6, "message": f"experiment {body['display_name']} already exists"}
        if folder != "experiments":
            if body.get("experiment_id") not in self.stored["experiments"]:
                return 400, {"code": 3, "message": f"experiment {body.get('experiment_id')} not found"}
            if not body.get("pipeline_spec"):
                return 400, {"code": 3, "message": "a pipeline spec or a pipeline version is needed"}
        if folder == "runs":
            made["state"] = "PENDING"
        if folder == "recurringruns":
            cron = body["trigger"]["cron_schedule"]["cron"]
            if len(cron.split()) != 6:
                return 400, {"code": 3, "message": f"Expected 6 fields, found {len(cron.split())}: {cron}"}
            made["status"] = "DISABLED" if body.get("mode") == "DISABLE" else "ENABLED"
        self.stored[folder][key] = made
        return 200, made

    def _look(self, key: str, run: JSON) -> JSON:
        """The run as its story tells it at this look; a cancelled one ends at the second."""
        look = self.looks.get(key, 0)
        self.looks[key] = look + 1
        if run.get("cancelled"):
            run["state"] = "CANCELED" if look else "CANCELING"
        else:
            run |= self._moment(key, self.story[min(look, len(self.story) - 1)])
        return {name: value for name, value in run.items() if name != "cancelled"}

    def _moment(self, key: str, step: Step) -> JSON:
        details = []
        for number, (name, state) in enumerate(step.tasks.items()):
            task = {
                "run_id": key,
                "task_id": str(uuid.UUID(int=1000 + number)),
                "display_name": name,
                "create_time": f"2026-01-01T01:00:{number:02d}Z",
                "start_time": f"2026-01-01T01:00:{number:02d}Z",
                "state": state,
                "child_tasks": [{"pod_name": f"{key}-{name}"}],
            }
            if state in {"SUCCEEDED", "FAILED"}:
                task["end_time"] = f"2026-01-01T01:01:{number:02d}Z"
            if name in step.errors:
                task["error"] = {"code": 13, "message": step.errors[name]}
            details.append(task)
        error = {"error": {"code": 13, "message": step.errors[""]}} if "" in step.errors else {}
        return {"state": step.state, "run_details": {"task_details": details}, **error}

    def _list(self, folder: str, query: dict[str, str]) -> tuple[int, JSON]:
        rows = [
            {name: value for name, value in row.items() if name != "cancelled"} for row in self.stored[folder].values()
        ]
        if "filter" in query:
            wanted = json.loads(query["filter"])
            wrong = problems("V2beta1Filter", wanted)
            if wrong:
                return self._fault(*wrong)
            for predicate in wanted["predicates"]:
                key, text = predicate["key"], predicate["string_value"]
                if key not in FILTERED[folder]:
                    return self._fault(f"{folder} cannot be filtered by {key}")
                if predicate["operation"] == "EQUALS":
                    rows = [row for row in rows if row.get(key) == text]
                else:
                    rows = [row for row in rows if text in row.get(key, "")]
        if "experiment_id" in query:
            rows = [row for row in rows if row.get("experiment_id") == query["experiment_id"]]
        if query.get("sort_by") == "created_at desc":
            rows.reverse()
        start = int(query.get("page_token", "0"))
        size = min(self.page, int(query.get("page_size", "20")))
        more = {"next_page_token": str(start + size)} if start + size < len(rows) else {}
        return 200, {LISTS[folder]: rows[start : start + size], "total_size": len(rows), **more}


class _Http(ThreadingHTTPServer):
    kfp: KfpServer


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        kfp = self.server.kfp
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        asked = f"{self.command} {urlsplit(self.path).path.removeprefix('/apis/v2beta1/')}"
        kfp.requests.append(asked)
        kfp.headers.append(dict(self.headers))
        trouble = kfp.trouble(asked)
        if trouble is None or trouble.done:
            status, answer = kfp.handle(self.command, self.path, dict(self.headers), body)
            if trouble is None:
                self._send(status, json.dumps(answer).encode(), (("Content-Type", "application/json"),))
                return
        if trouble.hang:
            kfp.ended.wait()
        if trouble.status:
            self._send(trouble.status, trouble.body, trouble.headers, more=MORE if trouble.cut or trouble.drip else 0)
        with contextlib.suppress(OSError):
            while trouble.drip and not kfp.ended.wait(0.01):
                self.wfile.write(b" ")
        if not trouble.status or trouble.cut or trouble.drip:
            self.close_connection = True

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _send(self, status: int, body: bytes, headers: tuple[tuple[str, str], ...], more: int = 0) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client has lost its patience
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) + more))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@contextlib.contextmanager
def kfp_server(tls: ssl.SSLContext | None = None) -> Iterator[KfpServer]:
    """A server that lives as long as the block; over TLS with ``tls``. Faults fail the test at its end."""
    server = KfpServer()

    http = _Http(("127.0.0.1", 0), _Handler)
    http.kfp = server
    if tls is not None:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
    server.url = f"{'https' if tls else 'http'}://{'localhost' if tls else '127.0.0.1'}:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        http.shutdown()
        thread.join()
        http.server_close()
    assert server.faults == []
