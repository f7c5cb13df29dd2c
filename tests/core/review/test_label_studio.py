"""The adapter against a real Label Studio, in an environment of its own; what needs no server is tested without one."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from kfloop.core.review import build_queue, decide, merge_answers
from kfloop.core.review.answer import UNSURE, UNUSABLE
from kfloop.core.review.label_studio import LabelStudio, fetch_answers, send_queue
from kfloop.errors import ConfigError, InputError, ServerUnavailable, TerminalError

RELEASE = "1.23.2"
TOKEN = "0123456789abcdef0123456789abcdef01234567"
EMAIL = "anna@example.com"
START_S = 400
QUIET = {
    "COLLECT_ANALYTICS": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "LATEST_VERSION_CHECK": "false",
    "FEATURE_FLAGS_OFFLINE": "true",
}
real = [pytest.mark.label_studio, pytest.mark.slow, pytest.mark.timeout(1200)]


def needs_label_studio(test: Any) -> Any:
    for mark in real:
        test = mark(test)
    return test


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def call(url: str, method: str, path: str, body: Any = None, token: str = TOKEN) -> Any:
    """One call as a person's browser would make it, without the adapter."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    headers = {"Authorization": f"Token {token}", "Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status // 100 == 2, (method, path, answer.status, content[:500])
    return json.loads(content) if content else None


@pytest.fixture(scope="session")
def executable(request: pytest.FixtureRequest) -> str:
    """Label Studio's command: as KFLOOP_LABEL_STUDIO says, else installed once into pytest's cache."""
    given = os.environ.get("KFLOOP_LABEL_STUDIO")
    if given:
        return given
    folder = request.config.cache.mkdir(f"label-studio-{RELEASE}")
    command = folder / "bin" / "label-studio"
    if not command.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(folder / "bin" / "pip"), "install", "--quiet", f"label-studio=={RELEASE}"]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    return str(command)


@pytest.fixture(scope="session")
def studio(executable: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running server with one user."""
    data, port = tmp_path_factory.mktemp("label-studio"), free_port()
    arguments = ["start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port), "--data-dir", str(data)]
    arguments += ["--username", EMAIL, "--password", "a long password", "--user-token", TOKEN]
    arguments += ["--enable-legacy-api-token", "--agree-fix-sqlite"]
    with (data / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [executable, *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **QUIET, "LABEL_STUDIO_BASE_DATA_DIR": str(data)},
            start_new_session=True,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until_up(url, process, data / "log.txt")
            yield url
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(encoding="utf-8")[-2000:]
        try:
            call(url, "GET", "/health")
        except OSError:
            time.sleep(1)
        else:
            return
    pytest.fail(f"Label Studio did not start within {START_S} s:\n{log.read_text(encoding='utf-8')[-2000:]}")


@pytest.fixture
def server(studio: str, monkeypatch: pytest.MonkeyPatch) -> LabelStudio:
    monkeypatch.setenv("STUDIO_TOKEN", TOKEN)
    return LabelStudio(studio, "STUDIO_TOKEN")


@pytest.fixture
def queue(make_version: Any, check: Callable[..., Path]) -> Callable[..., Any]:
    """A version and the queue about six of its rows."""

    def make(modality: str, task: str, suggested: Any) -> Any:
        version = make_version(modality, task)
        flagged = {"flagged": True, "confidence": 0.75, "suggested": suggested}
        rows = {f"{modality}/{row}": flagged | {"margin": -0.9 + row / 10} for row in range(6)}
        return version, build_queue(version, check(version, rows))

    return make


def annotate(
    url: str, task: int, *, label: Any = None, kind: str = "choices", verdict: str = "", note: str = ""
) -> int:
    """Submit an annotation of a task, as the page of Label Studio does."""
    shown = "shown"
    result = []
    if label is not None:
        result.append({"from_name": "label", "to_name": shown, "type": kind, "value": {kind: label}})
    if verdict:
        result.append({"from_name": "verdict", "to_name": shown, "type": "choices", "value": {"choices": [verdict]}})
    if note:
        result.append({"from_name": "note", "to_name": shown, "type": "textarea", "value": {"text": [note]}})
    made = call(url, "POST", f"/api/tasks/{task}/annotations/", {"result": result, "lead_time": 2.5})
    return int(made["id"])


@needs_label_studio
def test_a_queue_comes_back_as_answers_with_who_and_when(
    studio: str, server: LabelStudio, queue: Callable[..., Any], tmp_path: Path
) -> None:
    version, items = queue("image", "multiclass", 1)
    sent = send_queue(server, items, title="A loop with a title that is longer than Label Studio takes for one")
    assert (sent.tasks, sent.present) == (6, 0)
    assert fetch_answers(server, sent.project, labels=version.labels, task=version.task) == []
    tasks = {task["data"]["sample_id"]: task for task in server.tasks(sent.project)}
    assert tasks["image/0"]["predictions"][0]["result"][0]["value"]["choices"] == ["<bird>"]
    assert tasks["image/0"]["predictions"][0]["score"] == 0.75
    annotate(studio, tasks["image/0"]["id"], label=["cat & dog"], note="it barks")
    changed = annotate(studio, tasks["image/1"]["id"], label=['fish "x"'])
    annotate(studio, tasks["image/2"]["id"], verdict="unusable")
    annotate(studio, tasks["image/3"]["id"], label=["0"], verdict="unsure")
    annotate(studio, tasks["image/4"]["id"])
    call(studio, "POST", f"/api/tasks/{tasks['image/5']['id']}/annotations/", {"result": [], "was_cancelled": True})

    answers = fetch_answers(server, sent.project, labels=version.labels, task=version.task)
    assert {answer.id: answer.answer for answer in answers} == {
        "image/0": "cat & dog",
        "image/1": 'fish "x"',
        "image/2": UNUSABLE,
        "image/3": UNSURE,
    }
    assert {answer.by for answer in answers} == {EMAIL}
    assert [answer.note for answer in answers if answer.id == "image/0"] == ["it barks"]
    assert [answer.given for answer in answers if answer.id == "image/1"] == ["<bird>"]

    corrections, known = tmp_path / "corrections.jsonl", {item.content for item in items}
    first = merge_answers(corrections, answers, version.labels, known)
    assert (first.added, first.repeated, len(first.conflicting), first.unknown) == (4, 0, 1, ())
    again = fetch_answers(server, sent.project, labels=version.labels, task=version.task)
    assert merge_answers(corrections, again, version.labels, known).added == 0

    body = {"result": [{"from_name": "label", "to_name": "shown", "type": "choices", "value": {"choices": ["0"]}}]}
    call(studio, "PATCH", f"/api/annotations/{changed}/", body)
    later = fetch_answers(server, sent.project, labels=version.labels, task=version.task)
    assert merge_answers(corrections, later, version.labels, known).added == 1
    decided = {answer.id: decide(corrections).get(answer.content) for answer in answers}
    assert decided["image/1"] is not None
    assert decided["image/1"].label == "0"
    assert decided["image/2"] is not None
    assert decided["image/2"].unusable
    assert decided["image/3"] is None


@needs_label_studio
@pytest.mark.parametrize(
    ("modality", "task", "suggested", "given", "expected"),
    [
        ("audio", "multilabel", [0, 2], {"label": ["0", "<bird>"]}, ("0", "<bird>")),
        ("text", "multiclass", 2, {"label": ["cat & dog"]}, "cat & dog"),
        ("table", "regression", 3.25, {"label": -7.5, "kind": "number"}, -7.5),
        ("series", "regression", 0.5, {"label": 2, "kind": "number"}, 2.0),
        ("graphs", "multiclass", 0, {"label": ["0"]}, "0"),
    ],
)
def test_every_kind_of_question(
    studio: str,
    server: LabelStudio,
    queue: Callable[..., Any],
    modality: str,
    task: str,
    suggested: Any,
    given: dict[str, Any],
    expected: Any,
) -> None:
    version, items = queue(modality, task, suggested)
    sent = send_queue(server, items, title=modality)
    tasks = list(server.tasks(sent.project))
    assert [item["data"]["content"] for item in tasks] == [item.content for item in items]
    assert len(tasks[0]["predictions"]) == 1
    annotate(studio, tasks[0]["id"], **given)
    answers = fetch_answers(server, sent.project, labels=version.labels, task=task)
    assert [(answer.id, answer.answer) for answer in answers] == [(items[0].id, expected)]


@needs_label_studio
def test_a_project_is_continued_without_asking_twice(server: LabelStudio, queue: Callable[..., Any]) -> None:
    _, items = queue("text", "multiclass", 1)
    sent = send_queue(server, items[:4], title="first half")
    more = send_queue(server, items, title="", project=sent.project)
    assert (more.project, more.tasks, more.present) == (sent.project, 2, 4)
    _, others = queue("table", "regression", 1.0)
    with pytest.raises(InputError, match="asks other questions"):
        send_queue(server, others, title="", project=sent.project)


@needs_label_studio
def test_more_tasks_than_one_call_or_page_carries(server: LabelStudio, queue: Callable[..., Any]) -> None:
    from dataclasses import replace

    _, items = queue("text", "multiclass", 1)
    many = [replace(items[0], content=f"{number:064x}", id=f"text/{number}") for number in range(450)]
    sent = send_queue(server, many, title="many")
    assert sent.tasks == 450
    assert {task["data"]["content"] for task in server.tasks(sent.project)} == {item.content for item in many}


@needs_label_studio
def test_the_commands(
    studio: str, server: LabelStudio, make_version: Any, check: Callable[..., Path], tmp_path: Path
) -> None:
    version = make_version("table")
    labels = check(version, {"table/3": {"flagged": True, "suggested": 1, "margin": -0.9}})
    (tmp_path / "loop.yaml").write_text("name: studio\n", encoding="utf-8")

    def kfloop(*arguments: str) -> dict[str, Any]:
        options = ["-i", f"dataset={version.folder}", "--label-studio", studio, "--token-env", "STUDIO_TOKEN", "--json"]
        command = [sys.executable, "-m", "kfloop", "review", *arguments, *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
        return dict(json.loads(done.stdout))

    sent = kfloop("export", "-i", f"labels={labels}")
    assert sent["label_studio"]["tasks"] == 1
    project = sent["label_studio"]["project"]
    task = next(iter(server.tasks(project)))
    result = [{"from_name": "label", "to_name": "words", "type": "choices", "value": {"choices": ["0"]}}]
    call(studio, "POST", f"/api/tasks/{task['id']}/annotations/", {"result": result})
    told = kfloop("import", "--project", str(project))
    assert (told["added"], told["settled"]) == (1, 1)
    assert kfloop("import", "--project", str(project))["repeated"] == 1
    assert json.loads((tmp_path / "corrections.jsonl").read_text(encoding="utf-8"))["by"] == EMAIL


@needs_label_studio
def test_refusals_say_what_to_do(studio: str, server: LabelStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TerminalError, match="404") as missing:
        fetch_answers(server, 987654, labels=["a"], task="multiclass")
    assert "no such project" in missing.value.hint
    monkeypatch.setenv("WRONG_TOKEN", "f" * 40)
    with pytest.raises(TerminalError, match="401") as refused:
        send_queue_of_nothing(LabelStudio(studio, "WRONG_TOKEN"))
    assert "WRONG_TOKEN" in refused.value.hint
    assert "f" * 40 not in str(refused.value.as_dict())


def send_queue_of_nothing(server: LabelStudio) -> None:
    server.create_project("x", "<View/>")


@needs_label_studio
def test_a_project_that_kfloop_did_not_make_is_refused(studio: str, server: LabelStudio) -> None:
    config = '<View><Text name="shown" value="$text"/><Choices name="label" toName="shown"><Choice value="a"/></Choices></View>'
    project = server.create_project("somebody's own", config)
    server.import_tasks(project, [{"data": {"text": "hello"}}])
    annotate(studio, next(iter(server.tasks(project)))["id"], label=["a"])
    with pytest.raises(InputError, match="not made by kfloop"):
        fetch_answers(server, project, labels=["a"], task="multiclass")


@needs_label_studio
def test_a_personal_access_token_works_too(studio: str, server: LabelStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    # The organization has to allow them; the first user may say so.
    call(studio, "POST", "/api/jwt/settings", {"api_tokens_enabled": True, "legacy_api_tokens_enabled": True})
    token = call(studio, "POST", "/api/token/", {})["token"]
    monkeypatch.setenv("PERSONAL_TOKEN", token)
    personal = LabelStudio(studio, "PERSONAL_TOKEN")
    assert personal.version() == server.version()
    project = personal.create_project("mine", "<View/>")
    assert personal.project(project)["title"] == "mine"


def test_nobody_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_TOKEN", TOKEN)
    with pytest.raises(ServerUnavailable, match="connection refused"):
        LabelStudio(f"http://127.0.0.1:{free_port()}", "STUDIO_TOKEN").version()


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://localhost", "http://", "file:///etc/passwd"])
def test_an_address_that_is_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_TOKEN", TOKEN)
    with pytest.raises(ConfigError, match="no address"):
        LabelStudio(url, "STUDIO_TOKEN")


def test_the_token_comes_from_the_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STUDIO_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="'STUDIO_TOKEN' is not set"):
        LabelStudio("http://127.0.0.1:8080", "STUDIO_TOKEN")
    monkeypatch.setenv("STUDIO_TOKEN", TOKEN)
    with pytest.raises(ConfigError, match="password") as error:
        LabelStudio("http://me:secret@127.0.0.1:8080", "STUDIO_TOKEN")
    assert "secret" not in str(error.value.as_dict())


@pytest.fixture
def flaky() -> Iterator[tuple[str, list[tuple[str, str]], list[tuple[int, bytes]]]]:
    """A server with prepared replies, for the failures that a healthy one never shows: address, calls seen, replies left."""
    seen: list[tuple[str, str]] = []
    replies: list[tuple[int, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def _reply(self) -> None:
            seen.append((self.command, self.path))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, body = replies.pop(0)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _reply  # noqa: N815 - the names that http.server looks for

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", seen, replies
        running.shutdown()
        thread.join()


def test_a_busy_server_is_asked_again_but_nothing_is_sent_twice(flaky: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url, seen, replies = flaky
    monkeypatch.setenv("STUDIO_TOKEN", TOKEN)
    server = LabelStudio(url, "STUDIO_TOKEN")
    replies += [(503, b"busy"), (502, b""), (200, b'{"release": "1.23.2"}')]
    assert server.version() == "1.23.2"
    assert len(seen) == 3
    replies += [(503, b"busy")]
    with pytest.raises(ServerUnavailable, match="503"):
        server.import_tasks(1, [{"data": {}}])
    assert seen[3:] == [("POST", "/api/projects/1/import")]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((200, b"<html>hello</html>"), "no JSON"),
        ((200, b"[1]"), "no Label Studio"),
        ((302, b""), "302"),
        ((403, b'{"detail": "no rights"}'), "403 no rights"),
        ((400, b'{"validation_errors": {"title": ["too long"]}}'), "too long"),
    ],
)
def test_other_replies_are_terminal(flaky: Any, monkeypatch: pytest.MonkeyPatch, reply: Any, message: str) -> None:
    url, seen, replies = flaky
    monkeypatch.setenv("STUDIO_TOKEN", TOKEN)
    replies.append(reply)
    with pytest.raises(TerminalError, match=message):
        LabelStudio(url, "STUDIO_TOKEN").version()
    assert len(seen) == 1
