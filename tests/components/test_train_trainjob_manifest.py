"""TrainJobs and their runtime as manifests: golden ones, the schemas of Kubeflow Trainer and Kubernetes, and what a loop file may not say."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import ValidationError

import trainer_schema
import trainings
from kfloop.components.train.launching import Job
from kfloop.components.train.resuming import work_folder
from kfloop.components.train.trainjob.manifest import manifest
from kfloop.components.train.trainjob.node import FINAL
from kfloop.components.train.trainjob.order import Order
from kfloop.core.sections import LauncherConfig, TrainConfig
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
RUNTIME = ROOT / "infra" / "base" / "trainer" / "clustertrainingruntime.yaml"
RELEASES = ("1.32", "1.33", "1.34")
BIG: dict[str, Any] = {
    "kind": "trainjob",
    "gpus": 8,
    "cpu": "96",
    "memory": "1000Gi",
    "queue": "research",
    "deadline_minutes": 600,
    "secrets": {"hub": {"HF_TOKEN": "token"}},
    "env": {"NCCL_SOCKET_IFNAME": "eth0"},
    "labels": {"cost-center": "vision"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
}
TERM = {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]}
BIGGER: dict[str, Any] = BIG | {
    "nodes": 4,
    "resources": {"rdma/ib": "8"},
    "image": "registry.example/loops/digits@sha256:" + "0" * 64,
    "node_selector": {"node.kubernetes.io/instance-type": "p5.48xlarge"},
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [TERM]}}},
    "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "500Gi"}}],
    "volume_mounts": [{"name": "scratch", "mountPath": "/scratch"}],
    "service_account": "kfloop-trainer",
}


def order(launcher: dict[str, Any], **told: Any) -> Order:
    """An order with a digest that does not depend on this machine."""
    folder = Path("/kfloop/digits")
    config = trainings.config(**{"accelerator": "auto", "launcher": launcher} | told)
    place = Workspace(loop="digits", root=folder, state="", store=str(folder / "store"), mlflow="http://mlflow:5000")
    name = "train-0f3c9a12-0123456789ab"
    work = work_folder(place, config, "d" * 32, "e" * 32).parent / "work" / "trainjobs" / name
    return Order(
        name=name,
        digest="0123456789abcdef0123456789abcdef",
        run="0f3c9a12-7b1d-4f6e-9d7c-1a2b3c4d5e6f",
        job=Job(
            config=config,
            dataset=folder / "store" / "d",
            labels=folder / "store" / "l",
            out=work / "out",
            workspace=place,
        ),
        folder=work,
        dataset_digest="d" * 32,
        labels_digest="e" * 32,
    )


@pytest.fixture(autouse=True)
def _in_a_pod_of_kfp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_POD_NAME", "digits-training-7xk2p-system-container-impl-1")
    monkeypatch.setenv("KFP_POD_UID", "4d9f0c52-8d5c-4e4d-9b0a-0d6f6c1c7f10")


def pod_of(runtime: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    """The pod that Trainer would make of a runtime and a TrainJob of ours, as its sources say: patches are merged by name."""
    template = copy.deepcopy(runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"])
    spec, (container,) = template["spec"], template["spec"]["containers"]
    trainer = job["spec"]["trainer"]
    container |= {key: trainer[key] for key in ("image", "command", "args") if key in trainer}
    container["resources"] = trainer["resourcesPerNode"]
    container["env"] = [*container["env"], *trainer["env"]]
    (patch,) = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    changes = patch["template"]["spec"]["template"]
    for key, value in changes["spec"].items():
        if key == "containers":
            container["volumeMounts"] = [*container["volumeMounts"], *value[0]["volumeMounts"]]
        else:
            spec[key] = [*spec.get(key, []), *value] if isinstance(value, list) else value
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", **changes["metadata"]}, "spec": spec}


def runtime() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(RUNTIME.read_text())
    return found


@pytest.mark.parametrize(("name", "launcher"), [("trainjob-1x8.yaml", BIG), ("trainjob-4x8.yaml", BIGGER)])
def test_the_manifest_is_the_golden_one_and_fits_the_schemas(name: str, launcher: dict[str, Any]) -> None:
    found = manifest(order(launcher))
    assert found == yaml.safe_load((DATA / name).read_text())
    assert trainer_schema.problems("TrainJob", found) == []
    pod = pod_of(runtime(), found)
    for release in RELEASES:
        kubernetes_validate.validate(pod, release, strict=True)


def test_the_golden_manifests_say_what_was_ordered() -> None:
    big, bigger = (yaml.safe_load((DATA / f"trainjob-{size}.yaml").read_text())["spec"] for size in ("1x8", "4x8"))
    for found, nodes in ((big, 1), (bigger, 4)):
        trainer = found["trainer"]
        assert (trainer["numNodes"], trainer["numProcPerNode"]) == (nodes, 8)
        assert trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "8"
        assert trainer["resourcesPerNode"]["limits"] == trainer["resourcesPerNode"]["requests"]
        assert "activeDeadlineSeconds" not in found  # Trainer's own counts the wait for a node, too


def test_the_schema_that_tests_use_refuses_what_it_does_not_know() -> None:
    found = manifest(order(BIG))
    found["spec"]["podSpecOverrides"] = []
    found["spec"]["trainer"]["numNodes"] = "1"
    told = trainer_schema.problems("TrainJob", found)
    assert len(told) == 2
    assert any("podSpecOverrides" in line for line in told)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"tolerations": [{"key": "gpu", "operater": "Exists"}]}, r"tolerations\.0\.operater': 'Exists'"),
        ({"affinity": {"nodeAfinity": {}}}, r"affinity\.nodeAfinity"),
        ({"volumes": [{"name": "a", "emptyDirr": {}}]}, r"emptyDirr"),
        ({"volume_mounts": [{"name": "a", "mountPath": 3}]}, "mountPath"),
        ({"tolerations": [{"key": "a", "tolerationSeconds": "soon"}]}, "tolerationSeconds"),
        ({"affinity": {"nodeAffinity": "here"}}, "is not one of trainer.kubeflow.org/v1alpha1"),
    ],
)
def test_a_key_that_kubernetes_does_not_know_is_an_error_before_anything_is_created(
    told: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        manifest(order(BIG | told))
    assert "train.launcher" in caught.value.hint


def test_without_trainers_models_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("kubeflow_trainer_api")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kubeflow_trainer_api", None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        manifest(order(BIG))
    assert "kfloop[trainer]" in caught.value.hint


def test_outside_of_a_kfp_pod_there_is_no_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    assert manifest(order(BIG))["metadata"]["ownerReferences"][0]["uid"] == os.environ["KFP_POD_UID"]
    monkeypatch.delenv("KFP_POD_UID")
    assert "ownerReferences" not in manifest(order(BIG))["metadata"]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"gpus": 2}, "gpus belongs to kind trainjob"),
        ({"kind": "trainjob", "nodes": 0}, "greater than 0"),
        ({"kind": "trainjob", "memory": "16 GB"}, "pattern"),
        ({"kind": "trainjob", "deadline_minutes": 0}, "greater than 0"),
        ({"kind": "trainjob", "env": {"PET_NNODES": "3"}}, "PET_NNODES is set by Kubeflow Trainer"),
        ({"kind": "trainjob", "secrets": {"s": {"PET_MASTER_PORT": "k"}}}, "PET_MASTER_PORT is set by"),
        ({"kind": "pytorchjob"}, "'local' or 'trainjob'"),
        ({"kind": "trainjob", "gpu": 8}, "Extra inputs"),
    ],
)
def test_a_launcher_that_makes_no_sense_is_refused(told: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LauncherConfig.model_validate(told)


def test_processes_and_gpus_of_a_pod_must_agree() -> None:
    with pytest.raises(ValidationError, match="processes 4 and launcher.gpus 8"):
        TrainConfig.model_validate({"processes": 4, "launcher": {"kind": "trainjob", "gpus": 8}})
    assert manifest(order({"kind": "trainjob"}, processes=4))["spec"]["trainer"]["numProcPerNode"] == 4


def test_how_it_is_launched_is_not_what_is_trained(tmp_path: Path) -> None:
    def folder(**launcher: Any) -> Path:
        return work_folder(trainings.place(tmp_path), trainings.config(launcher=launcher), "d", "e")

    assert folder() == folder(**BIGGER)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("data")
    return trainings.digits(folder / "digits"), trainings.no_doubts(folder / "labels")


def test_folders_that_the_pods_would_not_see_are_refused(tmp_path: Path, data: tuple[Path, Path]) -> None:
    job = trainings.job(tmp_path, *data, trainings.config(launcher={"kind": "trainjob"}))
    with pytest.raises(ConfigError, match="would not see the dataset at .*: they have a volume at '/kfloop'"):
        Order.of(job)
    nothing = trainings.job(tmp_path, *data, trainings.config(launcher={"kind": "trainjob", "claim": None}))
    with pytest.raises(ConfigError, match="they have a volume at nothing"):
        Order.of(nothing)


def test_gpus_that_are_ordered_must_be_there_and_one_that_is_not_ordered_is_no_wish(
    tmp_path: Path, data: tuple[Path, Path]
) -> None:
    seen = {"kind": "trainjob", "mount": str(data[0].parents[1])}
    told = Order.of(trainings.job(tmp_path, *data, trainings.config(launcher=seen | {"gpus": 1}, accelerator="auto")))
    assert told.job.config.accelerator == "gpu"
    with pytest.raises(ConfigError, match="accelerator is 'gpu', but train.launcher.gpus is 0"):
        Order.of(trainings.job(tmp_path, *data, trainings.config(launcher=seen, accelerator="gpu")))


def test_the_runtime_fits_its_schema_and_kubernetes() -> None:
    found = runtime()
    assert trainer_schema.problems("ClusterTrainingRuntime", found) == []
    job = found["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]
    batch = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "node"} | job["metadata"],
        "spec": job["spec"],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": job["spec"]["template"]["spec"]}
    for release in RELEASES:
        kubernetes_validate.validate(batch, release, strict=True)
        kubernetes_validate.validate(pod, release, strict=True)


def test_the_runtime_is_what_the_launcher_counts_on() -> None:
    found = runtime()
    assert found["metadata"]["name"] == LauncherConfig().runtime
    job = found["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    spec = job["template"]["spec"]
    (container,) = spec["containers"]
    shm = next(volume for volume in spec["volumes"] if volume["name"] == "dshm")
    assert shm["emptyDir"]["medium"] == "Memory"
    assert {"name": "dshm", "mountPath": "/dev/shm"} in container["volumeMounts"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["terminationGracePeriodSeconds"] > 30  # torchrun's own wait for its processes
    assert spec["restartPolicy"] == "Never"  # a podFailurePolicy needs it
    assert container["resources"]["limits"]["memory"]
    ignored, final = job["podFailurePolicy"]["rules"]
    assert (ignored["action"], ignored["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (final["action"], final["onExitCodes"]["values"]) == ("FailJob", [FINAL])
    policy = found["spec"]["template"]["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    assert policy["rules"][0] | {"name": ""} == {
        "name": "",
        "action": "FailJobSet",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }


def test_the_image_of_the_runtime_is_the_locked_one() -> None:
    locked = yaml.safe_load((ROOT / "infra" / "images.lock").read_text())["kfloop"]["gpu"]
    job = runtime()["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["template"]["spec"]["containers"][0]["image"] == locked


@pytest.mark.slow  # starts a python that imports everything
def test_a_pod_whose_training_would_fail_again_ends_with_the_status_of_the_runtime(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kfloop.components.train.trainjob.node", "--config", str(tmp_path / "nowhere.json")],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == FINAL
    assert "nowhere.json' cannot be read: No such file" in done.stderr
