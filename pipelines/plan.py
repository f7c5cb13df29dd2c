"""What a compiled pipeline will do: its tasks in order, each with the branch it stands in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kfloop.errors import ConfigError, nearest


@dataclass(frozen=True, kw_only=True)
class PlannedTask:
    """A leaf task of the IR.

    Attributes:
        name: Name of the task, unique in the plan.
        branch: Conditions it stands behind, outermost first, as the IR writes them; empty outside every branch.
        final: Whether it is an exit handler.
        executor: What runs it, by the IR's label.
    """

    name: str
    branch: tuple[str, ...]
    final: bool
    executor: str


def planned_tasks(ir: dict[str, Any]) -> list[PlannedTask]:
    """Leaf tasks of a compiled pipeline in execution order, through nested DAGs.

    Args:
        ir: The pipeline spec (first document of the compiled YAML).
    """
    return [task for task in _walk(ir["root"]["dag"], ir["components"], ()) if not task.final] + [
        task for task in _walk(ir["root"]["dag"], ir["components"], ()) if task.final
    ]


def _walk(dag: dict[str, Any], components: dict[str, Any], branch: tuple[str, ...]) -> list[PlannedTask]:
    found: list[PlannedTask] = []
    for name in _ordered(dag["tasks"]):
        task = dag["tasks"][name]
        policy = task.get("triggerPolicy", {})
        condition = policy.get("condition")
        inside = (*branch, condition) if condition else branch
        component = components[task["componentRef"]["name"]]
        if "dag" in component:
            found += _walk(component["dag"], components, inside)
        else:
            final = policy.get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
            executor = component["executorLabel"]
            found.append(PlannedTask(name=name, branch=inside, final=final, executor=executor))
    return found


def _ordered(tasks: dict[str, Any]) -> list[str]:
    """Names in an order that respects dependencies; ties by name, since the IR is a map without order."""
    done: list[str] = []
    left = dict(tasks)
    while left:
        ready = [
            name
            for name, task in sorted(left.items())
            if all(other in done for other in task.get("dependentTasks", []))
        ]
        if not ready:
            message = f"tasks {sorted(left)} depend on each other in a circle"
            raise ValueError(message)
        done += ready
        for name in ready:
            del left[name]
    return done


def prune(spec: Any, until: str) -> None:
    """Take every task out of a pipeline that ``until`` does not wait for; exit handlers stay.

    Args:
        spec: The compiled pipeline (protobuf), changed in place.
        until: Name of the last task.

    Raises:
        ConfigError: The pipeline has no such task.
    """
    names = [task.name for task in planned_tasks(_as_dict(spec)) if not task.final and not task.branch]
    if until not in names:
        raise ConfigError(f"no step is called '{until}'", hint=nearest(until, names))
    for dag in (spec.root.dag, *(component.dag for component in spec.components.values() if component.HasField("dag"))):
        if until not in dag.tasks:
            continue
        needed, waiting = set(), [until]
        while waiting:
            name = waiting.pop()
            needed.add(name)
            waiting += [other for other in dag.tasks[name].dependent_tasks if other not in needed]
        for name in [name for name in dag.tasks if name not in needed]:
            del dag.tasks[name]


def _as_dict(spec: Any) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(spec)
