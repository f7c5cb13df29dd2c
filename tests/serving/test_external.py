"""Triton as a proxy: what a model of somebody else answers, who is asked, who is not, and where the token is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import endpoints
from kfloop import serving
from kfloop.components.package.packaging import save_arrays
from kfloop.core.external import ADAPTER, DESCRIPTION
from kfloop.core.signature import Port, Signature, write_signature
from kfloop.errors import ServingError, StateError
from kfloop.serving.client import infer
from kfloop.serving.control import Control
from kfloop.serving.endpoint import Endpoint
from kfloop.serving.repository import add_version, set_versions
from kfloop.serving.server import start_server

ROWS = np.arange(8, dtype=np.float32).reshape(4, 2)


def answer(path: str, body: bytes) -> bytes:
    del path
    shares = [1 / (1 + row[0]) for row in json.loads(body)["instances"]]
    return json.dumps({"predictions": [[one, 1 - one] for one in shares]}).encode()


def package(folder: Path, url: str, wrong: float = 0.0) -> Path:
    folder.mkdir()
    told = {
        "format": 1, "protocol": "json", "url": url, "token_env": "MODEL_TOKEN_TEST", "token_header": "Authorization", "batch": 3,
        "price_per_1000": None, "price_of": "rows", "timeout_seconds": 5, "retries": 0, "gives": "probabilities", "objective": "classification",
        "modality": "vector", "labels": ["a", "b"], "endpoint_labels": None, "shape": [2], "output": "probabilities", "columns": [],
        "adapter": {"body": {"instances": "$rows"}, "answer": "", "request": None, "response": "read"},
    }  # fmt: skip
    (folder / DESCRIPTION).write_text(json.dumps(told))
    (folder / ADAPTER).write_text("def read(answer):\n    return answer['predictions']\n")
    (folder / "encoder.json").write_text(json.dumps({"modality": "vector", "size": 2, "facts": {}}))
    ports = [Port(name=name, dtype="float32", shape=(2,)) for name in ("vector", "probabilities", "embedding")]
    write_signature(
        folder,
        Signature(objective="classification", modality="vector", family="external", inputs=(ports[0],), outputs=(ports[1], ports[2]), labels=("a", "b"), max_batch_size=8),
    )  # fmt: skip
    share = (1 / (1 + ROWS[:, :1]) + wrong).astype(np.float32)
    both = np.concatenate([share, 1 - share], axis=1)
    save_arrays(folder / "golden.npz", {"input.vector": ROWS, "output.probabilities": both, "output.embedding": both})
    return folder


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Endpoint]]:
    monkeypatch.setenv("MODEL_TOKEN_TEST", endpoints.TOKEN)
    monkeypatch.setenv("SOMEBODY_ELSES_TOKEN", "not for the server")
    with endpoints.serving(answer) as asked:
        repository = tmp_path / "repository"
        add_version(repository, "m", 1, package(tmp_path / "package", asked.url))
        set_versions(repository, "m", [1], 1)
        with start_server(repository, tmp_path / "triton.log") as server:
            control = Control(server.endpoint)
            control.load("m")
            control.wait_ready("m", 1, 30)
            yield asked, server.endpoint


@pytest.mark.slow
@pytest.mark.triton
def test_the_proxy_asks_once_says_when_nobody_answers_and_keeps_the_token(
    served: tuple[Any, Endpoint], tmp_path: Path
) -> None:
    asked, endpoint = served
    control = Control(endpoint)
    assert control.golden("m", 1, tmp_path / "package" / "golden.npz", tolerance=1e-5).passed
    assert [len(json.loads(body)["instances"]) for body in asked.bodies] == [3, 1]
    assert {headers["Authorization"] for headers in asked.headers} == {f"Bearer {endpoints.TOKEN}"}
    control.alive("m", 1, tmp_path / "package" / "golden.npz")
    with pytest.raises(ServingError, match=r"must be|expected|unexpected"):
        infer(endpoint, "m", np.zeros((1, 3), np.float32))
    assert len(asked.bodies) == 2  # neither whether it lives nor a request of the wrong shape costs a call
    asked.before = lambda _: (503, {}, b"later")
    with pytest.raises(ServingError, match=r"the external model gave no answer: http.* answers 503"):
        infer(endpoint, "m", ROWS)
    asked.before = lambda _: (200, {}, json.dumps({"predictions": [[0.1, 0.2]] * 3}).encode())
    with pytest.raises(ServingError, match=r"probabilities that sum to 0.3"):
        infer(endpoint, "m", ROWS[:3])
    control.alive("m", 1, tmp_path / "package" / "golden.npz")
    asked.before = lambda _: None
    assert infer(endpoint, "m", ROWS[:1])["probabilities"] == pytest.approx(np.array([[1, 0]]))
    held = [path for path in tmp_path.rglob("*") if path.is_file() and endpoints.TOKEN.encode() in path.read_bytes()]
    assert not held
    stub = _environment_of_the_server(endpoint)
    assert stub["MODEL_TOKEN_TEST"] == endpoints.TOKEN
    assert "SOMEBODY_ELSES_TOKEN" not in stub


def _environment_of_the_server(endpoint: Endpoint) -> dict[str, str]:
    import psutil

    for process in psutil.Process().children(recursive=True):
        if f"--model-repository={endpoint.repository}" in process.cmdline():
            return dict(process.environ())
    pytest.fail("the server has no process")


def test_a_version_is_never_overwritten_by_another_endpoint(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    place = add_version(repository, "m", 1, package(tmp_path / "one", "http://one"))
    code = {path.name for path in Path(serving.__file__).parent.glob("model/[!_]*.py")}
    packaged = {
        "adapter.py",
        "bare",
        "encoder.json",
        "external",
        "external.json",
        "files.json",
        "golden.npz",
        "signature.json",
    }
    assert {path.name for path in place.iterdir() if path.name != "__pycache__"} == packaged | code
    assert add_version(repository, "m", 1, tmp_path / "one") == place
    for other in (package(tmp_path / "two", "http://two"), package(tmp_path / "three", "http://one", wrong=0.1)):
        with pytest.raises(StateError, match="with other content"):
            add_version(repository, "m", 1, other)
    (tmp_path / "one" / DESCRIPTION).unlink()
    with pytest.raises(StateError, match=r"has no model.onnx"):
        add_version(repository, "m", 2, tmp_path / "one")
