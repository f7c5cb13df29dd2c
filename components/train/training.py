"""The core of ``train``: a dataset version and its label check in, the best checkpoint and its learning curve out."""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.components.train.resuming import exclusive, last_good, work_folder, work_root
from kfloop.core.artifacts import folder_digest, read_report, write_report
from kfloop.core.families import NetworkSpec
from kfloop.errors import KfloopError, TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kfloop.components.train.curves import LearningCurve
    from kfloop.components.train.examples import Examples
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
        epochs: Epochs trained, resumed ones included.
        best_epoch: Epoch (from 0) with the lowest validation loss; its weights are in the checkpoint.
        history: Learning curve, one row per epoch.
        parameters: Trainable parameters.
        seconds: Wall time of this process, after imports.
        device: ``cpu`` or ``cuda``.
        seed: Seed of the training.
        resumed_from_epoch: Whole epochs taken over from an interrupted training; null when it started anew.
        mlflow_run_id: The MLflow run.
        dataset_digest: Dataset version.
        labels_digest: Label check.
        n_train: Rows learned from.
        n_quarantined: Training rows left out.
        labels_shuffled: Whether the labels were permuted on purpose.
        work: Name of the work folder, which goes when the checkpoint has been published.
    """

    family: str
    epochs: int
    best_epoch: int
    history: list[dict[str, Any]]
    parameters: int
    seconds: float
    device: str
    seed: int
    resumed_from_epoch: int | None
    mlflow_run_id: str
    dataset_digest: str
    labels_digest: str
    n_train: int
    n_quarantined: int
    labels_shuffled: bool
    work: str


def run(config: TrainConfig, *, dataset: Path, labels: Path, out: Path, workspace: Workspace) -> TrainReport:
    """Train the challenger; after a kill the same call goes on from the last good epoch.

    Args:
        config: Section ``train``.
        dataset: Dataset version.
        labels: Output of ``check_labels``.
        out: Empty folder for ``model.ckpt``, ``train_content.txt`` and ``report.json``.
        workspace: The loop's places.

    Raises:
        TerminalError: The loss is not finite, the disk is full, a class has no rows, or no GPU where one is asked for.
        StateError: MLflow's store cannot be used, or the label check does not fit the dataset.
        TransientError: The same training is running in another process.
    """
    from kfloop.components.train.examples import normalisation, plain_examples, training_examples, with_shuffled_labels
    from kfloop.components.train.tracking import Tracker
    from kfloop.core.families.checkpoints import save_checkpoint
    from kfloop.core.versions import read_version

    started = time.monotonic()
    version = read_version(dataset)
    split = version.split("train")
    train = training_examples(split, labels, version.labels, balance_origins=config.balance_origins)
    validation = plain_examples(version.split("validation"))
    (out / TRAIN_CONTENT).write_text("".join(f"{line}\n" for line in sorted(set(train.content.tolist()))))
    if config.shuffle_labels:
        logger.warning("train.shuffle_labels is on: this challenger learns noise, on purpose")
        train = with_shuffled_labels(train, config.seed)
    mean, std = normalisation(train.images)
    spec = NetworkSpec(
        family=config.family, image_shape=version.image_shape, labels=tuple(version.labels), mean=mean, std=std
    )
    labels_digest = folder_digest(labels)
    work = work_folder(workspace, config, version.digest, labels_digest)
    with _room_on_disk(work), exclusive(work):
        resume = last_good(work)
        tracker = Tracker(workspace, work)
        tracker.parameters(config.model_dump() | {"dataset_digest": version.digest, "labels_digest": labels_digest})
        curve, parameters, device = _tracked_fit(tracker, spec, train, validation, config, work, resume)
        save_checkpoint(out / CHECKPOINT, spec, curve.best_weights)
        report = TrainReport(
            family=config.family,
            epochs=len(curve.history),
            best_epoch=curve.best_epoch,
            history=curve.history,
            parameters=parameters,
            seconds=time.monotonic() - started,
            device=device,
            seed=config.seed,
            resumed_from_epoch=resume.epochs_done if resume else None,
            mlflow_run_id=tracker.run_id,
            dataset_digest=version.digest,
            labels_digest=labels_digest,
            n_train=len(train),
            n_quarantined=len(split.ids) - len(train),
            labels_shuffled=config.shuffle_labels,
            work=work.name,
        )
        write_report(out, report)
        tracker.end("FINISHED")
    return report


def after_publish(path: Path, workspace: Workspace) -> None:
    """Remove the work folder, now that the checkpoint is safe in the store.

    Args:
        path: The published checkpoint.
        workspace: The loop's places.
    """
    work = work_root(workspace) / str(read_report(path)["work"])
    shutil.rmtree(work, ignore_errors=True)


def _tracked_fit(
    tracker: Tracker,
    spec: NetworkSpec,
    train: Examples,
    validation: Examples,
    config: TrainConfig,
    work: Path,
    resume: ResumePoint | None,
) -> tuple[LearningCurve, int, str]:
    """Fit, and mark the MLflow run as failed when that fails."""
    from kfloop.components.train.fitting import fit

    if resume is not None:
        logger.info("training goes on after %d whole epochs found in '%s'", resume.epochs_done, work)
    try:
        return fit(spec, train, validation, config, work=work, resume=resume, listen=tracker.epoch)
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
            hint="free disk space and run again: the training goes on from its last whole epoch",
            work=str(work),
        ) from error
