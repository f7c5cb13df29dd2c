"""Compiling for a cluster: every setting on every step, no secret, the same bytes, and the local engine runs the result."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import MessageToDict, ParseDict
from kfp import dsl, kubernetes
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec

from kfloop.core.cluster import CLUSTER_STEPS, ClusterConfig
from kfloop.core.image import locked_images
from kfloop.errors import ConfigError
from kfloop.pipelines.arguments import pipeline_arguments
from kfloop.pipelines.cluster.compiling import cluster_pipeline, compile_pipelines, for_cluster
from kfloop.pipelines.cluster.platform import NEEDS
from kfloop.pipelines.local import run_pipeline
from kfloop.pipelines.rounds import open_loop
from kfloop.pipelines.worker import PIPELINES, compiled_documents, load_pipeline

COMMITTED = Path(__file__).resolve().parents[2] / "pipelines" / "compiled"
CACHED = {"validate_data", "check_labels", "train", "package", "evaluate", "bless"}
TRIED_AGAIN = CACHED | {"ingest", "incumbent", "gate"}
ONCE = {"deploy", "keep", "approve", "monitor", "stand_by", "submit_training", "notify"}
NESTED = ClusterConfig(retrain="nested")
SHM = "/dev/shm"  # noqa: S108 - of a pod
MY_IMAGE = "registry.example.org/mine@sha256:" + "0a" * 32


def documents(pipeline: str, config: ClusterConfig | None = None) -> list[dict[str, Any]]:
    config = config or ClusterConfig()
    return compiled_documents(for_cluster(cluster_pipeline(pipeline, config), config))


def step_of(name: str) -> str:
    return name.removeprefix("exec-").replace("-", "_")


def containers(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    executors = found[0]["deploymentSpec"]["executors"]
    return {step_of(name): executor["container"] for name, executor in executors.items()}


def pods(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    executors = found[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {step_of(name): settings for name, settings in executors.items()}


def tasks(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Tasks with a pod, by step."""
    components = found[0]["components"]
    dags = [part["dag"] for part in (found[0]["root"], *components.values()) if "dag" in part]
    return {
        step_of(name): task
        for dag in dags
        for name, task in dag["tasks"].items()
        if "executorLabel" in components[task["componentRef"]["name"]]
    }


@pytest.fixture(scope="module", params=[*sorted(PIPELINES), "nested"])
def compiled(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return documents("monitoring", NESTED) if request.param == "nested" else documents(request.param)


def test_the_committed_files_are_what_compiling_gives(tmp_path: Path) -> None:
    files = compile_pipelines(ClusterConfig(), tmp_path / "new" / "folder")
    assert sorted(path.name for path in COMMITTED.iterdir()) == sorted(path.name for path in files)
    assert sorted(path.name for path in files[0].parent.iterdir()) == sorted(path.name for path in files)
    for file in files:
        assert file.read_text() == (COMMITTED / file.name).read_text(), "run: kfloop compile"


def test_compiling_again_changes_no_byte_and_not_the_pipelines_of_the_local_engine(tmp_path: Path) -> None:
    before = {name: compiled_documents(load_pipeline(name)) for name in PIPELINES}
    first = [file.read_bytes() for file in compile_pipelines(ClusterConfig(), tmp_path)]
    compile_pipelines(ClusterConfig(labels={"team": "a"}, image=MY_IMAGE), tmp_path)
    assert [file.read_bytes() for file in compile_pipelines(ClusterConfig(), tmp_path)] == first
    assert {name: compiled_documents(load_pipeline(name)) for name in PIPELINES} == before
    assert all(len(found) == 1 for found in before.values()), "locally nothing is asked of Kubernetes"


def test_a_compile_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = compile_pipelines(ClusterConfig(), tmp_path)
    before = [file.read_bytes() for file in files]
    monkeypatch.delitem(NEEDS, "notify")
    with pytest.raises(KeyError, match="notify"):
        compile_pipelines(ClusterConfig(labels={"team": "a"}), tmp_path)
    assert [file.read_bytes() for file in files] == before
    assert len(list(tmp_path.iterdir())) == len(files)


@pytest.mark.parametrize("place", ["taken", "taken/below"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match=f"{place}' cannot be written"):
        compile_pipelines(ClusterConfig(), tmp_path / place)


def test_every_step_has_needs_and_every_need_a_step() -> None:
    assert set(NEEDS) == set(CLUSTER_STEPS)
    used = {step for name in PIPELINES for step in containers(documents(name))}
    assert used == set(NEEDS)


def test_every_step_is_bounded(compiled: list[dict[str, Any]]) -> None:
    found, settings = containers(compiled), pods(compiled)
    assert set(found) == set(settings) == set(tasks(compiled))
    for step, container in found.items():
        resources = container["resources"]
        assert resources["resourceCpuLimit"] == resources["resourceCpuRequest"] != ""
        assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"] != ""
        assert container["image"] == locked_images()["cpu"]
        assert 0 < int(settings[step]["activeDeadlineSeconds"]) < 48 * 3600


def test_every_pod_is_placed_named_and_without_root(compiled: list[dict[str, Any]]) -> None:
    pipeline = compiled[0]["pipelineInfo"]["name"]
    for step, settings in pods(compiled).items():
        assert settings["securityContext"] == {"runAsNonRoot": True}
        labels = settings["podMetadata"]["labels"]
        # With this one Kubeflow gives a pod the token to ask its API with.
        assert (labels.pop("access-ml-pipeline", None) == "true") == (step in {"submit_training", "stand_by"})
        assert labels == {"kfloop.io/pipeline": pipeline, "kfloop.io/step": step}
        (volume,) = settings["pvcMount"]
        assert (volume["constant"], volume["mountPath"]) == ("kfloop-work", "/kfloop")
        (field,) = settings["fieldPathAsEnv"]
        assert field == {"name": "KFLOOP_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}


def test_caching_and_retries_are_said_of_each_task_and_never_of_one_that_changes_the_world(
    compiled: list[dict[str, Any]],
) -> None:
    for step, task in tasks(compiled).items():
        assert task["cachingOptions"] == ({"enableCache": True} if step in CACHED else {}), step
        assert ("retryPolicy" in task) == (step in TRIED_AGAIN), step
    assert set(tasks(compiled)) <= TRIED_AGAIN | ONCE
    components = compiled[0]["components"].values()
    nested = [task for part in components for task in part.get("dag", {}).get("tasks", {}).values()]
    of_dags = [
        task["cachingOptions"]
        for task in nested
        if "executorLabel" not in compiled[0]["components"][task["componentRef"]["name"]]
    ]
    assert all(options == {} for options in of_dags), "a cached nested pipeline would skip its deploy"


def test_a_run_ends_and_is_cleared_away(compiled: list[dict[str, Any]]) -> None:
    assert compiled[1]["platforms"]["kubernetes"]["pipelineConfig"] == {
        "activeDeadlineSeconds": 48 * 3600,
        "resourceTtlOnCompletion": 168 * 3600,
    }


def test_secrets_are_references(compiled: list[dict[str, Any]]) -> None:
    for settings in pods(compiled).values():
        names = {item["secretName"]: item for item in settings["secretAsEnv"]}
        assert set(names) == {"kfloop-state", "kfloop-s3", "kfloop-triton"}
        assert all(item["optional"] for item in names.values())
        assert names["kfloop-state"]["keyToEnv"] == [{"secretKey": "url", "envVar": "KFLOOP_STATE_URL"}]


def test_training_and_triton_have_room_to_share() -> None:
    settings = pods(documents("training"))
    shared = {step: found["emptyDirMounts"] for step, found in settings.items() if "emptyDirMounts" in found}
    assert set(shared) == {"train", "bless", "deploy"}
    assert shared["train"] == [{"volumeName": "dshm", "mountPath": SHM, "medium": "Memory", "sizeLimit": "4Gi"}]


@dsl.component(base_image=MY_IMAGE, install_kfp_package=False)
def train() -> None:
    """Stands for the step, to hear from KFP itself how it writes each setting."""


@dsl.pipeline(
    name="training",
    pipeline_config=dsl.PipelineConfig(ttl_seconds_after_finished=3600, active_deadline_seconds=7200),
)
def by_kfp() -> None:
    """The settings of a loop file through KFP's own functions."""
    task = train().set_cpu_request("8").set_cpu_limit("8").set_memory_request("64Gi").set_memory_limit("64Gi")
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(4)
    task.set_retry(2, backoff_duration="60s", backoff_factor=2.0, backoff_max_duration="600s")
    task.set_caching_options(enable_caching=True)
    kubernetes.set_timeout(task, 36000)
    kubernetes.set_security_context(task, run_as_non_root=True)
    for key, value in {"kfloop.io/pipeline": "training", "kfloop.io/step": "train", "team": "vision"}.items():
        kubernetes.add_pod_label(task, label_key=key, label_value=value)
    kubernetes.use_field_path_as_env(task, env_name="KFLOOP_RUN_ID", field_path="metadata.labels['pipeline/runid']")
    kubernetes.mount_pvc(task, pvc_name="work", mount_path="/mine")
    kubernetes.use_secret_as_env(task, secret_name="db", secret_key_to_env={"url": "KFLOOP_STATE_URL"})
    kubernetes.use_secret_as_env(
        task,
        secret_name="kfloop-s3",
        secret_key_to_env={
            "AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY",
        },
        optional=True,
    )
    kubernetes.use_secret_as_env(
        task, secret_name="kfloop-triton", secret_key_to_env={"key": "KFLOOP_TRITON_KEY"}, optional=True
    )
    kubernetes.use_config_map_as_env(
        task,
        config_map_name="kfloop-endpoints",
        config_map_key_to_env={"s3-region": "AWS_DEFAULT_REGION", "s3": "AWS_ENDPOINT_URL"},
        optional=True,
    )
    kubernetes.empty_dir_mount(
        task,
        volume_name="dshm",
        mount_path=SHM,
        medium="Memory",
        size_limit="16Gi",
    )
    kubernetes.add_node_selector(task, label_key="pool", label_value="ml")
    kubernetes.add_node_selector(task, label_key="nvidia.com/gpu.product", label_value="NVIDIA-H200")
    kubernetes.add_toleration(task, key="spot", operator="Equal", value="yes", effect="NoExecute")
    kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")


TOLD = ClusterConfig.model_validate(
    {
        "image": MY_IMAGE,
        "root": "/mine",
        "volume": "work",
        "resources": {
            "train": {
                "cpu": "8",
                "memory": "64Gi",
                "gpus": 4,
                "timeout_minutes": 600,
                "shm": "16Gi",
                "node_selector": {"nvidia.com/gpu.product": "NVIDIA-H200"},
            }
        },
        "labels": {"team": "vision"},
        "node_selector": {"pool": "ml"},
        "tolerations": [
            {"key": "spot", "value": "yes", "effect": "NoExecute", "steps": ["train"]},
            {"key": "other", "operator": "Exists", "steps": ["gate"]},
        ],
        "secrets": {"db": {"KFLOOP_STATE_URL": "url"}},
        "ttl_hours": 1,
        "deadline_hours": 2,
    }
)


def test_what_a_loop_file_says_is_written_as_kfp_itself_writes_it() -> None:
    ours, theirs = documents("training", TOLD), compiled_documents(by_kfp)
    assert pods(ours)["train"] == pods(theirs)["train"]
    config = ours[1]["platforms"]["kubernetes"]["pipelineConfig"]
    assert config == theirs[1]["platforms"]["kubernetes"]["pipelineConfig"]
    (task,) = tasks(theirs).values()
    for key in ("cachingOptions", "retryPolicy"):
        assert json.dumps(tasks(ours)["train"][key], sort_keys=True) == json.dumps(task[key], sort_keys=True)
    mine, reference = containers(ours)["train"], containers(theirs)["train"]
    assert mine["image"] == reference["image"]
    # KFP repeats each figure in fields of older servers, which know no deadline of a run either.
    assert (
        mine["resources"].items()
        <= {
            key: {name: item for name, item in value.items() if name.startswith("resource")}
            if key == "accelerator"
            else value
            for key, value in reference["resources"].items()
        }.items()
    )


def test_a_loop_file_speaks_for_the_steps_it_names_and_leaves_the_others() -> None:
    found, plain = documents("training", TOLD), documents("training")
    assert containers(found)["gate"]["resources"] == containers(plain)["gate"]["resources"]
    assert {settings["nodeSelector"]["labels"]["pool"] for settings in pods(found).values()} == {"ml"}
    assert [item["key"] for item in pods(found)["gate"]["tolerations"]] == ["other"]
    assert "tolerations" not in pods(found)["ingest"]
    assert {container["image"] for container in containers(found).values()} == {MY_IMAGE}


def test_a_step_with_a_gpu_has_the_image_for_it() -> None:
    found = containers(documents("training", ClusterConfig.model_validate({"resources": {"train": {"gpus": 1}}})))
    images = locked_images()
    assert {step for step, container in found.items() if container["image"] == images["gpu"]} == {"train"}


def test_a_variable_comes_from_one_place() -> None:
    config = ClusterConfig(secrets={"mine": {"AWS_ACCESS_KEY_ID": "id", "AWS_DEFAULT_REGION": "r"}})
    for settings in pods(documents("training", config)).values():
        references = settings["secretAsEnv"] + settings["configMapAsEnv"]
        variables = [item["envVar"] for reference in references for item in reference["keyToEnv"]]
        assert len(variables) == len(set(variables))
        (mine,) = [reference for reference in references if reference.get("secretName") == "mine"]
        assert not mine.get("optional")


def test_no_secret_of_the_environment_gets_into_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KFLOOP_STATE_URL", "AWS_SECRET_ACCESS_KEY", "KFLOOP_TRITON_KEY", "KFP_TOKEN", "DB_PASSWORD"):
        monkeypatch.setenv(name, f"hunter2-{name}")
    config = ClusterConfig.model_validate(
        {
            "state": "postgresql://kfloop:${DB_PASSWORD}@db/kfloop",
            "auth": {"kind": "token", "env": "KFP_TOKEN"},
            "secrets": {"db": {"DB_PASSWORD": "password"}},
        }
    )
    for file in compile_pipelines(config, tmp_path):
        assert "hunter2" not in file.read_text()
    committed = "".join(file.read_text() for file in COMMITTED.iterdir())
    assert not re.findall(r"://[^/\s:]+:[^/\s@]+@", committed)


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_the_files_are_two_documents_of_kfps_own_schema(name: str) -> None:
    spec, platform = yaml.safe_load_all((COMMITTED / f"{name}.yaml").read_text())
    ParseDict(spec, PipelineSpec())
    assert MessageToDict(ParseDict(platform, PlatformSpec())) == platform


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_apart_from_the_pods_a_file_is_what_the_local_engine_runs(name: str) -> None:
    (local,) = compiled_documents(load_pipeline(name))
    compiled = documents(name, NESTED)[0]
    for found in (local, compiled):
        for container in (executor["container"] for executor in found["deploymentSpec"]["executors"].values()):
            container.pop("resources", None)
        for part in (found["root"], *found["components"].values()):
            for task in part.get("dag", {}).get("tasks", {}).values():
                task.pop("retryPolicy", None)
                task.pop("cachingOptions", None)
    assert compiled == local


def run_committed(folder: Path, pipeline: str, loop_file: str) -> dict[str, str | None]:
    """Run a committed file on the local engine; outcomes of the steps that succeeded."""
    (folder / "loop.yaml").write_text(loop_file)
    loop = open_loop(folder / "loop.yaml")
    loop.state.runs.start("r1", "small", pipeline, "", {})
    arguments = pipeline_arguments(pipeline, loop.config, loop.workspace)
    finished = run_pipeline(str(COMMITTED / f"{pipeline}.yaml"), arguments, loop.workspace, loop.state, "r1")
    assert finished.returncode == 0, finished.log.read_text()
    assert "CPU and memory of" in finished.left_out
    assert "the deadline of the run (172800 s)" in finished.left_out
    return {step.name: step.outcome for step in finished.steps if step.status == "succeeded"}


def test_the_local_engine_runs_a_committed_file_as_it_is(tmp_path: Path) -> None:
    ran = run_committed(tmp_path, "monitoring", "name: small\n")
    assert set(ran) == {"monitor", "stand_by", "notify"}
    assert ran["monitor"] == "not_evaluated", "nothing was promoted yet"


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.timeout(900)
def test_a_round_of_the_committed_training_promotes_on_the_local_engine(tmp_path: Path) -> None:
    ran = run_committed(
        tmp_path,
        "training",
        "name: small\ndata: {limit: 700}\ntrain: {epochs: 8}\nevaluate: {bootstrap: 300}\nbless: {requests: 40}\n",
    )
    assert (ran["gate"], ran["deploy"]) == ("promote", "promoted")
    assert "keep" not in ran
