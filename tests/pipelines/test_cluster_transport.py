"""Talking to Kubeflow Pipelines: every call ends, in the answer or in an error that says what to do."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_loops import QUICK
from kfloop.core.cluster import AuthConfig
from kfloop.errors import ConfigError, InputError, KfloopError, ServerUnavailable, TerminalError
from kfloop.pipelines.cluster.auth import MOUNTED_TOKEN_VARIABLE, Credentials
from kfloop.pipelines.cluster.client import Server
from kfloop.pipelines.cluster.transport import Patience
from kfp_server import LOGIN, KfpServer, Trouble, kfp_server

TOKEN = "s3cret-t0ken"


@pytest.fixture
def kfp() -> Iterator[KfpServer]:
    with kfp_server() as server:
        yield server


def server_of(kfp: KfpServer, auth: AuthConfig | None = None, root: Path = Path()) -> Server:
    return Server(kfp.url, Credentials(auth or AuthConfig(), root), patience=QUICK)


def test_token_cookie_and_service_account(kfp: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    (tmp_path / "cookie").write_text("authservice_session=abc\n")
    (tmp_path / "mounted").write_text(TOKEN)
    monkeypatch.setenv(MOUNTED_TOKEN_VARIABLE, str(tmp_path / "mounted"))
    for auth, secret in (
        (AuthConfig(kind="token", env="MY_TOKEN"), f"Bearer {TOKEN}"),
        (AuthConfig(kind="cookie", file="cookie"), "authservice_session=abc"),
        (AuthConfig(kind="service_account"), f"Bearer {TOKEN}"),
    ):
        kfp.secret = secret
        assert list(server_of(kfp, auth, tmp_path).recurring("kubeflow")) == []


def test_a_token_that_was_renewed_is_used(kfp: KfpServer, tmp_path: Path) -> None:
    server = server_of(kfp, AuthConfig(kind="token", file="token"), tmp_path)
    for token in ("first", "second"):
        (tmp_path / "token").write_text(token)
        kfp.secret = f"Bearer {token}"
        assert list(server.recurring("kubeflow")) == []


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        (AuthConfig(kind="token", env="NOT_SET"), "'NOT_SET' is not set"),
        (AuthConfig(kind="token", file="nowhere"), "cannot be read from '.*nowhere': FileNotFoundError"),
        (AuthConfig(kind="cookie", file="empty"), "is empty"),
        (AuthConfig(kind="token", file="two_lines"), "line breaks"),
    ],
)
def test_a_reference_that_leads_nowhere(auth: AuthConfig, message: str, kfp: KfpServer, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "two_lines").write_text(f"{TOKEN}\r\nX-Evil: 1")
    with pytest.raises(ConfigError, match=message) as told:
        list(server_of(kfp, auth, tmp_path).recurring("kubeflow"))
    assert TOKEN not in str(told.value.as_dict())
    assert kfp.requests == []


def test_a_wrong_token_is_told_once_and_never_shown(kfp: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    kfp.secret = "Bearer another"
    with pytest.raises(ConfigError, match=r"does not know who asks \(HTTP 401.*Bearer \(hidden\) is not known") as told:
        list(server_of(kfp, AuthConfig(kind="token", env="MY_TOKEN")).recurring("kubeflow"))
    assert TOKEN not in str(told.value.as_dict())
    assert "token in variable MY_TOKEN" in told.value.hint
    assert len(kfp.requests) == 1


def test_no_permission(kfp: KfpServer) -> None:
    kfp.forbidden = True
    with pytest.raises(ConfigError, match=r"does not allow it \(HTTP 403.*not authorized to create runs"):
        list(server_of(kfp).recurring("kubeflow"))
    assert len(kfp.requests) == 1


HTML = (("Content-Type", "text/html; charset=utf-8"),)


@pytest.mark.parametrize(
    ("trouble", "kind", "message", "attempts"),
    [
        (Trouble(503, b"no healthy upstream"), ServerUnavailable, r"HTTP 503: no healthy upstream \(4 attempts\)", 4),
        (Trouble(429, b"{}"), ServerUnavailable, "HTTP 429", 4),
        (Trouble(), ServerUnavailable, r"no answer from .*\(4 attempts\)", 4),
        (Trouble(hang=True), ServerUnavailable, "no answer from .*ReadTimeoutError", 4),
        (Trouble(200, b'{"runs": [', cut=True), ServerUnavailable, "no answer from .*(IncompleteRead|Protocol)", 4),
        (Trouble(200, b'{"runs": ['), ServerUnavailable, "what is not JSON", 4),
        (Trouble(200, b"\x00\xff\xfe"), ServerUnavailable, "what is not JSON", 4),
        (Trouble(200, LOGIN, HTML), ConfigError, "with a web page: something before the API asks for a login", 1),
        (Trouble(200, LOGIN), ConfigError, "with a web page", 1),
        (Trouble(302, b"", (("Location", "https://login.example/auth?state=x"),)), ConfigError, "web page at 'https://login.example/auth':", 1),
        (Trouble(200, b"[]"), TerminalError, "with list, expected an object", 1),
        (Trouble(200, b'{"recurringRuns": "all"}'), TerminalError, "not a list of objects", 1),
        (Trouble(400, b'{"code": 3, "message": "bad page"}'), TerminalError, r"refused GET .*HTTP 400\): bad page", 1),
        (Trouble(404, b"404 page not found"), InputError, "has no recurringruns", 1),
    ],
)  # fmt: skip
def test_each_bad_answer(
    trouble: Trouble, kind: type[KfloopError], message: str, attempts: int, kfp: KfpServer
) -> None:
    kfp.trouble = lambda _: trouble
    with pytest.raises(kind, match=message) as told:
        list(server_of(kfp).recurring("kubeflow"))
    assert type(told.value) is kind
    assert told.value.hint or kind is TerminalError
    assert len(kfp.requests) == attempts


@pytest.mark.parametrize("trouble", [Trouble(500, b""), Trouble(), Trouble(hang=True), Trouble(200, b"{", cut=True)])
def test_a_bad_minute_passes(trouble: Trouble, kfp: KfpServer) -> None:
    left = [trouble, trouble, None]
    kfp.trouble = lambda _: left.pop(0)
    assert list(server_of(kfp).recurring("kubeflow")) == []
    assert left == []


def test_nobody_there() -> None:
    with kfp_server() as gone:
        pass
    with pytest.raises(ServerUnavailable, match="Connection refused") as told:
        server_of(gone).experiment("digits", "kubeflow")
    assert "port-forward" in told.value.hint


def test_a_server_that_drips_ends_too(kfp: KfpServer) -> None:
    """Each byte comes in time, the whole never does."""
    kfp.trouble = lambda _: Trouble(200, b"{", drip=True)
    patience = Patience(connect=1.0, answer=1.0, whole=0.2, attempts=1)
    server = Server(kfp.url, Credentials(AuthConfig(), Path()), patience=patience)
    with pytest.raises(ServerUnavailable, match=r"still sending its answer after 0\.2 s"):
        server.experiment("digits", "kubeflow")


def test_the_experiment_is_made_once(kfp: KfpServer) -> None:
    server = server_of(kfp)
    for name in ("one", "two", "three"):  # more than a page
        server.experiment(name, "kubeflow")
    assert server.experiment("three", "kubeflow") == server.experiment("three", "kubeflow")
    assert kfp.count("POST experiments") == 3


def test_an_experiment_whose_making_was_answered_by_nobody(kfp: KfpServer) -> None:
    lost = [Trouble(done=True)]
    kfp.trouble = lambda asked: lost.pop() if lost and asked.startswith("POST") else None
    server = server_of(kfp)
    assert server.experiment("one", "kubeflow") in kfp.stored["experiments"]
    assert len(kfp.stored["experiments"]) == 1


def test_an_answer_without_an_id(kfp: KfpServer) -> None:
    kfp.trouble = lambda asked: (
        Trouble(200, json.dumps({"display_name": "x"}).encode()) if asked[:4] == "POST" else None
    )
    with pytest.raises(TerminalError, match="no 'experiment_id'"):
        server_of(kfp).experiment("x", "kubeflow")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_only_a_known_authority_is_trusted(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]  # fmt: skip
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", key, "-out", certificate, *subject], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with kfp_server(context) as kfp:
        with pytest.raises(ConfigError, match=r"certificate of .* is not trusted") as told:
            server_of(kfp).experiment("digits", "kubeflow")
        assert "--ca FILE" in told.value.hint
        trusting = Server(kfp.url, Credentials(AuthConfig(), tmp_path), ca=certificate, patience=QUICK)
        assert trusting.experiment("digits", "kubeflow")
        with pytest.raises(ConfigError, match=r"no file .*missing\.pem"):
            Server(kfp.url, Credentials(AuthConfig(), tmp_path), ca=tmp_path / "missing.pem")
