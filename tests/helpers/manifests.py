"""What kustomize makes of ``infra/``, and the pods that stand in it."""

from __future__ import annotations

import copy
import functools
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
KUBECTL = shutil.which("kubectl")
NO_KUBECTL = "no kubectl here: it carries kustomize, which builds the manifests"

Manifest = dict[str, Any]


def kustomizations(kind: str = "Kustomization") -> list[Path]:
    """Every folder of ``infra`` that holds a kustomization of this kind (``Kustomization`` or ``Component``)."""
    found = sorted(INFRA.rglob("kustomization.yaml"))
    return [path.parent for path in found if yaml.safe_load(path.read_text(encoding="utf-8"))["kind"] == kind]


def built_text(folder: Path) -> str:
    """What ``kubectl kustomize`` prints; a failure holds its words."""
    assert KUBECTL is not None
    done = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def built(folder: Path) -> list[Manifest]:
    """The manifests of a folder; a copy for each call."""
    return copy.deepcopy(_parsed(folder))


@functools.cache
def _parsed(folder: Path) -> list[Manifest]:
    return [one for one in yaml.load_all(built_text(folder), Loader=yaml.CSafeLoader) if one]


@dataclass(frozen=True, kw_only=True)
class Pod:
    """The pod of one workload.

    Attributes:
        of: Kind and name of the workload.
        serves: Whether it is to run for ever, so that probes are needed.
        labels: Labels of the pod.
        spec: Its ``PodSpec``.
        containers: Init containers and containers.
    """

    of: str
    serves: bool
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    containers: tuple[Mapping[str, Any], ...]


def pods(manifests: list[Manifest]) -> Iterator[Pod]:
    """The pods that these manifests start; an InferenceService is one, whose ``model`` is its container."""
    for one in manifests:
        name = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "Job"}:
            template = one["spec"]["template"]
            spec = template["spec"]
            containers = (*spec.get("initContainers", ()), *spec["containers"])
            labels = template.get("metadata", {}).get("labels", {})
            yield Pod(of=name, serves=one["kind"] != "Job", labels=labels, spec=spec, containers=containers)
        elif one["kind"] == "InferenceService":
            spec = one["spec"]["predictor"]
            model = {"name": "model"} | spec["model"]
            # KServe puts the probes of its runtime into the pod, and a label with the name on it.
            yield Pod(
                of=name,
                serves=False,
                labels={"serving.kserve.io/inferenceservice": one["metadata"]["name"]},
                spec=spec,
                containers=(model,),
            )
