"""Section ``train.launcher``: where a training runs."""
# ruff: noqa: RUF012 - pydantic gives each section a copy of a default

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from kfloop.core.sections.base import Positive, Section


class LauncherConfig(Section):
    """Where the training runs: in the step itself, or in pods of its own that a Kubeflow TrainJob starts. See docs/multi-gpu.md."""

    kind: Literal["local", "trainjob"] = "local"
    """``local``: the machine or pod of the step; ``trainjob``: a TrainJob of Kubeflow Trainer v2, which the step follows."""
    nodes: Positive = 1
    """Pods that train together."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of each pod, and processes in it; 0: the CPU, with ``train.processes`` processes in each pod."""
    gpu_type: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9_.-]+$")] = "nvidia.com/gpu"
    """Name of the resource that is a GPU."""
    cpu: Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)?|[0-9]+m)$")] = "4"
    """CPUs of each pod, which it asks for and may use at most."""
    memory: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti)$")] = "16Gi"
    """Memory of each pod, ``/dev/shm`` included."""
    resources: dict[str, str] = {}
    """Further resources of each pod, such as ``rdma/ib: "1"``."""
    runtime: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")] = "kfloop-torch"
    """ClusterTrainingRuntime that the pods are made from."""
    image: str | None = None
    """Image of the pods; null: the runtime's. It must hold the same kfloop as the step's."""
    namespace: str | None = None
    """Namespace of the TrainJob; null: that of the step's pod."""
    queue: str | None = None
    """Kueue's LocalQueue; null: the pods do not queue there."""
    deadline_minutes: Annotated[float, Field(gt=0)] | None = None
    """Longest training in minutes, counted from when the first pod runs: time in a queue does not count. Null: no limit."""
    claim: str | None = "kfloop-work"
    """PersistentVolumeClaim (ReadWriteMany) with the loop's folder and store; null: ``volumes`` bring it."""
    mount: Annotated[str, Field(pattern=r"^/.+")] = "/kfloop"
    """Where ``claim`` is mounted: at the same path as in the step's pod."""
    node_selector: dict[str, str] = {}
    """Labels that the nodes must have."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Tolerations of the pods, as Kubernetes writes them."""
    affinity: dict[str, Any] | None = None
    """Affinity of the pods, as Kubernetes writes it."""
    volumes: tuple[dict[str, Any], ...] = ()
    """Further volumes of the pods, as Kubernetes writes them."""
    volume_mounts: tuple[dict[str, Any], ...] = ()
    """Where they are mounted, as Kubernetes writes it."""
    env: dict[str, str] = {}
    """Environment variables of the pods; public, so never a secret."""
    secrets: dict[str, dict[str, str]] = {}
    """Environment variables from Secrets: name of the Secret -> {variable: key in it}."""
    service_account: str | None = None
    """Service account of the pods; null: the runtime's."""
    labels: dict[str, str] = {}
    """Further labels of the TrainJob and its pods, such as those for cost."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        told = [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]
        strange = [name for name in told if name != "kind"]
        if self.kind == "local" and strange:
            message = f"{strange[0]} belongs to kind trainjob, but kind is local"
            raise ValueError(message)
        reserved = [
            name
            for name in (*self.env, *(v for keys in self.secrets.values() for v in keys))
            if name.startswith("PET_")
        ]
        if reserved:
            message = f"{reserved[0]} is set by Kubeflow Trainer: take another name"
            raise ValueError(message)
        return self
