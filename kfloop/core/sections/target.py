"""Section ``deploy.target``: where the champion is served."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from kfloop.core.sections.base import Positive, Section

OF_TARGETS = {
    "triton": ("url", "grpc", "key_env", "key_header", "ca", "repository", "backend", "gpus", "instances"),
    "kserve": (
        *("repository", "storage_uri", "gpus", "instances", "manifests", "namespace", "image", "service_account"),
        *("min_replicas", "cpu", "memory"),
    ),
    "embedded": (),
}
NEEDED_BY_TARGETS = {"triton": ("url", "repository"), "kserve": ("repository",), "embedded": ()}


class TargetConfig(Section):
    """Where the champion is served. See docs/targets.md."""

    kind: Literal["embedded", "triton", "kserve"] = "embedded"
    """``embedded``: the server of ``kfloop serve``; ``triton``: somebody else's Triton with explicit model control; ``kserve``: manifests for a cluster."""
    url: str | None = None
    """triton: ``http://HOST:PORT`` or ``https://HOST:PORT`` of its HTTP endpoint."""
    grpc: str | None = None
    """triton: ``HOST:PORT`` of its gRPC endpoint; null: gRPC is not checked."""
    key_env: str | None = None
    """triton: NAME of the environment variable with the key of its restricted APIs (``--http-restricted-api``); null: model control is open."""
    key_header: str = "kfloop-key"
    """triton: header that carries the key."""
    ca: str | None = None
    """triton: file of the authorities that are trusted with ``https://`` (PEM); null: the system's own."""
    repository: str | None = None
    """Folder or fsspec URL (``/mnt/models``, ``s3://bucket/models``) that kfloop writes. triton: the repository the server reads; kserve: the parent of ``storageUri``."""
    backend: Literal["onnxruntime", "python"] = "onnxruntime"
    """triton: what runs the graph; ``python`` for servers without the onnxruntime backend, whose python then needs NumPy and onnxruntime."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of the server, each with instances of its own; 0: the CPU."""
    instances: Positive = 1
    """Instances of the model on each GPU, or on the CPU."""
    storage_uri: str | None = None
    """kserve: ``repository`` as the cluster knows it (``pvc://models/kfloop``); null: the same URL."""
    manifests: str = "manifests"
    """kserve: folder of the manifests, in the project."""
    namespace: str = "default"
    """kserve: namespace of the InferenceService."""
    image: str | None = None
    """kserve: image of Triton; null: the patched release that ``kfloop export`` names."""
    service_account: str | None = None
    """kserve: service account that may read the repository."""
    min_replicas: Positive = 1
    """kserve: fewest pods."""
    cpu: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?m?$")] = "2"
    """kserve: CPUs that a pod asks for and may use at most."""
    memory: Annotated[str, Field(pattern=r"^[0-9]+(Ki|Mi|Gi|Ti)$")] = "4Gi"
    """kserve: memory that a pod asks for and may use at most."""

    @field_validator("url", "repository", "storage_uri")
    @classmethod
    def _no_secret(cls, url: str | None) -> str | None:
        """Refuse a secret in an address, without repeating it."""
        parts = urlsplit(url or "")
        # Azure writes its container where others write a user.
        if parts.password or parts.query or (parts.username and parts.scheme in {"http", "https"}):
            raise PydanticCustomError(
                "secret", "the address holds a user, a password or a query (not shown): keys come from the environment"
            )
        return url

    @field_validator("url")
    @classmethod
    def _with_a_port(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "http://host:1")
        if parts.scheme not in {"http", "https"} or not parts.hostname or not parts.port or parts.path not in {"", "/"}:
            message = f"{url!r}: expected http://HOST:PORT or https://HOST:PORT"
            raise ValueError(message)
        return url and url.rstrip("/")

    @field_validator("grpc")
    @classmethod
    def _host_and_port(cls, grpc: str | None) -> str | None:
        if grpc is not None and not re.fullmatch(r"[^/\s]+:[0-9]+", grpc):
            message = f"{grpc!r}: expected HOST:PORT, without a scheme"
            raise ValueError(message)
        return grpc

    @field_validator("key_env")
    @classmethod
    def _names_a_variable(cls, name: str | None) -> str | None:
        """A key that was written here by mistake must not be repeated in the error."""
        if name is not None and not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
            raise PydanticCustomError(
                "secret",
                "expected the NAME of an environment variable in capitals (what stands here is not shown: it may be the key)",
            )
        return name

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        missing = [name for name in NEEDED_BY_TARGETS[self.kind] if not getattr(self, name)]
        if missing:
            message = f"kind {self.kind} needs {' and '.join(missing)}"
            raise ValueError(message)
        told = [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]
        strange = [name for name in told if name != "kind" and name not in OF_TARGETS[self.kind]]
        if strange:
            owners = [kind for kind, names in OF_TARGETS.items() if strange[0] in names]
            message = f"{strange[0]} belongs to kind {' and '.join(owners)}, not to {self.kind}"
            raise ValueError(message)
        if self.ca and not (self.url or "").startswith("https://"):
            message = f"ca is for https://, but url is {self.url!r}"
            raise ValueError(message)
        if self.backend == "python" and self.gpus:
            message = f"backend python runs on the CPU alone, but gpus is {self.gpus}"
            raise ValueError(message)
        return self
