"""Shapes of control flow that KFP compiles, and that its local runner skips, refuses or reads as code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kfloop.pipelines.checks.rules import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.pipelines.checks.reading import Ir, Task

RETURNED = "Output"
# `left == 'right'`, as KFP writes each comparison; texts are put between single quotes as they are.
COMPARED = re.compile(r"(?:==|!=|<=|>=|<|>)\s*'(?P<text>.*)'\s*\)?\s*$", re.DOTALL)
COMPARED_FIRST = re.compile(r"^!?\(?'(?P<text>.*)'\s*(?:==|!=|<=|>=|<|>)", re.DOTALL)


def _at_top(ir: Ir, task: Task) -> bool:
    """Whether it stands at the root or directly in an exit handler's scope."""
    return not task.dag or any(
        other.component_name == task.dag and not other.dag and other.name.startswith("exit-handler")
        for other in ir.tasks()
    )


def _named_output(task: Task, parameter: str) -> str:
    """The named output of another task that a task's input comes from; empty for any other source."""
    source = ((task.spec.get("inputs") or {}).get("parameters") or {}).get(parameter) or {}
    key = str((source.get("taskOutputParameter") or {}).get("outputParameterKey", RETURNED))
    return "" if key == RETURNED else key


def bare_if_on_named_output(ir: Ir) -> Iterator[Finding]:
    """A lone condition at the top: with an Else, KFP puts both into a DAG of their own, where the runner finds the value."""
    for task in ir.tasks():
        condition = str((task.spec.get("triggerPolicy") or {}).get("condition", ""))
        if not condition or not _at_top(ir, task):
            continue
        for parameter in re.findall(r"parameter_values\['([^']+)'\]", condition):
            key = _named_output(task, parameter)
            if key:
                message = f"'{task.name}' hangs on output '{key}', without an Else"
                yield Finding(ir.file, ir.line(*task.keys, "triggerPolicy"), "if-named-output", message)


def quotes_in_conditions(ir: Ir) -> Iterator[Finding]:
    """Conditions whose text ends early."""
    for task in ir.tasks():
        condition = str((task.spec.get("triggerPolicy") or {}).get("condition", ""))
        found = COMPARED.search(condition) or COMPARED_FIRST.search(condition)
        if found and re.search(r"['\\]", found["text"]):
            line = ir.line(*task.keys, "triggerPolicy")
            yield Finding(ir.file, line, "condition-quote", f"'{task.name}' compares with \"{found['text']}\"")


def one_of_artifacts(ir: Ir) -> Iterator[Finding]:
    """An output artifact with more than one possible source."""
    dags: list[tuple[tuple[str, ...], dict[str, Any]]] = [(("root",), ir.spec["root"])]
    dags += [(("components", name), component) for name, component in ir.components.items()]
    for keys, owner in dags:
        artifacts = ((owner.get("dag") or {}).get("outputs") or {}).get("artifacts") or {}
        for name, selector in artifacts.items():
            producers = [item.get("producerSubtask", "") for item in selector.get("artifactSelectors") or []]
            if len(producers) > 1:
                line = ir.line(*keys, "dag", "outputs", "artifacts", name)
                message = f"'{keys[-1].removeprefix('comp-')}' chooses artifact '{name}' among {', '.join(producers)}"
                yield Finding(ir.file, line, "one-of-artifacts", message)


def nested_with_artifacts_only(ir: Ir) -> Iterator[Finding]:
    """Nested pipelines whose inputs are artifacts alone."""
    for task in ir.tasks():
        inputs = task.component.get("inputDefinitions") or {}
        if "dag" in task.component and inputs.get("artifacts") and not inputs.get("parameters"):
            names = ", ".join(sorted(inputs["artifacts"]))
            message = f"nested pipeline '{task.name}' takes only artifacts: {names}"
            yield Finding(ir.file, ir.line(*task.keys), "nested-artifacts-only", message)


def loops_over_named_output(ir: Ir) -> Iterator[Finding]:
    """Loops at the top over what a step calls by a name."""
    for task in ir.tasks():
        parameter = ((task.spec.get("parameterIterator") or {}).get("items") or {}).get("inputParameter", "")
        key = _named_output(task, parameter)
        if key and _at_top(ir, task):
            line = ir.line(*task.keys, "parameterIterator")
            yield Finding(ir.file, line, "loop-named-output", f"'{task.name}' runs over output '{key}'")
