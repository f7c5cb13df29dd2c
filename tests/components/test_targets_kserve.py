"""The target of manifests: what is written where, against KServe's own schema; and what a loop file may say about targets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

import packages
from kfloop.components.deploy.recovery import recover
from kfloop.components.deploy.rollback import rollback
from kfloop.components.deploy.targets.kserve import manifest
from kfloop.components.deploy.verifying import target_of
from kfloop.core.config import load_config
from kfloop.core.registry import Registry
from kfloop.core.sections import DeployConfig, RolloutConfig, TargetConfig
from kfloop.core.state import open_state
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, ServingError, StateError
from kfloop.serving.endpoint import publish
from kfloop.serving.production import IMAGE
from kfloop.serving.publishing import packaged
from kfloop.serving.repository import served
from kfloop.serving.server import start_server

HERE = Path(__file__).parent
SCHEMA = json.loads((HERE.parent / "data" / "inferenceservice-0.21.0.schema.json").read_text())
DIGEST = "0123456789abcdef" * 4


FULL: dict[str, Any] = {
    "kind": "kserve",
    "repository": "s3://bucket/models/",
    "gpus": 2,
    "namespace": "ml",
    "service_account": "reader",
    "min_replicas": 3,
    "cpu": "500m",
    "memory": "16Gi",
}


def fits(found: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(found)


def test_the_manifest_is_what_kserve_takes() -> None:
    for target in (TargetConfig(**FULL), TargetConfig(kind="kserve", repository="/mnt/models")):
        fits(manifest(target, "sorter", 3, DIGEST))
    found = manifest(TargetConfig(**FULL), "sorter", 3, DIGEST)
    predictor, model = found["spec"]["predictor"], found["spec"]["predictor"]["model"]
    assert (found["apiVersion"], found["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert found["metadata"]["labels"]["kfloop/version"] == "3"
    assert found["metadata"]["annotations"]["kfloop/package-digest"] == DIGEST
    assert all(len(value) <= 63 for value in found["metadata"]["labels"].values())  # the longest Kubernetes takes
    assert (model["storageUri"], model["image"]) == ("s3://bucket/models/sorter/v3", IMAGE)
    assert (model["modelFormat"], model["protocolVersion"]) == ({"name": "triton"}, "v2")
    assert model["resources"]["limits"] == {"cpu": "500m", "memory": "16Gi", "nvidia.com/gpu": "2"}
    assert model["resources"]["requests"] == model["resources"]["limits"]
    assert predictor["securityContext"]["runAsNonRoot"]
    assert not model["securityContext"]["allowPrivilegeEscalation"]
    assert (predictor["minReplicas"], predictor["serviceAccountName"]) == (3, "reader")
    on_disk = manifest(TargetConfig(kind="kserve", repository="/mnt/models"), "sorter", 1, DIGEST)
    assert on_disk["spec"]["predictor"]["model"]["storageUri"] == "file:///mnt/models/sorter/v1"
    told = TargetConfig(kind="kserve", repository="/mnt/models", storage_uri="pvc://models/kfloop")
    assert manifest(told, "sorter", 1, DIGEST)["spec"]["predictor"]["model"]["storageUri"].startswith("pvc://models/")


def test_the_schema_would_notice() -> None:
    good = manifest(TargetConfig(**FULL), "sorter", 3, DIGEST)
    for place, key, value in (
        (("spec",), "predictors", {}),
        (("spec", "predictor"), "minReplica", 1),
        (("spec", "predictor", "model"), "storageURI", "s3://a"),
        (("spec", "predictor", "model"), "modelFormat", "triton"),
        (("spec", "predictor", "model", "securityContext"), "runAsNonRoot", "true"),
        (("metadata", "labels"), "kfloop/version", 3),
    ):
        bad = json.loads(json.dumps(good))
        inner = bad
        for step in place:
            inner = inner[step]
        inner[key] = value
        with pytest.raises(jsonschema.ValidationError):
            fits(bad)


@pytest.fixture
def workspace(tmp_path: Path, mlflow_db: str) -> Workspace:
    name = f"loop-{abs(hash(str(tmp_path))) % 10**9}"
    state = f"sqlite:///{tmp_path / 'state.db'}"
    return Workspace(loop=name, root=tmp_path, state=state, store=str(tmp_path / "store"), mlflow=mlflow_db)


def told(workspace: Workspace, **changed: Any) -> DeployConfig:
    plain = {
        "kind": "kserve",
        "repository": str(workspace.root / "models"),
        "manifests": str(workspace.root / "manifests"),
    }
    return DeployConfig(target=TargetConfig(**(plain | changed)))


def written(workspace: Workspace) -> dict[str, Any]:
    (path,) = (workspace.root / "manifests").iterdir()
    assert path.name == f"{workspace.loop}.inferenceservice.yaml"
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    fits(found)
    return found


@pytest.fixture
def own_server(workspace: Workspace) -> Iterator[None]:
    """One for all golden answers of a test; without it each would start a private one."""
    with start_server(workspace.repository, workspace.kfloop_dir / "triton.log") as server:
        publish(workspace, server.endpoint)
        yield


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.usefixtures("own_server")
def test_versions_become_folders_and_a_manifest(workspace: Workspace) -> None:
    config, loop = told(workspace), workspace.loop
    for digest, scale in (("aaa", 1.0), ("bbb", 2.0)):
        packages.make_package(Path(workspace.store), digest, scale)
    packages.make_package(Path(workspace.store), "bad", golden_error=0.1)
    first = packages.deploy(workspace, config, "aaa", None)
    assert f"The onnxruntime of {IMAGE} is another one and was not asked." in first.sentence
    assert first.sentence.endswith(f"{loop}.inferenceservice.yaml names this version: commit and apply it.")
    one = workspace.root / "models" / loop / "v1"
    assert {path.name for path in one.iterdir()} == {loop, f"{loop}_model", f"{loop}_post"}
    assert (one / f"{loop}_model" / "1" / "model.onnx").is_file()
    assert packaged((one / loop / "config.pbtxt").read_text()) == "aaa"
    assert written(workspace)["spec"]["predictor"]["model"]["storageUri"] == f"file://{one}"
    files = {path: path.stat().st_mtime_ns for path in one.rglob("*")}

    with pytest.raises(ServingError, match="golden answers on the running server"):
        packages.deploy(workspace, config, "bad", "aaa")
    assert {path.name for path in one.parent.iterdir()} == {"v1"}
    assert written(workspace)["metadata"]["labels"]["kfloop/version"] == "1"
    second = packages.deploy(workspace, config, "bbb", "aaa")
    assert written(workspace)["metadata"]["annotations"]["kfloop/package-digest"] == "bbb"
    assert rollback(workspace, config=config).version == 1
    assert written(workspace)["metadata"]["labels"]["kfloop/version"] == "1"
    assert {path: path.stat().st_mtime_ns for path in one.rglob("*")} == files
    assert second.version == 3
    assert {path.name for path in one.parent.iterdir()} == {"v1", "v3"}  # until it is applied, the cluster serves it
    assert served(workspace.repository, loop)[0] == 1

    (workspace.root / "manifests" / f"{loop}.inferenceservice.yaml").unlink()
    assert recover(workspace, config).word in {"projected", "clean"}
    assert written(workspace)["metadata"]["labels"]["kfloop/version"] == "1"
    other = told(workspace, image="registry.example.org/triton:27.01-py3")
    assert target_of(workspace, other).told() is None
    recover(workspace, other)
    assert written(workspace)["spec"]["predictor"]["model"]["image"] == "registry.example.org/triton:27.01-py3"


def test_a_repository_that_cannot_be_written_promotes_nothing(workspace: Workspace) -> None:
    packages.make_package(Path(workspace.store), "aaa")
    (workspace.root / "models").touch()
    with pytest.raises(ServingError, match=r"cannot be (read|written)"):
        packages.deploy(workspace, told(workspace), "aaa", None)
    assert open_state(workspace.state).ledger.champion(workspace.loop) is None
    assert "champion" not in Registry(workspace.mlflow, workspace.loop).aliases()
    assert not (workspace.root / "manifests").exists()


def test_a_rollout_that_began_on_the_embedded_server_is_ended_first(workspace: Workspace) -> None:
    rollout = {"mode": "canary", "challenger": 2, "share": 0.1, "salt": "s", "look_seconds": 15}
    with pytest.raises(StateError, match="version 2 is rolled out as a canary") as caught:
        target_of(workspace, told(workspace)).serve({"default": 1, "versions": [1, 2], "rollout": rollout})
    assert "kfloop rollout --withdraw" in caught.value.hint


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"kind": "triton"}, "kind triton needs url and repository"),
        ({"kind": "kserve"}, "kind kserve needs repository"),
        ({"kind": "triton", "url": "models:8000", "repository": "m"}, "expected http://HOST:PORT"),
        ({"kind": "triton", "url": "http://models", "repository": "m"}, "expected http://HOST:PORT"),
        ({"kind": "triton", "url": "http://models:8000", "repository": "m", "grpc": "http://a:1"}, "without a scheme"),
        ({"kind": "triton", "url": "http://me:hunter2@models:8000", "repository": "m"}, "keys come from the environment"),
        ({"kind": "triton", "url": "http://m:8000", "repository": "s3://ak:hunter2@b/m"}, "keys come from the environment"),
        ({"kind": "triton", "url": "http://m:8000", "repository": "m", "key_env": "hunter2"}, "NAME of an environment variable"),
        ({"kind": "triton", "url": "http://m:8000", "repository": "m", "ca": "ca.pem"}, "ca is for https://"),
        ({"kind": "triton", "url": "http://m:8000", "repository": "m", "backend": "python", "gpus": 1}, "on the CPU alone"),
        ({"kind": "triton", "url": "http://m:8000", "repository": "m", "namespace": "ml"}, "namespace belongs to kind kserve"),
        ({"url": "http://m:8000"}, "url belongs to kind triton, not to embedded"),
        ({"kind": "kserve", "repository": "m", "memory": "4GB"}, "memory"),
    ],
)  # fmt: skip
def test_targets_that_cannot_be_are_refused(target: dict[str, Any], words: str, tmp_path: Path) -> None:
    loop = tmp_path / "loop.yaml"
    loop.write_text(yaml.safe_dump({"name": "sorter", "deploy": {"target": target}}))
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(loop)
    assert "hunter2" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("kind", ["triton", "kserve"])
@pytest.mark.parametrize("strategy", ["canary", "shadow"])
def test_a_split_is_for_the_embedded_server(kind: str, strategy: str) -> None:
    target = {"kind": kind, "repository": "m"} | ({"url": "http://m:8000"} if kind == "triton" else {})
    with pytest.raises(ValidationError, match=r"inside kfloop's own model.*all_at_once.*in front of that server"):
        DeployConfig(
            target=TargetConfig.model_validate(target), rollout=RolloutConfig.model_validate({"strategy": strategy})
        )


def test_loops_that_such_a_target_cannot_serve_are_refused(tmp_path: Path) -> None:
    loop = tmp_path / "loop.yaml"
    target = {"deploy": {"target": {"kind": "kserve", "repository": "models"}}}
    for name in ("my_loop", "3d"):
        loop.write_text(yaml.safe_dump({"name": name} | target))
        with pytest.raises(ConfigError, match="cannot name an InferenceService"):
            load_config(loop)
    external = {"train": {"external": {"protocol": "json", "url": "http://models.example.org/predict"}}}
    loop.write_text(yaml.safe_dump({"name": "sorter"} | target | external))
    with pytest.raises(ConfigError, match=r"train\.external has none"):
        load_config(loop)
    loop.write_text(yaml.safe_dump({"name": "sorter"} | target))
    found = load_config(loop).deploy
    assert (found.target.repository, found.target.manifests) == (str(tmp_path / "models"), str(tmp_path / "manifests"))
    assert DeployConfig.model_validate_json(found.model_dump_json()) == found  # as the steps get it
