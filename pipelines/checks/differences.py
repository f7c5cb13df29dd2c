"""What the committed IR says and what the code compiles to, side by side in plain words."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from kfloop.pipelines.checks.rules import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.pipelines.checks.reading import Ir, Task

MOST = 20
SHORT = 60
WORDS = {
    "resourceCpuRequest": "CPU request",
    "resourceCpuLimit": "CPU limit",
    "resourceMemoryRequest": "memory request",
    "resourceMemoryLimit": "memory limit",
    "activeDeadlineSeconds": "seconds it may take",
    "resourceTtlOnCompletion": "seconds it is kept once it ended",
    "maxRetryCount": "retries",
    "backoffDuration": "wait before a retry",
    "nodeSelector": "node selector",
    "tolerations": "tolerations",
    "emptyDirMounts": "memory volumes",
    "pvcMount": "volumes",
    "secretAsEnv": "secrets as variables",
    "securityContext": "user it runs as",
    "podMetadata": "labels of its pod",
}
# The same numbers again, in the units of older backends.
OLD_UNITS = frozenset({"cpuLimit", "cpuRequest", "memoryLimit", "memoryRequest", "count", "type"})

Facts = dict[str, dict[str, str]]


def differences(committed: Ir, fresh: Ir) -> Iterator[Finding]:
    """Findings ``ir-differs``, one for each thing a person would name, at its line in the committed file.

    Args:
        committed: The file under review.
        fresh: What the code compiles to now.
    """
    if _plain(committed) == _plain(fresh):
        return
    lines = {_label(task): committed.line(*task.keys) for task in committed.tasks()}
    old, new = _facts(committed), _facts(fresh)
    told: list[tuple[int, str]] = []
    for owner in sorted(set(old) | set(new)):
        if owner not in old:
            told.append((1, f"{owner} is missing: the code has it now"))
        elif owner not in new:
            told.append((lines.get(owner, 1), f"{owner} is no more in the code"))
        else:
            told += [(lines.get(owner, 1), f"{owner}: {change}") for change in _changes(old[owner], new[owner])]
    if not told:
        told = [(1, change) for change in _changes(dict(_leaves(_plain(committed))), dict(_leaves(_plain(fresh))))]
    compilers = [str(ir.spec.get("sdkVersion", "unknown")) for ir in (committed, fresh)]
    if compilers[0] != compilers[1]:
        why = f"compiled by {compilers[0]}, and here by {compilers[1]}: what else differs may come of that alone"
        told.insert(0, (committed.line("sdkVersion"), why))
    for line, message in told[:MOST]:
        yield Finding(committed.file, line, "ir-differs", message)
    if len(told) > MOST:
        yield Finding(committed.file, 1, "ir-differs", f"and {len(told) - MOST} further differences")


def _changes(old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    for key in sorted(set(old) | set(new)):
        if key not in old:
            yield f"no {key}; the code says {_short(new[key])}"
        elif key not in new:
            yield f"{key} is {_short(old[key])}; the code has none"
        elif old[key] != new[key]:
            yield f"{key} is {_short(old[key])}; the code says {_short(new[key])}"


def _plain(ir: Ir) -> list[dict[str, Any]]:
    """Both documents without what a new SDK changes alone."""
    return [{key: value for key, value in ir.spec.items() if key != "sdkVersion"}, ir.platform]


def _facts(ir: Ir) -> Facts:
    root = ir.spec["root"]
    parameters = (root.get("inputDefinitions") or {}).get("parameters") or {}
    whole = {"name": ir.name, "description": str(ir.spec["pipelineInfo"].get("description", ""))}
    whole |= {f"parameter '{name}'": _json(spec) for name, spec in parameters.items()}
    whole |= {_word(key): _json(value) for key, value in (ir.platform.get("pipelineConfig") or {}).items()}
    return {"the pipeline": whole} | {_label(task): _of_task(ir, task) for task in ir.tasks()}


def _label(task: Task) -> str:
    kind = "step" if task.executor else "group"
    return f"{kind} '{'/'.join(task.path)}'"


def _of_task(ir: Ir, task: Task) -> dict[str, str]:
    spec = task.spec
    facts = {"what it waits for": ", ".join(sorted(spec.get("dependentTasks") or []))}
    if task.executor:
        facts["caching"] = _caching(spec)
    policy = spec.get("triggerPolicy") or {}
    facts |= {f"its {key}": str(value) for key, value in policy.items()}
    for kind in ("parameterIterator", "artifactIterator", "iteratorPolicy"):
        if kind in spec:
            facts["what it loops over"] = _json(spec[kind])
    for key, value in (spec.get("retryPolicy") or {}).items():
        facts[_word(key)] = _json(value)
    for kind in ("parameters", "artifacts"):
        facts |= {
            f"input '{name}'": _json(source) for name, source in ((spec.get("inputs") or {}).get(kind) or {}).items()
        }
        outputs = ((task.component.get("outputDefinitions") or {}).get(kind) or {}).items()
        facts |= {f"output '{name}'": _json(value) for name, value in outputs}
    for key, value in (ir.platform_executors.get(task.executor) or {}).items():
        facts[_word(key)] = _json(value)
    return facts | _of_container(ir.container(task))


def _of_container(container: dict[str, Any]) -> dict[str, str]:
    if not container:
        return {}
    facts = {"image": str(container.get("image", "")), "code": _digest(container.get("command"))}
    facts["arguments"] = _json(container.get("args"))
    facts |= {f"variable {item.get('name')}": str(item.get("value", "")) for item in container.get("env") or []}
    for key, value in (container.get("resources") or {}).items():
        if key == "accelerator":
            facts |= {f"accelerator {part}": str(item) for part, item in value.items() if part not in OLD_UNITS}
        elif key not in OLD_UNITS:
            facts[_word(key)] = str(value)
    return facts


def _caching(spec: dict[str, Any]) -> str:
    options = spec.get("cachingOptions")
    if options is None:
        return "not set"
    return "on" if options.get("enableCache") else "off"


def _word(key: str) -> str:
    return WORDS.get(key, key)


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _digest(value: Any) -> str:
    return f"sha256:{hashlib.sha256(_json(value).encode()).hexdigest()[:12]}"


def _short(value: str) -> str:
    shown = " ".join(value.split())
    return f"'{shown}'" if len(shown) <= SHORT else f"'{shown[:SHORT]}...' ({_digest(value)})"


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every value that is no container with its dotted place; what no fact speaks of is told so."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from _leaves(item, f"{place}[{number}]" if place else "")
    else:
        yield f"'{place}'", _json(value)
