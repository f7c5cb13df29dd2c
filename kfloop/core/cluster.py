"""Section ``cluster`` of the loop file: where Kubeflow Pipelines is, and what each step is given there.

Secrets stand here by reference only: the name of an environment variable, of a file, or of a Kubernetes Secret; never a value.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from kfloop.core.addresses import secrets_of
from kfloop.core.sections import Section
from kfloop.errors import nearest

Quantity = Annotated[str, Field(pattern=r"^[1-9][0-9]*(\.[0-9]+)?(Ki|Mi|Gi|Ti)$")]
Cpus = Annotated[str, Field(pattern=r"^([1-9][0-9]*(\.[0-9]+)?|0\.[0-9]*[1-9][0-9]*|[1-9][0-9]*m)$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]  # of a Kubernetes object (RFC 1123)
Label = Annotated[str, Field(pattern=r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Hours = Annotated[float, Field(gt=0, le=24 * 365)]
OWN_LABELS = "kfloop.io/"
BY_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
CLUSTER_STEPS = (
    "ingest",
    "validate_data",
    "check_labels",
    "train",
    "package",
    "incumbent",
    "evaluate",
    "bless",
    "gate",
    "deploy",
    "keep",
    "approve",
    "monitor",
    "stand_by",
    "submit_training",
    "notify",
)


class AuthConfig(Section):
    """How ``submit`` and ``schedule`` show who they are; a token or cookie itself never stands here."""

    kind: Literal["none", "token", "cookie", "service_account"] = "none"
    """``token``: a bearer token; ``cookie``: the session cookie of a login in the browser; ``service_account``: the token that a pod finds mounted."""
    env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None
    """NAME of the environment variable that holds the token or cookie."""
    file: str | None = None
    """File that holds it; for ``service_account`` null means where Kubeflow mounts it."""

    @field_validator("env", mode="before")
    @classmethod
    def _names_a_variable(cls, name: object) -> object:
        """A token that was written here by mistake must not be repeated in the error."""
        if name is not None and not (isinstance(name, str) and re.fullmatch(r"[A-Z][A-Z0-9_]*", name)):
            raise PydanticCustomError(
                "secret",
                "expected the NAME of an environment variable in capitals (what stands here is not shown: it may be the token)",
            )
        return name

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.env and self.file:
            message = "give env or file, not both"
            raise ValueError(message)
        if self.kind in {"token", "cookie"} and not (self.env or self.file):
            message = f"kind {self.kind} needs env or file"
            raise ValueError(message)
        if (self.env and self.kind not in {"token", "cookie"}) or (self.file and self.kind == "none"):
            message = f"env and file are for a token or a cookie, not for kind {self.kind}"
            raise ValueError(message)
        return self


class StepResources(Section):
    """What the pod of one step is given; null keeps the step's default. Requests equal limits, so that no pod is evicted for what it was promised."""

    cpu: Cpus | None = None
    """CPUs, as Kubernetes writes them (``4``, ``500m``)."""
    memory: Quantity | None = None
    """Memory (``8Gi``)."""
    gpus: Annotated[int, Field(ge=0)] | None = None
    """GPUs; 0: none."""
    gpu_type: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9_.-]+$")] | None = None
    """Name of the resource that is a GPU (``nvidia.com/gpu``, ``nvidia.com/mig-1g.5gb``)."""
    timeout_minutes: Annotated[int, Field(gt=0)] | None = None
    """Longest time of the pod, in minutes, waiting for a node included."""
    shm: Quantity | None = None
    """Size of ``/dev/shm``, which loaders and NCCL exchange data through; it counts as memory of the pod."""
    node_selector: dict[Label, LabelValue] = Field(default_factory=dict)
    """Labels that a node must have beside ``cluster.node_selector``, such as the product name of its GPU."""


class Toleration(Section):
    """A taint of nodes that the steps may run on all the same."""

    key: Label | None = None
    """Key of the taint; null with ``Exists`` matches every one."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Whether ``value`` must be the taint's, or any will do."""
    value: str | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; null matches every one."""
    steps: tuple[str, ...] | None = None
    """Steps it is for; null means all."""

    @field_validator("steps")
    @classmethod
    def _known(cls, steps: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for step in steps or ():
            _refuse_unknown_step(step)
        return steps

    @model_validator(mode="after")
    def _matches_something(self) -> Self:
        if self.operator == "Equal" and (self.key is None or self.value is None):
            message = "operator Equal needs key and value; with Exists any value will do"
            raise ValueError(message)
        if self.operator == "Exists" and self.value is not None:
            message = f"operator Exists takes no value, but value is {self.value!r}"
            raise ValueError(message)
        return self


class ClusterConfig(Section):
    """The cluster that the compiled pipelines run on. Without it every key has its default."""

    endpoint: str | None = None
    """URL of the Kubeflow Pipelines API; null: ``submit`` and ``schedule`` refuse to guess."""
    inner_endpoint: str = "http://ml-pipeline.kubeflow:8888"
    """URL of the same API for pods on the cluster: the step of ``monitoring`` that starts a training round asks there."""
    retrain: Literal["submit", "nested"] = "submit"
    """What the trigger of ``monitoring`` does: ``submit`` starts ``training`` as a run of its own and goes on watching; ``nested`` trains inside the run."""
    namespace: Name = "kubeflow"
    """Namespace of the runs."""
    experiment: str | None = None
    """KFP experiment that groups the runs; null: the loop's name."""
    auth: AuthConfig = AuthConfig()
    """How to show who you are."""
    state: str | None = None
    """SQLAlchemy URL of state on the cluster; ``${NAME}`` stands for an environment variable there. Null: as the loop's, under ``root``."""
    store: str | None = None
    """Folder or fsspec URL of blobs on the cluster. Null: as the loop's, under ``root``."""
    mlflow: str | None = None
    """MLflow tracking and registry URI on the cluster. Null: as the loop's, under ``root``."""
    requests: str | None = None
    """Folder or fsspec URL that the servers on the cluster publish their request logs to. Null: as the loop's; where that is null too, the
    log lies in the loop's folder under ``root``, and the monitor reads the one of pod 0."""
    root: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._-]+)+$")] = "/kfloop"
    """Where the shared volume is mounted in every step; the loop's folder there is ``root/NAME``."""
    volume: Name = "kfloop-work"
    """PersistentVolumeClaim (ReadWriteMany) that is mounted there."""
    service_account: Name = "kfloop-runner"
    """Service account of the steps."""
    image: str | None = None
    """Image of every step, by digest (``registry/name@sha256:...``): kfloop's with modules of your own in it. Null: kfloop's."""
    secrets: dict[Name, dict[Variable, str]] = Field(default_factory=dict)
    """Kubernetes Secrets that every step gets as environment variables: name of the Secret, then variable: key. Such a Secret must exist."""
    resources: dict[str, StepResources] = Field(default_factory=dict)
    """By name of a step: what its pod is given."""
    node_selector: dict[Label, LabelValue] = Field(default_factory=dict)
    """Labels that a node must have to run a step."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that steps may run on."""
    labels: dict[Label, LabelValue] = Field(default_factory=dict)
    """Labels of every pod, by which its cost is booked."""
    ttl_hours: Hours = 168.0
    """Hours after its end until a run's pods and workflow are deleted; reports and state stay."""
    deadline_hours: Hours = 48.0
    """Hours after which a run that goes on is ended."""

    @field_validator("endpoint", "inner_endpoint")
    @classmethod
    def _reachable(cls, endpoint: str | None) -> str | None:
        parts = urlsplit(endpoint or "http://host")
        if parts.username or parts.password or parts.query:
            raise PydanticCustomError("secret", "the address holds a user, a password or a query (not shown): use auth")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            message = f"{endpoint!r}: expected http://HOST or https://HOST"
            raise ValueError(message)
        return endpoint and endpoint.rstrip("/")

    @field_validator("state", "store", "mlflow", "requests")
    @classmethod
    def _no_secret(cls, url: str | None) -> str | None:
        """Refuse a password in an address, without repeating it; ``${NAME}`` in its place is a reference."""
        told = BY_REFERENCE.sub("", url or "")
        if secrets_of(url or ""):
            raise PydanticCustomError(
                "secret",
                "the address holds a password (not shown): write ${NAME} and give the variable in cluster.secrets",
            )
        if "${" in told:
            message = f"{url!r}: expected ${{NAME}} of an environment variable"
            raise ValueError(message)
        return url

    @field_validator("image")
    @classmethod
    def _pinned(cls, image: str | None) -> str | None:
        if image is not None and not re.fullmatch(r"[\w.:/-]+@sha256:[0-9a-f]{64}", image):
            message = f"{image!r}: expected an image by digest, registry/name@sha256:... (a tag may mean another image tomorrow)"
            raise ValueError(message)
        return image

    @field_validator("labels")
    @classmethod
    def _not_ours(cls, labels: dict[str, str]) -> dict[str, str]:
        for label in labels:
            if label.startswith(OWN_LABELS):
                message = f"{label!r} is kfloop's own: take a name without {OWN_LABELS}"
                raise ValueError(message)
        return labels

    @field_validator("secrets")
    @classmethod
    def _given_once(cls, secrets: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        seen: dict[str, str] = {}
        for secret, keys in secrets.items():
            if not keys:
                message = f"secret {secret!r} names no variable: expected VARIABLE: key"
                raise ValueError(message)
            for variable, key in keys.items():
                if not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", key):
                    raise PydanticCustomError(
                        "secret", "expected the KEY inside the Kubernetes Secret (what stands here is not shown)"
                    )
                if variable.startswith("KFLOOP_RUN"):
                    message = f"variable {variable!r} is kfloop's own: take another name"
                    raise ValueError(message)
                if variable in seen:
                    message = (
                        f"variable {variable!r} comes from secret {seen[variable]!r} and from {secret!r}: choose one"
                    )
                    raise ValueError(message)
                seen[variable] = secret
        return secrets

    @field_validator("resources")
    @classmethod
    def _known_steps(cls, resources: dict[str, StepResources]) -> dict[str, StepResources]:
        for step in resources:
            _refuse_unknown_step(step)
        return resources


def _refuse_unknown_step(step: str) -> None:
    if step not in CLUSTER_STEPS:
        message = f"no step is called {step!r} ({nearest(step, CLUSTER_STEPS)})"
        raise ValueError(message)
