"""Asking an endpoint: every way in which it can fail has its sentence, and the token is in none of them."""

from __future__ import annotations

import ast
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import endpoints
from kfloop.core import external
from kfloop.core.external import calling, kserve
from kfloop.core.external.answers import BadAnswer, at_path, judged
from kfloop.core.external.rows import BadRows, as_json, packed, unpacked
from kfloop.core.external_client import ExternalSession
from kfloop.errors import KfloopError, ServerUnavailable, StateError, TerminalError

HTML, TOKEN, serving = endpoints.HTML, endpoints.TOKEN, endpoints.serving

ROWS = np.arange(12, dtype=np.uint8).reshape(3, 4)
TOLD: dict[str, Any] = {
    "format": 1,
    "protocol": "json",
    "url": "",
    "token_env": "MODEL_TOKEN",
    "token_header": "Authorization",
    "price_per_1000": 2.0,
    "price_of": "rows",
    "batch": 2,
    "timeout_seconds": 5.0,
    "retries": 2,
    "gives": "probabilities",
    "objective": "classification",
    "modality": "vector",
    "labels": ["a", "b"],
    "endpoint_labels": None,
    "shape": [2],
    "output": "probabilities",
    "columns": [],
    "adapter": {"body": {"instances": "$rows"}, "answer": "predictions", "request": None, "response": None},
}


def right(path: str, body: bytes) -> bytes:
    """Probability of ``a``: the first number of a row over 12."""
    del path
    share = [row[0] / 12 for row in json.loads(body)["instances"]]
    return json.dumps({"predictions": [[one, 1 - one] for one in share]}).encode()


def session(folder: Path, url: str, **changes: Any) -> ExternalSession:
    (folder / external.DESCRIPTION).write_text(json.dumps(TOLD | {"url": url} | changes))
    return ExternalSession(folder)


def ask(asked: ExternalSession, rows: np.ndarray = ROWS) -> np.ndarray:
    return asked.run(["probabilities", "embedding"], {"vector": rows})[0]


def wrong(body: Any, status: int = 200, **headers: str) -> Callable[[int], Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda _: (status, headers, content)


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_TOKEN", TOKEN)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_answers_come_in_order_over_several_calls(tmp_path: Path) -> None:
    with serving(right) as endpoint:
        asked = session(tmp_path, endpoint.url)
        found, embedding = asked.run(["probabilities", "embedding"], {"vector": ROWS})
    assert found == pytest.approx(np.array([[0, 1], [4 / 12, 8 / 12], [8 / 12, 4 / 12]]))
    assert found.dtype == np.float32
    assert (embedding == found).all()  # an endpoint that tells none: its answer stands for it
    assert [len(json.loads(body)["instances"]) for body in endpoint.bodies] == [2, 1]
    assert endpoint.headers[0]["Authorization"] == f"Bearer {TOKEN}"


def test_every_call_is_counted_timed_and_priced(tmp_path: Path) -> None:
    def slow(path: str, body: bytes) -> bytes:
        time.sleep(0.05)
        return right(path, body)

    with serving(slow) as endpoint:
        asked = session(tmp_path, endpoint.url)
        assert asked.cost()["call_ms_p95"] is None
        ask(asked)
        cost = asked.cost()
        by_call = session(tmp_path, endpoint.url, price_of="calls")
        assert by_call.cost()["price_per_1000"] is None  # nobody knows yet how many rows go into a call
        ask(by_call)
        assert by_call.cost()["price_per_1000"] == pytest.approx(2.0 * 2 / 3)
        assert session(tmp_path, endpoint.url, price_per_1000=None).cost()["price"] is None
    assert (cost["calls"], cost["rows"], cost["retries"]) == (2, 3, 0)
    assert 50 <= cost["call_ms_p50"] <= cost["call_ms_p95"] < 2000
    assert cost["price_per_1000"] == 2.0
    assert cost["price"] == pytest.approx(0.006)


@pytest.mark.parametrize(("status", "header"), [(429, "1"), (503, None)])
def test_a_busy_server_is_asked_again_when_it_says(tmp_path: Path, status: int, header: str | None) -> None:
    headers = {"Retry-After": header} if header else {}
    with serving(right) as endpoint:
        endpoint.before = lambda number: (status, headers, b"busy") if number == 1 else None
        asked = session(tmp_path, endpoint.url)
        started = time.monotonic()
        assert ask(asked).shape == (3, 2)
        assert time.monotonic() - started > (0.15 if header is None else 0.9)
    assert asked.cost()["retries"] == 1
    assert asked.cost()["calls"] == 2  # answered ones


def test_retry_after_is_a_number_or_a_date() -> None:
    assert calling._wait("7") == 7
    assert calling._wait(formatdate(time.time() + 60, usegmt=True)) == pytest.approx(60, abs=2)
    assert calling._wait(formatdate(time.time() - 60, usegmt=True)) == 0
    assert [calling._wait(told) for told in (None, "", "soon")] == [None, None, None]


def test_a_server_that_stays_busy_is_a_failure_that_may_pass(tmp_path: Path) -> None:
    with serving(right) as endpoint:
        endpoint.before = wrong(b"busy", 503, **{"Retry-After": "0"})
        with pytest.raises(ServerUnavailable, match=r"answers 503 .* \(3 attempts\)") as caught:
            ask(session(tmp_path, endpoint.url))
    assert caught.value.transient
    assert len(endpoint.bodies) == 3


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(ServerUnavailable, match=r"no answer from .*refused.*2 attempts"):
        ask(session(tmp_path, url, retries=1))


def test_a_server_that_is_too_slow_or_drips(tmp_path: Path) -> None:
    def drip(server: socket.socket) -> None:
        link, _ = server.accept()
        with link:
            link.recv(65536)
            link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(20):
                try:
                    link.sendall(b" ")
                except OSError:
                    return
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ServerUnavailable, match=r"no answer from .* within 0.3 s"):
            ask(session(tmp_path, url, timeout_seconds=0.3, retries=0))
        thread.join()


def test_an_answer_that_breaks_off(tmp_path: Path) -> None:
    with serving(right) as endpoint:
        endpoint.before = wrong(b'{"predic', **{"Content-Length": "9000"})
        with pytest.raises(ServerUnavailable, match="no answer"):
            ask(session(tmp_path, endpoint.url, retries=0, timeout_seconds=1.0))


@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        (wrong(b"who are you", 401), "answers 401 Unauthorized .*wants a token.*who are you"),
        (wrong(b"not yours", 403), "answers 403 Forbidden .*does not open"),
        (wrong(b"", 404), "answers 404 Not Found .*url, model and version"),
        (wrong({"error": "bad shape"}, 400), "answers 400 Bad Request.*bad shape"),
        (wrong(b"boom", 500), "answers 500 .*boom"),
        (wrong(b"", 307, Location="http://127.0.0.1:9/steal"), "sends elsewhere, to http://127.0.0.1:9/steal"),
        (wrong(b"", 302, Location="http://127.0.0.1:9/steal"), "sends elsewhere"),
        (wrong(HTML), "a web page where JSON is expected: <!doctype html>"),
        (wrong(b""), "no JSON where JSON is expected: nothing"),
        (wrong({"result": []}), r"without 'predictions'.*the keys \['result'\]"),
        (wrong({"predictions": [[0.1, 0.9]]}), "answers 1 rows, but 2 were sent"),
        (wrong({"predictions": [[0.1, 0.2, 0.7]] * 2}), "3 numbers for each row, but the data have 2 classes: a, b"),
        (wrong(b'{"predictions": [[NaN, 0.9], [0.1, 0.9]]}'), "1 of 2 rows with NaN or infinity, the first is row 0"),
        (wrong({"predictions": [[None, 0.9], [0.1, 0.9]]}), "1 of 2 rows with NaN"),
        (wrong({"predictions": [[3.0, -1.0], [0.1, 0.9]]}), "3, which is no probability; .*gives: logits"),
        (wrong({"predictions": [[0.9, 0.9], [0.1, 0.9]]}), "sum to 1.8 .row 0., expected 1"),
        (wrong({"predictions": ["a", "b"]}), "no array of numbers"),
        (wrong({"predictions": [[0.1], [0.2, 0.8]]}), "no array of numbers"),
        (wrong({"predictions": [{"a": 0.1, "c": 0.9}] * 2}), r"classes \['a', 'c'\], but not with \['b'\]"),
        (wrong({"predictions": 7}), "shape"),
    ],
)
def test_what_is_wrong_is_said_and_not_tried_again(tmp_path: Path, before: Callable[[int], Any], sentence: str) -> None:
    with serving(right) as endpoint:
        endpoint.before = before
        with pytest.raises(TerminalError, match=sentence) as caught:
            ask(session(tmp_path, endpoint.url))
    assert endpoint.url in caught.value.message
    assert len(endpoint.bodies) == 1
    assert caught.value.hint


def test_the_token_is_in_no_error_even_if_the_endpoint_repeats_it(tmp_path: Path) -> None:
    with serving(right) as endpoint:
        for status in (401, 400, 503):
            endpoint.before = wrong(f"the token {TOKEN} is wrong".encode(), status)
            with pytest.raises(KfloopError) as caught:
                ask(session(tmp_path, endpoint.url, retries=0))
            chain: list[str] = []
            error: BaseException | None = caught.value
            while error is not None:
                chain.append(repr(error))
                error = error.__cause__
            assert TOKEN not in json.dumps(caught.value.as_dict()) + "".join(chain)
    assert TOKEN not in (tmp_path / external.DESCRIPTION).read_text()


@pytest.mark.parametrize("value", ["", "  ", "two\nlines", "t\u00f6ken"])
def test_a_token_that_is_missing_or_none_is_named_by_its_variable(
    tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_TOKEN", value)
    with serving(right) as endpoint, pytest.raises(TerminalError, match="MODEL_TOKEN") as caught:
        ask(session(tmp_path, endpoint.url))
    assert not value.strip() or value not in caught.value.message
    assert not endpoint.bodies


def test_a_header_of_ones_own_carries_the_token_alone(tmp_path: Path) -> None:
    with serving(right) as endpoint:
        ask(session(tmp_path, endpoint.url, token_header="X-Api-Key"))
        ask(session(tmp_path, endpoint.url, token_env=None))
    assert endpoint.headers[0]["X-Api-Key"] == TOKEN
    assert "Authorization" not in endpoint.headers[0] | endpoint.headers[-1]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_a_certificate_of_nobody(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(right, context) as endpoint:
        with pytest.raises(TerminalError, match=r"certificate of https://.* cannot be trusted: .*SSL_CERT_FILE"):
            ask(session(tmp_path, endpoint.url))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(certificate))
            assert ask(session(tmp_path, endpoint.url)).shape == (3, 2)


def test_classes_in_the_order_of_the_endpoint_and_by_name(tmp_path: Path) -> None:
    with serving(right) as endpoint:
        turned = ask(session(tmp_path, endpoint.url, endpoint_labels=["b", "a"]))
        endpoint.before = wrong({"predictions": [{"b": 0.75, "a": 0.25}] * 2})
        named = ask(session(tmp_path, endpoint.url), ROWS[:2])
    assert turned[1] == pytest.approx([8 / 12, 4 / 12])
    assert named[0] == pytest.approx([0.25, 0.75])


def test_logits_become_probabilities() -> None:
    told = TOLD | {"gives": "logits"}
    logits = [[1000.0, 0.0], [0.0, np.log(3)]]
    assert judged(logits, told, 2, "there") == pytest.approx(np.array([[1, 0], [0.25, 0.75]]))
    several = told | {"objective": "multilabel"}
    assert judged(logits, several, 2, "there") == pytest.approx(np.array([[1, 0.5], [0.5, 0.75]]))


def test_numbers_and_forecasts_take_their_shape() -> None:
    number = TOLD | {"objective": "regression", "labels": [], "shape": []}
    assert judged([[1.5], [2.5]], number, 2, "there").tolist() == [1.5, 2.5]
    with pytest.raises(BadAnswer, match=r"shape \[2, 2\], expected \[2\]"):
        judged([[1.5, 1], [2.5, 1]], number, 2, "there")
    forecast = number | {"objective": "forecasting", "shape": [3, 1]}
    assert judged([[1, 2, 3], [4, 5, 6]], forecast, 2, "there").shape == (2, 3, 1)


def test_a_path_leads_to_the_answer() -> None:
    value = {"outputs": [{"scores": [1, 2]}, {"scores": [3, 4]}]}
    assert at_path(value, "outputs.*.scores", "there") == [[1, 2], [3, 4]]
    assert at_path(value, "outputs.1.scores", "there") == [3, 4]
    assert at_path([5], "", "there") == [5]
    for path in ("outputs.2", "outputs.x", "*", "outputs.*.nothing"):
        with pytest.raises(BadAnswer, match=r"adapter.answer"):
            at_path(value, path, "there")


def test_rows_of_json_survive_as_bytes() -> None:
    rows = [{"age": 3.5, "job": "müller"}, {"age": None, "job": "x" * 40}]
    assert unpacked(packed([as_json(row) for row in rows])) == rows
    assert unpacked(packed([])) == []
    with pytest.raises(BadRows, match="row 1 is no JSON"):
        unpacked(np.array([[0x31], [0x00]], np.uint8))


def test_missing_numbers_are_null_in_json(tmp_path: Path) -> None:
    rows = np.array([[0, np.nan], [1, 2]], np.float32)
    with serving(right) as endpoint:
        ask(session(tmp_path, endpoint.url), rows)
    assert json.loads(endpoint.bodies[0]) == {"instances": [[0.0, None], [1.0, 2.0]]}


def kserve_told(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [4], "column": None, "channels_first": False}
    own = {
        "protocol": "kserve",
        "model": "m",
        "version": "3",
        "tensors": [tensor],
        "answer": "y",
        "embedding": "e",
        "binary": False,
    }
    return TOLD | {"url": "http://there"} | own | changes


def test_the_address_of_kserve_has_model_and_version() -> None:
    assert kserve.address(kserve_told()) == "http://there/v2/models/m/versions/3"
    assert kserve.address(kserve_told(version=None, url="http://there/")) == "http://there/v2/models/m"


def test_a_request_is_what_tritons_own_client_sends() -> None:
    from tritonclient import http

    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    for binary in (False, True):
        theirs = http.InferInput("x", [2, 4], "FP32")
        theirs.set_data_from_numpy(rows, binary_data=binary)
        wanted = [http.InferRequestedOutput(name, binary_data=binary) for name in ("y", "e")]
        expected, length = http.InferenceServerClient.generate_request_body([theirs], outputs=wanted)
        body, headers = kserve.request(kserve_told(binary=binary), rows)
        cut = int(headers.get(kserve.HEAD_LENGTH, len(body)))
        mine, other = json.loads(body[:cut]), json.loads(expected[:length] if length else expected)
        assert mine["inputs"] == other["inputs"]
        assert [(item["name"], item.get("parameters", {}).get("binary_data", False)) for item in mine["outputs"]] == [
            (item["name"], item["parameters"]["binary_data"]) for item in other["outputs"]
        ]
        assert body[cut:] == (expected[length:] if length else b"")


def test_texts_and_columns_go_as_bytes() -> None:
    column = {"datatype": "BYTES", "shape": [1], "channels_first": False}
    tensors = [column | {"name": "job", "column": "job"}, column | {"name": "age", "column": "age", "datatype": "FP64"}]
    told = kserve_told(modality="table", tensors=tensors, columns=["job", "age"])
    rows = packed([as_json({"job": "cook", "age": 3}), as_json({"job": None, "age": 4.5})])
    body = json.loads(kserve.request(told, rows)[0])
    assert [item["data"] for item in body["inputs"]] == [["cook", ""], [3.0, 4.5]]
    assert [item["shape"] for item in body["inputs"]] == [[2, 1], [2, 1]]
    raw, _ = kserve.request(told | {"binary": True}, rows)
    assert raw.endswith(b"\x04\x00\x00\x00cook\x00\x00\x00\x00" + np.array([3.0, 4.5]).tobytes())
    gap = packed([as_json({"job": "cook", "age": None})])
    with pytest.raises(BadRows, match="binary: true"):
        kserve.request(told, gap)
    whole = told | {"tensors": [tensors[1] | {"datatype": "INT64"}]}
    with pytest.raises(BadRows, match="'age' is missing, which INT64 cannot say"):
        kserve.request(whole, gap)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"error": "model not ready"}, "without 'outputs'"),
        ([], "without 'outputs'"),
        ({"outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1]}]}, "damaged tensor.*1 values"),
        ({"outputs": [{"name": "y", "datatype": "FP32"}]}, "damaged tensor"),
        ({"outputs": [{"name": "z", "datatype": "FP32", "shape": [1], "data": [1]}]}, "but not with 'y'"),
    ],
)
def test_answers_that_are_not_kserves(answer: Any, sentence: str) -> None:
    with pytest.raises(BadAnswer, match=sentence):
        kserve.outputs(kserve_told(), json.dumps(answer).encode(), {}, "there")


def test_an_adapter_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / external.ADAPTER).write_text(
        "def ask(rows):\n    return {'instances': rows}\n\ndef read(answer):\n    return answer['predictions']\n"
    )
    own = {"adapter": {"body": None, "answer": "", "request": "ask", "response": "read"}}
    with serving(right) as endpoint:
        assert ask(session(tmp_path, endpoint.url, **own)).shape == (3, 2)
        (tmp_path / external.ADAPTER).write_text(
            "def ask(rows):\n    return rows\n\ndef read(answer):\n    return 1 / 0\n"
        )
        endpoint.before = wrong({})
        with pytest.raises(TerminalError, match="function read fails: ZeroDivisionError"):
            ask(session(tmp_path, endpoint.url, **own))


def test_a_damaged_description_is_said(tmp_path: Path) -> None:
    for text in ("", "{}", "[]", '{"format": 9}'):
        (tmp_path / external.DESCRIPTION).write_text(text)
        with pytest.raises(StateError, match=r"external.json"):
            ExternalSession(tmp_path)


def test_what_runs_beside_triton_needs_nothing_of_kfloop() -> None:
    for path in Path(external.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [str(node.module)]
            for name in names:
                top = name.partition(".")[0]
                assert top == "numpy" or top in sys.stdlib_module_names, (path.name, name)
