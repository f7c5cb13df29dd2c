"""The work folder of a training, which survives a kill, and the last good checkpoint in it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kfloop.core.artifacts import canonical_json, sha256_text
from kfloop.core.families.checkpoints import read_tensors
from kfloop.core.own_code import own_digest
from kfloop.errors import StateError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kfloop.core.sections import TrainConfig
    from kfloop.core.workspace import Workspace

CHECKPOINT_STATE = "Checkpoints"  # the callback whose state says how far a checkpoint is
FORMAT = 2  # raise it when a checkpoint of the older code must not be continued
# How a training is computed, not what comes out of it: it may go on with other values of these.
NOT_IDENTITY = {
    "accelerator",
    "launcher",
    "processes",
    "strategy",
    "restarts",
    "checkpoint_minutes",
    "price_per_hour",
    "watts",
}
logger = logging.getLogger("kfloop")


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """A checkpoint from which training can go on.

    Attributes:
        path: The Lightning checkpoint.
        epochs_done: Whole epochs behind it; also the number of the epoch to go on with.
        batches_done: Batches of that epoch behind it.
    """

    path: Path
    epochs_done: int
    batches_done: int


def work_root(workspace: Workspace) -> Path:
    """Folder of all unfinished trainings of a loop."""
    return workspace.kfloop_dir / "work" / "train"


def work_folder(workspace: Workspace, config: TrainConfig, dataset_digest: str, labels_digest: str) -> Path:
    """Folder of this very training: another config, dataset, label check or module of the user has another one."""
    identity = {
        "format": FORMAT,
        "config": config.model_dump(mode="json", exclude=NOT_IDENTITY),
        "dataset": dataset_digest,
        "labels": labels_digest,
        "own": own_digest(config, workspace.root),
    }
    return work_root(workspace) / sha256_text(canonical_json(identity))


@contextlib.contextmanager
def exclusive(work: Path) -> Iterator[None]:
    """Hold the work folder; the lock ends with the process, however it ends.

    Raises:
        TransientError: Another process is training into the same folder.
    """
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TransientError(
                f"another process is running this same training in '{work}'",
                hint="wait for it, or end it; then run again and the training continues",
            ) from error
        yield


def last_good(work: Path) -> ResumePoint | None:
    """The furthest checkpoint that can be read; damaged ones after it are removed.

    Raises:
        TransientError: The disk or the share does not give one.
    """
    for path in sorted(work.glob("*.ckpt"), reverse=True):  # their names sort by progress
        try:
            progress = read_tensors(path)["callbacks"][CHECKPOINT_STATE]
            return ResumePoint(
                path=path, epochs_done=int(progress["epochs_done"]), batches_done=int(progress["batches_done"])
            )
        except (StateError, KeyError, TypeError, ValueError) as error:
            logger.warning("checkpoint '%s' is damaged (%s), taking the one before it", path.name, error)
            path.unlink(missing_ok=True)
        except OSError as error:  # which says nothing about what is in it
            raise TransientError(
                f"checkpoint '{path}' cannot be read at this moment: {error}",
                hint="check the disk or the share, then run again: the training goes on from there",
            ) from error
    return None
