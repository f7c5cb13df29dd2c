"""KServe: an immutable folder for each version, and a manifest for whoever applies it (GitOps).

kfloop does not talk to the cluster. Golden answers are proved on kfloop's own server; what is left to a person, or to what watches the project's git
repository, is to apply the manifest.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.components.deploy.targets.elsewhere import made_for, package_of, refuse_rollout
from kfloop.components.deploy.targets.embedded import Embedded
from kfloop.errors import KfloopError
from kfloop.serving.places import Place
from kfloop.serving.production import IMAGE
from kfloop.serving.publishing import put_version

if TYPE_CHECKING:
    from kfloop.components.deploy.targets.protocol import Verification
    from kfloop.core.sections import DeployConfig, TargetConfig
    from kfloop.core.workspace import Workspace

USER = 1000  # of tritonserver's image
SHORT = 12  # letters of a digest in a label, which has room for 63; the whole digest is an annotation


class KServe:
    """A cluster that serves what a manifest says.

    Args:
        workspace: Places of the loop.
        config: The target, tolerance and patience.
    """

    def __init__(self, workspace: Workspace, config: DeployConfig) -> None:
        self._workspace, self._target, self._model = workspace, config.target, workspace.loop
        self._own = Embedded(workspace, config)
        self._place = Place(f"{str(config.target.repository).rstrip('/')}/{self._model}")

    @property
    def manifest(self) -> Path:
        """The manifest's file."""
        return Path(self._target.manifests) / f"{self._model}.inferenceservice.yaml"

    def told(self) -> dict[str, Any] | None:
        """What ``served.json`` says, where the manifest says the same."""
        local = self._own.told()
        return local if local is not None and self.ready(int(local["default"])) else None

    def verify(self, version: int, package: Path) -> Verification:
        """Write the version's folder, and compare its golden answers on kfloop's own server.

        Raises:
            ServingError: The repository cannot be written, or the version does not load or answers wrongly.
            NoEmbeddedServer: No server is running and none can be started here.
            StateError: Something else stands in the version's folder.
        """
        written = self._put(version, package.name, package)
        try:
            found = self._own.verify(version, package)
        except BaseException:
            if written:
                with contextlib.suppress(KfloopError):
                    self._place.remove(f"v{version}")
            raise
        image = self._target.image or IMAGE
        return replace(
            found,
            note=f"The onnxruntime of {image} is another one and was not asked. {self.manifest} names this version: commit and apply it.",
        )

    def serve(self, told: dict[str, Any]) -> None:
        """Write the champion's manifest; the folders of other versions stay, because the cluster serves one of them until it is applied."""
        refuse_rollout(self._target, told)
        version = int(told["default"])
        digest, package = package_of(self._workspace, version)
        self._put(version, digest, package)
        text = manifest_text(self._target, self._model, version, digest)
        Place(str(self.manifest.parent)).write(self.manifest.name, text.encode())
        self._own.serve(told)

    def holds(self, version: int) -> bool:
        """Never: a new version is a new pod."""
        del version
        return False

    def ready(self, version: int) -> bool | None:
        """Whether the manifest is that of the version."""
        digest, _ = package_of(self._workspace, version)
        wanted = manifest_text(self._target, self._model, version, digest)
        return self.manifest.is_file() and self.manifest.read_text(encoding="utf-8") == wanted

    def switch(self, version: int, package: Path) -> bool:
        """Never."""
        del version, package
        return False

    def _put(self, version: int, digest: str, package: Path) -> bool:
        place = Place(f"{self._place.url}/v{version}")
        return put_version(place, package, digest, self._model, made_for(self._target, self._model, version))


def manifest_text(target: TargetConfig, model: str, version: int, digest: str) -> str:
    """The InferenceService of a version, as YAML."""
    import yaml

    about = "# Written by kfloop from its ledger: a change here is overwritten with the next champion. Commit and apply this file.\n"
    return about + str(yaml.safe_dump(manifest(target, model, version, digest), sort_keys=False))


def manifest(target: TargetConfig, model: str, version: int, digest: str) -> dict[str, Any]:
    """The InferenceService of a version: KServe's ``v1beta1``, served by its runtime for Triton in a pinned image.

    ``storageUri`` is the folder above the models' folders, which is what Triton takes as its repository.
    """
    amount: dict[str, Any] = {"cpu": target.cpu, "memory": target.memory}
    limits = amount | ({"nvidia.com/gpu": str(target.gpus)} if target.gpus else {})
    seccomp = {"type": "RuntimeDefault"}
    predictor: dict[str, Any] = {
        "minReplicas": target.min_replicas,
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "seccompProfile": seccomp},
        "model": {
            "modelFormat": {"name": "triton"},
            "protocolVersion": "v2",
            "storageUri": f"{_storage(target)}/{model}/v{version}",
            "image": target.image or IMAGE,
            "resources": {"requests": dict(limits), "limits": dict(limits)},
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": dict(seccomp),
            },
        },
    }
    if target.service_account:
        predictor["serviceAccountName"] = target.service_account
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": model,
            "namespace": target.namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "kfloop",
                "kfloop/version": str(version),
                "kfloop/package": digest[:SHORT],
            },
            "annotations": {"kfloop/package-digest": digest},
        },
        "spec": {"predictor": predictor},
    }


def _storage(target: TargetConfig) -> str:
    """The repository as the cluster knows it."""
    told = str(target.storage_uri or target.repository).rstrip("/")
    return told if "://" in told else f"file://{told}"
