"""Compiling for a cluster: the pipelines of the local engine, with the settings of each step's pod, as the two documents of KFP's IR."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.errors import ConfigError
from kfloop.pipelines.cluster.platform import container_settings, pod_settings, run_settings, task_settings
from kfloop.pipelines.worker import PIPELINES, load_pipeline, step_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.core.cluster import ClusterConfig


def compile_pipelines(config: ClusterConfig, out: Path, images: dict[str, str] | None = None) -> list[Path]:
    """Write the IR of every pipeline of kfloop; compiling again changes no byte.

    Args:
        config: Section ``cluster`` of the loop file.
        out: Folder of the files, made when it is not there.
        images: kfloop's images by name; null means those of ``images.lock``.

    Returns:
        ``training.yaml``, ``monitoring.yaml`` and ``approval.yaml``, each with a pipeline and a platform document.

    Raises:
        ConfigError: ``images.lock`` cannot be used, or the folder not be written.
    """
    from kfp.compiler import Compiler

    with tempfile.TemporaryDirectory(prefix="kfloop-ir-") as folder:
        made = [Path(folder) / f"{name}.yaml" for name in PIPELINES]
        for name, file in zip(PIPELINES, made, strict=True):
            Compiler().compile(for_cluster(cluster_pipeline(name, config), config, images), str(file))
        # All compiled: either every file is new or none is.
        try:
            out.mkdir(parents=True, exist_ok=True)
            return [_put(file, out / file.name) for file in made]
        except OSError as error:
            raise ConfigError(
                f"'{out}' cannot be written: {error.strerror}",
                hint="name another folder with: kfloop compile -o FOLDER",
            ) from error


def cluster_pipeline(name: str, config: ClusterConfig) -> Any:
    """The KFP pipeline called ``name`` in the form that a cluster runs: that of the local engine, but for a trigger that submits."""
    if name == "monitoring" and config.retrain == "submit":
        from kfloop.pipelines.cluster.retraining import monitoring_for

        return monitoring_for(config)
    return load_pipeline(name)


def for_cluster(pipeline: Any, config: ClusterConfig, images: dict[str, str] | None = None) -> Any:
    """A copy of a KFP pipeline with the settings of the cluster on each of its steps; the pipeline itself stays as it is."""
    from google.protobuf.json_format import MessageToDict, ParseDict
    from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig

    placed = copy.deepcopy(pipeline)
    spec, platform = placed.pipeline_spec, placed.platform_spec.platforms["kubernetes"]
    name = spec.pipeline_info.name
    for task in _tasks(spec):
        task.caching_options.Clear()  # that of a nested pipeline too: its steps say it each for themselves
        label = spec.components[task.component_ref.name].executor_label
        if not label:
            continue
        step = step_name(task.task_info.name)
        ParseDict(task_settings(step), task)
        spec.deployment_spec["executors"][label]["container"].update(container_settings(step, config, images))
        # By way of the message: a setting that Kubeflow Pipelines does not know is an error here, and numbers keep its form.
        pod = ParseDict(pod_settings(step, name, config), KubernetesExecutorConfig())
        platform.deployment_spec.executors[label].update(MessageToDict(pod))
    ParseDict({"pipelineConfig": run_settings(config)}, platform)
    return placed


def _tasks(spec: Any) -> Iterator[Any]:
    """Every task of a pipeline spec, through nested DAGs, in the order of names."""
    dags = [spec.root.dag, *(spec.components[name].dag for name in sorted(spec.components))]
    for dag in dags:
        for name in sorted(dag.tasks):
            yield dag.tasks[name]


def _put(made: Path, place: Path) -> Path:
    """Put a finished file in its place, where a reader finds the old one or the new one, whole."""
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        shutil.copyfile(made, beside)
        return beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)
