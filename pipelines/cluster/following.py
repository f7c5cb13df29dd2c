"""Following a run on Kubeflow Pipelines to its end: every change of a step once, through restarts and bad minutes of the server."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kfloop.core.cluster import CLUSTER_STEPS
from kfloop.errors import ServerUnavailable, TerminalError
from kfloop.pipelines.cluster.submitting import ENDED
from kfloop.pipelines.worker import step_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfloop.pipelines.cluster.client import Server
    from kfloop.pipelines.cluster.transport import JSON

WORDS = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "SKIPPED": "skipped",
    "FAILED": "failed",
    "CANCELING": "canceling",
    "CANCELED": "canceled",
    "PAUSED": "paused",
}
UNKNOWN = "unknown"
ABOUT = re.compile(r"kfloop (?P<pipeline>\w+) of loop (?P<loop>[a-z0-9_-]+)")
BLINDNESS_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """One step of a run as KFP tells it.

    Attributes:
        name: Name of the step.
        state: ``waiting``, ``running``, ``succeeded``, ``skipped``, ``failed``, ``canceling``, ``canceled``, ``paused`` or ``unknown``.
        seconds: Wall time so far or in all; 0 where KFP does not say.
        error: What KFP says of a failure; empty without one.
        pod: Pod to ask for logs; empty where KFP does not say.
    """

    name: str
    state: str
    seconds: float
    error: str
    pod: str


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is: its state in the same words, its steps in the order they began, and KFP's error.

    ``pipeline`` and ``loop`` are what ``submit`` wrote into the description; empty for a run that kfloop did not submit.
    """

    run_id: str
    name: str
    pipeline: str
    loop: str
    state: str
    tasks: tuple[Task, ...]
    error: str

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in {WORDS[state] for state in ENDED}

    def as_dict(self) -> dict[str, Any]:
        """As strict JSON types."""
        return asdict(self)


def progress_of(run: JSON) -> Progress:
    """What the API says of a run, without its drivers, groups and repetitions."""
    about = ABOUT.search(str(run.get("description", "")))
    latest: dict[str, JSON] = {}
    details = (run.get("run_details") or {}).get("task_details") or []
    for task in sorted(details, key=lambda one: str(one.get("create_time", ""))):
        name = step_name(str(task.get("display_name", "")))
        if name in CLUSTER_STEPS:
            latest[name] = task
    return Progress(
        run_id=run["run_id"],
        name=run.get("display_name", ""),
        pipeline=about["pipeline"] if about else "",
        loop=about["loop"] if about else "",
        state=_word(run),
        tasks=tuple(_task(name, task) for name, task in latest.items()),
        error=_error(run),
    )


def follow(
    server: Server,
    run_id: str,
    tell: Callable[[Progress], None],
    *,
    every: float = 5.0,
    blindness: float = BLINDNESS_S,
    known: bool = False,
) -> Progress:
    """Wait until a run ends.

    Args:
        server: The server.
        run_id: The run.
        tell: Called whenever something changed.
        every: Seconds between two questions.
        blindness: Longest time without any good answer, in seconds.
        known: Whether the run is known to be on the server, because it was submitted just now.

    Raises:
        InputError: There is no such run.
        ConfigError: The server does not know us.
        TerminalError: It was seen or known, and cannot be followed any more: it was deleted, or the login has ended.
        ServerUnavailable: The server did not answer for so long; the run may go on.
    """
    before: Progress | None = None
    seen = time.monotonic()
    while True:
        try:
            now = progress_of(server.run(run_id))
        except ServerUnavailable as error:
            trouble = error.message
        except TerminalError as error:
            if before is None and not known:
                raise
            attach = f"look again with: kfloop submit --attach {run_id}"
            raise TerminalError(
                f"run {run_id} cannot be followed any more, it may go on: {error.message}",
                hint=f"{error.hint}; then {attach}" if error.hint else attach,
                **error.data,
            ) from error
        else:
            if before is None or _changed(before, now):
                tell(now)
            before = now
            if now.ended:
                return now
            trouble = "the server does not say the state of the run" if now.state == UNKNOWN else ""
        if not trouble:
            seen = time.monotonic()
        elif time.monotonic() - seen > blindness:
            raise ServerUnavailable(
                f"run {run_id} cannot be followed any more, it may go on: {trouble}",
                hint=f"look again with: kfloop submit --attach {run_id}",
            )
        time.sleep(every)


def _changed(before: Progress, now: Progress) -> bool:
    states = [(task.name, task.state) for task in now.tasks]
    return now.state != before.state or states != [(task.name, task.state) for task in before.tasks]


def _task(name: str, task: JSON) -> Task:
    pods = [child.get("pod_name", "") for child in task.get("child_tasks") or []]
    return Task(
        name=name,
        state=_word(task),
        seconds=_seconds(task),
        error=_error(task),
        pod=task.get("pod_name") or next(filter(None, pods), ""),
    )


def _word(thing: JSON) -> str:
    return WORDS.get(str(thing.get("state", "")), UNKNOWN)


def _error(thing: JSON) -> str:
    return str((thing.get("error") or {}).get("message", ""))


def _seconds(task: JSON) -> float:
    try:
        began, ended = (datetime.fromisoformat(task[key]) for key in ("start_time", "end_time"))
    except (KeyError, TypeError, ValueError):
        return 0.0
    return max(0.0, (ended - began).total_seconds())
