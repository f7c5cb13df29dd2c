"""Whether what flows between tasks can arrive: every input has a source, every source exists, and nobody reads what nobody waited for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kfloop.pipelines.checks.rules import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.pipelines.checks.reading import Ir, Task

KINDS = {
    "parameters": ("taskOutputParameter", "outputParameterKey", "componentInputParameter"),
    "artifacts": ("taskOutputArtifact", "outputArtifactKey", "componentInputArtifact"),
}
ITERATORS = ("parameterIterator", "artifactIterator")


def broken_wires(ir: Ir) -> Iterator[Finding]:
    """Inputs that are missing, or come from nowhere."""
    for task in ir.tasks():
        if not task.component:
            continue  # said by wholeness.broken_references
        for message in [*_missing_inputs(task), *_sources(ir, task), *_condition(task)]:
            yield Finding(ir.file, ir.line(*task.keys), "ir-broken-reference", f"task '{task.name}' {message}")
    for name, component in ir.components.items():
        for message in _outputs(component) if "dag" in component else ():
            yield Finding(ir.file, ir.line("components", name), "ir-broken-reference", f"'{name}' {message}")


def _missing_inputs(task: Task) -> Iterator[str]:
    items = {task.spec[kind].get("itemInput", "") for kind in ITERATORS if kind in task.spec}
    defined = task.component.get("inputDefinitions") or {}
    for kind in KINDS:
        given = (task.spec.get("inputs") or {}).get(kind) or {}
        for name, spec in (defined.get(kind) or {}).items():
            if name not in given and name not in items and not spec.get("isOptional") and "defaultValue" not in spec:
                yield f"is not given '{name}', which its component asks for"
    for kind in ITERATORS:
        source = ((task.spec.get(kind) or {}).get("items") or {}).get("inputParameter")
        if source and source not in ((task.spec.get("inputs") or {}).get("parameters") or {}):
            yield f"loops over '{source}', which is none of its inputs"


def _sources(ir: Ir, task: Task) -> Iterator[str]:
    owner = ir.components[task.dag] if task.dag else ir.spec["root"]
    for kind, (output, key, component_input) in KINDS.items():
        outside = (owner.get("inputDefinitions") or {}).get(kind) or {}
        for name, source in ((task.spec.get("inputs") or {}).get(kind) or {}).items():
            if not source:
                yield f"takes '{name}' from nowhere"
            elif output in source:
                yield from _produced(ir, owner, task, kind, source[output], key)
            elif component_input in source and source[component_input] not in outside:
                yield f"takes '{name}' from input '{source[component_input]}', which is not there"


def _produced(ir: Ir, owner: dict[str, Any], task: Task, kind: str, source: dict[str, Any], key: str) -> Iterator[str]:
    producer = source.get("producerTask", "")
    other = owner["dag"]["tasks"].get(producer)
    if other is None:
        return  # said by wholeness.broken_references
    component = ir.components.get((other.get("componentRef") or {}).get("name", "")) or {}
    if source.get(key, "") not in ((component.get("outputDefinitions") or {}).get(kind) or {}):
        yield f"takes '{source.get(key, '')}' of '{producer}', which gives no such thing"
    if producer not in (task.spec.get("dependentTasks") or []):
        yield f"takes an output of '{producer}' and does not wait for it"


def _condition(task: Task) -> Iterator[str]:
    condition = str((task.spec.get("triggerPolicy") or {}).get("condition", ""))
    given = (task.spec.get("inputs") or {}).get("parameters") or {}
    for name in re.findall(r"parameter_values\['([^']+)'\]", condition):
        if name not in given:
            yield f"hangs on '{name}', which is none of its inputs"


def _outputs(component: dict[str, Any]) -> Iterator[str]:
    """What a nested DAG promises and no task in it makes."""
    dag = component["dag"] or {}
    for kind in KINDS:
        made = (dag.get("outputs") or {}).get(kind) or {}
        for name in (component.get("outputDefinitions") or {}).get(kind) or {}:
            producers = set(re.findall(r"'producerSubtask': '([^']*)'", str(made.get(name) or {})))
            if not producers or producers - set(dag.get("tasks") or {}):
                yield f"promises '{name}', which none of its tasks makes"
