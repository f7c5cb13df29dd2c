"""The manifests of ``infra/``: each builds, is what Kubernetes and its operators take, and keeps to the policy; the policy is shown to bite."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

import trainer_schema
from kfloop.components.train.trainjob.api import RIGHTS
from manifest_policy import RULES, offences
from manifests import INFRA, KUBECTL, NO_KUBECTL, ROOT, Manifest, built, kustomizations

pytestmark = pytest.mark.skipif(KUBECTL is None, reason=NO_KUBECTL)
KUBERNETES = [f"1.{minor}" for minor in range(32, int(kubernetes_validate.latest_version().split(".")[1]) + 1)]
# It reads megabytes of JSON anew for every object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
SCHEMAS = Path(__file__).parent / "schemas"
OVERLAYS = sorted(path for path in (INFRA / "overlays").iterdir() if path.is_dir())
BUILT = kustomizations()
PROD = INFRA / "overlays" / "prod"


def of_crd(kind: str) -> Any:
    """The schema of a kind that Kubernetes itself does not have."""
    if kind == "InferenceService":
        return json.loads((ROOT / "tests" / "data" / "inferenceservice-0.21.0.schema.json").read_text())
    return json.loads((SCHEMAS / f"{kind.lower()}.json").read_text())


def check(manifest: Manifest, version: str) -> None:
    """Refuse what Kubernetes, or the operator whose kind it is, does not know."""
    if manifest["apiVersion"].startswith("trainer.kubeflow.org/"):
        found = trainer_schema.problems(manifest["kind"], manifest)
        assert found == []
    elif "." in manifest["apiVersion"].partition("/")[0] and not manifest["apiVersion"].partition("/")[0].endswith(
        ".k8s.io"
    ):
        jsonschema.Draft202012Validator(of_crd(manifest["kind"])).validate(manifest)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


def name_of(folder: Path) -> str:
    return folder.relative_to(INFRA).as_posix()


def test_there_is_something_to_check() -> None:
    assert {name_of(path) for path in OVERLAYS} >= {"overlays/dev", "overlays/prod", "overlays/prod-kserve"}
    assert KUBERNETES[0] == "1.32"
    assert len(KUBERNETES) >= 3
    used = {
        (path.parent / component).resolve()
        for path in INFRA.rglob("kustomization.yaml")
        for component in yaml.safe_load(path.read_text()).get("components", ())
    }
    assert set(kustomizations("Component")) - used <= {INFRA / "components" / "gpu"}  # built below


@pytest.mark.parametrize("folder", BUILT, ids=name_of)
def test_every_manifest_is_what_kubernetes_takes(folder: Path) -> None:
    manifests = built(folder)
    assert manifests
    for version in KUBERNETES:
        for manifest in manifests:
            check(manifest, version)
    named = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in manifests]
    assert len(set(named)) == len(named)


@pytest.mark.parametrize("folder", OVERLAYS, ids=name_of)
def test_every_overlay_keeps_to_the_policy(folder: Path) -> None:
    assert offences(built(folder)) == []


@pytest.mark.parametrize("folder", OVERLAYS, ids=name_of)
def test_all_is_in_one_namespace_and_says_whose_it_is(folder: Path) -> None:
    manifests = [one for one in built(folder) if one["kind"] != "Namespace"]
    assert len({one["metadata"]["namespace"] for one in manifests}) == 1
    for one in manifests:
        if one["kind"] != "InferenceService":  # its labels are those of the ledger
            assert one["metadata"]["labels"]["app.kubernetes.io/part-of"] == "kfloop", one["metadata"]["name"]


def test_the_runner_may_do_what_the_launcher_says_it_needs() -> None:
    roles = [one for one in built(PROD) if one["kind"] == "Role"]
    given = {
        (f"{resource}.{group}" if group else resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    needed = [part.split(": ") for part in RIGHTS.split("; ")]
    assert len(needed) == 3
    for resource, verbs in needed:
        assert {(resource, verb) for verb in verbs.split(", ")} <= given


def test_the_gpu_component_fits_what_it_changes(tmp_path: Path) -> None:
    """No overlay of ours uses it, so one is made here, as a user would."""
    there = {name: os.path.relpath(INFRA / name, tmp_path) for name in ("overlays/prod", "components/gpu")}
    text = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [there["overlays/prod"]],
        "components": [there["components/gpu"]],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(text))
    manifests = built(tmp_path)
    assert offences(manifests) == []
    (server,) = (one for one in manifests if one["kind"] == "StatefulSet")
    check(server, KUBERNETES[0])
    triton = server["spec"]["template"]["spec"]["containers"][0]
    assert triton["name"] == "triton"
    assert triton["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"name": "tensorrt", "mountPath": "/var/cache/tensorrt"} in triton["volumeMounts"]


# -- that the checks can fail ------------------------------------------------------------------------------------------


def one(manifests: list[Manifest], kind: str, name: str) -> Any:
    (found,) = (manifest for manifest in manifests if (manifest["kind"], manifest["metadata"]["name"]) == (kind, name))
    return found


def pod(manifests: list[Manifest]) -> Any:
    return one(manifests, "Deployment", "kfloop-mlflow")["spec"]["template"]["spec"]


def box(manifests: list[Manifest]) -> Any:
    return pod(manifests)["containers"][0]


def drop(manifests: list[Manifest], kind: str, name: str) -> None:
    manifests.remove(one(manifests, kind, name))


Fault = Callable[[list[Manifest]], Any]
FAULTS: dict[str, list[tuple[str, Fault]]] = {
    "no_root": [
        ("nothing said", lambda all_: pod(all_).pop("securityContext")),
        ("user 0", lambda all_: pod(all_)["securityContext"].update(runAsUser=0)),
        ("no number", lambda all_: pod(all_)["securityContext"].pop("runAsUser")),
        ("in the container", lambda all_: box(all_)["securityContext"].update(runAsNonRoot=False)),
        ("in an init container", lambda all_: one(all_, "StatefulSet", "kfloop-triton")["spec"]["template"]["spec"]["initContainers"][0]["securityContext"].update(runAsUser=0)),
    ],
    "no_rights": [
        ("nothing said", lambda all_: box(all_).pop("securityContext")),
        ("escalation", lambda all_: box(all_)["securityContext"].update(allowPrivilegeEscalation=True)),
        ("privileged", lambda all_: box(all_)["securityContext"].update(privileged=True)),
        ("a capability", lambda all_: box(all_)["securityContext"]["capabilities"].update(add=["NET_ADMIN"])),
        ("capabilities kept", lambda all_: box(all_)["securityContext"].pop("capabilities")),
        ("no seccomp", lambda all_: pod(all_)["securityContext"].pop("seccompProfile")),
        ("the node's network", lambda all_: pod(all_).update(hostNetwork=True)),
        ("the node's disk", lambda all_: pod(all_)["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    ],
    "bounded": [
        ("no resources", lambda all_: box(all_).pop("resources")),
        ("no memory limit", lambda all_: box(all_)["resources"]["limits"].pop("memory")),
        ("no request", lambda all_: box(all_)["resources"].pop("requests")),
    ],
    "probed": [
        ("no readiness", lambda all_: box(all_).pop("readinessProbe")),
        ("no liveness", lambda all_: box(all_).pop("livenessProbe")),
    ],
    "pinned": [
        ("latest", lambda all_: box(all_).update(image="ghcr.io/kfloop/kfloop:latest")),
        ("no tag", lambda all_: box(all_).update(image="ghcr.io/kfloop/kfloop")),
        ("no registry", lambda all_: box(all_).update(image="kfloop-cpu")),
        ("half a digest", lambda all_: box(all_).update(image="ghcr.io/kfloop/kfloop@sha256:abc")),
        ("no image", lambda all_: box(all_).pop("image")),
    ],
    "no_secret_in_the_clear": [
        ("a Secret", lambda all_: all_.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "stringData": {"a": "b"}})),
        ("a variable", lambda all_: box(all_)["env"].append({"name": "DB_PASSWORD", "value": "x"})),
        ("an argument", lambda all_: box(all_)["args"].append("--backend-store-uri=postgresql://me:hunter2@db/mlflow")),
        ("a ConfigMap", lambda all_: one(all_, "ConfigMap", "kfloop-endpoints")["data"].update(token="x")),
    ],
    "services_lead_somewhere": [
        ("no such pod", lambda all_: one(all_, "Service", "kfloop-mlflow")["spec"]["selector"].update({"app.kubernetes.io/name": "mlfow"})),
        ("no selector", lambda all_: one(all_, "Service", "kfloop-mlflow")["spec"].pop("selector")),
        ("no such port", lambda all_: one(all_, "Service", "kfloop-mlflow")["spec"]["ports"][0].update(targetPort="web")),
        ("a monitor of nothing", lambda all_: one(all_, "ServiceMonitor", "kfloop-metrics")["spec"]["endpoints"][0].update(port="web")),
        ("a budget of nothing", lambda all_: one(all_, "PodDisruptionBudget", "kfloop-triton")["spec"]["selector"]["matchLabels"].update(a="b")),
        ("a policy of nothing", lambda all_: one(all_, "NetworkPolicy", "kfloop-clients")["spec"]["podSelector"]["matchLabels"].update(a="b")),
        ("nothing to scale", lambda all_: one(all_, "HorizontalPodAutoscaler", "kfloop-triton")["spec"]["scaleTargetRef"].update(kind="Deployment")),
    ],
    "references_exist": [
        ("a ConfigMap", lambda all_: drop(all_, "ConfigMap", "kfloop-endpoints")),
        ("a key of it", lambda all_: one(all_, "ConfigMap", "kfloop-endpoints")["data"].pop("s3")),
        ("a Secret", lambda all_: box(all_)["envFrom"][0]["secretRef"].update(name="kfloop-s4")),
        ("a key of a Secret", lambda all_: one(all_, "StatefulSet", "kfloop-triton")["spec"]["template"]["spec"]["containers"][2]["env"][1]["valueFrom"]["secretKeyRef"].update(key="uri")),
        ("an account", lambda all_: drop(all_, "ServiceAccount", "kfloop-serving")),
        ("a claim", lambda all_: drop(all_, "PersistentVolumeClaim", "kfloop-work")),
        ("a volume", lambda all_: pod(all_)["volumes"].clear()),
        ("a role", lambda all_: one(all_, "RoleBinding", "kfloop-runner")["roleRef"].update(name="admin")),
    ],
    "least_rights": [
        ("a verb more", lambda all_: one(all_, "Role", "kfloop-runner")["rules"][0]["verbs"].append("deletecollection")),
        ("a wildcard", lambda all_: one(all_, "Role", "kfloop-runner")["rules"][1].update(resources=["*"])),
        ("every Secret", lambda all_: one(all_, "Role", "kfloop-pipelines")["rules"][2].pop("resourceNames")),
        ("another group", lambda all_: one(all_, "Role", "kfloop-runner")["rules"].append({"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]})),
        ("the whole cluster", lambda all_: all_.append({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "x"}, "rules": []})),
        ("another account", lambda all_: one(all_, "RoleBinding", "kfloop-runner")["subjects"].append({"kind": "ServiceAccount", "name": "kfloop-serving"})),
        ("a token", lambda all_: pod(all_).pop("automountServiceAccountToken")),
    ],
    "closed_by_default": [
        ("no denial", lambda all_: drop(all_, "NetworkPolicy", "kfloop-deny")),
        ("the metadata address", lambda all_: one(all_, "NetworkPolicy", "kfloop-steps")["spec"]["egress"][2]["to"][0]["ipBlock"].pop("except")),
        ("everywhere", lambda all_: one(all_, "NetworkPolicy", "kfloop-servers")["spec"]["egress"].append({})),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "fault"),
    [pytest.param(rule, fault, id=f"{rule}: {name}") for rule, faults in FAULTS.items() for name, fault in faults],
)
def test_the_policy_sees_a_planted_fault(rule: str, fault: Fault) -> None:
    manifests = built(PROD)
    fault(manifests)
    assert list(RULES[rule](manifests))


def test_every_rule_has_planted_faults() -> None:
    assert set(FAULTS) == set(RULES)


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("Deployment", "kfloop-mlflow", ("spec", "replica"), 2),
        ("StatefulSet", "kfloop-triton", ("spec", "template", "spec", "securityContexts"), {}),
        ("HorizontalPodAutoscaler", "kfloop-triton", ("spec", "maxReplicas"), "many"),
        ("NetworkPolicy", "kfloop-deny", ("spec", "policyType"), []),
        ("PodDisruptionBudget", "kfloop-triton", ("spec", "minAvailabel"), 1),
        ("PrometheusRule", "kfloop", ("spec", "groups", 0, "rules", 0, "expression"), "1"),
        ("PrometheusRule", "kfloop", ("spec", "groups", 0, "rules", 0, "for"), "ten minutes"),
        ("ServiceMonitor", "kfloop-metrics", ("spec", "endpoints", 0, "every"), "1m"),
    ],
)
def test_the_schemas_see_a_planted_fault(kind: str, name: str, path: tuple[Any, ...], value: Any) -> None:
    manifest = one(built(PROD), kind, name)
    check(manifest, KUBERNETES[0])
    place: Any = manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    for version in KUBERNETES:
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            check(manifest, version)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("InferenceService", ("spec", "predictor", "canaryTraffic"), 10),
        ("InferenceService", ("spec", "predictor", "canaryTrafficPercent"), "10%"),
        ("ExternalSecret", ("spec", "data", 0, "remoteKey"), "x"),
        ("ExternalSecret", ("spec", "secretStoreRef", "kind"), "Vault"),
    ],
)
def test_the_schemas_of_kserve_and_external_secrets_see_one(kind: str, path: tuple[Any, ...], value: Any) -> None:
    manifest = next(manifest for manifest in built(INFRA / "overlays" / "prod-kserve") if manifest["kind"] == kind)
    place: Any = manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        check(manifest, KUBERNETES[0])


# -- that what is written twice is the same ----------------------------------------------------------------------------


def test_images_stand_in_one_place() -> None:
    """Manifests name images by a word of their own; one component says which they are, and it says what ``images.lock`` does."""
    told = yaml.safe_load((INFRA / "components" / "images" / "kustomization.yaml").read_text())["images"]
    names = {one["name"] for one in told}
    used = set()
    for path in sorted(INFRA.rglob("*.yaml")):
        if path.name != "inferenceservice.yaml":
            used |= set(re.findall(r"^\s*(?:- )?image: (\S+)", path.read_text(), re.MULTILINE))
    locked = yaml.safe_load((INFRA / "images.lock").read_text())["kfloop"]
    assert used == names | {locked["gpu"]}  # the runtime of TrainJobs stands outside every overlay
    for one in told:
        if one["name"].startswith("kfloop-"):
            pin = f"@{one['digest']}" if "digest" in one else f":{one['newTag']}"
            assert one["newName"] + pin == locked[one["name"].removeprefix("kfloop-")]
