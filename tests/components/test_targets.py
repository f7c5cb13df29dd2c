"""Deploying to somebody else's Triton: a real one with restricted APIs and a repository of its own, driven by ledger, aliases and rollback as ever."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import packages
from kfloop.cli.inspection import status_command
from kfloop.cli.predict import predict_command
from kfloop.cli.serving import serve_command
from kfloop.components.deploy.recovery import recover
from kfloop.components.deploy.rollback import rollback
from kfloop.components.deploy.verifying import verify_version
from kfloop.core.config import load_config
from kfloop.core.registry import Registry
from kfloop.core.sections import DeployConfig, TargetConfig
from kfloop.core.state import open_state
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, KfloopError, ServerUnavailable, ServingError, StateError
from kfloop.serving.client import Client
from kfloop.serving.control import Control, read_golden
from kfloop.serving.repository import served
from kfloop.serving.server import Ports, Server, start_server

HERE = Path(__file__).parent
KEY = "TARGET_KEY"
LOOP = "sorter"
pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("external")
    with start_server(root / "models", root / "external.log") as server:
        yield server


@pytest.fixture
def external(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv(KEY, running.endpoint.key)
    return running


@pytest.fixture
def workspace(tmp_path: Path, mlflow_db: str) -> Workspace:
    # The registry is shared by all tests: a name for each.
    name = f"{LOOP}-{abs(hash(str(tmp_path))) % 10**9}"
    root = tmp_path / "project"
    root.mkdir()
    state = f"sqlite:///{root / 'state.db'}"
    return Workspace(loop=name, root=root, state=state, store=str(root / "store"), mlflow=mlflow_db)


def told(server: Server, **changed: Any) -> DeployConfig:
    plain = {
        "kind": "triton",
        "url": f"http://{server.endpoint.http}",
        "grpc": server.endpoint.grpc,
        "key_env": KEY,
        "repository": server.endpoint.repository,
        "backend": "python",
    }
    return DeployConfig(target=TargetConfig(**(plain | changed)))


def ours(loop: str, name: str) -> bool:
    return name == loop or name.startswith(f"{loop}.")


def ready(server: Server, loop: str) -> set[tuple[str, int]]:
    known = [one for one in Control(server.endpoint).index() if ours(loop, one["name"])]
    return {(one["name"], int(one["version"])) for one in known if one.get("state") == "READY"}


def a_set(loop: str, version: int) -> set[tuple[str, int]]:
    return {(f"{loop}.v{version}{step}", version) for step in ("", "_model", "_post")}


def in_repository(server: Server, loop: str) -> set[str]:
    return {path.name for path in Path(server.endpoint.repository).iterdir() if ours(loop, path.name)}


def consistent(workspace: Workspace, server: Server, version: int | None, previous: int | None = None) -> None:
    """Ledger, registry, the loop's own policy and the external server tell the same."""
    ledger = open_state(workspace.state).ledger
    champion = ledger.champion(workspace.loop)
    assert ledger.open_intent(workspace.loop) is None
    assert (champion.version if champion else None) == version
    aliases = Registry(workspace.mlflow, workspace.loop).aliases()
    assert (aliases.get("champion"), aliases.get("previous")) == (version, previous)
    assert served(workspace.repository, workspace.loop)[0] == version
    kept = [number for number in (version, previous) if number is not None]
    models = {one for number in kept for one in a_set(workspace.loop, number)}
    assert ready(server, workspace.loop) == models | ({(workspace.loop, version)} if version else set())
    written = {name for name, _ in models} | ({workspace.loop} if version else set())
    assert in_repository(server, workspace.loop) == written


@pytest.mark.slow
def test_champions_come_and_go_and_clients_notice_nothing(workspace: Workspace, external: Server) -> None:
    config, loop = told(external), workspace.loop
    for digest, scale in (("aaa", 1.0), ("bbb", 2.0), ("ccc", 3.0)):
        packages.make_package(Path(workspace.store), digest, scale)
    packages.make_package(Path(workspace.store), "bad", golden_error=0.1)
    first = packages.deploy(workspace, config, "aaa", None)
    assert (first.outcome, first.version) == ("promoted", 1)
    assert f"on the server at http://{external.endpoint.http} are within" in first.sentence
    consistent(workspace, external, 1)
    assert packages.deploy(workspace, config, "aaa", None).outcome == "unchanged"

    inputs, _ = read_golden(Path(workspace.store) / "models" / "aaa" / "golden.npz")
    expected = {
        version: read_golden(Path(workspace.store) / "models" / digest / "golden.npz")[1]["probabilities"]
        for version, digest in ((1, "aaa"), (3, "bbb"), (4, "ccc"))
    }
    stop, wrong, seen = threading.Event(), [], [0]

    def ask(protocol: str) -> None:
        url = external.endpoint.grpc if protocol == "grpc" else external.endpoint.http
        client = Client(url, loop, protocol=protocol, retries=0)
        while not stop.is_set():
            try:
                found = client.predict(inputs)
                gap = np.abs(found.outputs["probabilities"] - expected[found.version]).max()
                if gap > 1e-4:
                    wrong.append(f"version {found.version} is {gap} away")
                seen[0] += 1
            except KfloopError as error:
                wrong.append(error.message)

    clients = [threading.Thread(target=ask, args=(protocol,)) for protocol in ("http", "grpc", "http")]
    for client in clients:
        client.start()
    try:
        with pytest.raises(ServingError, match=r"golden answers on the server at http"):
            packages.deploy(workspace, config, "bad", "aaa")
        consistent(workspace, external, 1)
        assert packages.deploy(workspace, config, "bbb", "aaa").version == 3
        consistent(workspace, external, 3, 1)
        assert rollback(workspace, reason="odd", config=config).version == 1
        consistent(workspace, external, 1, 3)
        assert rollback(workspace, config=config).version == 3
        assert packages.deploy(workspace, config, "ccc", "bbb").version == 4
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert wrong == []
    assert seen[0] > 100
    consistent(workspace, external, 4, 3)
    assert rollback(workspace, to=1, config=config).version == 1  # its set was removed: it is written and loaded again
    consistent(workspace, external, 1, 4)


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:  # held at the same time: two looks may find the same port
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])


@pytest.mark.slow
def test_what_is_wrong_over_there_is_said_and_changes_nothing(
    workspace: Workspace, external: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = workspace.loop
    for digest, scale in (("aaa", 1.0), ("bbb", 2.0)):
        packages.make_package(Path(workspace.store), digest, scale)
    assert packages.deploy(workspace, told(external), "aaa", None).version == 1

    def refused(kind: type[KfloopError], words: str, hint: str = "", **changed: Any) -> None:
        with pytest.raises(kind, match=words) as caught:
            verify_version(workspace, told(external, **changed), 2, Path(workspace.store) / "models" / "bbb")
        assert hint in caught.value.hint
        consistent(workspace, external, 1)

    refused(ServerUnavailable, "no answer from Triton at http", url=f"http://127.0.0.1:{free_ports()[0]}")
    refused(ServingError, "restricted", "key_env", key_env=None)
    refused(ServingError, "unable to find backend library", "backend: python", backend="onnxruntime")
    refused(ServingError, "it reads another repository", "--model-repository", repository=str(tmp_path / "elsewhere"))
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (tmp_path / "file").touch()
    refused(
        ServingError,
        "cannot be written|cannot be read",
        "deploy.target.repository",
        repository=str(tmp_path / "file" / "x"),
    )
    refused(ConfigError, "nothing here writes to 'nowhere:", repository="nowhere://models")
    with monkeypatch.context() as patched:
        patched.setenv(KEY, "wrong")
        refused(ServingError, "restricted", "key_env")
        patched.delenv(KEY)
        refused(ConfigError, "names TARGET_KEY, but that variable is not set")
    place = Path(external.endpoint.repository) / f"{loop}.v2"
    place.mkdir()
    (place / "config.pbtxt").write_text('name: "somebody"')
    with pytest.raises(StateError, match="kfloop did not write it"):
        verify_version(workspace, told(external), 2, Path(workspace.store) / "models" / "bbb")
    assert (place / "config.pbtxt").read_text() == 'name: "somebody"'
    (place / "config.pbtxt").unlink()
    place.rmdir()
    config = Path(external.endpoint.repository) / loop / "config.pbtxt"
    text = config.read_text()
    config.write_text(f'name: "{loop}"')
    with pytest.raises(StateError, match="that kfloop did not write"):
        verify_version(workspace, told(external), 2, Path(workspace.store) / "models" / "bbb")
    config.write_text(text.replace('"aaa"', '"zzz"'))
    with pytest.raises(StateError, match="another loop has the same name"):
        verify_version(workspace, told(external), 2, Path(workspace.store) / "models" / "bbb")
    config.write_text(text)
    consistent(workspace, external, 1)


@pytest.mark.slow
def test_a_server_that_was_started_anew_is_told_again(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages.make_package(Path(workspace.store), "aaa")
    repository, log = tmp_path / "models", tmp_path / "log.txt"
    http, grpc = free_ports()
    ports = Ports(http=http, grpc=grpc)
    with start_server(repository, log, ports=ports) as server:
        monkeypatch.setenv(KEY, server.endpoint.key)
        config = told(server)
        packages.deploy(workspace, config, "aaa", None)
        assert recover(workspace, config).word == "clean"
    # Nobody answers, so there is nobody to tell, and nobody is kept from training.
    assert recover(workspace, config).word == "clean"
    with start_server(repository, log, ports=ports) as server:
        monkeypatch.setenv(KEY, server.endpoint.key)
        assert ready(server, workspace.loop) == set()
        recover(workspace, config)
        consistent(workspace, server, 1)


@pytest.mark.slow
def test_the_command_line_asks_the_target(workspace: Workspace, external: Server, tmp_path: Path) -> None:
    packages.make_package(Path(workspace.store), "aaa")
    target = told(external).target.model_dump(mode="json", exclude_defaults=True)
    loop = workspace.root / "loop.yaml"
    places = {name: getattr(workspace, name) for name in ("state", "store", "mlflow")}
    loop.write_text(
        json.dumps({"name": workspace.loop, "data": {"source": "digits"}, "deploy": {"target": target}} | places)
    )

    def run(command: Any, *words: str) -> Any:
        return CliRunner().invoke(command, [*words, "-c", str(loop)], standalone_mode=False)

    assert json.loads(run(status_command, "--json").stdout)["target"]["why"] == "there is no champion yet"
    packages.deploy(workspace, load_config(loop).deploy, "aaa", None)
    assert json.loads(run(status_command, "--json").stdout)["target"] == {
        "kind": "triton",
        "where": target["url"],
        "ready": True,
        "why": None,
    }
    assert f"target     triton at {target['url']}: the champion is ready there" in run(status_command).stdout
    inputs, expected = read_golden(Path(workspace.store) / "models" / "aaa" / "golden.npz")
    np.savez(tmp_path / "images.npz", **inputs)
    labels = [("dark", "light")[place] for place in expected["probabilities"].argmax(axis=1)]
    for protocol in ("http", "grpc"):
        done = json.loads(run(predict_command, str(tmp_path / "images.npz"), "--json", "--protocol", protocol).stdout)
        assert (done["version"], [row["label"] for row in done["answers"]]) == (1, labels)
    refused = run(serve_command).exception
    assert isinstance(refused, ConfigError)
    assert f"the Triton at {target['url']} serves this loop, is somebody else's" in refused.message
    Control(external.endpoint).unload(workspace.loop)
    assert "the champion is not ready there" in run(status_command).stdout


CHILD = """
import os, signal, sys
from pathlib import Path
from kfloop.components.deploy.deployment import run
from kfloop.core.sections import DeployConfig
from kfloop.core.workspace import Workspace
from kfloop.serving.places import Place
from kfloop.serving.remote import RemoteControl
_, text, config, decision, model, wanted = sys.argv
workspace = Workspace.from_json(text)
def at(stage):
    if stage == wanted:
        os.kill(os.getpid(), signal.SIGKILL)
write, load = Place.write, RemoteControl.load
def writing(self, name, content):
    if name == f"{workspace.loop}.v1/config.pbtxt":
        at("half written")
    write(self, name, content)
    if name == f"{workspace.loop}/config.pbtxt":
        at("pointed")
def loading(self, model):
    at("written")
    load(self, model)
Place.write, RemoteControl.load = writing, loading
run(DeployConfig.model_validate_json(config), model=Path(model), decision=Path(decision), out=workspace.root, workspace=workspace, at=at)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["half written", "written", "closed", "pointed"])
def test_killed_anywhere_the_next_command_finishes_it(workspace: Workspace, external: Server, stage: str) -> None:
    model, config = packages.make_package(Path(workspace.store), "aaa"), told(external)
    decision = packages.make_decision(Path(workspace.store), "aaa", None)
    arguments = [workspace.to_json(), config.model_dump_json(), str(decision), str(model), stage]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], env=environment, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    if stage == "half written":
        assert not (Path(external.endpoint.repository) / f"{workspace.loop}.v1" / "config.pbtxt").exists()
    assert recover(workspace, config).word in {"finished", "projected", "clean"}
    assert packages.deploy(workspace, config, "aaa", None).outcome == "unchanged"
    consistent(workspace, external, 1)
