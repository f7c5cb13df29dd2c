"""What each pod runs and is given: image, packages, requests and limits, time, shared memory, user."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kfloop.pipelines.checks.rules import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.pipelines.checks.reading import Ir, Task

PINNED = re.compile(r"@sha256:[0-9a-f]{64}$")
UNRELEASED = re.compile(r":[\w.-]+-unreleased$")
INSTALLS = re.compile(r"\b(pip|pip3|conda|mamba|uv|apt-get|apk)\b[^\n;&|]*\b(install|add)\b")
# Kubernetes' names since 2.12, and the older ones in cores and gigabytes, which other compilers still write.
RESOURCES = {
    "CPU request": ("resourceCpuRequest", "cpuRequest"),
    "CPU limit": ("resourceCpuLimit", "cpuLimit"),
    "memory request": ("resourceMemoryRequest", "memoryRequest"),
    "memory limit": ("resourceMemoryLimit", "memoryLimit"),
}


def pods(ir: Ir) -> Iterator[Task]:
    """One task of each container that runs: what two tasks share is looked at once."""
    seen = set()
    for task in ir.tasks():
        if ir.container(task) and task.executor not in seen:
            seen.add(task.executor)
            yield task


def _at(ir: Ir, task: Task, *keys: str) -> int:
    return ir.line("deploymentSpec", "executors", task.executor, "container", *keys)


def unpinned_images(ir: Ir) -> Iterator[Finding]:
    """Images by tag, or named by a parameter."""
    for task in pods(ir):
        image = str(ir.container(task).get("image", ""))
        if not PINNED.search(image) and not UNRELEASED.search(image):
            line = _at(ir, task, "image")
            yield Finding(ir.file, line, "image-not-pinned", f"step '{task.name}' runs image '{image}'")


def packages_at_runtime(ir: Ir) -> Iterator[Finding]:
    """Package managers in the command; the component's own source is its last part and is left alone."""
    for task in pods(ir):
        container = ir.container(task)
        parts = [str(part) for part in [*(container.get("command") or []), *(container.get("args") or [])]]
        found = [hit.group() for part in parts if "import kfp" not in part for hit in INSTALLS.finditer(part)]
        if found:
            line = _at(ir, task, "command")
            message = f"step '{task.name}' runs '{' '.join(found[-1].split())}' when it starts"
            yield Finding(ir.file, line, "packages-at-runtime", message)


def missing_resources(ir: Ir) -> Iterator[Finding]:
    """Requests and limits of CPU and memory, each of which must be there."""
    for task in pods(ir):
        resources = ir.container(task).get("resources") or {}
        missing = [name for name, keys in RESOURCES.items() if not any(resources.get(key) for key in keys)]
        if missing:
            line = _at(ir, task, "resources")
            yield Finding(ir.file, line, "resources-missing", f"step '{task.name}' has no {', '.join(missing)}")


def missing_timeouts(ir: Ir) -> Iterator[Finding]:
    """Pods without a time of their own."""
    for task in pods(ir):
        if not _seconds(ir.platform_executors.get(task.executor) or {}):
            yield Finding(ir.file, _at(ir, task), "timeout-missing", f"step '{task.name}' has no timeout")


def missing_deadline(ir: Ir) -> Iterator[Finding]:
    """A pipeline without a time for the whole run."""
    if not _seconds(ir.platform.get("pipelineConfig") or {}):
        line = ir.line("pipelineInfo")
        yield Finding(ir.file, line, "deadline-missing", f"pipeline '{ir.name}' has no deadline")


def _seconds(settings: dict[str, object]) -> int:
    value = str(settings.get("activeDeadlineSeconds") or 0)
    return int(value) if value.isdigit() else 0


def missing_shared_memory(ir: Ir) -> Iterator[Finding]:
    """A GPU without a /dev/shm of more than 64 MB."""
    for task in pods(ir):
        if not (ir.container(task).get("resources") or {}).get("accelerator") or _hands_resources_on(task):
            continue
        mounts = (ir.platform_executors.get(task.executor) or {}).get("emptyDirMounts") or []
        if not any(mount.get("mountPath") == "/dev/shm" for mount in mounts):  # noqa: S108 - where pods have it
            line = _at(ir, task, "resources")
            yield Finding(ir.file, line, "shared-memory-missing", f"step '{task.name}' has a GPU and no /dev/shm")


def _hands_resources_on(task: Task) -> bool:
    """Whether a launcher's own pod is given none of its resources: they are for the job that it starts."""
    handed = task.component.get("taskConfigPassthroughs") or []
    return any(item.get("field") == "RESOURCES" and not item.get("applyToTask") for item in handed)


def root_users(ir: Ir) -> Iterator[Finding]:
    """Pods that do not say that they run as somebody else than root."""
    for task in pods(ir):
        context = (ir.platform_executors.get(task.executor) or {}).get("securityContext") or {}
        user = str(context.get("runAsUser", ""))
        if user == "0" or not (user or context.get("runAsNonRoot")):
            said = "runs as user 0" if user == "0" else "does not say which user it runs as"
            yield Finding(ir.file, _at(ir, task), "runs-as-root", f"step '{task.name}' {said}")
