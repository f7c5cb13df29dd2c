"""What happens the second time: caching said outright, never on a step that changes or reads the world; retries only where they are safe."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kfloop.pipelines.checks.rules import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.pipelines.checks.reading import Ir, Task

# The first or last word of a component's name says what it does to the world.
CHANGES_THE_WORLD = re.compile(
    "alert|approve|delete|deploy|drop|email|insert|mail|notify|promote|publish|push|register|release|remove|rollback|rollout"
    "|send|slack|submit|teardown|trigger|upload"
)
# Of kfloop's own steps: those that write (an attempt that broke off is looked at by the next run, never simply repeated), and with them
# those that read what no input names: a source, the ledger, what runs on the cluster.
OWN_WRITE = frozenset({"deploy", "keep", "approve", "monitor", "stand_by", "notify"})
OWN_UNCACHED = OWN_WRITE | {"ingest", "incumbent", "gate", "submit_training"}


def step_of(task: Task) -> str:
    """The component's function, as the IR names it: without the prefix, and without the numbers of a second use."""
    return re.sub(r"(-\d+)+$", "", task.component_name.removeprefix("comp-")).replace("-", "_")


def _leaves(ir: Ir) -> Iterator[Task]:
    return (task for task in ir.tasks() if ir.container(task))


def implicit_caching(ir: Ir) -> Iterator[Finding]:
    """Steps without the key. KFP's own compiler writes it for each, so that this finds other compilers and edited files."""
    for task in _leaves(ir):
        if not isinstance(task.spec.get("cachingOptions"), dict):
            message = f"step '{task.name}' does not say whether it is cached"
            yield Finding(ir.file, ir.line(*task.keys), "caching-not-explicit", message)


def cached_side_effects(ir: Ir) -> Iterator[Finding]:
    """Cached steps that work by what they do, not by what they give."""
    for task in ir.tasks():
        if (task.spec.get("cachingOptions") or {}).get("enableCache"):
            reason = _not_a_function(ir, task) if ir.container(task) else _volume_by_name(ir, task)
            if reason:
                line = ir.line(*task.keys, "cachingOptions")
                yield Finding(ir.file, line, "caching-side-effect", f"step '{task.name}' is cached, but {reason}")


def unsafe_retries(ir: Ir) -> Iterator[Finding]:
    """Steps that are tried again although the first attempt may have done its work."""
    for task in _leaves(ir):
        count = int((task.spec.get("retryPolicy") or {}).get("maxRetryCount") or 0)
        step = step_of(task)
        risky = step in OWN_WRITE if ir.own_step(task) else _verb(step)
        if count and (risky or task.final):
            message = f"step '{task.name}' changes the world and is retried {count} times"
            yield Finding(ir.file, ir.line(*task.keys, "retryPolicy"), "retry-not-idempotent", message)


def _not_a_function(ir: Ir, task: Task) -> str:
    """Why a step's result is not all there is to it; empty when it is."""
    step = step_of(task)
    if ir.own_step(task):
        return f"'{step}' reads or changes state" if step in OWN_UNCACHED else ""
    if task.final:
        return "it is an exit handler"
    outputs = task.component.get("outputDefinitions") or {}
    if not outputs.get("parameters") and not outputs.get("artifacts"):
        return "it gives nothing, so it works by its side effect"
    verb = _verb(step)
    return f"'{verb}' changes the world" if verb else ""


def _volume_by_name(ir: Ir, task: Task) -> str:
    """Why a volume made or deleted is not to be cached; empty where KFP makes a new name each time, which it counts among the inputs."""
    kind = ir.volume_task(task)
    given = (task.spec.get("inputs") or {}).get("parameters") or {}
    if kind == "createpvc" and "pvc_name" in given:
        return "its volume has a name of its own: once that is deleted, the second run gets none"
    if kind == "deletepvc" and not _newly_named(ir, task, given.get("pvc_name") or {}):
        return "its volume has a name of its own: the second run leaves it"
    return ""


def _newly_named(ir: Ir, task: Task, source: dict[str, Any]) -> bool:
    producer = (source.get("taskOutputParameter") or {}).get("producerTask")
    maker = next((other for other in ir.tasks() if (other.dag, other.name) == (task.dag, producer)), None)
    given = (maker.spec.get("inputs") or {}).get("parameters") or {} if maker else {}
    return maker is not None and ir.volume_task(maker) == "createpvc" and "pvc_name" not in given


def _verb(step: str) -> str:
    words = step.split("_")
    return next((word for word in (words[0], words[-1]) if CHANGES_THE_WORLD.fullmatch(word)), "")
