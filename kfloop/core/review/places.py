"""Where a review finds what it is about: the artifacts of a loop's last run, and the rows that answers speak of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.errors import ConfigError

if TYPE_CHECKING:
    from kfloop.core.config import LoopConfig
    from kfloop.core.review.answer import Answer
    from kfloop.core.versions import DatasetVersion

STEPS = {"dataset": "ingest", "labels": "check_labels"}
RUNS_LOOKED_AT = 50


def last_artifacts(config: LoopConfig, root: Path, needed: Sequence[str]) -> dict[str, Path]:
    """Folders of the newest run of the loop that left all that is needed.

    Raises:
        ConfigError: There is no such run.
        StateError: There is one, but its artifact is not in the store any more.
    """
    from kfloop.core.state.database import exists, open_state
    from kfloop.core.store import Store

    workspace = config.workspace(root)
    runs = open_state(workspace.state).runs.last(config.name, RUNS_LOOKED_AT) if exists(workspace.state) else []
    for record in runs:
        artifacts = {step["name"]: step["artifact"] for step in record.get("steps", []) if step.get("artifact")}
        if all(STEPS[name] in artifacts for name in needed):
            store = Store.of(workspace)
            found = {name: artifacts[STEPS[name]] for name in needed}
            return {name: store.require(artifact["kind"], artifact["digest"]) for name, artifact in found.items()}
    raise ConfigError(
        f"loop '{config.name}' has no run with {' and '.join(STEPS[name] for name in needed)} yet",
        hint="run it first: kfloop run --until check_labels (or name folders with -i dataset=FOLDER -i labels=FOLDER)",
    )


def known_contents(version: DatasetVersion, answers: Sequence[Answer]) -> set[str]:
    """Content of the answers that the version has rows for; the rest of its millions of rows is not brought into memory."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array([answer.content for answer in answers], pa.string())
    columns = [version.table(split, ["content"])["content"] for split in version.splits]
    return {text for column in columns for text in column.filter(pc.is_in(column, value_set=wanted)).to_pylist()}
