"""Several processes on this machine: torchrun is started, followed, told to stop, and its failure put into words."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from kfloop import errors
from kfloop.core.lifetime import RUN_PID_VARIABLE, bind_to_run
from kfloop.core.sections import TrainConfig
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, KfloopError, TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

LAST_LINES = 12  # of the processes' output, in the message when nothing better is known
LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARNING": logging.WARNING, "ERROR": logging.ERROR}
logger = logging.getLogger("kfloop")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training, as the file of ``--config`` describes it.

    Attributes:
        config: Section ``train``.
        dataset: Dataset version.
        labels: Output of ``check_labels``.
        out: Folder of the result.
        workspace: The loop's places.
    """

    config: TrainConfig
    dataset: Path
    labels: Path
    out: Path
    workspace: Workspace

    def write(self, path: Path) -> None:
        """Write the file of ``--config``."""
        plain = {
            "config": self.config.model_dump(mode="json"),
            "dataset": str(self.dataset.absolute()),
            "labels": str(self.labels.absolute()),
            "out": str(self.out.absolute()),
            "workspace": json.loads(self.workspace.to_json()),
        }
        path.write_text(json.dumps(plain, indent=2), encoding="utf-8")


def read_job(path: Path) -> Job:
    """The job in the file of ``--config``.

    Raises:
        ConfigError: There is no such file, or it is no job.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is no JSON: {error}"
        raise ConfigError(f"the job file '{path}' cannot be read: {reason}", hint=HINT) from error
    if not isinstance(plain, dict) or set(plain) != set(Job.__annotations__):
        found = sorted(plain) if isinstance(plain, dict) else type(plain).__name__
        raise ConfigError(f"the job file '{path}' has {found}, expected {sorted(Job.__annotations__)}", hint=HINT)
    try:
        config = TrainConfig.model_validate(plain["config"])
        workspace = Workspace.from_json(json.dumps(plain["workspace"]))
        folders = {key: Path(plain[key]) for key in ("dataset", "labels", "out")}
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(["config", *map(str, problem["loc"])])
        raise ConfigError(f"the job file '{path}': {where} is {problem['input']!r}: {problem['msg']}") from error
    except (TypeError, KeyError, ValueError) as error:
        raise ConfigError(f"the job file '{path}' is wrong: {error}", hint=HINT) from error
    for key in ("dataset", "labels"):
        if not folders[key].is_dir():
            raise ConfigError(f"the job file '{path}': {key} '{folders[key]}' is no folder", hint=HINT)
    return Job(config=config, workspace=workspace, **folders)


HINT = "see: python -m kfloop.components.train --help"


def launch(job: Job) -> None:
    """Run a job in ``processes`` processes of this machine, and wait for it.

    Raises:
        KfloopError: What ended the training, in the words of the process where it happened.
    """
    with tempfile.TemporaryDirectory(prefix="kfloop-train-") as folder:
        file = Path(folder) / "job.json"
        job.write(file)
        config = job.config
        command = [
            *(sys.executable, "-m", "kfloop.components.train.launching"),
            *("--standalone", "--nproc-per-node", str(config.processes), "--max-restarts", str(config.restarts)),
            *("-m", "kfloop.components.train", "--config", str(file)),
        ]
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // config.processes))
        environment = os.environ | {RUN_PID_VARIABLE: str(os.getpid()), "OMP_NUM_THREADS": threads}
        lines: deque[str] = deque(maxlen=LAST_LINES)
        with _started(command, environment) as agent, _forwarded(agent) as stopped:
            for line in agent.stdout or ():
                _tell(line.rstrip("\n"), lines)
            agent.wait()
        if not agent.returncode:
            return
        if (error := told_error(file)) is not None:
            raise error
        if stopped:  # in its first seconds, or between two starts: nobody was there to write a checkpoint
            raise TransientError(
                "told to stop (SIGTERM) while the training processes were starting",
                hint="run the same command again: the training goes on from its last checkpoint",
            )
        raise TransientError(
            f"the {config.processes} training processes ended with status {agent.returncode}",
            hint="run again: the training goes on from its last checkpoint. Their last words: " + " | ".join(lines),
        )


@contextlib.contextmanager
def _started(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start torchrun in a session of its own, which ends with this block however that ends."""
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as agent:
        try:
            yield agent
        finally:
            if agent.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(agent.pid, signal.SIGKILL)  # its processes end when it does


@contextlib.contextmanager
def _forwarded(agent: subprocess.Popen[str]) -> Iterator[list[int]]:
    """Pass SIGTERM on to torchrun, which passes it on to its processes; they write a checkpoint and end. Gives what was passed on."""
    passed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield passed
        return

    def forward(number: int, frame: object) -> None:
        del frame
        passed.append(number)
        agent.send_signal(number)

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield passed
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(line: str, lines: deque[str]) -> None:
    """Hand a line of the processes to our own log; what is not of kfloop is kept for the error message."""
    level, _, message = line.partition(" ")
    if level in LEVELS:
        logger.log(LEVELS[level], "%s", message)
    elif line.strip():
        lines.append(line.strip())
        logger.debug("%s", line)


def write_error(job_file: Path, rank: int, error: KfloopError) -> None:
    """Leave the reason beside the job, for whoever started the processes."""
    with contextlib.suppress(OSError):  # the disk may be what is full
        _error_file(job_file, rank).write_text(json.dumps(error.as_dict(), default=str), encoding="utf-8")


def forget_error(job_file: Path, rank: int, world: int = 1) -> None:
    """A new start: what ended this process before is past, and that of every ``world``-th after it, from a larger group of earlier."""
    for path in job_file.parent.glob(f"{job_file.name}.error.*"):
        told = path.suffix.removeprefix(".")
        if told.isdigit() and int(told) % world == rank:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def told_error(job_file: Path) -> KfloopError | None:
    """The first error that the processes of a job left behind; one that is final goes before one that is not."""
    found: list[tuple[bool, float, dict[str, Any]]] = []
    for path in job_file.parent.glob(f"{job_file.name}.error.*"):
        with contextlib.suppress(OSError, ValueError):
            plain = json.loads(path.read_text(encoding="utf-8"))
            found.append((plain["transient"], path.stat().st_mtime, plain))
    if not found:
        return None
    plain = min(found, key=lambda item: item[:2])[2]
    kinds = {
        kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, KfloopError)
    }
    kind = kinds.get(plain["code"], TerminalError)
    return kind(plain["message"], hint=plain["hint"], **plain["data"])


def _error_file(job_file: Path, rank: int) -> Path:
    return job_file.with_name(f"{job_file.name}.error.{rank}")


if __name__ == "__main__":  # torchrun, tied to the process that started it
    bind_to_run()
    from torch.distributed.run import main

    main(sys.argv[1:])
