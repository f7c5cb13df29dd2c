"""The client before a real server: further tries, ids, addresses without a loop, TLS; connections fail at a proxy between the two."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from kfloop.cli.predict import place_of, predict_command
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, InputError, ServerUnavailable, ServingError
from kfloop.serving.client import TLS, Address, Client, predict
from kfloop.serving.collector import Collector
from kfloop.serving.control import Control
from kfloop.serving.endpoint import Endpoint, publish
from kfloop.serving.repository import add_version
from kfloop.serving.server import start_server

pytestmark = pytest.mark.triton
MODEL = "tiny"
Package = Callable[..., Path]
BUSY = (
    b'HTTP/1.1 503 Busy\r\nContent-Type: application/json\r\nContent-Length: 32\r\n\r\n{"error":"Exceeds queue size!!"}'
)


class Proxy:
    """Passes bytes on to a server; the first connections end before anything came back, or with words of the proxy's own."""

    def __init__(self, target: str, *, bad: int = 0, says: bytes = b"", tls: ssl.SSLContext | None = None) -> None:
        self._target, self.bad, self._says, self._tls = target, bad, says, tls
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._pass, args=(link, self.connections <= self.bad), daemon=True).start()

    def _pass(self, link: socket.socket, bad: bool) -> None:
        try:
            if self._tls is not None:
                link = self._tls.wrap_socket(link, server_side=True)
            if bad:
                link.recv(65536)
                link.sendall(self._says)
                link.close()
                return
            host, port = self._target.rsplit(":", 1)
            with socket.create_connection((host, int(port))) as server, link:
                back = threading.Thread(target=self._pump, args=(server, link), daemon=True)
                back.start()
                self._pump(link, server)
                server.close()
                back.join(5)
        except OSError:
            link.close()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            return

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def proxy(endpoint: Endpoint) -> Iterator[Any]:
    made = []

    def get(**options: Any) -> Proxy:
        made.append(Proxy(options.pop("target", endpoint.http), **options))
        return made[-1]

    yield get
    for item in made:
        item.close()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Collector, Path]]:
    folder = tmp_path_factory.mktemp("log")
    collector = Collector(folder)
    collector.start()
    yield collector, folder
    collector.stop()


@pytest.fixture(scope="module")
def endpoint(workspace: Workspace, package: Package, log: tuple[Collector, Path]) -> Iterator[Endpoint]:
    with start_server(workspace.repository, workspace.root / "log.txt", log_socket=log[0].address) as server:
        add_version(workspace.repository, MODEL, 1, package(1))
        control = Control(server.endpoint)
        control.swap(workspace.repository, MODEL, [1], 1)
        control.wait_ready(MODEL, 1, 30)
        publish(workspace, server.endpoint)
        yield server.endpoint


@pytest.mark.parametrize("says", [b"", BUSY], ids=["connection lost", "busy"])
def test_what_passes_is_tried_again_under_the_same_id(
    endpoint: Endpoint, proxy: Any, log: tuple[Collector, Path], some_images: np.ndarray, says: bytes
) -> None:
    between = proxy(bad=2, says=says)
    mine = f"mine-{len(says)}"
    answer = Client(between.url, MODEL).predict(some_images[:1], ids=[mine])
    assert answer.ids == [mine]
    expected = predict(endpoint, MODEL, some_images[:1]).outputs["probabilities"]
    np.testing.assert_array_equal(answer.outputs["probabilities"], expected)
    assert between.connections >= 3
    collector, folder = log
    ids: list[str] = []
    for _ in range(100):
        time.sleep(0.05)
        collector.write()
        ids = [name for path in folder.rglob("*.parquet") for name in pq.read_table(path)["request_id"].to_pylist()]
        if mine in ids:
            break
    assert ids.count(mine) == 1


def test_tries_end_after_their_number_or_their_time(proxy: Any, some_images: np.ndarray) -> None:
    with pytest.raises(ServingError, match="Exceeds queue size") as busy:
        Client(proxy(bad=99, says=BUSY).url, MODEL, retries=1).predict(some_images[:1])
    assert busy.value.data["again"]
    between = proxy(bad=10**6)
    with pytest.raises(ServerUnavailable):
        Client(between.url, MODEL, retries=10**6, timeout=0.5).predict(some_images[:1])
    assert between.connections < 200  # with pauses between them


def test_nobody_there_is_said_and_a_refusal_is_not_repeated(
    endpoint: Endpoint, proxy: Any, some_images: np.ndarray
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
    for protocol in ("http", "grpc"):
        with pytest.raises(ServerUnavailable):
            Client(nobody, MODEL, protocol=protocol, retries=1, timeout=3).predict(some_images[:1])
    between = proxy()
    client = Client(between.url, MODEL)
    with pytest.raises(ServingError, match="unexpected shape"):
        client.predict(some_images[:1, :, :7])
    assert between.connections == 1
    with pytest.raises(ServingError, match="unknown model"):
        Client(endpoint.http, "nobody").predict(some_images[:1])


def test_many_requests_of_a_thread_share_one_connection(proxy: Any, some_images: np.ndarray) -> None:
    between = proxy()
    client = Client(between.url, MODEL)
    seen: list[tuple[int, int]] = []
    assert len(client.predict(some_images, progress=lambda *told: seen.append(told)).ids) == 40
    client.predict(some_images, key="ann")
    assert between.connections == 1
    assert seen == [(16, 40), (32, 40), (40, 40)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.predict(some_images).outputs["embedding"], range(12)))
    assert all(np.array_equal(answer, answers[0]) for answer in answers)
    assert between.connections <= 1 + 4


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_model_is_known_by_its_address_alone(endpoint: Endpoint, some_images: np.ndarray, protocol: str) -> None:
    url = endpoint.grpc if protocol == "grpc" else endpoint.http
    client = Client(url, MODEL, protocol=protocol)
    answer = client.predict({"image": some_images}, key="ann")
    right = predict(endpoint, MODEL, some_images, protocol=protocol)
    assert set(right.outputs) == {"probabilities", "embedding"}
    assert set(answer.outputs) == {*right.outputs, "label", "confidence", "review"}  # the server tells of all of them
    assert all(np.array_equal(answer.outputs[name], found) for name, found in right.outputs.items())
    assert answer.version == right.version == 1
    assert predict(endpoint, MODEL, some_images[:2], version=1, ids=["a", "b"], protocol=protocol).ids == ["a", "b"]
    with pytest.raises(ServingError, match="2 ids"):
        client.predict(some_images[:3], ids=["a", "b"])
    with pytest.raises(ServingError, match="1 different"):
        client.predict(some_images[:2], ids=["a", "a"])


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"url": "http://host:80"}, "no host and port"),
        ({"url": "host"}, "no host and port"),
        ({"url": "host:1", "protocol": "ftp"}, "not one of http, grpc"),
        ({"url": "host:1", "tls": TLS(ca="/nowhere.pem")}, "no file '/nowhere.pem'"),
    ],
)
def test_what_is_no_address_is_named(told: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Address(**told)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of its own for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    subprocess.run(
        [*command, *subject, "-keyout", "key.pem", "-out", "cert.pem"], cwd=folder, check=True, capture_output=True
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tls_is_passed_through(
    endpoint: Endpoint, proxy: Any, authority: tuple[Path, Path], some_images: np.ndarray, protocol: str, tmp_path: Path
) -> None:
    """Server and client show certificates; without the right ones nobody is answered."""
    cert, key = map(str, authority)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=cert)
    context.load_cert_chain(cert, key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"] if protocol == "grpc" else ["http/1.1"])
    between = proxy(target=endpoint.grpc if protocol == "grpc" else endpoint.http, tls=context)
    secured = {"protocol": protocol, "retries": 0, "timeout": 5.0}
    answer = Client(between.url, MODEL, tls=TLS(ca=cert, cert=cert, key=key), **secured).predict(some_images[:3])
    expected = predict(endpoint, MODEL, some_images[:3]).outputs["probabilities"]
    np.testing.assert_array_equal(answer.outputs["probabilities"], expected)
    for wrong in (TLS(ca=cert), TLS(), None):  # no certificate of its own; an authority that nobody knows; no TLS
        with pytest.raises((ServerUnavailable, ServingError)):
            Client(between.url, MODEL, tls=wrong, **secured).predict(some_images[:3])


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_systems_authorities_are_trusted(
    endpoint: Endpoint,
    proxy: Any,
    authority: tuple[Path, Path],
    some_images: np.ndarray,
    protocol: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenSSL's own variable puts an authority of the test into the system's place."""
    cert, key = map(str, authority)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2"] if protocol == "grpc" else ["http/1.1"])
    between = proxy(target=endpoint.grpc if protocol == "grpc" else endpoint.http, tls=context)
    np.save(tmp_path / "rows.npy", some_images[:3])
    told = [str(tmp_path / "rows.npy"), "--protocol", protocol, "--model", MODEL, "-c", str(tmp_path / "none.yaml")]
    assert isinstance(ask(*told, "--url", between.url).exception, (ServerUnavailable, ServingError))
    monkeypatch.setenv("SSL_CERT_FILE", cert)
    for words in (["--url", between.url, "--tls"], ["--url", f"https://{between.url}/"]):
        done = ask(*told, *words, "--json")
        assert done.exception is None, words
        assert len(json.loads(done.output)["answers"]) == 3


@pytest.mark.parametrize(
    ("url", "secured", "found"),
    [
        ("host:1", False, ("host:1", False)),
        ("host:1", True, ("host:1", True)),
        ("http://host:1/", False, ("host:1", False)),
        ("http://host", False, ("host:80", False)),
        ("https://host", False, ("host:443", True)),
        ("https://[::1]", False, ("[::1]:443", True)),
        ("http://host:1", True, "says http, but TLS"),
        ("https://host/v2/models", False, "no host and port"),
        ("ftp://host:1", False, "no host and port"),
    ],
)
def test_an_address_as_people_paste_it(url: str, secured: bool, found: Any) -> None:
    if isinstance(found, tuple):
        assert place_of(url, secured=secured) == found
        return
    with pytest.raises(ConfigError, match=found):
        place_of(url, secured=secured)


def ask(*arguments: str) -> Any:
    return CliRunner().invoke(predict_command, [*arguments], standalone_mode=False)


def test_arrays_are_sent_anywhere_from_the_command_line(
    endpoint: Endpoint, workspace: Workspace, tmp_path: Path, some_images: np.ndarray
) -> None:
    np.save(tmp_path / "rows.npy", some_images[:3])
    np.savez(tmp_path / "rows.npz", image=some_images[:3])
    expected = predict(endpoint, MODEL, some_images[:3]).outputs["probabilities"]
    nowhere = ["-c", str(tmp_path / "none.yaml")]
    for name, url, protocol in (("rows.npy", endpoint.http, "http"), ("rows.npz", endpoint.grpc, "grpc")):
        told = ["--url", url, "--protocol", protocol, "--model", MODEL, "--key", "ann", "--json"]
        answers = json.loads(ask(str(tmp_path / name), *told, *nowhere).output)["answers"]
        assert [row["outputs"]["probabilities"] for row in answers] == expected.tolist()
        assert answers[2]["file"] == f"{tmp_path / name}#2"
        assert len({row["id"] for row in answers}) == 3
    loop = workspace.root / "loop.yaml"
    loop.write_text(f"name: {MODEL}\n")
    rows = ask(str(tmp_path / "rows.npy"), "-c", str(loop)).output.splitlines()
    assert [row.split("\t")[1] for row in rows] == ["abc"[place] for place in expected.argmax(1)]
    again = ask(str(tmp_path / "rows.npy"), "-c", str(loop), "--url", endpoint.http).output.splitlines()
    assert [row.split("\t")[1:] for row in again] == [row.split("\t")[1:] for row in rows]
    (tmp_path / "text.txt").write_text("a\n")
    for arguments, error, says in (
        (
            [str(tmp_path / "text.txt"), "--url", endpoint.http, "--model", MODEL],
            InputError,
            "nobody knows how to encode",
        ),
        ([str(tmp_path / "rows.npy"), "--url", endpoint.http], ConfigError, "--model is missing"),
        ([str(tmp_path / "rows.npy"), "--model", MODEL], ConfigError, "about the server at --url"),
    ):
        failed = ask(*arguments, *nowhere)
        assert isinstance(failed.exception, error)
        assert says in str(failed.exception)
