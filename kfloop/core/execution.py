"""Running one step: what every component's shell calls, in a pod, in a local subprocess, or in-process in a test."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kfloop.core.artifacts import folder_digest
from kfloop.core.config import parse_section
from kfloop.core.lifetime import bind_to_run
from kfloop.core.store import Store
from kfloop.core.workspace import Workspace, run_id
from kfloop.errors import KfloopError, StateError, TerminalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

TELEMETRY_OFF = {
    "GX_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "TQDM_DISABLE": "1",
}

KINDS = {
    "ingest": "datasets",
    "validate_data": "validations",
    "check_labels": "labels",
    "train": "checkpoints",
    "package": "models",
    "incumbent": "incumbents",
    "evaluate": "evaluations",
    "bless": "blessings",
    "gate": "decisions",
    "deploy": "deployments",
    "keep": "deployments",
    "monitor": "evidence",
}

log = logging.getLogger("kfloop")


class ArtifactLike(Protocol):
    """The part of a KFP artifact that a step needs."""

    uri: str
    metadata: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step gave: its report, its place in the store, digest, and the value KFP hands on."""

    report: Any
    path: Path
    digest: str
    value: str


def execute(
    step: str,
    core: Callable[..., Any],
    workspace: str,
    config_json: str,
    artifact: ArtifactLike,
    **inputs: ArtifactLike,
) -> str:
    """Run one step inside KFP.

    Args:
        step: Name of the step.
        core: Its core function.
        workspace: ``Workspace.to_json``.
        config_json: The step's section, canonical JSON.
        artifact: Output artifact; its URI is set to the blob in the store.
        **inputs: Input artifacts by name.

    Returns:
        The outcome of the step if it has one, else the digest of its artifact.
    """
    result = perform(
        step,
        core,
        Workspace.from_json(workspace),
        parse_section(step, config_json),
        {name: Path(item.uri.removeprefix("file://")) for name, item in inputs.items()},
    )
    artifact.uri = str(result.path)
    artifact.metadata["digest"] = result.digest
    return result.value


def perform(
    step: str, core: Callable[..., Any], workspace: Workspace, config: Any, inputs: Mapping[str, Path]
) -> StepResult:
    """Run one step: record its start and end, keep its output atomically, turn surprises into errors with a name."""
    with recorded(step, workspace) as facts:
        result = _perform(step, core, workspace, config, inputs)
        facts |= {"kind": KINDS[step], "digest": result.digest, "path": str(result.path), "outcome": result.value}
    return result


@contextlib.contextmanager
def recorded(step: str, workspace: Workspace) -> Iterator[dict[str, Any]]:
    """Tie the process to its run, and tell state when the step starts and how it ends.

    Args:
        step: Name of the step.
        workspace: The loop's places.

    Yields:
        A dict that the step fills with what it gave.

    Raises:
        KfloopError: The step's own error, or a surprise under kfloop's name for it.
    """
    prepare_process()
    bind_to_run()
    started, cpu = time.perf_counter(), time.process_time()
    facts: dict[str, Any] = {}
    _record(workspace, step, "started", {"pid": os.getpid(), "loop": workspace.loop})
    try:
        yield facts
    except Exception as error:
        failure = error if isinstance(error, KfloopError) else _surprise(step, error)
        _record(workspace, step, "failed", _times(started, cpu) | {"error": failure.as_dict()})
        if failure is error:
            raise
        raise failure from error
    _record(workspace, step, "succeeded", _times(started, cpu) | facts)


def prepare_process() -> None:
    """Switch the telemetry of dependencies off, before any of them is imported; a value set by the user stays."""
    for name, value in TELEMETRY_OFF.items():
        os.environ.setdefault(name, value)


def _perform(
    step: str, core: Callable[..., Any], workspace: Workspace, config: Any, inputs: Mapping[str, Path]
) -> StepResult:
    store = Store.of(workspace)
    for name, path in inputs.items():
        if not store.bring(path).is_dir():
            raise StateError(
                f"step '{step}': its input '{name}' is not at '{path}'",
                hint="it was removed from the store; run the loop again with: kfloop run --force",
            )
    workspace.find_modules()
    scratch = workspace.kfloop_dir / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    out = Path(tempfile.mkdtemp(prefix=f"{step}-", dir=scratch))
    try:
        report = core(config, **inputs, out=out, workspace=workspace)
        digest = getattr(report, "digest", None) or folder_digest(out)
        path = store.publish(out, KINDS[step], digest)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    after_publish = getattr(importlib.import_module(core.__module__), "after_publish", None)
    if after_publish is not None:
        after_publish(path, workspace)
    return StepResult(report=report, path=path, digest=digest, value=getattr(report, "outcome", None) or digest)


def _record(workspace: Workspace, step: str, event: str, payload: dict[str, Any]) -> None:
    """Tell state about the step; outside a run (a step by hand, a test) there is nobody to tell."""
    run = run_id()
    if run:
        from kfloop.core.state import open_state

        open_state(workspace.state).runs.step(run, step, event, payload)
    log.info("%s %s", step, event)


def _times(started: float, cpu: float) -> dict[str, float]:
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}


def _surprise(step: str, error: Exception) -> KfloopError:
    """An error nobody foresaw, or one of the operating system, as kfloop's own."""
    if isinstance(error, OSError) and error.errno is not None and os.strerror(error.errno) == "No space left on device":
        return TerminalError(
            f"step '{step}': no space left on the disk of '{error.filename or '.kfloop'}'",
            hint="free some space and run the same command again: finished steps are not repeated",
        )
    return TerminalError(
        f"step '{step}' failed: {type(error).__name__}: {error}", hint="the run's log has the traceback"
    )
