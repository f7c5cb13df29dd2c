"""A compiled pipeline as the rules see it: both documents of the file, its tasks through every nesting, and the line of each thing."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.errors import InputError
from kfloop.pipelines.checks.documents import key_of, read_documents, unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterator

WITHOUT_POD = "argostub/"  # CreatePVC and DeletePVC of kfp-kubernetes
OWN_STEP = re.compile(r"\bkfloop\.(components|pipelines)\.\w")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of the IR, at one place of it.

    Attributes:
        name: Its name, unique within its DAG.
        dag: The component whose DAG it stands in; empty at the root.
        path: Where it stands, from the root, conditions and loops included; of a component used twice, the first place.
        spec: The task as the IR has it.
        component_name: Key of its component.
        component: The component; empty when the IR has none of that name.
    """

    name: str
    dag: str
    path: tuple[str, ...]
    spec: dict[str, Any]
    component_name: str
    component: dict[str, Any]

    @property
    def executor(self) -> str:
        """Label of what it runs; empty for a nested DAG."""
        return str(self.component.get("executorLabel", ""))

    @property
    def keys(self) -> tuple[str, ...]:
        """Where it stands in the YAML."""
        start = ("components", self.dag) if self.dag else ("root",)
        return (*start, "dag", "tasks", self.name)

    @property
    def final(self) -> bool:
        """Whether it is an exit handler."""
        return self.spec.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"


@dataclass(frozen=True, kw_only=True)
class Ir:
    """A compiled pipeline.

    Attributes:
        file: Where it was read.
        spec: First document: the pipeline.
        platform: What the second document says for Kubernetes; empty when there is none.
    """

    file: Path
    spec: dict[str, Any]
    platform: dict[str, Any]
    _nodes: tuple[Any, ...] = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the pipeline."""
        return str(self.spec["pipelineInfo"].get("name", ""))

    @property
    def components(self) -> dict[str, dict[str, Any]]:
        """Components by key."""
        return self.spec.get("components") or {}

    @property
    def executors(self) -> dict[str, dict[str, Any]]:
        """Executors by label."""
        return (self.spec.get("deploymentSpec") or {}).get("executors") or {}

    @property
    def platform_executors(self) -> dict[str, dict[str, Any]]:
        """Kubernetes settings by executor label."""
        return (self.platform.get("deploymentSpec") or {}).get("executors") or {}

    def tasks(self) -> list[Task]:
        """Every task that the root reaches, each DAG once."""
        return list(self._walk("", self.spec["root"].get("dag") or {}, (), set()))

    def _walk(self, owner: str, dag: dict[str, Any], path: tuple[str, ...], seen: set[str]) -> Iterator[Task]:
        for name, spec in (dag.get("tasks") or {}).items():
            key = (spec.get("componentRef") or {}).get("name", "")
            task = Task(
                name=name,
                dag=owner,
                path=(*path, name),
                spec=spec,
                component_name=key,
                component=self.components.get(key) or {},
            )
            yield task
            if "dag" in task.component and key not in seen:
                seen.add(key)
                yield from self._walk(key, task.component["dag"] or {}, task.path, seen)

    def container(self, task: Task) -> dict[str, Any]:
        """What the task runs in; empty for a nested DAG, an importer, or what the backend does without a pod."""
        container = (self.executors.get(task.executor) or {}).get("container") or {}
        return {} if str(container.get("image", "")).startswith(WITHOUT_POD) else container

    def volume_task(self, task: Task) -> str:
        """``createpvc`` or ``deletepvc`` for what the backend does itself with a volume; empty for any other task."""
        image = str(((self.executors.get(task.executor) or {}).get("container") or {}).get("image", ""))
        return image.removeprefix(WITHOUT_POD) if image.startswith(WITHOUT_POD) else ""

    def own_step(self, task: Task) -> bool:
        """Whether the task runs a component of kfloop."""
        return any(OWN_STEP.search(str(part)) for part in self.container(task).get("command") or [])

    def line(self, *keys: str, document: int = 0) -> int:
        """Line of what stands under ``keys``, or of the nearest thing above it."""
        node = self._nodes[document] if document < len(self._nodes) else self._nodes[0]
        line = node.start_mark.line
        for key in keys:
            pair = next((pair for pair in getattr(node, "value", ()) if key_of(pair) == key), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line, pair[1]
        return int(line) + 1


def read_ir(file: Path, documents: list[tuple[Any, Any]] | None = None) -> Ir:
    """Read a compiled pipeline.

    Args:
        file: YAML or JSON.
        documents: Its content, when it was read before.

    Raises:
        InputError: It is not one, with what is missing.
        EmptyFileError: Nothing in it.
    """
    found = unwrapped(file, read_documents(file) if documents is None else documents)
    spec = found[0][0]
    if not isinstance(spec, dict):
        raise InputError(f"'{file}' holds {type(spec).__name__}, expected a compiled KFP v2 pipeline")
    missing = [key for key in ("pipelineInfo", "root") if not isinstance(spec.get(key), dict)]
    if missing:
        raise InputError(f"'{file}' is no compiled KFP v2 pipeline: it has no {' and no '.join(missing)}")
    platform: dict[str, Any] = {}
    for content, _ in found[1:]:
        if not isinstance(content, dict) or not isinstance(content.get("platforms"), dict):
            raise InputError(f"'{file}': a further document has no 'platforms'")
        platform = _parsed(file, content, "PlatformSpec").get("platforms", {}).get("kubernetes", {})
        executors = platform.get("deploymentSpec", {}).get("executors", {})
        for label, settings in executors.items():
            executors[label] = _parsed(file, settings, "KubernetesExecutorConfig")
    deployment = _parsed(file, spec.get("deploymentSpec") or {}, "PipelineDeploymentConfig")
    parsed = _parsed(file, spec, "PipelineSpec") | {"deploymentSpec": deployment}
    return Ir(file=file, spec=parsed, platform=platform, _nodes=tuple(node for _, node in found))


def _parsed(file: Path, content: dict[str, Any], message: str) -> dict[str, Any]:
    """The content as KFP's own schema has it, so that no rule meets a shape it does not know.

    Raises:
        InputError: It does not fit.
    """
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2
    from kfp.pipeline_spec import pipeline_spec_pb2

    schema = kubernetes_executor_config_pb2 if message == "KubernetesExecutorConfig" else pipeline_spec_pb2
    try:
        parsed = json_format.ParseDict(content, getattr(schema, message)(), ignore_unknown_fields=True)
    except (
        json_format.Error,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:  # the parser is strict about some shapes only
        told = " ".join(str(error).split())
        raise InputError(f"'{file}' does not fit KFP's schema ({message}): {told}") from error
    read: dict[str, Any] = json_format.MessageToDict(parsed)
    return read
