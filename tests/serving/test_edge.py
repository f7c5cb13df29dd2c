"""The edge: every malformed request gets a clear 4xx, and the next right one its answer; what the raw port survives, and how."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from kfloop.core.sections import EdgeConfig, ServeConfig
from kfloop.core.workspace import Workspace
from kfloop.errors import KfloopError, ServingError
from kfloop.serving import supervisor
from kfloop.serving.client import Client, infer
from kfloop.serving.control import Control
from kfloop.serving.edge.checking import LENGTH_HEADER, Refused, check
from kfloop.serving.edge.contract import Contract, Tensor
from kfloop.serving.edge.process import read_state
from kfloop.serving.endpoint import Endpoint, attach
from kfloop.serving.options import EdgePlace, ServeOptions
from kfloop.serving.repository import add_version

MODEL = "tiny"
INFER = f"/v2/models/{MODEL}/infer"
RIGHT = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": [0] * 64}]}
MOST = 200_000
Package = Callable[..., Path]


def change(**changed: Any) -> bytes:
    """The right request with another member of its input."""
    return json.dumps({"inputs": [RIGHT["inputs"][0] | changed]}).encode()


def binary(head: bytes, data: bytes, length: object = None) -> tuple[bytes, dict[str, str]]:
    return head + data, {LENGTH_HEADER: str(len(head) if length is None else length)}


def sized(size: object) -> bytes:
    told = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 1], "parameters": {"binary_data_size": size}}
    return json.dumps({"inputs": [told]}).encode()


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A malformed request: its body, or its bytes as they are, and a word of the answer."""

    says: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "POST"
    path: str = INFER
    status: int = 400
    raw: bytes = b""


def _binary(says: str, head: bytes, data: bytes, length: object = None) -> Bad:
    body, headers = binary(head, data, length)
    return Bad(says=says, body=body, headers=headers)


POST = f"POST {INFER} HTTP/1.1\r\nHost: x\r\n".encode()
BAD = {
    "wrong dtype": Bad(says="expected UINT8 [n, 8, 8, 1]", body=change(datatype="FP32", data=[0.5] * 64)),
    "wrong shape": Bad(says="expected UINT8 [n, 8, 8, 1]", body=change(shape=[1, 8, 7, 1], data=[0] * 56)),
    "wrong rank": Bad(says="expected UINT8 [n, 8, 8, 1]", body=change(shape=[64], data=[0] * 64)),
    "wrong name": Bad(says="no input 'picture'", body=change(name="picture")),
    "NaN": Bad(says="hold a float", body=change(data=[float("nan")] * 64)),
    "a number too large": Bad(says="does not fit into UINT8", body=change(data=[256] * 64)),
    "texts": Bad(says="hold a str", body=change(data=["a"] * 64)),
    "huge batch": Bad(says="1 to 16", body=change(shape=[1000, 8, 8, 1], data=[0] * 64)),
    "no rows": Bad(says="0 rows", body=change(shape=[0, 8, 8, 1], data=[])),
    "negative shape": Bad(says="shape", body=change(shape=[-1, 8, 8, 1])),
    "the shape that ends 2.51": Bad(says="1 to 16", body=change(shape=[1_000_000_000, 8, 8, 1], data=[0] * 20)),
    "a shape beyond 64 bits": Bad(says="1 to 16", body=change(shape=[2**70, 8, 8, 1], data=[0] * 20)),
    "too few values": Bad(says="holds 64", body=change(data=[0] * 63)),
    "ragged data": Bad(says="do not have its shape", body=change(data=[[[[0]] * 8] * 8, [[0]]])),
    "empty body": Bad(says="not JSON"),
    "invalid JSON": Bad(says="not JSON", body=b'{"inputs": ['),
    "no object": Bad(says="must be a JSON object", body=b"[1, 2]"),
    "no inputs": Bad(says="'inputs' must be", body=b'{"inputs": []}'),
    "deep nesting": Bad(says="nested too deeply", body=b'{"inputs": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "not UTF-8": Bad(says="UTF-8", body=b'{"id": "\xff\xfe", "inputs": []}'),
    "a doubled key": Bad(says="twice", body=b'{"inputs": [], ' + json.dumps(RIGHT).encode()[1:]),
    "duplicate inputs": Bad(says="given twice", body=json.dumps({"inputs": RIGHT["inputs"] * 2}).encode()),
    "an unknown member": Bad(says="has 'inputz'", body=json.dumps(RIGHT | {"inputz": 1}).encode()),
    "shared memory": Bad(says="shared_memory_region", body=change(parameters={"shared_memory_region": "x"})),
    "an id of kfloop's own": Bad(says="keeps for itself", body=json.dumps(RIGHT | {"id": "kfloop-golden"}).encode()),
    "half a character": Bad(
        says="parameter 'key'", body=json.dumps(RIGHT | {"parameters": {"key": "\ud800"}}).encode()
    ),
    "a key without end": Bad(
        says="header 'x-route-key'", body=json.dumps(RIGHT).encode(), headers={"x-route-key": "k" * 5000}
    ),
    "a pinned version": Bad(says="has 'pinned'", body=json.dumps(RIGHT | {"parameters": {"pinned": True}}).encode()),
    "an unknown output": Bad(says="no output 'x'", body=json.dumps(RIGHT | {"outputs": [{"name": "x"}]}).encode()),
    "truncated binary": _binary("bytes are left", sized(64), b"\0" * 10),
    "binary of another size": _binary("takes 64", sized(10), b"\0" * 10),
    "binary left over": _binary("follow the last", sized(64), b"\0" * 80),
    "a size that is none": _binary("binary_data_size", sized("64"), b"\0" * 64),
    "bad header length": _binary("expected a number", sized(64), b"\0" * 64, "many"),
    "header length beyond the body": _binary("expected a number", sized(64), b"\0" * 64, 10**9),
    "negative header length": _binary("expected a number", sized(64), b"\0" * 64, -1),
    "oversized body": Bad(says="longer than", body=b"x" * (MOST + 1), status=413),
    "compressed": Bad(says="compressed", body=b"x", headers={"Content-Encoding": "gzip"}, status=415),
    "wrong method": Bad(says="takes POST", method="GET", status=405),
    "a path upwards": Bad(says="nothing is at", path="/v2/models/../repository/index", status=404),
    "an encoded path upwards": Bad(says="nothing is at", path="/v2/models/%2e%2e/x/infer", status=404),
    "model control": Bad(says="nothing is at", path="/v2/repository/index", status=404),
    "loading a model": Bad(says="nothing is at", path=f"/v2/repository/models/{MODEL}/load", status=404),
    "a version of its own": Bad(says="nothing is at", path=f"/v2/models/{MODEL}/versions/1/infer", status=404),
    "configuration": Bad(says="nothing is at", method="GET", path=f"/v2/models/{MODEL}/config", status=404),
    "metrics": Bad(says="nothing is at", method="GET", path="/metrics", status=404),
    "another model": Bad(says="nothing is at", path="/v2/models/other/infer", status=404),
    "no HTTP": Bad(says="well-formed HTTP", raw=b"\x16\x03\x01 this is no HTTP\r\n\r\n"),
    "chunked nonsense": Bad(says="HTTP", raw=POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n"),
    "two lengths": Bad(says="HTTP", raw=POST + b"Content-Length: 3\r\nContent-Length: 9\r\n\r\nabc"),
    "length and chunks": Bad(
        says="HTTP", raw=POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "an endless header": Bad(says="HTTP", raw=POST + b"X: " + b"a" * 100_000 + b"\r\n\r\n"),
}


def ask(address: str, bad: Bad, seconds: float = 10.0) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of the answer."""
    host, port = address.rsplit(":", 1)
    link = http.client.HTTPConnection(host, int(port), timeout=seconds)
    try:
        if bad.raw:
            link.connect()
            link.sock.sendall(bad.raw)
            answer = http.client.HTTPResponse(link.sock)
            answer.begin()
        else:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent
                link.request(bad.method, bad.path, bad.body, bad.headers)
            answer = link.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        link.close()


@pytest.fixture(scope="module")
def served(workspace: Workspace, package: Package) -> Iterator[tuple[Endpoint, str]]:
    """A supervised server with an edge, and the edge's address."""
    config = ServeConfig(edge=EdgeConfig(max_body_bytes=MOST, connections=8, seconds=1.0))
    options = ServeOptions(serve=config, edge=EdgePlace())
    running = supervisor.start_background(workspace, options=options, tied_to_parent=True)
    try:
        add_version(workspace.repository, MODEL, 1, package(1))
        control = Control(running)
        control.swap(workspace.repository, MODEL, [1], 1)
        control.wait_ready(MODEL, 1, 30)
        state = read_state(workspace)
        assert state is not None
        yield running, state["address"]
    finally:
        supervisor.stop(workspace)


def right(address: str, images: np.ndarray) -> np.ndarray:
    return Client(address, MODEL, retries=0).predict(images).outputs["probabilities"]


@pytest.mark.triton
def test_right_requests_pass_through_in_every_form(served: tuple[Endpoint, str], some_images: np.ndarray) -> None:
    endpoint, address = served
    expected = np.concatenate([infer(endpoint, MODEL, some_images[at : at + 10])["probabilities"] for at in (0, 10)])
    np.testing.assert_array_equal(right(address, some_images[:20]), expected)
    rows = some_images[:2].tolist()
    flat, nested = some_images[:2].reshape(-1).tolist(), rows
    for data in (flat, nested):
        body = change(shape=[2, 8, 8, 1], data=data)[:-1] + b', "id": "mine", "parameters": {"key": "ann"}}'
        status, answer, _ = ask(address, Bad(says="", body=body))
        told = json.loads(answer)
        assert (status, told["id"], told["model_version"]) == (200, "mine", "1")
        found = next(output["data"] for output in told["outputs"] if output["name"] == "probabilities")
        np.testing.assert_allclose(np.reshape(found, (2, 3)), expected[:2], rtol=1e-6)
    assert len(json.loads(ask(address, Bad(says="", body=change()))[1])["id"]) == 32  # minted
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", f"/v2/models/{MODEL}", f"/v2/models/{MODEL}/ready"):
        assert ask(address, Bad(says="", method="GET", path=path))[0] == 200


@pytest.mark.triton
def test_each_malformed_request_is_refused_with_a_reason_and_the_next_right_one_answered(
    served: tuple[Endpoint, str], some_images: np.ndarray, workspace: Workspace
) -> None:
    assert len(BAD) >= 30
    _, address = served
    wrong = {}
    for name, bad in BAD.items():
        status, body, headers = ask(address, bad)
        told = json.loads(body)
        if (status, list(told)) != (bad.status, ["error"]) or bad.says not in told["error"]:
            wrong[name] = (status, told)
        if "json" not in headers["content-type"] or b"Traceback" in body or len(body) > 2000:
            wrong[name] = (status, body)
        assert right(address, some_images[:1]).shape == (1, 3), name
    assert wrong == {}
    deadline = time.monotonic() + 10
    answers: dict[str, int] = {}
    while answers.get("404", 0) < 8 and time.monotonic() < deadline:
        answers = (read_state(workspace) or {})["answers"]
        time.sleep(0.1)
    assert answers["400"] >= 25
    assert answers["404"] >= 8


@pytest.mark.triton
def test_what_is_no_http_is_counted_like_every_other_refusal(
    served: tuple[Endpoint, str], workspace: Workspace
) -> None:
    _, address = served

    def counts() -> dict[str, int]:
        return dict((read_state(workspace) or {})["answers"])

    first = counts().get("404", 0)
    ask(address, Bad(says="", raw=b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    deadline = time.monotonic() + 10
    while counts().get("404", 0) == first and time.monotonic() < deadline:  # then what came before it is counted, too
        time.sleep(0.1)
    before = counts()
    sent = [
        b"\x16\x03\x01 this is no HTTP\r\n\r\n",
        b"GET /v2 HTTP/1.1 x\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nHost x\r\n\r\n",
    ]
    sent.append(b"GET /v2 HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 70_000 + b"\r\n\r\n")
    answered = [ask(address, Bad(says="", raw=raw))[0] for raw in sent]
    assert answered == [400] * len(sent)
    deadline, more = time.monotonic() + 10, 0
    while more < len(sent) and time.monotonic() < deadline:
        more = counts().get("400", 0) - before.get("400", 0)
        time.sleep(0.1)
    assert more == len(sent)


@pytest.mark.triton
def test_slow_callers_and_too_many_of_them_are_sent_away(served: tuple[Endpoint, str], some_images: np.ndarray) -> None:
    _, address = served
    slow = POST + b"Content-Length: 100\r\n\r\nabc"
    status, body, _ = ask(address, Bad(says="", raw=slow))
    assert (status, json.loads(body)["error"]) == (408, "the body did not come within 1 s")
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as half:
        half.sendall(b"POST /v2 HT")
        assert half.recv(100) == b""  # the head of a request has its time, too
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
        time.sleep(0.2)
        ninth = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
        answer = ninth.recv(1000)
        assert b" 503 " in answer
        assert b"Retry-After: 1" in answer
        assert b'{"error": "too many connections; try again"}' in answer
    deadline = time.monotonic() + 10
    while ask(address, Bad(says="", body=json.dumps(RIGHT).encode()))[0] == 503 and time.monotonic() < deadline:
        time.sleep(0.1)  # their end has yet to be seen
    assert right(address, some_images[:1]).shape == (1, 3)


@pytest.mark.triton
def test_control_needs_the_key_on_the_raw_ports_and_is_not_there_on_the_edge(served: tuple[Endpoint, str]) -> None:
    from tritonclient import grpc
    from tritonclient import http as web
    from tritonclient.utils import InferenceServerException

    endpoint, address = served
    files = {"file:1/model.py": b"raise SystemExit"}
    for url, said in ((endpoint.http, "restricted"), (address, "nothing is at")):
        client = web.InferenceServerClient(url)
        with pytest.raises(InferenceServerException, match=said):
            client.load_model("mine", config="{}", files=files)
        with pytest.raises(InferenceServerException, match=said):
            client.unload_model(MODEL)
        with pytest.raises(InferenceServerException, match=said):
            client.get_system_shared_memory_status()
        client.close()
    with grpc.InferenceServerClient(endpoint.grpc) as remote:
        with pytest.raises(InferenceServerException, match="restricted"):
            remote.load_model("mine", config="{}", files=files)
        with pytest.raises(InferenceServerException, match="restricted"):
            remote.get_system_shared_memory_status()


def is_back(workspace: Workspace, seconds: float) -> float:
    """Seconds until the raw port gives a right answer."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        running = attach(workspace)
        with contextlib.suppress(KfloopError):
            if running is not None and infer(running, MODEL, np.zeros((1, 8, 8, 1), np.uint8), timeout=2)["version"]:
                return time.monotonic() - started
        time.sleep(0.05)
    return seconds


@pytest.mark.slow
@pytest.mark.triton
def test_the_raw_port_answers_again_after_each_of_them_and_failures_are_counted(
    served: tuple[Endpoint, str], workspace: Workspace
) -> None:
    """The shape of 10^9 rows ends this server: the supervisor starts it again, and the edge says meanwhile when to come back."""
    from kfloop.cli.traffic import traffic_facts

    endpoint, address = served
    late = {}
    for name, bad in BAD.items():
        with contextlib.suppress(OSError, http.client.HTTPException):
            ask(endpoint.http, bad, 5.0)
        seconds = is_back(workspace, 30)  # about 4 on a quiet machine
        if seconds >= 30:
            late[name] = seconds
    assert late == {}
    log = (workspace.kfloop_dir / "triton" / "supervisor.log").read_text()
    assert "it is started again" in log
    assert right(address, np.zeros((1, 8, 8, 1), np.uint8)).shape == (1, 3)
    with pytest.raises(ServingError):
        infer(endpoint, MODEL, np.zeros((1, 8, 7, 1), np.uint8))
    assert traffic_facts(workspace, attach(workspace))["requests"] is not None


@pytest.mark.triton
def test_a_truncated_grpc_message_leaves_the_server_answering(served: tuple[Endpoint, str]) -> None:
    endpoint, _ = served
    host, port = endpoint.grpc.rsplit(":", 1)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
    cut = b"\0\0\x20\0\x01\0\0\0\x01" + struct.pack(">BI", 0, 1 << 30) + b"\x0a\xff\xff\xff\xff"
    for message in (preface + cut, preface[:20], b"\xff" * 100):
        with socket.create_connection((host, int(port)), timeout=5) as link:
            link.sendall(message)
    import grpc

    with grpc.insecure_channel(endpoint.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for junk in (b"\x0a\xff\xff\xff\x0f", b"\xff" * 50, b"\x0a\x04ti"):
            with pytest.raises(grpc.RpcError):
                call(junk, timeout=5)
    found = infer(endpoint, MODEL, np.zeros((1, 8, 8, 1), np.uint8), protocol="grpc")
    assert found["version"] == 1


@pytest.mark.triton
def test_the_edge_says_when_triton_is_away_and_is_started_again_when_it_dies(
    served: tuple[Endpoint, str], workspace: Workspace, some_images: np.ndarray
) -> None:
    endpoint, address = served
    server = next(
        child for child in psutil.Process(endpoint.pid).children(recursive=True) if child.name() == "tritonserver"
    )
    server.kill()
    server.wait(5)
    status, body, headers = ask(address, Bad(says="", body=change()))
    assert (status, headers["retry-after"]) == (503, "1")
    assert "try again" in json.loads(body)["error"]
    assert is_back(workspace, 40) < 40
    found = Client(address, MODEL, retries=8).predict(some_images[:1])  # a client that waits is answered
    assert found.version == 1
    before = read_state(workspace)
    assert before is not None
    os.kill(before["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if ask(address, Bad(says="", body=change()))[0] == 200:
                break
        time.sleep(0.1)
    after = read_state(workspace)
    assert after is not None
    assert after["pid"] != before["pid"]
    assert after["address"] == address
    assert after["answers"]["400"] >= before["answers"].get("400", 0)


@pytest.mark.triton
def test_a_file_changed_on_disk_is_not_loaded_and_the_old_version_serves_on(
    served: tuple[Endpoint, str], workspace: Workspace, package: Package, some_images: np.ndarray
) -> None:
    endpoint = attach(workspace)  # a server that was started again has another key
    assert endpoint is not None
    before = infer(endpoint, MODEL, some_images[:2])["probabilities"]
    place = add_version(workspace.repository, MODEL, 5, package(5))
    content = bytearray((place / "model.onnx").read_bytes())
    content[-20] ^= 1  # one bit: still a model
    (place / "model.onnx").write_bytes(content)
    control = Control(endpoint)
    try:
        with pytest.raises(ServingError, match=r"changed after it was packaged"):
            control.swap(workspace.repository, MODEL, [1, 5], 1)
        after = infer(endpoint, MODEL, some_images[:2], version=1)
        np.testing.assert_array_equal(after["probabilities"], before)
    finally:
        control.swap(workspace.repository, MODEL, [1], 1)


@pytest.mark.triton
def test_the_edge_ends_with_its_owner(tmp_path: Path) -> None:
    workspace = Workspace(loop="nobody", root=tmp_path, state="", store="", mlflow="")
    options = ServeOptions(edge=EdgePlace())
    running = supervisor.start_background(workspace, options=options, tied_to_parent=True)
    state = read_state(workspace)
    assert state is not None
    status, body, headers = ask(state["address"], Bad(says="", body=change()))
    assert (status, "nothing is at" in json.loads(body)["error"]) == (404, True)  # nothing was promoted yet
    edge = psutil.Process(state["pid"])
    family = psutil.Process(running.pid).children(recursive=True)
    os.kill(running.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs([edge, *family], timeout=20)
    assert not alive
    assert headers["content-type"] == "application/json"


def contract(**changed: Any) -> Contract:
    inputs = {
        "number": Tensor(name="number", datatype="FP32", shape=(2,)),
        "code": Tensor(name="code", datatype="INT64", shape=(1,)),
        "income": Tensor(name="income", datatype="FP64", shape=(1,)),
        "town": Tensor(name="town", datatype="BYTES", shape=(1,)),
    }
    told: dict[str, Any] = {
        "model": "m",
        "inputs": inputs,
        "forms": (frozenset({"number", "code"}), frozenset({"income", "town"})),
        "outputs": frozenset({"label"}),
        "limit": 4,
        "gaps": True,
    }
    return Contract(**(told | changed))


def request(*inputs: tuple[str, str, list[int], Any]) -> bytes:
    keys = ("name", "datatype", "shape", "data")
    return json.dumps({"inputs": [dict(zip(keys, item, strict=True)) for item in inputs]}).encode()


NUMBERS = ("number", "FP32", [1, 2], [1.5, float("nan")])
CODES = ("code", "INT64", [1, 1], [7])
TOWNS = ("town", "BYTES", [2, 1], ["Ulm", "Köln"])
INCOMES = ("income", "FP64", [2, 1], [5, 6.5])


def test_what_goes_on_is_written_anew_with_every_input_in_bytes() -> None:
    body, length = check(request(NUMBERS, CODES), None, contract())
    head = json.loads(body[:length])
    sizes = [tensor["parameters"]["binary_data_size"] for tensor in head["inputs"]]
    assert sizes == [8, 8]
    assert np.isnan(np.frombuffer(body[length : length + 8], np.float32)).tolist() == [False, True]
    assert body[length + 8 :] == struct.pack("<q", 7)
    body, length = check(request(TOWNS, INCOMES), None, contract())
    town = struct.pack("<I", 3) + b"Ulm" + struct.pack("<I", 5) + "Köln".encode()
    assert body[length:].startswith(town)
    told = {"name": "town", "datatype": "BYTES", "shape": [2, 1], "parameters": {"binary_data_size": len(town)}}
    income = dict(zip(("name", "datatype", "shape", "data"), INCOMES, strict=True))
    head = json.dumps({"inputs": [told, income]}).encode()
    again, _ = check(head + town, str(len(head)), contract())
    assert again[-len(body[length:]) :] == body[length:]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (request(NUMBERS), "no complete request"),
        (request(NUMBERS, TOWNS), "no complete request"),
        (request(NUMBERS, CODES, TOWNS, INCOMES), "no complete request"),
        (request(("number", "FP32", [1, 2], [1e39, 0.0]), CODES), "infinite"),
        (request(("number", "FP32", [1, 2], [float("inf"), 0.0]), CODES), "infinite"),
        (request(("number", "FP32", [2, 2], [1.0] * 4), CODES), "different numbers of rows"),
        (request(("number", "FP32", [1, 2], [True, 0.0]), CODES), "hold a bool"),
        (request(NUMBERS, ("code", "INT64", [1, 1], [2**63])), "does not fit"),
        (request(NUMBERS, ("code", "INT64", [1, 1], [1.5])), "hold a float"),
        (request(("town", "BYTES", [1, 1], ["\ud800"]), INCOMES), "Unicode"),
        (request(NUMBERS, CODES)[:-1] + b', "id": "' + b"a" * 300 + b'"}', "at most 256"),
        (b'{"inputs": [{"name": "code", "data": [' + b"9" * 5000 + b"]}]}", "JSON"),
    ],
)
def test_what_does_not_fit_is_named(body: bytes, says: str) -> None:
    with pytest.raises(Refused) as caught:
        check(body, None, contract())
    assert says in caught.value.message


def test_numbers_may_be_missing_only_where_that_means_something() -> None:
    check(request(NUMBERS, CODES), None, contract())
    with pytest.raises(Refused, match="NaN"):
        check(request(NUMBERS, CODES), None, contract(gaps=False))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (struct.pack("<I", 2**31) + b"Ulm", "ends after"),
        (b"\1\0", "ends after"),
        (struct.pack("<I", 1) + b"\xff", "UTF-8"),
        (struct.pack("<I", 0) * 9, "holds 1"),
    ],
)
def test_texts_in_bytes_are_taken_apart_with_care(data: bytes, says: str) -> None:
    told = {"name": "town", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [told]}).encode()
    with pytest.raises(Refused) as caught:
        check(head + data, str(len(head)), contract())
    assert says in caught.value.message
