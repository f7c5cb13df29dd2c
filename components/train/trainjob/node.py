"""``python -m kfloop.components.train.trainjob.node --config job.json``: what each pod of a TrainJob runs.

It is torchrun with the training entrypoint, told by the environment that Kubeflow Trainer sets (PET_NNODES, PET_NPROC_PER_NODE, PET_NODE_RANK,
PET_MASTER_ADDR, PET_MASTER_PORT). It ends with status 13 when the training would fail again: the runtime fails the TrainJob at once then, instead of
starting all pods anew.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from kfloop.components.train.launching import read_job, told_error
from kfloop.errors import KfloopError

FINAL = 13  # infra/base/trainer/clustertrainingruntime.yaml names it


def main(arguments: list[str] | None = None) -> int:
    """Run torchrun for this pod; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kfloop.components.train.trainjob.node")
    parser.add_argument("--config", type=Path, required=True, metavar="JOB.JSON", help="the job file")
    path: Path = parser.parse_args(arguments).config
    try:
        restarts = read_job(path).config.restarts
    except KfloopError as error:
        print(f"ERROR {error.message} ({error.hint})", file=sys.stderr, flush=True)  # noqa: T201  # the log of the pod
        return FINAL
    if _final(path):  # the pods were started again all the same
        return FINAL
    # Alone, the pod starts its processes again by itself. Pods that wait for each other cannot: the JobSet starts all of them anew.
    alone = int(os.environ.get("PET_NNODES", "1")) == 1
    told = ["--standalone", "--max-restarts", str(restarts)] if alone else ["--max-restarts", "0"]
    from torch.distributed.run import main as torchrun

    try:
        torchrun([*told, "-m", "kfloop.components.train", "--config", str(path)])
    except BaseException:  # also of a signal: torchrun has passed it on by now
        if _final(path):
            return FINAL
        raise
    return 0


def _final(path: Path) -> bool:
    error = told_error(path)
    return error is not None and not error.transient


if __name__ == "__main__":
    sys.exit(main())
