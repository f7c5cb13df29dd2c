"""Starting a training round from a pod: a run of its own on Kubeflow Pipelines, one at a time for each loop; and seeing that it is over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.components.monitor.policy.circumstances import awaited
from kfloop.components.monitor.standing import stand_back
from kfloop.core.cluster import AuthConfig
from kfloop.core.config import LoopConfig
from kfloop.core.run_endings import close_record
from kfloop.core.state import open_state
from kfloop.core.workspace import run_id
from kfloop.errors import InputError, TerminalError
from kfloop.pipelines.arguments import PIPELINE_SECTIONS
from kfloop.pipelines.cluster.auth import MOUNTED_TOKEN, MOUNTED_TOKEN_VARIABLE, Credentials
from kfloop.pipelines.cluster.client import Server
from kfloop.pipelines.cluster.following import progress_of
from kfloop.pipelines.cluster.submitting import ASKED_BY, ENDING, Target, submit
from kfloop.pipelines.cluster.transport import NOT_FOUND

if TYPE_CHECKING:
    from kfloop.core.workspace import Workspace
    from kfloop.pipelines.cluster.transport import JSON, Patience

STEP = "submit_training"
KFP_STEP_VARIABLE = "_KFP_RUNTIME"  # set by KFP around each step
COMPILE = """
import json, sys
from pathlib import Path
from kfloop.core.cluster import ClusterConfig
from kfloop.pipelines.cluster.compiling import compile_pipelines
compile_pipelines(ClusterConfig.model_validate_json(sys.argv[1]), Path(sys.argv[3]), json.loads(sys.argv[2]))
"""


@dataclass(frozen=True, kw_only=True)
class Started:
    """A training round at work.

    Attributes:
        run_id: Its run.
        own: Whether this round's trigger started it; else another one, a schedule or a person did.
        asked_by: Run whose trigger started it; empty for none.
    """

    run_id: str
    own: bool
    asked_by: str = ""


def start_training(
    workspace: Workspace,
    cluster_config: str,
    sections: dict[str, str],
    *,
    compiled: Path | None = None,
    patience: Patience | None = None,
) -> Started:
    """Start a training round as a run of its own, or find the one that is at work, whoever started it.

    Args:
        workspace: Places of the loop.
        cluster_config: What ``cluster_for_pods`` gives: section ``cluster`` of the loop file, and kfloop's images.
        sections: Sections by the names of the training pipeline's parameters, each as JSON.
        compiled: Folder of the compiled pipelines; null compiles them now.
        patience: How long to try; null means as ``kfloop submit``.

    Raises:
        TerminalError: The training pipeline cannot be compiled.
        ConfigError: An image of the pipeline is not released, or the server refuses the pod's service account.
        ServerUnavailable: No answer; asking again finds the run, should it have started.
    """
    cluster = json.loads(cluster_config) | {"root": str(workspace.root.parent)}
    images = cluster.pop("images", None)
    keys = PIPELINE_SECTIONS["training"]
    config = LoopConfig.model_validate(
        {keys[name]: json.loads(section) for name, section in sections.items()}
        | {"name": workspace.loop, "state": workspace.state, "store": workspace.store, "mlflow": workspace.mlflow}
        | {"cluster": cluster}
    )
    server = _server(config.cluster.inner_endpoint, workspace, patience)
    target = Target(config=config, root=workspace.root, server=server)
    there = _at_work(target)
    if there is not None:
        return _found(there)
    with tempfile.TemporaryDirectory(prefix="kfloop-ir-") as folder:
        made = submit(
            target, "training", compiled=compiled or _compile(config, images, Path(folder)), asked_by=run_id()
        )
    return _found(server.run(made.run_id)) if made.attached else Started(run_id=made.run_id, own=True)


def tell(workspace: Workspace, started: Started, until: float) -> dict[str, Any]:
    """What state is told of a training, and by which round: each start is told once, by the round whose trigger it was.

    A round that found one takes its own trigger back. Should the round that started it have been cut short before it could say so, that is made up for.

    Args:
        workspace: Places of the loop.
        started: The training.
        until: Unix time up to which it may take.

    Returns:
        What this round's step tells.
    """
    told: dict[str, Any] = {"outcome": started.run_id, "until": until}
    if started.own:
        return told
    runs = open_state(workspace.state).runs
    before = [event for event in runs.events(started.asked_by) if event.step == STEP] if started.asked_by else []
    if before and before[-1].event != "succeeded":
        runs.step(started.asked_by, STEP, "succeeded", told)
    return told | {"reason": stand_back(workspace, started.run_id)}


def _at_work(target: Target) -> JSON | None:
    """The training run of the loop that has not ended: one that was submitted, by whomever, or one of a recurring run."""
    server, cluster = target.server, target.config.cluster
    about = f"kfloop training of loop {target.config.name};"
    home = server.experiment(target.experiment, cluster.namespace)
    for run in server.runs(cluster.namespace, home, about):
        if run.get("state") not in ENDING:
            return run
    # Runs of a recurring run carry its id in place of a description; none is at work for longer than a run may take.
    made = [one for one in server.recurring(cluster.namespace) if about in str(one.get("description", ""))]
    ids = {one["recurring_run_id"] for one in made}
    since = datetime.now(UTC) - timedelta(hours=cluster.deadline_hours)
    for experiment in sorted({str(one.get("experiment_id") or home) for one in made}):
        for run in server.young_runs(cluster.namespace, experiment, since):
            if run.get("recurring_run_id") in ids and run.get("state") not in ENDING:
                return run
    return None


def _found(run: JSON) -> Started:
    """A run that is there already; one that this very round asked for, before it was cut short, is its own."""
    asked_by = str(run.get("description", "")).partition(ASKED_BY)[2]
    return Started(run_id=str(run["run_id"]), own=bool(asked_by) and asked_by == run_id(), asked_by=asked_by)


def close_ended(workspace: Workspace, cluster_config: str, *, patience: Patience | None = None) -> str:
    """Close the record of the training that the last trigger started, where the server says that it is over, or knows it no more.

    Its own last step does so; one that was cancelled, deleted, or lost with its node never got there.

    Args:
        workspace: Places of the loop.
        cluster_config: As for ``start_training``.
        patience: As for ``start_training``.

    Returns:
        Id of the run; empty where none is waited for, or it is at work.

    Raises:
        ConfigError: The server refuses the pod's service account.
        ServerUnavailable: No answer.
    """
    state = open_state(workspace.state)
    run = str(awaited(state, workspace.loop).get("outcome") or "")
    if not run:
        return ""
    server = _server(json.loads(cluster_config)["inner_endpoint"], workspace, patience)
    try:
        now = progress_of(server.run(run))
    except InputError as error:
        if error.data.get("status") != NOT_FOUND:
            raise
        close_record(state, workspace.loop, run, "CANCELED", "")
        return run
    if not now.ended:
        return ""
    close_record(state, workspace.loop, run, now.state, now.error)
    return run


def _server(endpoint: str, workspace: Workspace, patience: Patience | None) -> Server:
    """The API as a pod asks it: Kubeflow mounts a token where the pod's label says that it wants one."""
    mounted = Path(os.environ.get(MOUNTED_TOKEN_VARIABLE, MOUNTED_TOKEN)).is_file()
    auth = AuthConfig(kind="service_account" if mounted else "none")
    return Server(endpoint, Credentials(auth, workspace.root), patience=patience)


def _compile(config: LoopConfig, images: dict[str, str] | None, folder: Path) -> Path:
    """Compile in a process of its own: within a step, KFP imports the part of itself that runs steps, and none that compiles."""
    environment = {name: value for name, value in os.environ.items() if name != KFP_STEP_VARIABLE}
    command = [sys.executable, "-c", COMPILE, config.cluster.model_dump_json(), json.dumps(images), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TerminalError(f"the training pipeline cannot be compiled: {done.stderr.strip()}")
    return folder
