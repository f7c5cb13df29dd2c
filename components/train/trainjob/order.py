"""The order of a TrainJob: what shall be trained, under which name, and the folder on the shared volume where order and result lie."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.components.train.launching import Job, told_error, write_error
from kfloop.components.train.resuming import work_folder
from kfloop.components.train.training import CHECKPOINT, TRAIN_CONTENT
from kfloop.core.artifacts import canonical_json, folder_digest, read_report, sha256_text
from kfloop.core.versions import read_version
from kfloop.core.workspace import run_id
from kfloop.errors import ConfigError, KfloopError, StateError

if TYPE_CHECKING:
    from kfloop.core.sections import LauncherConfig, TrainConfig

JOB_FILE = "job.json"
STARTED = "started.json"
LAUNCHER = "launcher"
logger = logging.getLogger("kfloop")


@dataclass(frozen=True, kw_only=True)
class Order:
    """One training for pods of their own.

    Attributes:
        name: Of the TrainJob: the same for the same run and the same training, so that a retry finds it.
        digest: Of everything that was ordered.
        run: Id of the run; empty outside of one.
        job: What is trained; ``out`` is in ``folder``.
        folder: Beside the training's checkpoints, on the volume that step and pods share.
        dataset_digest: Dataset version.
        labels_digest: Label check.
    """

    name: str
    digest: str
    run: str
    job: Job
    folder: Path
    dataset_digest: str
    labels_digest: str

    @classmethod
    def of(cls, job: Job) -> Order:
        """The order of a job.

        Raises:
            ConfigError: The pods would not see its folders, or lack the GPU that is asked for.
        """
        launcher = job.config.launcher
        dataset_digest, labels_digest = read_version(job.dataset).digest, folder_digest(job.labels)
        work = work_folder(job.workspace, job.config, dataset_digest, labels_digest)
        run = run_id()
        plain = {
            "run": run,
            "work": work.name,
            "config": job.config.model_dump(mode="json"),
            "dataset": str(job.dataset),
            "labels": str(job.labels),
            "workspace": json.loads(job.workspace.to_json()),
        }
        digest = sha256_text(canonical_json(plain))
        name = f"train-{re.sub(r'[^a-z0-9]', '', run.lower())[:8] or 'alone'}-{digest[:12]}"
        _refuse_unseen(launcher, {"dataset": job.dataset, "labels": job.labels, "workspace": job.workspace.root})
        folder = work / "trainjobs" / name
        told = Job(
            config=_told(job.config),
            dataset=job.dataset,
            labels=job.labels,
            out=folder / "out",
            workspace=job.workspace,
        )
        return cls(
            name=name,
            digest=digest,
            run=run,
            job=told,
            folder=folder,
            dataset_digest=dataset_digest,
            labels_digest=labels_digest,
        )

    @property
    def file(self) -> Path:
        """The job file that each pod reads."""
        return self.folder / JOB_FILE

    def write(self) -> None:
        """Write the order anew, and forget what pods of an earlier one left; their checkpoints stay."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.job.out.mkdir(parents=True)
        self.job.write(self.file)

    def error(self) -> KfloopError | None:
        """What ended the training, in the words of the process where it happened; null where none told."""
        return told_error(self.file)

    def give_up(self, error: KfloopError) -> None:
        """Keep what ended this order for good, for a retry of the launcher in the same run."""
        write_error(self.folder / LAUNCHER, 0, error)

    def given_up(self) -> KfloopError | None:
        """What ended this order for good; null where nothing did. Outside of a run nobody retries: a person starts anew."""
        return told_error(self.folder / LAUNCHER) if self.run else None

    def started(self, uid: str, running: bool) -> float | None:
        """When the first pod of the TrainJob ran, in seconds since 1970; null before. It is kept on the volume: a retried launcher counts on."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads((self.folder / STARTED).read_text(encoding="utf-8"))
            if kept["uid"] == uid:
                return float(kept["started"])
        if not running:
            return None
        now = time.time()
        with contextlib.suppress(OSError):
            (self.folder / STARTED).write_text(json.dumps({"uid": uid, "started": now}), encoding="utf-8")
        return now

    def check_result(self) -> dict[str, Any]:
        """The report of the training, after a look at the files beside it.

        Raises:
            StateError: It is missing, broken, or of another training.
        """
        hint = (
            f"is the volume at '{self.job.config.launcher.mount}' the same for the step and for the pods? "
            "The next attempt trains anew from the last checkpoint"
        )
        try:
            report = read_report(self.job.out)
        except (OSError, ValueError, TypeError) as error:
            raise StateError(
                f"TrainJob '{self.name}' is complete, but its report in '{self.job.out}' cannot be read: {error}",
                hint=hint,
            ) from error
        wanted = {"dataset_digest": self.dataset_digest, "labels_digest": self.labels_digest}
        strange = [key for key, value in wanted.items() if report.get(key) != value]
        if strange:
            key = strange[0]
            raise StateError(
                f"TrainJob '{self.name}' is complete, but its report has {key} {report.get(key)!r}, expected {wanted[key]!r}",
                hint=hint,
            )
        try:
            (self.job.out / TRAIN_CONTENT).stat()
            with zipfile.ZipFile(
                self.job.out / CHECKPOINT
            ) as archive:  # its CRCs alone: this pod need not hold the weights
                damaged = archive.testzip()
        except FileNotFoundError as error:
            raise StateError(
                f"TrainJob '{self.name}' is complete, but there is no '{error.filename}'", hint=hint
            ) from error
        except (OSError, EOFError, zipfile.BadZipFile) as error:
            raise StateError(
                f"TrainJob '{self.name}' is complete, but its '{CHECKPOINT}' cannot be read: {error}", hint=hint
            ) from error
        if damaged is not None:
            raise StateError(
                f"TrainJob '{self.name}' is complete, but '{CHECKPOINT}' is damaged at record '{damaged}'", hint=hint
            )
        return report

    def deliver(self, out: Path) -> None:
        """Copy the result to where the step gives it. It stays here too, until the step has published it: a retry takes it again."""
        shutil.copytree(self.job.out, out, dirs_exist_ok=True)


def _told(config: TrainConfig) -> TrainConfig:
    """The config of the pods: where GPUs are ordered, a pod without one is an error and no slow training on the CPU."""
    if config.launcher.gpus == 0 and config.accelerator == "gpu":
        raise ConfigError(
            "train.accelerator is 'gpu', but train.launcher.gpus is 0", hint="say how many GPUs each pod shall have"
        )
    return config.model_copy(update={"accelerator": "gpu"}) if config.launcher.gpus else config


def _refuse_unseen(launcher: LauncherConfig, folders: dict[str, Path]) -> None:
    """Refuse a folder that is not below a path where the pods have a volume."""
    mounts = [Path(launcher.mount)] if launcher.claim is not None else []
    mounts += [Path(str(mount["mountPath"])) for mount in launcher.volume_mounts if "mountPath" in mount]
    for name, folder in folders.items():
        if not any(folder.absolute().is_relative_to(mount) for mount in mounts):
            listed = ", ".join(f"'{mount}'" for mount in mounts) or "nothing"
            raise ConfigError(
                f"the pods of the TrainJob would not see the {name} at '{folder.absolute()}': they have a volume at {listed}",
                hint="set train.launcher.mount to where the shared volume is mounted in the step's own pod, or add volumes and volume_mounts",
            )
