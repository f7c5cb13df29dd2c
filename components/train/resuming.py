"""The work folder of a training, which survives a kill, and the last good checkpoint in it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import canonical_json, sha256_text
from kfloop.core.families.checkpoints import read_tensors
from kfloop.errors import StateError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kfloop.core.sections import TrainConfig
    from kfloop.core.workspace import Workspace

CURVE = "LearningCurve"  # the callback whose state tells whole epochs from interrupted ones
FORMAT = 1  # raise it when a checkpoint of the older code must not be continued
logger = logging.getLogger("kfloop")


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """A checkpoint from which training can go on.

    Attributes:
        path: The Lightning checkpoint.
        epochs_done: Whole epochs behind it; also the number of the next one.
        stopped: Whether early stopping had already ended the training.
    """

    path: Path
    epochs_done: int
    stopped: bool


def work_root(workspace: Workspace) -> Path:
    """Folder of all unfinished trainings of a loop."""
    return workspace.kfloop_dir / "work" / "train"


def work_folder(workspace: Workspace, config: TrainConfig, dataset_digest: str, labels_digest: str) -> Path:
    """Folder of this very training: another config, dataset or label check has another one."""
    identity = {
        "format": FORMAT,
        "config": config.model_dump(mode="json"),
        "dataset": dataset_digest,
        "labels": labels_digest,
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
    """The checkpoint with the most whole epochs that can be read; damaged ones are removed.

    A checkpoint written in the middle of an epoch (on an exception) is passed over for the end of the epoch before it:
    from there the rest of the training is exactly what it would have been.
    """
    best: ResumePoint | None = None
    for path in sorted(work.glob("*.ckpt")):
        try:
            content = read_tensors(path)
            point = _resume_point(path, content)
        except (StateError, KeyError, TypeError, AttributeError) as error:
            logger.warning("checkpoint '%s' is damaged (%s), taking the one before it", path.name, error)
            path.unlink(missing_ok=True)
            continue
        if point is not None and (best is None or point.epochs_done > best.epochs_done):
            best = point
    return best


def _resume_point(path: Path, content: dict[str, Any]) -> ResumePoint | None:
    history = content["callbacks"][CURVE]["history"]
    if len(history) != content["epoch"] + 1:
        return None
    stopped = any(
        name.startswith("EarlyStopping") and state["stopped_epoch"] > 0 for name, state in content["callbacks"].items()
    )
    return ResumePoint(path=path, epochs_done=len(history), stopped=stopped)
