"""What every manifest of ``infra/`` has to keep to, as rules that give one sentence for each offence."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

from manifests import Manifest, Pod, pods

# What the cluster or its people bring: Secrets with their keys, and what Kubeflow Pipelines and cert-manager make.
EXTERNAL_SECRETS = {
    "kfloop-state": {"url"},
    "kfloop-mlflow": {"url"},
    "kfloop-s3": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
    "kfloop-triton": {"key"},
    "kfloop-postgres": {"password"},
    "kfloop-triton-tls": {"tls.crt", "tls.key"},
}
SECRET_WORDS = re.compile(r"(?i)(password|passwd|secret|token|api.?key|private.?key)")
PASSWORD_IN_URL = re.compile(r"://[^/@\s:]*:[^/@\s$]+@")
RUNNER_MAY = {
    ("trainer.kubeflow.org", "trainjobs"): {"create", "get", "list", "watch", "patch", "delete"},
    ("pipelines.kubeflow.org", "experiments"): {"create", "get", "list"},
    ("pipelines.kubeflow.org", "runs"): {"create", "get", "list", "terminate"},
    ("pipelines.kubeflow.org", "jobs"): {"list"},
    ("", "pods"): {"get", "list", "watch"},
    ("", "pods/log"): {"get", "list", "watch"},
    # Of Kubeflow Pipelines itself, under the account of a step.
    ("argoproj.io", "workflowtaskresults"): {"create", "patch"},
    ("", "configmaps kfp-launcher"): {"get"},
    ("", "secrets mlpipeline-minio-artifact"): {"get"},
}

Offences = Iterator[str]


def _each(manifests: list[Manifest]) -> Iterator[tuple[Pod, Any]]:
    return ((pod, container) for pod in pods(manifests) for container in pod.containers)


def no_root(manifests: list[Manifest]) -> Offences:
    """Nobody is root, and says so with a number: an image's own user is a promise of somebody else."""
    for pod in pods(manifests):
        told = pod.spec.get("securityContext", {})
        if told.get("runAsNonRoot") is not True or not told.get("runAsUser"):
            yield f"{pod.of}: runAsNonRoot and a runAsUser above 0 are missing"
    for pod, container in _each(manifests):
        told = container.get("securityContext", {})
        if told.get("runAsNonRoot") is False or told.get("runAsUser") == 0:
            yield f"{pod.of}, {container['name']}: runs as root after all"


def no_rights(manifests: list[Manifest]) -> Offences:
    """No container gains rights or keeps capabilities; none sees the node."""
    for pod in pods(manifests):
        if pod.spec.get("securityContext", {}).get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{pod.of}: no seccompProfile RuntimeDefault"
        yield from (f"{pod.of}: {key}" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(key))
        yield from (
            f"{pod.of}: volume {one['name']} is the node's" for one in pod.spec.get("volumes", ()) if "hostPath" in one
        )
    for pod, container in _each(manifests):
        told = container.get("securityContext", {})
        if told.get("allowPrivilegeEscalation") is not False or told.get("privileged"):
            yield f"{pod.of}, {container['name']}: may gain privileges"
        if told.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{pod.of}, {container['name']}: keeps capabilities"


def bounded(manifests: list[Manifest]) -> Offences:
    """Requests and limits of CPU and memory for every container."""
    for pod, container in _each(manifests):
        for side in ("requests", "limits"):
            missing = {"cpu", "memory"} - set(container.get("resources", {}).get(side, {}))
            if missing:
                yield f"{pod.of}, {container['name']}: no {side} of {', '.join(sorted(missing))}"


def probed(manifests: list[Manifest]) -> Offences:
    """Servers have readiness and liveness probes."""
    for pod in pods(manifests):
        for container in pod.spec.get("containers", ()) if pod.serves else ():
            for probe in ("readinessProbe", "livenessProbe"):
                if probe not in container:
                    yield f"{pod.of}, {container['name']}: no {probe}"


def pinned(manifests: list[Manifest]) -> Offences:
    """Every image has a registry and a tag that is not ``latest``, or a digest."""
    for pod, container in _each(manifests):
        image = container.get("image", "")
        tag = re.fullmatch(r"[\w.-]+\.[a-z]+(?:/[\w.-]+)+(?::(?P<tag>[\w.-]+)|@sha256:[0-9a-f]{64})", image)
        if tag is None or tag["tag"] == "latest":
            yield f"{pod.of}, {container['name']}: image '{image}'"


def no_secret_in_the_clear(manifests: list[Manifest]) -> Offences:
    """No Secret with values, no password in an address, no value for a variable that sounds like a secret."""
    for one in manifests:
        name = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] == "Secret":
            yield f"{name}: Secrets are made outside the repository"
        yield from (f"{name}: a password in an address" for text in _texts(one) if PASSWORD_IN_URL.search(text))
        if one["kind"] == "ConfigMap":
            yield from (f"{name}: key {key}" for key in one.get("data", {}) if SECRET_WORDS.search(key))
    for pod, container in _each(manifests):
        for variable in container.get("env", ()):
            if "value" in variable and SECRET_WORDS.search(variable["name"]):
                yield f"{pod.of}, {container['name']}: variable {variable['name']} has its value in the manifest"


def services_lead_somewhere(manifests: list[Manifest]) -> Offences:
    """Each Service selects a pod that has its ports; each ServiceMonitor a Service; each budget and policy by name of an app, a pod."""
    known = list(pods(manifests))
    services = [one for one in manifests if one["kind"] == "Service"]
    for one in services:
        chosen = [pod for pod in known if _matches(one["spec"].get("selector") or {"": ""}, pod.labels)]
        ports = {port["name"] for pod in chosen for box in pod.containers for port in box.get("ports", ())}
        asked = {port["targetPort"] for port in one["spec"]["ports"]}
        if not chosen or not asked <= ports:
            yield f"Service {one['metadata']['name']}: selects {[pod.of for pod in chosen]}, and wants ports {sorted(asked - ports)}"
    for one in manifests:
        name = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] == "ServiceMonitor":
            chosen_services = [
                service
                for service in services
                if _matches(one["spec"]["selector"]["matchLabels"], service["metadata"].get("labels", {}))
            ]
            ports = {port["name"] for service in chosen_services for port in service["spec"]["ports"]}
            if {end["port"] for end in one["spec"]["endpoints"]} - ports:
                yield f"{name}: no Service with its port"
        labels = one["spec"].get("selector", {}).get("matchLabels") if one["kind"] == "PodDisruptionBudget" else None
        if one["kind"] == "NetworkPolicy":
            labels = one["spec"]["podSelector"].get("matchLabels")
        if labels and not any(_matches(labels, pod.labels) for pod in known):
            yield f"{name}: selects no pod"
        target = one["spec"]["scaleTargetRef"] if one["kind"] == "HorizontalPodAutoscaler" else None
        if target and f"{target['kind']} {target['name']}" not in {pod.of for pod in known}:
            yield f"{name}: nothing there to scale"


def references_exist(manifests: list[Manifest]) -> Offences:
    """ConfigMaps, Secrets, accounts and claims that are named exist here, with the key, or are listed as external."""
    there = {(one["kind"], one["metadata"]["name"]): one for one in manifests}
    known: dict[str, dict[str, set[str]]] = {
        "ConfigMap": {name: set(one.get("data", {})) for (kind, name), one in there.items() if kind == "ConfigMap"},
        "PersistentVolumeClaim": {name: set() for kind, name in there if kind == "PersistentVolumeClaim"},
        "ServiceAccount": {name: set() for kind, name in there if kind == "ServiceAccount"},
        "Secret": EXTERNAL_SECRETS
        | {
            name: {row["secretKey"] for row in one["spec"]["data"]}
            for (kind, name), one in there.items()
            if kind == "ExternalSecret"
        },
    }
    for pod in pods(manifests):
        for kind, name, key in _references(pod):
            if name not in known[kind] or (key and key not in known[kind][name]):
                yield f"{pod.of}: {kind} '{name}' {key}"
        volumes = {one["name"] for one in pod.spec.get("volumes", ())} | _claimed(there, pod)
        for container in pod.containers:
            mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
            yield from (f"{pod.of}, {container['name']}: no volume '{name}'" for name in sorted(mounted - volumes))
    for one in manifests:
        for asked in [one["roleRef"], *one["subjects"]] if one["kind"] == "RoleBinding" else ():
            if (asked["kind"], asked["name"]) not in there:
                yield f"RoleBinding {one['metadata']['name']}: {asked['kind']} {asked['name']}"


def _claimed(there: dict[tuple[str, str], Manifest], pod: Pod) -> set[str]:
    """Volumes that a StatefulSet claims for each of its pods."""
    kind, _, name = pod.of.partition(" ")
    return {claim["metadata"]["name"] for claim in there[kind, name]["spec"].get("volumeClaimTemplates", ())}


def least_rights(manifests: list[Manifest]) -> Offences:
    """No right in the whole cluster, no wildcard; the runner's are those listed above and no others; servers have none."""
    for one in manifests:
        name = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] in {"ClusterRole", "ClusterRoleBinding"}:
            yield f"{name}: rights in the whole cluster"
        if one["kind"] == "RoleBinding" and any(subject["name"] != "kfloop-runner" for subject in one["subjects"]):
            yield f"{name}: somebody but kfloop-runner"
        for rule in one["rules"] if one["kind"] == "Role" else ():
            for what in _what(rule):
                if beyond := set(rule["verbs"]) - RUNNER_MAY.get(what, set()):
                    yield f"{name}: {', '.join(sorted(beyond))} on {'/'.join(what)}"
    for pod in pods(manifests):
        if pod.serves and pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.of}: carries a token of the cluster's API"


def _what(rule: Any) -> Iterator[tuple[str, str]]:
    """The group and the resource, with the name of an object, that a rule is about."""
    names = rule.get("resourceNames", [""])
    for group, resource, name in itertools.product(rule["apiGroups"], rule["resources"], names):
        yield group, f"{resource} {name}".strip()


def closed_by_default(manifests: list[Manifest]) -> Offences:
    """Where pods run, a policy denies what no other allows; and no policy opens the metadata address of a cloud."""
    policies = [one for one in manifests if one["kind"] == "NetworkPolicy"]
    denying = [one for one in policies if not one["spec"].get("ingress") and not one["spec"].get("egress")]
    if any(True for _ in pods(manifests)) and not denying:
        yield "no NetworkPolicy denies by default"
    for one in policies:
        for rule in one["spec"].get("egress", ()):
            for to in rule.get("to", [{}]):
                block = to.get("ipBlock", {})
                if not to or (
                    block.get("cidr", "").endswith("/0") and "169.254.169.254/32" not in block.get("except", ())
                ):
                    yield f"NetworkPolicy {one['metadata']['name']}: the metadata address is open"


RULES: dict[str, Callable[[list[Manifest]], Offences]] = {
    rule.__name__: rule
    for rule in (
        no_root,
        no_rights,
        bounded,
        probed,
        pinned,
        no_secret_in_the_clear,
        services_lead_somewhere,
        references_exist,
        least_rights,
        closed_by_default,
    )
}


def offences(manifests: list[Manifest]) -> list[str]:
    """Every offence, each with the name of its rule."""
    return [f"{name}: {sentence}" for name, rule in RULES.items() for sentence in rule(manifests)]


def _matches(selector: Any, labels: Any) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _references(pod: Pod) -> Iterator[tuple[str, str, str]]:
    """What a pod names: kind, name and key."""
    yield "ServiceAccount", pod.spec.get("serviceAccountName", ""), ""
    for container in pod.containers:
        found = [variable.get("valueFrom", {}) for variable in container.get("env", ())]
        for kind, place in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
            yield from ((kind, one[place]["name"], one[place]["key"]) for one in found if place in one)
        for kind, place in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            yield from ((kind, one[place]["name"], "") for one in container.get("envFrom", ()) if place in one)
    for volume in pod.spec.get("volumes", ()):
        for source in (volume, *volume.get("projected", {}).get("sources", ())):
            if "configMap" in source:
                yield "ConfigMap", source["configMap"]["name"], ""
            if "secret" in source:
                yield "Secret", source["secret"].get("secretName") or source["secret"]["name"], ""
            if "persistentVolumeClaim" in source:
                yield "PersistentVolumeClaim", source["persistentVolumeClaim"]["claimName"], ""
