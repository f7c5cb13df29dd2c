"""The process in which one pipeline runs: ``python -m kfloop.pipelines.worker ORDER.json``.

It leads a process group of its own, so that the engine can end it with every step; and when the engine dies, also by ``kill -9``,
it ends the group itself. KFP's local configuration is a process-wide singleton and its output is noisy: here both stay contained.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.execution import prepare_process
from kfloop.core.lifetime import bind_to_run
from kfloop.errors import KfloopError

if TYPE_CHECKING:
    from kfloop.core.state import State

PIPELINES = {
    "training": "kfloop.pipelines.training:training",
    "monitoring": "kfloop.pipelines.monitoring:monitoring",
    "approval": "kfloop.pipelines.approval:approval",
}
CACHE_HIT = re.compile(r"Task (?P<task>[\w-]+) cache hit \(key=(?P<key>[0-9a-f]+)\)")
# What kfp.local only warns about before it goes on as if nothing had happened; for kfloop each is a failure.
SILENT_TRAPS = ("Could not resolve", "Error evaluating condition", "Failed to evaluate")


class CacheWatch(logging.Filter):
    """Turns the local runner's log lines into step events, and its swallowed condition errors into a failure.

    A filter and not a handler, because the runner replaces every handler of the root logger while it works.
    """

    def __init__(self, state: State, run_id: str, cache: Path) -> None:
        super().__init__()
        self._state = state
        self._run_id = run_id
        self._cache = cache
        self.traps: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Look at one line of the runner, and let it pass."""
        message = record.getMessage()
        hit = CACHE_HIT.search(message)
        if hit:
            payload = cached_payload(next(self._cache.glob(f"{hit['key']}*.json")))
            self._state.runs.step(self._run_id, step_name(hit["task"]), "cached", payload)
        if record.levelno >= logging.WARNING and any(trap in message for trap in SILENT_TRAPS):
            self.traps.append(message)
        return True


def cached_payload(entry: Path) -> dict[str, Any]:
    """What a cached task gave, in the words of a step event, from the runner's cache file."""
    outputs = json.loads(entry.read_text(encoding="utf-8"))
    payload: dict[str, Any] = {"outcome": outputs.get("Output")}
    for value in outputs.values():
        if isinstance(value, dict) and "uri" in value:
            place = Path(value["uri"])
            payload |= {"kind": place.parent.name, "digest": value["metadata"]["digest"], "path": str(place)}
    return payload


def step_name(task: str) -> str:
    """The step a KFP task name stands for (``check-labels`` is ``check_labels``; a second use has a number)."""
    return re.sub(r"-\d+$", "", task).replace("-", "_")


def task_name(step: str) -> str:
    """The KFP task of a step."""
    return step.replace("_", "-")


def load_pipeline(name: str) -> Any:
    """The KFP pipeline called ``name``; ``module:attribute`` names one of the user's, and ``PATH.yaml`` a compiled one."""
    if name.endswith(".yaml"):
        from kfp.components import load_component_from_file

        return load_component_from_file(name)
    module, _, attribute = PIPELINES.get(name, name).partition(":")
    return getattr(importlib.import_module(module), attribute)


def compiled_documents(pipeline: Any) -> list[dict[str, Any]]:
    """The documents of a compiled pipeline: its spec and, when it has one, its platform spec."""
    from google.protobuf.json_format import MessageToDict

    documents = [MessageToDict(pipeline.pipeline_spec)]
    platform = MessageToDict(pipeline.platform_spec)
    return [*documents, platform] if platform else documents


def main(path: Path) -> int:
    """Carry out the order in ``path``; the exit status is 0 when every step that ran succeeded."""
    order = json.loads(path.read_text(encoding="utf-8"))
    prepare_process()
    bind_to_run()
    from kfp import local

    from kfloop.core.state import open_state
    from kfloop.pipelines.honouring import TimeLimits, left_out, refuse_unsupported, time_limits
    from kfloop.pipelines.plan import planned_tasks, prune

    pipeline = load_pipeline(order["pipeline"])
    try:
        if order["until"]:
            prune(pipeline.pipeline_spec, task_name(order["until"]))
        documents = compiled_documents(pipeline)
        refuse_unsupported(documents)
    except KfloopError as error:
        Path(order["error"]).write_text(json.dumps(error.as_dict()), encoding="utf-8")
        return error.exit_code
    plan = [
        {"name": step_name(task.name), "branch": list(task.branch), "final": task.final}
        for task in planned_tasks(documents[0])
    ]
    Path(order["plan"]).write_text(json.dumps(plan), encoding="utf-8")
    if told := left_out(documents):
        Path(order["told"]).write_text(told, encoding="utf-8")
        sys.stdout.write(f"{told}\n")
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)  # the runner says at INFO what it takes from the cache
    state = open_state(order["state"])
    watch = CacheWatch(state, order["run_id"], Path(order["cache"]))

    def over(task: str, seconds: float, error: KfloopError) -> None:
        state.runs.step(order["run_id"], step_name(task), "failed", {"seconds": seconds, "error": error.as_dict()})

    logging.getLogger().addFilter(watch)
    logging.getLogger().addFilter(TimeLimits(time_limits(documents), over))
    private = Path(order["private"])
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(private / "root"),
        workspace_root=str(private / "workspace"),  # kfp deletes it after each run: it must never be the user's
        raise_on_error=True,
        enable_caching=True,
        cache_root=order["cache"],
    )
    try:
        pipeline(**order["arguments"])
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if watch.traps:
        sys.stderr.write("a condition could not be evaluated: " + "; ".join(watch.traps) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
