"""A version in a real S3 server: what is written when, and that a copy of it gives the golden answers. Skipped where no such server is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

import packages
from kfloop.components.deploy.targets.elsewhere import made_for
from kfloop.components.deploy.targets.triton import ExternalTriton
from kfloop.core.sections import DeployConfig, TargetConfig
from kfloop.core.workspace import Workspace
from kfloop.errors import ServerUnavailable, ServingError, StateError
from kfloop.serving.places import Place
from kfloop.serving.publishing import put_version, remove_set, set_name, sets_in
from kfloop.serving.remote import RemoteControl
from kfloop.serving.server import start_server
from seaweed import free_ports

pytestmark = pytest.mark.slow
BUCKET = "champions"
LOOP = "sorter"


@pytest.fixture
def bucket(s3: str) -> str:
    """URL of an empty bucket."""
    import s3fs

    server = s3fs.S3FileSystem(skip_instance_cache=True)
    if not server.exists(BUCKET):
        server.mkdir(BUCKET)
    assert server.find(BUCKET) == []
    return f"s3://{BUCKET}"


@pytest.mark.triton
def test_a_copy_of_what_was_uploaded_gives_the_golden_answers(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    package = packages.make_package(tmp_path / "store", "aaa")
    place, name = Place(f"{bucket}/models"), set_name(LOOP, 1)
    assert place.names() == []
    target = TargetConfig(kind="triton", url="http://127.0.0.1:1", repository=place.url, backend="python")
    options = made_for(target, LOOP, 1)
    order: list[str] = []
    write = Place.write

    def failing(self: Place, path: str, content: bytes) -> None:
        order.append(path)
        if len(order) == 10:
            raise ServingError("the line was cut")
        write(self, path, content)

    monkeypatch.setattr(Place, "write", failing)
    with pytest.raises(ServingError, match="cut"):
        put_version(place, package, "aaa", name, options)
    assert place.read(f"{name}/config.pbtxt") is None  # what is there so far is a leftover, and says so
    order.clear()
    monkeypatch.setattr(Place, "write", lambda *given: (order.append(given[1]), write(*given))[1])
    assert put_version(place, package, "aaa", name, options)
    assert order[-1] == f"{name}/config.pbtxt"
    assert not put_version(place, package, "aaa", name, options)
    with pytest.raises(StateError, match="made of package aaa"):
        put_version(place, package, "bbb", name, options)
    assert sets_in(place, LOOP) == {1: [name, f"{name}_model", f"{name}_post"]}

    s3fs.S3FileSystem().get(f"{BUCKET}/models/", str(tmp_path / "copy"), recursive=True)
    with start_server(tmp_path / "copy", tmp_path / "log.txt") as server:
        monkeypatch.setenv("TARGET_KEY", server.endpoint.key)
        there = {"url": f"http://{server.endpoint.http}", "grpc": server.endpoint.grpc, "key_env": "TARGET_KEY"}
        control = RemoteControl(target.model_copy(update=there))
        control.load(name)
        assert control.golden_of(name, 1, package, 1e-5).passed
    remove_set(place, sets_in(place, LOOP)[1])
    # Some servers show the folders of what was removed for a while; no file is left.
    assert s3fs.S3FileSystem(skip_instance_cache=True).find(BUCKET) == []


def test_s3_that_cannot_be_written_is_told(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = packages.make_package(tmp_path / "store", "aaa")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(ServingError, match=rf"'{bucket}/x' cannot be (read|written)") as caught:
        put_version(Place(f"{bucket}/x"), package, "aaa", "sorter.v1", made_for(TargetConfig(), LOOP, 1))
    assert "AWS_ENDPOINT_URL" in caught.value.hint


def test_a_server_that_does_not_answer_gets_nothing_uploaded(bucket: str, tmp_path: Path) -> None:
    package = packages.make_package(tmp_path / "store", "aaa")
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    target = TargetConfig(kind="triton", url=url, repository=f"{bucket}/nobody", backend="python")
    workspace = Workspace(loop=LOOP, root=tmp_path, state="", store=str(tmp_path / "store"), mlflow="")
    with pytest.raises(ServerUnavailable, match="no answer from Triton"):
        ExternalTriton(workspace, DeployConfig(target=target)).verify(1, package)
    assert Place(f"{bucket}/nobody").names() == []
