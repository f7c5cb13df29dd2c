"""One round of the loop, from its configuration to its closed record: what ``kfloop run`` and ``kfloop monitor`` call."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import canonical_json, read_report, sha256_text
from kfloop.core.own_code import own_digest
from kfloop.core.records import RunRecord, StepRecord, champion_dict, new_run_id
from kfloop.core.run_endings import conclusion, decided
from kfloop.core.state.standing import active_overrides
from kfloop.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    ConfigError,
    KfloopError,
    LeaseHeldError,
    TerminalError,
    TransientError,
    nearest,
)
from kfloop.pipelines.arguments import ROUND_SECTIONS, gate_section, pipeline_arguments
from kfloop.pipelines.local import code_digest, run_folder, run_pipeline
from kfloop.pipelines.repeating import Repeated, lapsed, same_round

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kfloop.components.ingest.sources import SourceInfo
    from kfloop.core.config import LoopConfig
    from kfloop.core.state import State
    from kfloop.core.workspace import Workspace

STEPS_OF_ANY_DATA = ("ingest", "validate_data", "check_labels")
PARTS = (*STEPS_OF_ANY_DATA, "train", "package", "incumbent", "evaluate", "bless", "gate")
PAIRS = {"conflicting": "are alike but labelled differently", "leaking": "leak across splits"}
WITHOUT_ROWS = ("nodes", "graphs")
NAMED_VERSIONS = (
    "torch",
    "pytorch-lightning",
    "kfp",
    "mlflow",
    "dvc",
    "great-expectations",
    "onnxruntime",
    "tritonclient",
)


@dataclass(frozen=True, kw_only=True)
class Loop:
    """An opened loop: configuration, places, state."""

    config: LoopConfig
    workspace: Workspace
    state: State


def open_loop(path: Path) -> Loop:
    """Open the loop of a loop file.

    Raises:
        ConfigError: The file is missing or wrong.
        StateError: Its state is corrupt.
    """
    from kfloop.core.config import load_config

    config = load_config(path)
    workspace = config.workspace(path.resolve().parent)
    from kfloop.core.state import open_state

    return Loop(config=config, workspace=workspace, state=open_state(workspace.state))


def training_round(
    path: Path,
    *,
    force: bool = False,
    until: str | None = None,
    progress: Callable[[list[StepRecord]], None] | None = None,
) -> RunRecord:
    """One training round.

    Args:
        path: The loop file.
        force: Run even when the same configuration, data and code were decided on before.
        until: Last step to run; null means the whole round.
        progress: Called with all steps whenever one changed.

    Returns:
        The closed record; ``exit_code`` tells how it ended.

    Raises:
        ConfigError: The loop file is wrong, or its model family cannot learn from such data; nothing was written.
        InputError: The data cannot be used; nothing was written.
        LeaseHeldError: Another run of the loop is at work.
    """
    from kfloop.components.ingest.sources import inspect
    from kfloop.core.config import load_config

    if until is not None and until not in PARTS:
        raise ConfigError(f"--until: no step is called '{until}'", hint=nearest(until, PARTS))
    config = load_config(path)
    source = inspect(config.data)  # before the loop is opened: bad data leave nothing behind
    if until not in STEPS_OF_ANY_DATA:
        _refuse_untrainable(config, source)
    loop = open_loop(path)
    record = _new_record(loop, "training", source.digest)
    record.until, record.forced = until, force
    with _held(loop, record):
        # A part of a round decides nothing, so it neither repeats a decision nor is repeated.
        fingerprint = "" if until else _fingerprint(loop, source.digest)
        repeated = None if force or until else same_round(loop, fingerprint)
        if repeated is not None:
            return _repeat(loop, record, repeated)
        note = "" if until else lapsed(loop, fingerprint)
        return _round(loop, record, fingerprint, progress, note)


def monitoring_round(
    path: Path, *, retrain: str | None = None, progress: Callable[[list[StepRecord]], None] | None = None
) -> RunRecord:
    """One monitoring round, with the training round it triggers.

    Args:
        path: The loop file.
        retrain: Why somebody wants a retraining whatever the evidence says; null leaves it to the evidence.
        progress: Called with all steps whenever one changed.

    Raises:
        ConfigError: The loop file is wrong.
    """
    loop = open_loop(path)
    if retrain is not None:
        monitor = loop.config.monitor.model_copy(update={"retrain": retrain})
        loop = replace(loop, config=loop.config.model_copy(update={"monitor": monitor}))
    record = _new_record(loop, "monitoring", "")
    try:
        with _held(loop, record):
            record.rollout = _advance(loop)
            record.champion["before"] = champion_dict(loop.state.ledger.champion(record.loop))
            return _round(loop, record, "", progress)
    except LeaseHeldError as busy:
        reason = f"{busy.message}; the log is read by the next round"
        record.trigger = {"outcome": "in_flight", "reason": reason}
        record.message = f"in_flight: {reason}"
        champion = loop.state.ledger.champion(record.loop)
        loop.state.triggers.add(
            record.loop,
            run_id=record.run_id,
            trigger="in_flight",
            reason=reason,
            champion_digest=champion.model_digest if champion else "",
            fingerprint="",
        )
        loop.state.runs.start(record.run_id, record.loop, record.pipeline, "", record.as_dict())
        return _close(loop, record, "succeeded", EXIT_DONE)


def _advance(loop: Loop) -> dict[str, Any] | None:
    """Look at the roll-out that goes on; one that cannot be looked at now is told, and keeps nobody from watching the champion."""
    from kfloop.components.deploy.advancing import advance
    from kfloop.components.deploy.looking import story

    try:
        told = advance(loop.workspace, actor="kfloop monitor")
    except KfloopError as error:
        return {"outcome": "failed", "reason": error.message}
    names = ("outcome", "reason", "version", "champion_version", "mode", "requests", "ledger_row")
    if told.outcome == "none":
        return None
    return (story(loop.workspace, told.ledger_row) or {}) | {name: getattr(told, name) for name in names}


def _refuse_untrainable(config: LoopConfig, source: SourceInfo) -> None:
    """Say before the first step what the train step could only say after minutes.

    Raises:
        ConfigError: ``train.family`` does not learn this from such data.
    """
    from kfloop.core.families import choose_family, objective_of

    train = config.train
    if train.external is not None:
        if source.modality in WITHOUT_ROWS:
            raise ConfigError(
                f"train.external is set, but this loop has {source.modality} data: their rows cannot be sent one by one",
                hint="train a family of kfloop's own, or a model of yours (train.model)",
            )
    elif train.model is None and train.finetune is None:
        choose_family(source.modality, objective_of(source.task, train.family), train.family)


@contextlib.contextmanager
def _held(loop: Loop, record: RunRecord) -> Iterator[None]:
    """Hold the lease, finish or withdraw what a crash left, and note the champion at the start."""
    from kfloop.components.deploy.recovery import recover

    with loop.state.leases.acquire(record.loop, record.run_id):
        loop.state.runs.abandon(record.loop)
        try:
            recover(loop.workspace, loop.config.deploy)
        except TransientError as away:
            # A training would be judged against a champion that is about to change; the present one is to be watched meanwhile.
            if record.pipeline != "monitoring":
                raise
            record.substitutes.append(f"nothing was recovered before this round: {away.message}")
        champion = champion_dict(loop.state.ledger.champion(record.loop))
        record.champion = {"before": champion, "after": champion}
        lasting = active_overrides(loop.state.ledger.history(record.loop))
        record.overrides = [override.as_dict() for override in lasting]
        yield


def _new_record(loop: Loop, pipeline: str, source_digest: str) -> RunRecord:
    record = RunRecord(
        run_id=new_run_id(),
        loop=loop.config.name,
        pipeline=pipeline,
        config_digest=loop.config.digest(),
        source_digest=source_digest,
    )
    record.versions |= {name: importlib.metadata.version(name) for name in NAMED_VERSIONS}
    return record


def _fingerprint(loop: Loop, source_digest: str) -> str:
    """What a decision rests on, apart from the champion: configuration, overrides that last, data, code."""
    sections = {name: loop.config.section(key).model_dump(mode="json") for name, key in ROUND_SECTIONS.items()}
    # Champions and who was turned down change with what the round itself does: ``same_round`` asks the ledger for them.
    gate = gate_section(loop.config, loop.workspace)
    sections["gate_config"] = gate.model_dump(mode="json", exclude={"champion_row", "turned_down"})
    return sha256_text(
        canonical_json([sections, source_digest, code_digest(), own_digest(loop.config.train, loop.workspace.root)])
    )


def _repeat(loop: Loop, record: RunRecord, repeated: Repeated) -> RunRecord:
    """Close a record that has nothing new to tell: the decision of the same round stands."""
    earlier = repeated.record
    record.repeated_of = earlier["run_id"]
    record.steps = [
        StepRecord(**(step | {"status": "cached" if step["status"] == "succeeded" else step["status"], "seconds": 0.0}))
        for step in earlier["steps"]
    ]
    for name in ("decision", "trigger", "digests", "report"):
        setattr(record, name, earlier[name])
    record.message = repeated.message
    loop.state.runs.start(record.run_id, record.loop, record.pipeline, "", record.as_dict())
    return _close(loop, record, "nothing_new", repeated.exit_code)


def _round(
    loop: Loop,
    record: RunRecord,
    fingerprint: str,
    progress: Callable[[list[StepRecord]], None] | None,
    note: str = "",
) -> RunRecord:
    """Run the pipeline of ``record`` and close it, whatever happens; ``note`` says why an earlier decision does not answer."""
    loop.state.runs.start(record.run_id, record.loop, record.pipeline, fingerprint, record.as_dict())

    def follow(steps: list[StepRecord]) -> None:
        record.steps = steps  # what is told of a round that does not come to its end
        if progress is not None:
            progress(steps)

    try:
        arguments = pipeline_arguments(record.pipeline, loop.config, loop.workspace)
        finished = run_pipeline(
            record.pipeline,
            arguments,
            loop.workspace,
            loop.state,
            record.run_id,
            follow,
            record.until,
            own_digest(loop.config.train, loop.workspace.root),
        )
    except KfloopError as error:
        record.error = error.as_dict()
        record.message = error.message
        record.steps = _as_ended(record.steps)
        return _close(loop, record, "failed", error.exit_code)
    except KeyboardInterrupt:
        record.message = "interrupted; finished steps are kept, the same command goes on from there"
        record.steps = _as_ended(record.steps)
        return _close(loop, record, "cancelled", EXIT_FAILED)
    record.steps = finished.steps
    record.substitutes += [finished.left_out] if finished.left_out else []
    record.digests = {step.name: step.artifact["digest"] for step in finished.steps if step.artifact}
    record.cost = {"cpu_seconds": sum(step.cpu_seconds for step in finished.steps)}
    record.champion["after"] = champion_dict(loop.state.ledger.champion(record.loop))
    record.trigger = conclusion(finished.steps, "monitor")
    record.decision = conclusion(finished.steps, "gate")
    failed = next((step for step in finished.steps if step.status == "failed"), None)
    if failed is not None or finished.returncode != 0:
        record.error = (failed.error if failed else None) or TerminalError(
            f"the local runner ended with status {finished.returncode}", hint=f"see {finished.log}"
        ).as_dict()
        record.message = f"step '{failed.name}': {record.error['message']}" if failed else record.error["message"]
        return _close(loop, record, "failed", record.error.get("exit_code", EXIT_FAILED))
    if record.until:
        record.message = _found(record)
        return _close(loop, record, "succeeded", EXIT_DONE)
    status, code, message = decided(record)
    record.message = message + (f" ({note}, so this was decided again)" if note else "")
    return _close(loop, record, status, code)


def _as_ended(steps: list[StepRecord]) -> list[StepRecord]:
    """The steps of a round that was cut short: what was at work or waited did not run."""
    return [replace(step, status="not_run") if step.status in {"running", "waiting"} else step for step in steps]


def _found(record: RunRecord) -> str:
    """What a part of a round found, in a sentence."""
    reports = {step.name: read_report(Path(step.artifact["path"])) for step in record.steps if step.artifact}
    results = reports.get("validate_data", {}).get("results", [])
    warned = sum(result["word"] != "pass" for result in results)
    parts = [f"expectations of the validation that were not met: {warned}"] if warned else []
    labels = reports.get("check_labels")
    if labels is None:
        return ", ".join([f"every step up to {record.until} succeeded", *parts])
    flagged = f"{labels['n_flagged']} of {labels['n']} labels are probably wrong"
    parts.insert(0, flagged if labels["n"] else "no labels to check")
    pairs = labels.get("duplicates") or {}
    parts += [f"pairs of rows that {what}: {pairs[key]}" for key, what in PAIRS.items() if pairs.get(key)]
    return ", ".join(parts) + ("; ask people: kfloop review export" if labels["n_flagged"] else "")


def _close(loop: Loop, record: RunRecord, status: str, exit_code: int) -> RunRecord:
    """Close the record in state, and write it beside the run's log."""
    record.status, record.exit_code = status, exit_code
    record.finished = time.time()
    record.seconds = record.finished - record.started
    save_record(loop, record)
    return record


def save_record(loop: Loop, record: RunRecord) -> None:
    """Write the record to state and, as ``record.json``, into the run's folder (atomically)."""
    loop.state.runs.finish(record.run_id, record.status, record.as_dict())
    folder = run_folder(loop.workspace, record.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / ".record.json.tmp"
    staging.write_text(json.dumps(record.as_dict(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    staging.replace(folder / "record.json")
