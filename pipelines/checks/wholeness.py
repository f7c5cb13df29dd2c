"""Whether a compiled pipeline holds together: nothing empty, nothing that no task reaches, no name without its thing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kfloop.pipelines.checks.rules import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.pipelines.checks.reading import Ir, Task


def no_tasks(ir: Ir) -> Iterator[Finding]:
    """A pipeline, or a nested part of it, without a task."""
    if not (ir.spec["root"].get("dag") or {}).get("tasks"):
        yield Finding(ir.file, ir.line("root"), "ir-no-tasks", f"pipeline '{ir.name}' has no task")
    for name, component in ir.components.items():
        if "dag" in component and not (component["dag"] or {}).get("tasks"):
            yield Finding(ir.file, ir.line("components", name), "ir-no-tasks", f"'{name}' has no task")


def unused(ir: Ir) -> Iterator[Finding]:
    """Components that no task names, and executors that no such component runs; all of them when there are no tasks."""
    if not (ir.spec["root"].get("dag") or {}).get("tasks"):
        return  # said by no_tasks
    tasks = ir.tasks()
    for name in sorted(set(ir.components) - {task.component_name for task in tasks}):
        yield Finding(ir.file, ir.line("components", name), "ir-unused", f"no task uses component '{name}'")
    labels = {str(component.get("executorLabel", "")) for component in ir.components.values()}
    for name in sorted(set(ir.executors) - labels):
        line = ir.line("deploymentSpec", "executors", name)
        yield Finding(ir.file, line, "ir-unused", f"no component runs executor '{name}'")


def broken_references(ir: Ir) -> Iterator[Finding]:
    """Names that lead nowhere: components, executors, tasks waited for, producers, executors of the platform document."""
    for task in ir.tasks():
        for message in _broken(ir, task):
            yield Finding(ir.file, ir.line(*task.keys), "ir-broken-reference", message)
    for name in sorted(set(ir.platform_executors) - set(ir.executors)):
        line = ir.line("platforms", "kubernetes", "deploymentSpec", "executors", name, document=1)
        message = f"the platform document sets up executor '{name}', which the pipeline does not have"
        yield Finding(ir.file, line, "ir-broken-reference", message)


def _broken(ir: Ir, task: Task) -> Iterator[str]:
    if task.component_name not in ir.components:
        yield f"task '{task.name}' runs component '{task.component_name}', which is not there"
    elif "dag" not in task.component and task.executor not in ir.executors:
        yield f"task '{task.name}' runs executor '{task.executor}', which is not there"
    owner = ir.components[task.dag] if task.dag else ir.spec["root"]
    beside = set(owner["dag"]["tasks"])
    inputs = task.spec.get("inputs") or {}
    sources = [*(inputs.get("parameters") or {}).values(), *(inputs.get("artifacts") or {}).values()]
    kinds = ("taskOutputParameter", "taskOutputArtifact", "taskFinalStatus")
    producers = [source[kind].get("producerTask", "") for source in sources for kind in kinds if kind in source]
    for name in sorted({*(task.spec.get("dependentTasks") or []), *producers} - beside):
        yield f"task '{task.name}' waits for '{name}', which is not there"
