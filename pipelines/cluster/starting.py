"""Starting a training round from a pod: a run of its own on Kubeflow Pipelines, one at a time for each loop; and seeing that it is over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.components.monitor.policy.circumstances import awaited
from kfloop.core.cluster import AuthConfig
from kfloop.core.config import LoopConfig
from kfloop.core.run_endings import close_record
from kfloop.core.state import open_state
from kfloop.errors import InputError, TerminalError
from kfloop.pipelines.arguments import PIPELINE_SECTIONS
from kfloop.pipelines.cluster.auth import MOUNTED_TOKEN, MOUNTED_TOKEN_VARIABLE, Credentials
from kfloop.pipelines.cluster.client import Server
from kfloop.pipelines.cluster.following import progress_of
from kfloop.pipelines.cluster.submitting import ENDING, Target, submit
from kfloop.pipelines.cluster.transport import NOT_FOUND

if TYPE_CHECKING:
    from kfloop.core.workspace import Workspace
    from kfloop.pipelines.cluster.transport import Patience

KFP_STEP_VARIABLE = "_KFP_RUNTIME"  # set by KFP around each step
COMPILE = """
import json, sys
from pathlib import Path
from kfloop.core.cluster import ClusterConfig
from kfloop.pipelines.cluster.compiling import compile_pipelines
compile_pipelines(ClusterConfig.model_validate_json(sys.argv[1]), Path(sys.argv[3]), json.loads(sys.argv[2]))
"""


def start_training(
    workspace: Workspace,
    cluster_config: str,
    sections: dict[str, str],
    *,
    compiled: Path | None = None,
    patience: Patience | None = None,
) -> str:
    """Start a training round as a run of its own, or find the one that is at work.

    Args:
        workspace: Places of the loop.
        cluster_config: What ``cluster_for_pods`` gives: section ``cluster`` of the loop file, and kfloop's images.
        sections: Sections by the names of the training pipeline's parameters, each as JSON.
        compiled: Folder of the compiled pipelines; null compiles them now.
        patience: How long to try; null means as ``kfloop submit``.

    Returns:
        Id of the run.

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
    home = server.experiment(target.experiment, config.cluster.namespace)
    runs = server.runs(config.cluster.namespace, home, f"kfloop training of loop {config.name};")
    at_work = next((run for run in runs if run.get("state") not in ENDING), None)
    if at_work:
        return str(at_work["run_id"])
    with tempfile.TemporaryDirectory(prefix="kfloop-ir-") as folder:
        return submit(target, "training", compiled=compiled or _compile(config, images, Path(folder))).run_id


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
