"""Label Studio over its HTTP API: the few calls that a round trip needs, with nothing but the standard library.

Its SDK is no dependency on purpose: it pins numpy below the version that training uses. Measured with release 1.23.2.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from kfloop.core.review.answer import Answer
from kfloop.core.review.items import QueueItem
from kfloop.core.review.labeling import answers_of, has_media, labeling_config, tasks_of
from kfloop.errors import ConfigError, InputError, KfloopError, ServerUnavailable, TerminalError

TIMEOUT_S = 60.0
ATTEMPTS = 3
PAUSE_S = 0.5
BUSY = frozenset({429, 502, 503, 504})
TASKS_PER_CALL = 100
BYTES_PER_CALL = 20_000_000  # below the 250 MB that Label Studio takes, and a progress that can be retried by hand
PAGE = 200
LONGEST_TITLE = 50  # Label Studio refuses longer ones
JWT_DOTS = 2
GOOD, MOVED = 2, 3  # first digits of a status
SHOWN = 200


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What became of a queue in Label Studio.

    Attributes:
        project: Id of the project.
        url: Where people answer.
        tasks: Tasks made.
        present: Items that the project had before.
    """

    project: int
    url: str
    tasks: int
    present: int


class LabelStudio:
    """One Label Studio server.

    Args:
        url: Its address, such as ``http://127.0.0.1:8080``.
        token_env: NAME of the environment variable that holds the access token: a legacy token, or a personal one.
        timeout: Longest wait for an answer, in seconds.

    Raises:
        ConfigError: The address is none, or the variable is not set.
    """

    def __init__(self, url: str, token_env: str, *, timeout: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(
                f"'{url}' is no address of Label Studio", hint="expected one such as http://127.0.0.1:8080"
            )
        if parts.username or parts.password:
            raise ConfigError("the address of Label Studio holds a password", hint="give it by --token-env NAME")
        token = os.environ.get(token_env, "").strip()
        if not token:
            raise ConfigError(
                f"the environment variable '{token_env}' is not set: it should hold Label Studio's access token",
                hint=f"export {token_env}=...  (Label Studio: Account & Settings, Access Token)",
            )
        self.url = url.rstrip("/")
        self._scheme, self._host, self._port = parts.scheme, parts.hostname, parts.port
        self._base, self._timeout, self._token_env = parts.path.rstrip("/"), timeout, token_env
        self._authorization = f"Token {token}"
        if token.count(".") == JWT_DOTS:  # a personal access token: it only buys short-lived ones
            fresh = self._call("POST", "/api/token/refresh", {"refresh": token}, again=True)
            self._authorization = f"Bearer {fresh['access']}"

    def version(self) -> str:
        """Release of the server; the first call of a conversation, since it needs no rights."""
        facts = self._call("GET", "/api/version")
        if not isinstance(facts, dict) or "release" not in facts:
            raise TerminalError(f"{self.url} answers, but it is no Label Studio", hint="is the address right?")
        return str(facts["release"])

    def create_project(self, title: str, config: str) -> int:
        """Make a project and give its id."""
        made = self._call("POST", "/api/projects/", {"title": title[:LONGEST_TITLE], "label_config": config})
        return int(made["id"])

    def project(self, project: int) -> dict[str, Any]:
        """Facts about a project.

        Raises:
            TerminalError: There is none.
        """
        return dict(self._call("GET", f"/api/projects/{project}"))

    def import_tasks(self, project: int, tasks: Sequence[dict[str, Any]]) -> int:
        """Add tasks with their predictions, and give how many were made."""
        made = 0
        for part in _parts(tasks):
            made += int(self._call("POST", f"/api/projects/{project}/import", part)["task_count"])
        return made

    def tasks(self, project: int) -> Iterator[dict[str, Any]]:
        """All tasks of a project, a page at a time."""
        page, seen, total = 1, 0, 1
        while seen < total:
            query = urlencode({"project": project, "fields": "all", "page": page, "page_size": PAGE})
            answer = self._call("GET", f"/api/tasks?{query}")
            if not answer["tasks"]:
                return
            yield from answer["tasks"]
            page, seen, total = page + 1, seen + len(answer["tasks"]), int(answer["total"])

    def export(self, project: int) -> list[dict[str, Any]]:
        """The annotated tasks of a project."""
        return list(self._call("GET", f"/api/projects/{project}/export?exportType=JSON"))

    def users(self) -> dict[int, str]:
        """Email of each user by id; empty when this token may not see them."""
        try:
            people = self._call("GET", "/api/users/")
        except TerminalError as error:
            if error.data.get("status") == http.HTTPStatus.FORBIDDEN:
                return {}
            raise
        return {int(person["id"]): str(person.get("email") or person.get("username")) for person in people}

    def _call(self, method: str, path: str, body: Any = None, *, again: bool | None = None) -> Any:
        """One call; repeated on transient failures when repeating it does no harm (``again``; null: for GET)."""
        repeat = method == "GET" if again is None else again
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._once(method, path, body)
            except ServerUnavailable:
                if not repeat or attempt == ATTEMPTS:
                    raise
                time.sleep(PAUSE_S * attempt)
        message = "unreachable"
        raise AssertionError(message)

    def _once(self, method: str, path: str, body: Any) -> Any:
        kind = http.client.HTTPSConnection if self._scheme == "https" else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout)
        headers = {"Authorization": self._authorization, "Accept": "application/json"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, self._base + quote(path, safe="/?=&%"), data, headers)
            answer = connection.getresponse()
            content = answer.read()
        except ConnectionRefusedError as error:
            raise ServerUnavailable(
                f"nothing answers at {self.url} (connection refused)", hint="start Label Studio, or mend --label-studio"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise ServerUnavailable(
                f"{self.url} did not answer {method} {path}: {type(error).__name__}: {error}",
                hint="is it reachable from here? try again",
            ) from error
        finally:
            connection.close()
        if answer.status // 100 != GOOD:
            raise self._refusal(method, path, answer.status, content)
        try:
            return json.loads(content)
        except ValueError as error:
            raise TerminalError(f"{self.url} is no Label Studio: {method} {path} gave no JSON") from error

    def _refusal(self, method: str, path: str, status: int, content: bytes) -> KfloopError:
        said = _said(content)
        if status in BUSY:
            return ServerUnavailable(f"{self.url} is not ready: {method} {path} gave {status} {said}", hint="try again")
        hints = {
            401: f"the token in '{self._token_env}' is not accepted: take a new one from Account & Settings, Access Token",
            403: f"the owner of the token in '{self._token_env}' may not do that",
            404: "no such project: list them in Label Studio, the number stands in its address",
        }
        hint = hints.get(status, "redirected: give the final address" if status // 100 == MOVED else "")
        return TerminalError(f"Label Studio refused {method} {path}: {status} {said}", hint=hint, status=status)


def send_queue(server: LabelStudio, items: Sequence[QueueItem], *, title: str, project: int | None = None) -> Sent:
    """Give a queue to people in Label Studio.

    Args:
        server: The server.
        items: The queue, not empty.
        title: Title of the new project.
        project: Add to this project instead; what it has already is left out.

    Raises:
        InputError: The project asks other questions than this queue.
        KfloopError: The server refused or did not answer.
    """
    server.version()
    config = labeling_config(items)
    present: set[str] = set()
    if project is None:
        project = server.create_project(title, config)
    else:
        if server.project(project)["label_config"] != config:
            raise InputError(
                f"project {project} of Label Studio asks other questions than this queue", hint="leave --project out"
            )
        present = {str(task["data"].get("content")) for task in server.tasks(project)}
    new = [item for item in items if item.content not in present]
    made = server.import_tasks(project, tasks_of(new, media=has_media(items)))
    return Sent(project=project, url=f"{server.url}/projects/{project}", tasks=made, present=len(items) - len(new))


def fetch_answers(server: LabelStudio, project: int, *, labels: Sequence[str], task: str) -> list[Answer]:
    """What people answered in a project so far.

    Raises:
        InputError: The project was not made by kfloop, or an annotation names an unknown class.
        KfloopError: The server refused or did not answer.
    """
    server.project(project)
    return answers_of(server.export(project), server.users(), labels=labels, task=task)


def _parts(tasks: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The tasks in portions that one call can carry."""
    part: list[dict[str, Any]] = []
    size = 0
    for task in tasks:
        weight = len(json.dumps(task))
        if part and (len(part) == TASKS_PER_CALL or size + weight > BYTES_PER_CALL):
            yield part
            part, size = [], 0
        part.append(task)
        size += weight
    if part:
        yield part


def _said(content: bytes) -> str:
    """What a refusal says, short."""
    try:
        value = json.loads(content)
    except ValueError:
        return ""
    if isinstance(value, dict):
        value = value.get("validation_errors") or value.get("detail") or value
    return str(value)[:SHOWN]
