"""The report of a run where people find it: beside its record and its log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.pipelines.local import run_folder
from kfloop.report.html import render_run

if TYPE_CHECKING:
    from kfloop.core.workspace import Workspace


def write_run_report(record: dict[str, Any], workspace: Workspace) -> Path:
    """Write ``report.html`` into the folder of a run, from its record and the artifacts of its steps.

    Args:
        record: The run record.
        workspace: The loop's places.

    Returns:
        The file.
    """
    folders = {
        step["name"]: Path(step["artifact"]["path"])
        for step in record["steps"]
        if step["artifact"] and Path(step["artifact"]["path"]).is_dir()
    }
    folder = run_folder(workspace, record["run_id"])
    folder.mkdir(parents=True, exist_ok=True)
    return render_run(record, folders, folder / "report.html")
