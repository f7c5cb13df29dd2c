"""Loop files against the config, and against the pipelines that would run them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.errors import ConfigError
from kfloop.pipelines.checks.rules import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kfloop.pipelines.checks.reading import Ir

# What a person gives beside the loop file when the pipeline is submitted.
GIVEN_BY_PEOPLE = {"approval": frozenset({"evidence", "actor", "reason"})}


def check_loop(file: Path, pipelines: Mapping[str, Ir]) -> Iterator[Finding]:
    """Check one loop file.

    Args:
        file: The loop file, which is not empty.
        pipelines: kfloop's pipelines by name.
    """
    from kfloop.core.config import load_config
    from kfloop.core.workspace import Workspace
    from kfloop.pipelines.arguments import pipeline_arguments

    try:
        config = load_config(file)
    except ConfigError as error:
        yield Finding(file, 1, "loop-invalid", error.message)
        return
    with tempfile.TemporaryDirectory(prefix="kfloop-check-") as temporary:
        # A state of nobody: what stands in the loop's own must not decide whether its file is right.
        root = Path(temporary)
        url = f"sqlite:///{root}/state.db"
        workspace = Workspace(loop=config.name, root=root, state=url, store=str(root / "store"), mlflow=url)
        for name, ir in sorted(pipelines.items()):
            given = set(pipeline_arguments(name, config, workspace)) | GIVEN_BY_PEOPLE.get(name, frozenset())
            asked = (ir.spec["root"].get("inputDefinitions") or {}).get("parameters") or {}
            needed = {key for key, spec in asked.items() if not spec.get("isOptional")}
            if needed - given:
                names = ", ".join(sorted(needed - given))
                yield Finding(
                    file,
                    1,
                    "loop-pipeline",
                    f"pipeline '{name}' ({ir.file}) asks for {names}, which no loop file gives",
                )
            if given - set(asked):
                names = ", ".join(sorted(given - set(asked)))
                yield Finding(file, 1, "loop-pipeline", f"pipeline '{name}' ({ir.file}) does not take {names}")
