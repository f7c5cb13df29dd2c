"""``python -m kfloop.components.train --config job.json``: the same training alone, under torchrun, and in a Kubeflow TrainJob."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from kfloop.components.train.group import Group
from kfloop.components.train.launching import forget_error, read_job, told_error, write_error
from kfloop.core.execution import prepare_process
from kfloop.core.lifetime import bind_to_parent
from kfloop.errors import KfloopError, TerminalError, TransientError

EXAMPLE = """
example of a job file:
  {"config": {"family": "mlp", "epochs": 5},
   "dataset": "store/datasets/sha256-...", "labels": "store/labels/sha256-...", "out": "checkpoint",
   "workspace": {"loop": "digits", "root": ".", "state": "", "store": "store", "mlflow": "sqlite:///mlflow.db"}}

one process:           python -m kfloop.components.train --config job.json
eight on this machine: torchrun --standalone --nproc-per-node 8 --max-restarts 3 -m kfloop.components.train --config job.json

Devices and nodes are torchrun's affair, so there is no option for them. After an interruption the same command goes on from the last
checkpoint. Exit status: 0 done, 1 failed, 2 the job file is wrong.
"""
logger = logging.getLogger("kfloop")


def main(arguments: list[str] | None = None) -> int:
    """Run the job; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m kfloop.components.train",
        description="Train the challenger that a job file describes.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, required=True, metavar="JOB.JSON", help="the job file")
    path: Path = parser.parse_args(arguments).config
    group = Group.here()
    if group.launched:
        bind_to_parent()
    prepare_process()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    logger.setLevel(logging.INFO if group.first else logging.ERROR)
    earlier = told_error(path) if group.restarts else None
    if earlier is not None and not earlier.transient:
        return earlier.exit_code  # torchrun starts the group again whatever happened; this would happen again
    forget_error(path, group.rank, group.world)
    try:
        job = read_job(path)
        from kfloop.components.train.training import run

        job.out.mkdir(parents=True, exist_ok=True)
        run(job.config, dataset=job.dataset, labels=job.labels, out=job.out, workspace=job.workspace)
    except KfloopError as error:
        return _failed(path, group, error)
    except Exception as error:
        if group.world > 1 and "onnection" in str(
            error
        ):  # another process ended first; when it told why, that goes before this
            logger.debug("the connection to the other processes broke", exc_info=True)
            lost = f"process {group.rank} of {group.world} lost the connection to the others: {error}"
            return _failed(
                path, group, TransientError(lost, hint="run again: the training goes on from its last checkpoint")
            )
        logger.exception("training failed")
        return _failed(path, group, TerminalError(f"training failed: {type(error).__name__}: {error}"))
    return 0


def _failed(path: Path, group: Group, error: KfloopError) -> int:
    if group.launched:
        write_error(path, group.rank, error)
    if group.first or not error.transient:  # told to stop: all of them are, one says so
        logger.error("%s%s", error.message, f" ({error.hint})" if error.hint else "")
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
