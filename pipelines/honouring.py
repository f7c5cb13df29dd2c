"""What the local engine makes of the settings that a pipeline asks of Kubernetes: an equivalent, an error, or a sentence; never silence.

| setting | here |
|---|---|
| timeout | the step is killed when its time is over |
| secret, config map as environment variable | the variable must be set already, unless the reference is optional |
| volume | a pipeline with the parameter ``workspace`` has its places from there; any other needs the folder |
| ``/dev/shm`` and other empty folders | the machine's own |
| labels, node selector, tolerations, security context, image pull policy | about pods and nodes: there is one machine, and its user |
| CPUs, memory, accelerators, deadline of the run | the machine's own, and no deadline: said once, in the log and the record of the run |
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.workspace import RUN_ID_VARIABLE
from kfloop.errors import ConfigError, TerminalError
from kfloop.pipelines.plan import planned_tasks

if TYPE_CHECKING:
    from collections.abc import Callable

ABOUT_PODS = {"podMetadata", "nodeSelector", "tolerations", "securityContext", "imagePullPolicy"}
HONOURED = {"activeDeadlineSeconds", "secretAsEnv", "configMapAsEnv", "fieldPathAsEnv", "pvcMount", "emptyDirMounts"}
STARTED = re.compile(r"Executing task \S*'(?P<task>[\w-]+)'")
ENDED = re.compile(r"Task \S*'[\w-]+'\S* finished")


def refuse_unsupported(documents: list[dict[str, Any]]) -> None:
    """Stop before a run whose settings the local runner would drop without a word.

    Args:
        documents: The documents of the compiled YAML: pipeline spec and, when there is one, platform spec.

    Raises:
        ConfigError: A setting without an equivalent here, a variable that is not set, a folder that is not there, or a loop.
    """
    spec = documents[0]
    from_workspace = "workspace" in spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for executor, settings in _settings(documents):
        task = executor.removeprefix("exec-")
        strange = sorted(name for name in set(settings) - ABOUT_PODS - HONOURED if settings[name])
        if strange:
            raise ConfigError(
                f"task '{task}' asks for {', '.join(strange)}, which the local engine cannot honour",
                hint="run it on a cluster, or leave the setting out for local runs",
                task=executor,
                settings=strange,
            )
        _refuse_unset(task, settings)
        folders = [mount["mountPath"] for mount in settings.get("emptyDirMounts", [])]
        if not from_workspace:
            folders += [mount["mountPath"] for mount in settings.get("pvcMount", [])]
        for folder in folders:
            if not Path(folder).is_dir():
                raise ConfigError(
                    f"task '{task}' has a volume at '{folder}', and there is no such folder here",
                    hint=f"make the folder, or run the pipeline on a cluster: {folder}",
                    task=executor,
                    settings=["pvcMount"],
                )
    for component in (spec["root"], *spec["components"].values()):
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            if "iterator" in task or "parameterIterator" in task:
                raise ConfigError(f"task '{name}' is a loop, which the local engine does not run")


def time_limits(documents: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds that each task may take, for those that have a timeout."""
    seconds = {executor: float(settings.get("activeDeadlineSeconds", 0)) for executor, settings in _settings(documents)}
    return {task.name: seconds[task.executor] for task in planned_tasks(documents[0]) if seconds.get(task.executor)}


def left_out(documents: list[dict[str, Any]]) -> str:
    """What the run goes without here, in one sentence; empty where it asks for nothing of the kind."""
    executors = documents[0].get("deploymentSpec", {}).get("executors", {})
    asked = {
        label.removeprefix("exec-"): one.get("container", {}).get("resources", {}) for label, one in executors.items()
    }
    accelerators = {task: given["accelerator"] for task, given in sorted(asked.items()) if "accelerator" in given}
    told = [f"accelerators of '{task}' ({_accelerator(given)})" for task, given in accelerators.items()]
    bounded = [task for task, given in asked.items() if given.keys() - {"accelerator"}]
    told += [f"CPU and memory of {len(bounded)} of {len(asked)} steps"] if bounded else []
    for document in documents:
        platform = document.get("platforms", {}).get("kubernetes", {})
        seconds = platform.get("pipelineConfig", {}).get("activeDeadlineSeconds")
        told += [f"the deadline of the run ({float(seconds):g} s)"] if seconds else []
    return (
        f"this machine's own resources, without what the pipeline asks of a cluster: {', '.join(told)}" if told else ""
    )


def _accelerator(given: dict[str, Any]) -> str:
    count, kind = (given.get(f"resource{name}") or given.get(name.lower()) for name in ("Count", "Type"))
    return f"{count or 1} of {kind or 'any kind'}"


class TimeLimits(logging.Filter):
    """Ends a task when its time is over, by the lines in which the local runner says what it starts and what has ended.

    Args:
        limits: Seconds by task.
        tell: Called with the task, its seconds and the error, before its processes are killed.
    """

    def __init__(self, limits: dict[str, float], tell: Callable[[str, float, TerminalError], None]) -> None:
        super().__init__()
        self._limits = limits
        self._tell = tell
        self._timer: threading.Timer | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Look at one line of the runner, and let it pass."""
        message = record.getMessage()
        started = STARTED.search(message)
        if self._timer is not None and (started or ENDED.search(message)):
            self._timer.cancel()
        if started and started["task"] in self._limits:
            task = started["task"]
            self._timer = threading.Timer(self._limits[task], self._end, [task])
            self._timer.daemon = True
            self._timer.start()
        return True

    def _end(self, task: str) -> None:
        import psutil

        error = TerminalError(
            f"'{task}' took longer than the {self._limits[task]:g} s it has",
            hint="give it longer: cluster.resources, timeout_minutes",
        )
        self._tell(task, self._limits[task], error)
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _settings(documents: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Settings for Kubernetes by executor."""
    platforms = [document["platforms"] for document in documents if "platforms" in document]
    return [
        (executor, settings)
        for platform in platforms
        for executor, settings in sorted(
            platform.get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {}).items()
        )
    ]


def _refuse_unset(task: str, settings: dict[str, Any]) -> None:
    for kind in ("secretAsEnv", "configMapAsEnv"):
        for reference in settings.get(kind, []):
            missing = [item["envVar"] for item in reference["keyToEnv"] if item["envVar"] not in os.environ]
            if missing and not reference.get("optional"):
                raise ConfigError(
                    f"task '{task}' asks for {kind}: {', '.join(missing)}, which the local engine takes from the environment, is not set",
                    hint=f"export {missing[0]}=..., or leave the setting out for local runs",
                    task=f"exec-{task}",
                    settings=[kind],
                )
    fields = [item["name"] for item in settings.get("fieldPathAsEnv", []) if item["name"] != RUN_ID_VARIABLE]
    if fields:
        raise ConfigError(
            f"task '{task}' asks for fieldPathAsEnv: {', '.join(fields)} is a field of a pod, and the local engine has none",
            hint="run it on a cluster, or leave the setting out for local runs",
            task=f"exec-{task}",
            settings=["fieldPathAsEnv"],
        )
