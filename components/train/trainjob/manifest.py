"""An order as the manifest of a TrainJob (trainer.kubeflow.org/v1alpha1), checked with the models of Trainer's own API."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kfloop.core.workspace import RUN_ID_VARIABLE
from kfloop.errors import ConfigError

if TYPE_CHECKING:
    from kfloop.components.train.trainjob.order import Order
    from kfloop.core.sections import LauncherConfig, TrainConfig

API_VERSION = "trainer.kubeflow.org/v1alpha1"
CONTAINER = "node"  # what Trainer calls the replicated job of the trainer, and the container in it
MANAGER = "kfloop.io/launcher"
DIGEST = "kfloop.io/order-digest"
QUEUE = "kueue.x-k8s.io/queue-name"
VOLUME = "kfloop-work"
OWNER_VARIABLES = ("KFP_POD_NAME", "KFP_POD_UID")  # what KFP tells each of its pods by the downward API


def manifest(order: Order) -> dict[str, Any]:
    """The TrainJob of an order.

    Args:
        order: What shall be trained.

    Returns:
        The manifest, as the API takes it.

    Raises:
        ConfigError: Trainer's API knows no such key or value; or its models are not installed.
    """
    config, launcher = order.job.config, order.job.config.launcher
    labels = {
        "app.kubernetes.io/managed-by": "kfloop",
        "kfloop.io/step": "train",
        "kfloop.io/loop": order.job.workspace.loop,
        **({"kfloop.io/run": order.run} if order.run else {}),
        **launcher.labels,
    }
    metadata: dict[str, Any] = {
        "name": order.name,
        "labels": labels | ({QUEUE: launcher.queue} if launcher.queue else {}),
        "annotations": {DIGEST: order.digest},
    }
    owner = owner_reference()
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    pod_patch = {"metadata": {"labels": labels}, "spec": _pod_patch(launcher)}
    jobs = [{"name": CONTAINER, "template": {"spec": {"template": pod_patch}}}]
    plain = {
        "apiVersion": API_VERSION,
        "kind": "TrainJob",
        "metadata": metadata,
        "spec": {
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": "ClusterTrainingRuntime",
                "name": launcher.runtime,
            },
            "trainer": _trainer(order, config),
            "runtimePatches": [
                {"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": jobs}}}}
            ],
        },
    }
    check(plain)
    return plain


def owner_reference() -> dict[str, Any] | None:
    """This pod as owner: when it is deleted with its run, the TrainJob goes too. Null outside of a KFP pod."""
    name, uid = (os.environ.get(variable) for variable in OWNER_VARIABLES)
    return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid} if name and uid else None


def check(plain: dict[str, Any]) -> None:
    """Hold a TrainJob against the models of Trainer's API, keys that they do not know included: the server would drop those silently.

    Raises:
        ConfigError: A key or a value is not of that API; or its models are not installed.
    """
    try:
        from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import (  # type: ignore[import-untyped]
            TrainerV1alpha1TrainJob,
        )
    except ModuleNotFoundError as error:
        raise ConfigError(
            "train.launcher.kind is 'trainjob', but the package 'kubeflow-trainer-api' is not installed",
            hint="pip install 'kfloop[trainer]'; kfloop's images have it",
        ) from error
    try:
        known = TrainerV1alpha1TrainJob.from_dict(plain)
    except (ValueError, TypeError, AttributeError) as error:  # a value of another type breaks its generated code
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"the TrainJob that train.launcher describes is not one of {API_VERSION}: {reason}", hint=HINT
        ) from error
    _refuse_unknown(plain, known.to_dict() if known else {}, "")


HINT = "tolerations, affinity, volumes and volume_mounts stand in train.launcher as in a pod's manifest"


def _refuse_unknown(written: Any, understood: Any, where: str) -> None:
    """Refuse a key that did not survive the way through the models."""
    if isinstance(written, dict) and isinstance(understood, dict):
        for key, value in written.items():
            if key not in understood:
                raise ConfigError(
                    f"the TrainJob has '{where}{key}': {value!r}, which {API_VERSION} does not know", hint=HINT
                )
            _refuse_unknown(value, understood[key], f"{where}{key}.")
    elif isinstance(written, list) and isinstance(understood, list):
        for number, (value, other) in enumerate(zip(written, understood, strict=False)):
            _refuse_unknown(value, other, f"{where}{number}.")


def _trainer(order: Order, config: TrainConfig) -> dict[str, Any]:
    launcher = config.launcher
    wanted = {"cpu": launcher.cpu, "memory": launcher.memory, **launcher.resources}
    if launcher.gpus:
        wanted[launcher.gpu_type] = str(launcher.gpus)
    env: list[dict[str, Any]] = [{"name": "PYTHONUNBUFFERED", "value": "1"}]
    if order.run:
        env.append({"name": RUN_ID_VARIABLE, "value": order.run})
    env += [{"name": name, "value": value} for name, value in sorted(launcher.env.items())]
    env += [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for secret, keys in sorted(launcher.secrets.items())
        for name, key in sorted(keys.items())
    ]
    image = {"image": launcher.image} if launcher.image else {}
    return {
        **image,
        "command": ["python", "-m", "kfloop.components.train.trainjob.node"],
        "args": ["--config", str(order.file.absolute())],
        "env": env,
        "numNodes": launcher.nodes,
        "numProcPerNode": launcher.gpus or config.processes,
        "resourcesPerNode": {"requests": wanted, "limits": dict(wanted)},
    }


def _pod_patch(launcher: LauncherConfig) -> dict[str, Any]:
    volumes, mounts = list(launcher.volumes), list(launcher.volume_mounts)
    if launcher.claim is not None:
        volumes.insert(0, {"name": VOLUME, "persistentVolumeClaim": {"claimName": launcher.claim}})
        mounts.insert(0, {"name": VOLUME, "mountPath": launcher.mount})
    told = {
        "nodeSelector": launcher.node_selector,
        "tolerations": list(launcher.tolerations),
        "affinity": launcher.affinity,
        "volumes": volumes,
        "serviceAccountName": launcher.service_account,
        "containers": [{"name": CONTAINER, "volumeMounts": mounts}] if mounts else [],
    }
    return {key: value for key, value in told.items() if value}
