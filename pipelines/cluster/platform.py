"""What the pod of each step is given on a cluster, in one table and in the words of KFP's IR.

The pipelines themselves say nothing of it: the local engine runs the same definitions and refuses what it cannot honour.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.core.cluster import StepResources
from kfloop.core.image import locked_images
from kfloop.core.workspace import RUN_ID_VARIABLE

if TYPE_CHECKING:
    from kfloop.core.cluster import ClusterConfig

GPU = "nvidia.com/gpu"
# Kubeflow Pipelines writes the run's id on every pod; as an environment variable it spoils no cache key.
RUN_ID_FIELD = "metadata.labels['pipeline/runid']"
# What kfloop's manifests (infra/) hold, as variable: key. All optional, since a loop that lives on the shared volume needs none of it.
SECRETS = {
    "kfloop-state": {"KFLOOP_STATE_URL": "url"},
    "kfloop-s3": {"AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY"},
    "kfloop-triton": {"KFLOOP_TRITON_KEY": "key"},
}
# Where Kubeflow has many users, a pod with this label gets the token with which its service account may ask Kubeflow Pipelines.
ASKING = {step: {"access-ml-pipeline": "true"} for step in ("submit_training", "stand_by")}
ENDPOINTS = "kfloop-endpoints"
ADDRESSES = {"AWS_ENDPOINT_URL": "s3", "AWS_DEFAULT_REGION": "s3-region"}


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a step is given where the loop file does not say otherwise.

    Attributes:
        cpu: CPUs, request and limit.
        memory: Memory, request and limit; what is in ``/dev/shm`` counts.
        minutes: Longest time of the pod.
        shm: Size of ``/dev/shm``; None leaves the 64 MiB that containers have.
        pure: Whether the output depends on the parameters alone. Such a step is cached, and may be tried again.
        again: Whether it may be tried again although it reads what may change, because doing it twice is doing it once.
    """

    cpu: str
    memory: str
    minutes: int
    shm: str | None = None
    pure: bool = False
    again: bool = False


NEEDS = {
    "ingest": Needs(cpu="2", memory="8Gi", minutes=120, again=True),
    "validate_data": Needs(cpu="2", memory="8Gi", minutes=60, pure=True),
    "check_labels": Needs(cpu="4", memory="8Gi", minutes=180, pure=True),
    "train": Needs(cpu="4", memory="16Gi", minutes=1440, shm="4Gi", pure=True),
    "package": Needs(cpu="2", memory="8Gi", minutes=60, pure=True),
    "incumbent": Needs(cpu="1", memory="4Gi", minutes=30, again=True),
    "evaluate": Needs(cpu="4", memory="8Gi", minutes=120, pure=True),
    "bless": Needs(
        cpu="4", memory="8Gi", minutes=60, shm="1Gi", pure=True
    ),  # Triton's python backend works in /dev/shm
    # What a person overrode since a schedule was written stands in the ledger, not in the parameters: decided anew each time.
    "gate": Needs(cpu="1", memory="4Gi", minutes=15, again=True),
    # These change what the world sees, and tell people: one that broke off is looked at by the next run, never simply repeated.
    "deploy": Needs(cpu="2", memory="8Gi", minutes=60, shm="1Gi"),
    "keep": Needs(cpu="1", memory="4Gi", minutes=15),
    "approve": Needs(cpu="2", memory="8Gi", minutes=60, shm="1Gi"),
    "monitor": Needs(cpu="4", memory="8Gi", minutes=60),
    "stand_by": Needs(cpu="500m", memory="1Gi", minutes=15),
    "submit_training": Needs(cpu="500m", memory="1Gi", minutes=15),
    "notify": Needs(cpu="500m", memory="1Gi", minutes=15),
}
RETRIES = {"maxRetryCount": 2, "backoffDuration": "60s", "backoffFactor": 2.0, "backoffMaxDuration": "600s"}


def resources_of(step: str, config: ClusterConfig) -> StepResources:
    """What the pod of ``step`` is given: the loop file's word where it has one, else the table's; every field is filled but ``shm``."""
    needs, told = NEEDS[step], config.resources.get(step, StepResources())
    return StepResources(
        cpu=told.cpu or needs.cpu,
        memory=told.memory or needs.memory,
        gpus=told.gpus or 0,
        gpu_type=told.gpu_type or GPU,
        timeout_minutes=told.timeout_minutes or needs.minutes,
        shm=told.shm or needs.shm,
        node_selector=config.node_selector | told.node_selector,
    )


def cluster_for_pods(config: ClusterConfig) -> str:
    """Section ``cluster`` for a pod that compiles, as JSON, with kfloop's images beside it where the loop file names none.

    The lock inside an image is older than that image: it cannot name the image's own digest.
    """
    told = config.model_dump(mode="json", exclude={"endpoint", "auth"})  # those are for people outside
    return json.dumps(told if config.image else told | {"images": locked_images()}, separators=(",", ":"))


def container_settings(step: str, config: ClusterConfig, images: dict[str, str] | None = None) -> dict[str, Any]:
    """Image and resources of a step: part of ``PipelineContainerSpec`` of the pipeline document."""
    given, images = resources_of(step, config), images or locked_images()
    resources: dict[str, Any] = {
        "resourceCpuRequest": given.cpu,
        "resourceCpuLimit": given.cpu,
        "resourceMemoryRequest": given.memory,
        "resourceMemoryLimit": given.memory,
    }
    if given.gpus:
        resources["accelerator"] = {"resourceType": given.gpu_type, "resourceCount": str(given.gpus)}
    return {"image": config.image or images["gpu" if given.gpus else "cpu"], "resources": resources}


def task_settings(step: str) -> dict[str, Any]:
    """Caching and retries of a step: part of ``PipelineTaskSpec`` of the pipeline document."""
    needs = NEEDS[step]
    caching = {"cachingOptions": {"enableCache": True} if needs.pure else {}}
    return caching | ({"retryPolicy": RETRIES} if needs.pure or needs.again else {})


def pod_settings(step: str, pipeline: str, config: ClusterConfig) -> dict[str, Any]:
    """Everything else of the pod: ``KubernetesExecutorConfig`` of the platform document."""
    given = resources_of(step, config)
    labels = {"kfloop.io/pipeline": pipeline, "kfloop.io/step": step} | ASKING.get(step, {}) | config.labels
    settings: dict[str, Any] = {
        "activeDeadlineSeconds": (given.timeout_minutes or 0) * 60,
        "securityContext": {"runAsNonRoot": True},
        "podMetadata": {"labels": labels},
        "fieldPathAsEnv": [{"name": RUN_ID_VARIABLE, "fieldPath": RUN_ID_FIELD}],
        "pvcMount": [
            {"mountPath": config.root, "constant": config.volume, "pvcNameParameter": _constant(config.volume)}
        ],
        "secretAsEnv": _secrets(config),
        "configMapAsEnv": _addresses(config),
    }
    if given.shm:
        shm = {"volumeName": "dshm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": given.shm}  # noqa: S108 - in a pod
        settings["emptyDirMounts"] = [shm]
    if given.node_selector:
        settings["nodeSelector"] = {"labels": given.node_selector}
    tolerations = [
        toleration.model_dump(exclude_none=True, exclude={"steps"})
        for toleration in config.tolerations
        if toleration.steps is None or step in toleration.steps
    ]
    if given.gpus:  # nodes with GPUs are kept free for whoever asks for one, by this taint
        tolerations.append({"key": given.gpu_type, "operator": "Exists", "effect": "NoSchedule"})
    return settings | ({"tolerations": tolerations} if tolerations else {})


def run_settings(config: ClusterConfig) -> dict[str, Any]:
    """Deadline of a run, and how long its pods are kept: ``PipelineConfig`` of the platform document."""
    return {
        "activeDeadlineSeconds": round(config.deadline_hours * 3600),
        "resourceTtlOnCompletion": round(config.ttl_hours * 3600),
    }


def _secrets(config: ClusterConfig) -> list[dict[str, Any]]:
    """References to Secrets: those of the loop file must exist and go before kfloop's own, which may be absent."""
    own = {name: _not_told(keys, config) for name, keys in SECRETS.items() if name not in config.secrets}
    return [
        {
            "secretName": name,
            "secretNameParameter": _constant(name),
            "keyToEnv": [{"secretKey": key, "envVar": variable} for variable, key in sorted(keys.items())],
            "optional": name not in config.secrets,
        }
        for name, keys in sorted((own | config.secrets).items())
        if keys
    ]


def _addresses(config: ClusterConfig) -> list[dict[str, Any]]:
    """Where the object store is, as the platform's ConfigMap says."""
    keys = _not_told(ADDRESSES, config)
    reference = {
        "configMapName": ENDPOINTS,
        "configMapNameParameter": _constant(ENDPOINTS),
        "keyToEnv": [{"configMapKey": key, "envVar": variable} for variable, key in sorted(keys.items())],
        "optional": True,
    }
    return [reference] if keys else []


def _not_told(keys: dict[str, str], config: ClusterConfig) -> dict[str, str]:
    """Variables that no Secret of the loop file gives: of two of one name, it would be left to chance which holds."""
    told = {variable for given in config.secrets.values() for variable in given}
    return {variable: key for variable, key in keys.items() if variable not in told}


def _constant(value: str) -> dict[str, Any]:
    return {"runtimeValue": {"constant": value}}
