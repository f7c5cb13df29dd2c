"""The core of ``train``: a dataset version and its label check in, the best checkpoint and its learning curve out."""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kfloop.components.train.resuming import NOT_IDENTITY, exclusive, last_good, work_folder, work_root
from kfloop.core.artifacts import folder_digest, read_report, write_report
from kfloop.errors import KfloopError, TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytorch_lightning import Callback

    from kfloop.components.train.curves import LearningCurve
    from kfloop.components.train.group import Group
    from kfloop.components.train.preparing import Prepared
    from kfloop.components.train.resuming import ResumePoint
    from kfloop.components.train.tracking import Tracker
    from kfloop.core.sections import TrainConfig
    from kfloop.core.workspace import Workspace

CHECKPOINT = "model.ckpt"
TRAIN_CONTENT = "train_content.txt"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
logger = logging.getLogger("kfloop")


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What a training did.

    Attributes:
        family: Model family.
        objective: What was learned.
        modality: What an example is.
        plan: Every hyper-parameter, the ones chosen from the data included.
        options: Those of the family, defaults included.
        epochs: Epochs trained, resumed ones included.
        best_epoch: Epoch (from 0) with the lowest validation loss; its weights are in the checkpoint.
        history: Learning curve, one row per epoch.
        parameters: Parameters of the network, frozen ones included.
        seconds: Wall time of this process, after imports.
        throughput: Speed, waiting, memory and cost, see ``Watch.summary``.
        device: ``cpu`` or ``cuda``.
        processes: Processes that trained together.
        seed: Seed of the training.
        resumed_from_epoch: Whole epochs taken over from an interrupted training; null when it started anew.
        mlflow_run_id: The MLflow run.
        dataset_digest: Dataset version.
        labels_digest: Label check.
        n_train: Rows learned from.
        n_quarantined: Training rows left out.
        labels_shuffled: Whether the labels were permuted on purpose.
        work: Name of the work folder, which goes when the checkpoint has been published.
        trials: What a search tried first; empty without one.
    """

    family: str
    objective: str
    modality: str
    plan: dict[str, Any]
    options: dict[str, Any]
    epochs: int
    best_epoch: int
    history: list[dict[str, Any]]
    parameters: int
    seconds: float
    throughput: dict[str, Any]
    device: str
    processes: int
    seed: int
    resumed_from_epoch: int | None
    mlflow_run_id: str
    dataset_digest: str
    labels_digest: str
    n_train: int
    n_quarantined: int
    labels_shuffled: bool
    work: str
    trials: list[dict[str, Any]]


def run(config: TrainConfig, *, dataset: Path, labels: Path, out: Path, workspace: Workspace) -> TrainReport:
    """Train the challenger; after a kill the same call goes on from the last good checkpoint. A model that somebody else serves is described.

    Several processes are started by torchrun, or by a TrainJob in pods of their own, unless this is already one of them.

    Args:
        config: Section ``train``.
        dataset: Dataset version.
        labels: Output of ``check_labels``.
        out: Empty folder for ``model.ckpt``, ``train_content.txt`` and ``report.json``.
        workspace: The loop's places.

    Returns:
        What the training did; only the first process has the weights, and writes ``out``.

    Raises:
        TerminalError: The loss is not finite, the disk is full, a class has no rows, or no GPU where one is asked for.
        StateError: MLflow's store cannot be used, or the label check does not fit the dataset.
        TransientError: The same training is running in another process, or this one was told to stop.
    """
    from kfloop.components.train.group import Group

    workspace.find_modules()
    if config.external is not None:
        from kfloop.components.train.describing import describe

        return describe(config, config.external, dataset, labels, out, workspace)
    group = Group.here()
    if not group.launched and config.launcher.kind == "trainjob":
        from kfloop.components.train.launching import Job
        from kfloop.components.train.trainjob.launching import launch_train_job

        launch_train_job(Job(config=config, dataset=dataset, labels=labels, out=out, workspace=workspace))
        return TrainReport(**read_report(out))
    if not group.launched and (config.processes > 1 or config.strategy == "fsdp"):
        from kfloop.components.train.launching import Job, launch

        launch(Job(config=config, dataset=dataset, labels=labels, out=out, workspace=workspace))
        return TrainReport(**read_report(out))
    from kfloop.components.train.fitting import chosen_accelerator

    with group.connected("cuda" if chosen_accelerator(config.accelerator) == "gpu" else "cpu"):
        return _train(config, dataset, labels, out, workspace, group)


def _train(
    config: TrainConfig, dataset: Path, labels: Path, out: Path, workspace: Workspace, group: Group
) -> TrainReport:
    """Train on this process, one of ``group``."""
    from kfloop.components.train.grids import GRID, Grids, save_grid
    from kfloop.components.train.preparing import prepare
    from kfloop.components.train.watching import Watch
    from kfloop.core.families.checkpoints import load_checkpoint, save_checkpoint
    from kfloop.core.progress import ProgressTeller
    from kfloop.core.versions import read_version

    started = time.monotonic()
    version = read_version(dataset)
    prepared = prepare(config, version, labels)
    draws = prepared.spec.objective == "generation"
    if config.shuffle_labels and group.first:
        logger.warning("train.shuffle_labels is on: this challenger learns noise, on purpose")
    labels_digest = folder_digest(labels)
    work = work_folder(workspace, config, version.digest, labels_digest)
    with _room_on_disk(work), exclusive(work) if group.first else contextlib.nullcontext():
        resume = group.agree(last_good(work) if group.first else None)
        config, prepared, trials = _tuned(config, prepared, work, group)
        spec, train = prepared.spec, prepared.train
        digests = {"dataset_digest": version.digest, "labels_digest": labels_digest}
        tracker = _tracker(config, workspace, work, digests) if group.first else None
        watch = Watch(config, ProgressTeller(workspace, "train"))
        grids = [Grids(spec, prepared.plan.epochs, work, tracker.picture)] if tracker and draws else []
        curve, parameters, device = _tracked_fit(tracker, prepared, config, work, resume, group, [watch, *grids])
        throughput = watch.summary()
        report = TrainReport(
            family=spec.family,
            objective=spec.objective,
            modality=spec.modality,
            plan=asdict(prepared.plan),
            options=spec.options,
            epochs=len(curve.history),
            best_epoch=curve.best_epoch,
            history=curve.history,
            parameters=parameters,
            seconds=time.monotonic() - started,
            throughput=throughput,
            device=device,
            processes=group.world,
            seed=config.seed,
            resumed_from_epoch=resume.epochs_done if resume else None,
            mlflow_run_id=tracker.run_id if tracker else "",
            **digests,
            n_train=len(train),
            n_quarantined=prepared.n_quarantined,
            labels_shuffled=config.shuffle_labels,
            work=work.name,
            trials=trials,
        )
        if tracker is not None:
            content = sorted(set(train.content.tolist()))
            (out / TRAIN_CONTENT).write_text("".join(f"{line}\n" for line in content))
            save_checkpoint(out / CHECKPOINT, spec, prepared.encoder, curve.best_weights)
            if draws:
                save_grid(load_checkpoint(out / CHECKPOINT).network, spec, out / GRID)
            write_report(out, report)
            tracker.numbers({name: value for name, value in throughput.items() if value is not None})
            tracker.end("FINISHED")
    return report


def _tuned(
    config: TrainConfig, prepared: Prepared, work: Path, group: Group
) -> tuple[TrainConfig, Prepared, list[dict[str, Any]]]:
    """Batch size and other hyper-parameters that are looked for first, and what was tried; both go on after an interruption too."""
    if config.find_batch_size:
        from kfloop.components.train.batch_size import found_batch_size

        config, prepared = found_batch_size(prepared, config, work=work, group=group)
    if config.search is None:
        return config, prepared, []
    from kfloop.components.train.search import search

    found = search(prepared, config, work=work, group=group)
    return found.config, found.prepared, found.trials


def _tracker(config: TrainConfig, workspace: Workspace, work: Path, digests: dict[str, str]) -> Tracker:
    from kfloop.components.train.tracking import Tracker

    tracker = Tracker(workspace, work)
    values = config.model_dump() | digests
    tracker.parameters({key: value for key, value in values.items() if key not in NOT_IDENTITY})
    tracker.tags({key: values[key] for key in NOT_IDENTITY})
    return tracker


def after_publish(path: Path, workspace: Workspace) -> None:
    """Remove the work folder, now that the checkpoint is safe in the store.

    Args:
        path: The published checkpoint.
        workspace: The loop's places.
    """
    work = work_root(workspace) / str(read_report(path)["work"])
    shutil.rmtree(work, ignore_errors=True)


def _tracked_fit(
    tracker: Tracker | None,
    prepared: Prepared,
    config: TrainConfig,
    work: Path,
    resume: ResumePoint | None,
    group: Group,
    callbacks: Sequence[Callback],
) -> tuple[LearningCurve, int, str]:
    """Fit, and mark the MLflow run as failed when that fails."""
    from kfloop.components.train.fitting import fit

    if tracker is None:
        return fit(prepared, config, work=work, resume=resume, listen=None, group=group, callbacks=callbacks)
    if resume is not None:
        logger.info(
            "training goes on after %d whole epochs and %d batches, found in '%s'",
            resume.epochs_done,
            resume.batches_done,
            work,
        )
    try:
        return fit(prepared, config, work=work, resume=resume, listen=tracker.epoch, group=group, callbacks=callbacks)
    except BaseException:
        with contextlib.suppress(KfloopError):  # the first error is the one to tell
            tracker.end("FAILED")
        raise


@contextlib.contextmanager
def _room_on_disk(work: Path) -> Iterator[None]:
    """Say what to do when the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise TerminalError(
            f"no space left while training into '{work}': {error}",
            hint="free disk space and run again: the training goes on from its last checkpoint",
            work=str(work),
        ) from error
