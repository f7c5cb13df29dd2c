"""Runs one KFP component in-process through KFP's own executor, the way a pod would, in milliseconds.

``kfp.local`` cannot run a component that takes an artifact; the executor can. Parameters are serialised, artifacts are real folders, and
the executor's output file is read back, so that a wrong type or a forgotten output shows in a test.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfp.dsl.base_component import BaseComponent

    from kfloop.core.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class ComponentRun:
    """What a component gave.

    Attributes:
        value: Its returned parameter; null when it returns nothing.
        artifacts: Output artifacts by name: the path each URI points to.
        metadata: Their metadata by name.
    """

    value: Any
    artifacts: dict[str, Path]
    metadata: dict[str, dict[str, Any]]


class Harness:
    """Runs components in one workspace.

    Args:
        root: Empty folder for executor files.
        workspace: The loop's places; handed to every component as its ``workspace`` parameter.

    Example:
        >>> run = Harness(tmp_path, workspace).run(ingest, config_json=section_json(config, "ingest"))  # doctest: +SKIP
        >>> run.artifacts["dataset"]  # doctest: +SKIP
    """

    def __init__(self, root: Path, workspace: Workspace) -> None:
        self._root = root
        self.workspace = workspace
        self._runs = 0

    def run(self, component: BaseComponent, **arguments: Any) -> ComponentRun:
        """Run one component.

        Args:
            component: A lightweight Python component.
            **arguments: Its parameters by name, and for each input artifact the folder (``Path``) it points to.

        Raises:
            TypeError: An argument the component does not know, or one it needs is missing.
        """
        from kfp.dsl.executor import Executor

        spec = component.component_spec
        values = {"workspace": self.workspace.to_json()} | arguments
        known = {name: item for name, item in (spec.inputs or {}).items() if item.type != "TaskFinalStatus"}
        unknown = sorted(set(arguments) - set(spec.inputs or {}))
        missing = sorted(name for name, item in known.items() if name not in values and not item.optional)
        if unknown or missing:
            message = f"component '{spec.name}': unknown arguments {unknown}, missing {missing}"
            raise TypeError(message)
        self._runs += 1
        folder = self._root / f"{self._runs:02d}-{spec.name}"
        folder.mkdir(parents=True)
        output_file = folder / "executor_output.json"
        executor_input = {
            "inputs": {
                "parameterValues": {
                    name: _json_value(value)
                    for name, value in values.items()
                    if name in (spec.inputs or {}) and not isinstance(value, Path)
                },
                "artifacts": {
                    name: {"artifacts": [_artifact(name, value, spec.inputs[name].type)]}
                    for name, value in values.items()
                    if isinstance(value, Path)
                },
            },
            "outputs": {
                "parameters": {
                    name: {"outputFile": str(folder / name)}
                    for name, item in (spec.outputs or {}).items()
                    if not _is_artifact(item.type)
                },
                "artifacts": {
                    name: {"artifacts": [_artifact(name, folder / "artifacts" / name, item.type)]}
                    for name, item in (spec.outputs or {}).items()
                    if _is_artifact(item.type)
                },
                "outputFile": str(output_file),
            },
        }
        (folder / "artifacts").mkdir()
        Executor(executor_input=executor_input, function_to_execute=component.python_func).execute()
        return _collect(json.loads(output_file.read_text(encoding="utf-8")) if output_file.exists() else {})


def _collect(output: dict[str, Any]) -> ComponentRun:
    artifacts = {name: entry["artifacts"][0] for name, entry in output.get("artifacts", {}).items()}
    return ComponentRun(
        value=output.get("parameterValues", {}).get("Output"),
        artifacts={name: Path(artifact["uri"]) for name, artifact in artifacts.items()},
        metadata={name: artifact.get("metadata", {}) for name, artifact in artifacts.items()},
    )


def _is_artifact(type_name: str) -> bool:
    return "@" in type_name


def _artifact(name: str, path: Path, type_name: str) -> dict[str, Any]:
    schema, _, version = type_name.partition("@")
    return {
        "name": name,
        "uri": str(path),
        "type": {"schemaTitle": schema, "schemaVersion": version},
        "metadata": {"digest": path.name} if path.exists() else {},
    }


def _json_value(value: Any) -> Any:
    """The value as the backend would hand it over: through JSON."""
    return json.loads(json.dumps(value))
