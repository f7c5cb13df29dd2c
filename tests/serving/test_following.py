"""Several Tritons with one repository: what one was told, the others follow. Real servers, started as a cluster would start them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from kfloop.core.sections import TargetConfig
from kfloop.errors import ServerUnavailable, ServingError
from kfloop.serving.client import Client
from kfloop.serving.control import Control, read_golden
from kfloop.serving.following import KEY_VARIABLE, look
from kfloop.serving.places import Place
from kfloop.serving.publishing import points_to, remove_set, sets_in
from kfloop.serving.remote import RemoteControl
from kfloop.serving.server import Server, start_server
from published import point, publish

LOOP = "sorter"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("follower")
    with start_server(root / "models", root / "log.txt") as running:
        yield running


def answers(server: Server, store: Path, loop: str, digest: str) -> int:
    """The version that answers, after its answers were compared by value."""
    inputs, expected = read_golden(store / "models" / digest / "golden.npz")
    found = Client(server.endpoint.http, loop, retries=0).predict(inputs)
    assert np.abs(found.outputs["probabilities"] - expected["probabilities"]).max() < 1e-4
    return int(found.version)


def ready(server: Server) -> set[str]:
    return {one["name"] for one in Control(server.endpoint).index() if one.get("state") == "READY"}


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.triton
@pytest.mark.slow
def test_what_another_server_was_told_is_followed(server: Server, tmp_path: Path) -> None:
    place, control, held = Place(server.endpoint.repository), Control(server.endpoint), set[str]()
    assert look(place, control, held) == []  # nothing there yet is no fault
    publish(place, tmp_path, LOOP, 1, "aaa")
    place.write("somebody/config.pbtxt", b'name: "somebody" backend: "python"')  # not ours: never loaded
    assert look(place, control, held) == [f"'{LOOP}' answers with version 1"]
    assert answers(server, tmp_path, LOOP, "aaa") == 1
    assert look(place, control, held) == []
    publish(place, tmp_path, LOOP, 2, "bbb")
    assert look(place, control, held) == [f"'{LOOP}' answers with version 2"]
    assert answers(server, tmp_path, LOOP, "bbb") == 2
    point(place, LOOP, 1)  # a rollback
    look(place, control, held)
    assert answers(server, tmp_path, LOOP, "aaa") == 1
    remove_set(place, sets_in(place, LOOP)[2])
    assert sorted(look(place, control, held)) == [
        f"'sorter.v2{step}' is gone from the repository and was unloaded" for step in ("", "_model", "_post")
    ]
    assert not any(Control(server.endpoint).is_ready(f"sorter.v2{step}", 2) for step in ("", "_model", "_post"))
    assert ready(server) == {LOOP, "sorter.v1", "sorter.v1_model", "sorter.v1_post"}
    # A broken loop keeps no other from being served, and is told.
    publish(place, tmp_path, "asorter", 1, "ccc")
    place.remove("asorter.v1_model/1")
    publish(place, tmp_path, "zsorter", 1, "ddd")
    with pytest.raises(ServingError, match="asorter"):
        look(place, control, held)
    assert answers(server, tmp_path, "zsorter", "ddd") == 1
    assert answers(server, tmp_path, LOOP, "aaa") == 1


@pytest.mark.triton
@pytest.mark.slow
def test_the_process_beside_a_server(tmp_path: Path) -> None:
    repository, file = tmp_path / "models", tmp_path / "ready"
    publish(Place(str(repository)), tmp_path, LOOP, 1, "aaa")
    with start_server(repository, tmp_path / "log.txt") as server:
        command = [sys.executable, "-m", "kfloop.serving", "follow", str(repository), f"http://{server.endpoint.http}"]
        refused = subprocess.Popen(
            [*command, str(file)], env=os.environ | {KEY_VARIABLE: "wrong"}, stderr=subprocess.PIPE, text=True
        )
        assert refused.stderr is not None
        assert "error:" in refused.stderr.readline()
        refused.send_signal(signal.SIGTERM)
        assert refused.wait(30) == 0
        refused.stderr.close()
        assert not file.exists()  # the pod would not be ready
        following = subprocess.Popen([*command, str(file)], env=os.environ | {KEY_VARIABLE: server.endpoint.key})
        try:
            until(file.exists)
            assert answers(server, tmp_path, LOOP, "aaa") == 1
        finally:
            following.send_signal(signal.SIGTERM)
            assert following.wait(30) == 0


def test_without_a_server_the_reason_is_told(tmp_path: Path) -> None:
    target = TargetConfig(kind="triton", url="http://127.0.0.1:1", repository=str(tmp_path))
    with pytest.raises(ServerUnavailable, match="no answer"):
        look(Place(str(tmp_path)), RemoteControl(target, 5), set())


@pytest.mark.parametrize("text", ["", "not a config", 'name: "a" backend: "python"'])
def test_only_what_kfloop_wrote_is_followed(text: str) -> None:
    assert points_to(text) is None


def test_bad_usage_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kfloop.serving", "follow"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "follow REPOSITORY URL READY_FILE" in done.stderr
