"""Submitting: from a loop file to a run on Kubeflow Pipelines, never the same one twice at a time.

The compiled pipeline travels inside the run (``pipeline_spec``), so that nothing is left on the server that could differ from what was
reviewed. What makes a run the same is its key: a digest of the spec and the parameters, written into the run's description.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import canonical_json, sha256_text
from kfloop.core.config import load_config
from kfloop.core.image import is_released
from kfloop.core.state import open_state
from kfloop.core.state.database import exists
from kfloop.errors import ConfigError, StateError
from kfloop.pipelines.arguments import pipeline_arguments
from kfloop.pipelines.cluster.auth import Credentials
from kfloop.pipelines.cluster.client import Server

if TYPE_CHECKING:
    from kfloop.core.config import LoopConfig
    from kfloop.core.state import State
    from kfloop.core.workspace import Workspace
    from kfloop.pipelines.cluster.transport import JSON, Patience

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
ENDING = (*ENDED, "CANCELING")
SUBMITTED = ("training", "monitoring")
MARKER = "kfloop-key"
ASKED_BY = "asked by run "
KEY_LENGTH = 24
NAME_KEY_LENGTH = 8


@dataclass(frozen=True, kw_only=True)
class Target:
    """A loop as it is on its cluster, and the server to talk to.

    Attributes:
        config: The loop with the paths and places of the cluster.
        root: Folder of the loop file, here.
        server: The Kubeflow Pipelines API.
    """

    config: LoopConfig
    root: Path
    server: Server

    @property
    def experiment(self) -> str:
        """Name of the KFP experiment."""
        return self.config.cluster.experiment or self.config.name

    @property
    def workspace(self) -> Workspace:
        """The loop's places as its steps see them."""
        return self.config.workspace(self.config.cluster_root)

    def reachable_state(self) -> State:
        """State of the loop on its cluster, opened from here.

        Raises:
            KfloopError: It cannot be reached from here.
        """
        url = self.workspace.state
        if not exists(url):
            raise StateError(f"state '{url}' is on the cluster only")
        return open_state(url)

    def url(self, run_id: str) -> str:
        """Page of a run for people."""
        return f"{self.server.endpoint}/#/runs/details/{run_id}"


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A run that is on the server now; ``attached`` when it was there already."""

    run_id: str
    name: str
    attached: bool


def open_target(path: Path, *, ca: Path | None = None, patience: Patience | None = None) -> Target:
    """Read a loop file and make ready to talk to its cluster; nothing is sent.

    Raises:
        ConfigError: The file is wrong, or names no endpoint.
    """
    config = load_config(path, on_cluster=True)
    root = path.resolve().parent
    if config.cluster.endpoint is None:
        raise ConfigError(
            f"'{path}' names no cluster", hint="add 'cluster:' with 'endpoint: https://HOST' of Kubeflow Pipelines"
        )
    server = Server(config.cluster.endpoint, Credentials(config.cluster.auth, root), ca=ca, patience=patience)
    return Target(config=config, root=root, server=server)


def submit(
    target: Target,
    pipeline: str = "training",
    *,
    name: str | None = None,
    experiment: str | None = None,
    compiled: Path | None = None,
    asked_by: str = "",
) -> Submitted:
    """Start a run, or find the same one at work.

    Args:
        target: The loop and its server.
        pipeline: ``training`` or ``monitoring``.
        name: Name of the run; null means loop and pipeline. The first signs of the key follow it.
        experiment: KFP experiment; null means that of the loop file.
        compiled: Folder of a reviewed IR; null compiles it now.
        asked_by: Run whose trigger asked for it; empty where a person did.

    Raises:
        ConfigError: The pipeline names an image that is not released, or the server refuses who asks.
        ServerUnavailable: No answer; when it says so, the run may have started.
    """
    spec = pipeline_spec(target.config, pipeline, compiled)
    parameters = run_parameters(target, pipeline, spec)
    key = sha256_text(canonical_json([spec, parameters]))[:KEY_LENGTH]
    cluster = target.config.cluster
    home = target.server.experiment(experiment or target.experiment, cluster.namespace)
    marker = f"{MARKER}={key}"

    def active() -> JSON | None:
        """The oldest run with this key that has not ended: of two submitted at once everybody finds the same."""
        found = [run for run in target.server.runs(cluster.namespace, home, marker) if run.get("state") not in ENDING]
        return min(found, key=lambda run: (str(run.get("created_at", "")), str(run["run_id"])), default=None)

    there = active()
    if there is not None:
        return Submitted(run_id=there["run_id"], name=there.get("display_name", ""), attached=True)
    run = {
        "display_name": f"{name or f'{target.config.name}-{pipeline}'}-{key[:NAME_KEY_LENGTH]}",
        "description": f"kfloop {pipeline} of loop {target.config.name}; {marker}"
        + (f"; {ASKED_BY}{asked_by}" if asked_by else ""),
        "experiment_id": home,
        "pipeline_spec": spec,
        "runtime_config": {"parameters": parameters},
        "service_account": cluster.service_account,
    }
    made = target.server.create_run(run, active)
    first = active() or made
    if first["run_id"] != made["run_id"]:  # somebody submitted the same at the same moment, and was first
        target.server.terminate(made["run_id"])
    return Submitted(
        run_id=first["run_id"], name=first.get("display_name", ""), attached=first["run_id"] != made["run_id"]
    )


def pipeline_spec(config: LoopConfig, pipeline: str, compiled: Path | None = None) -> JSON:
    """The compiled pipeline in the form that a run takes it: the spec, with the platform spec beside it when there is one.

    Raises:
        ConfigError: There is no such file, it holds no pipeline, or an image in it is not released.
    """
    if pipeline not in SUBMITTED:
        raise ConfigError(f"no pipeline '{pipeline}' to submit", hint=f"known: {', '.join(SUBMITTED)}")
    if compiled is not None:
        spec = _read_ir(compiled / f"{pipeline}.yaml")
    else:
        from kfloop.pipelines.cluster.compiling import compile_pipelines

        with tempfile.TemporaryDirectory(prefix="kfloop-ir-") as folder:
            compile_pipelines(config.cluster, Path(folder))
            spec = _read_ir(Path(folder) / f"{pipeline}.yaml")
    _refuse_unreleased(spec.get("pipeline_spec", spec))
    return spec


def run_parameters(target: Target, pipeline: str, spec: JSON) -> dict[str, str]:
    """Parameters of a run, with the cluster's workspace; public in KFP, so ``${NAME}`` in an address stays a reference.

    Args:
        target: The loop.
        pipeline: Name of the pipeline.
        spec: Its compiled form, which says what it takes.

    Raises:
        ConfigError: The compiled pipeline takes something else: it is of another kfloop.
    """
    values = pipeline_arguments(pipeline, target.config, target.workspace, ledger=False)
    inputs = spec.get("pipeline_spec", spec).get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    needed = {name for name, about in inputs.items() if not (about.get("isOptional") or "defaultValue" in about)}
    if needed - set(values) or set(values) - set(inputs):
        odd = ", ".join(sorted((needed - set(values)) | (set(values) - set(inputs))))
        raise ConfigError(
            f"the compiled pipeline '{pipeline}' and this kfloop disagree about: {odd}",
            hint="compile it again with: kfloop compile",
        )
    return values


def _read_ir(file: Path) -> JSON:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where PyYAML has it, is ten times faster
    try:
        documents = [document for document in yaml.load_all(file.read_text(encoding="utf-8"), loader) if document]
    except FileNotFoundError as error:
        raise ConfigError(f"no compiled pipeline at '{file}'", hint="write it with: kfloop compile") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{file}' is not valid YAML: {error}", hint="write it again with: kfloop compile") from error
    if not documents or not all(isinstance(document, dict) for document in documents) or "root" not in documents[0]:
        raise ConfigError(f"'{file}' holds no compiled pipeline", hint="write it again with: kfloop compile")
    spec: JSON = documents[0]
    return spec if len(documents) == 1 else {"pipeline_spec": spec, "platform_spec": documents[1]}


def _refuse_unreleased(spec: JSON) -> None:
    executors: dict[str, Any] = spec.get("deploymentSpec", {}).get("executors", {})
    images = {executor["container"]["image"] for executor in executors.values() if "container" in executor}
    for image in sorted(images):
        if not is_released(image):
            raise ConfigError(
                f"image '{image}' is not released: it is not pinned by digest, so no cluster can be sure what it would run",
                hint="set cluster.image to an image you built, NAME@sha256:DIGEST (docs/submit.md), or install a released kfloop",
                image=image,
            )
