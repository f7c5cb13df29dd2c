"""The report of a run where people find it: beside its record and its log."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import REPORT
from kfloop.core.store import Store
from kfloop.pipelines.local import run_folder
from kfloop.report.html import render_run
from kfloop.report.sources import step_name

if TYPE_CHECKING:
    from kfloop.core.workspace import Workspace

RUNS = "runs"  # kind of blob
KEPT = ("record.json", "report.html")
_VALIDATION = "validate_data"
_CLOCK_SLACK = 2.0  # seconds by which the time of a file may lie before the time that the step noted


def write_run_report(record: dict[str, Any], workspace: Workspace) -> Path:
    """Write ``report.html`` into the folder of a run, from its record and the artifacts of its steps.

    Args:
        record: The run record.
        workspace: The loop's places.

    Returns:
        The file.
    """
    store = Store.of(workspace)
    places = {step["name"]: Path(step["artifact"]["path"]) for step in record["steps"] if step["artifact"]}
    folders = {name: place for name, place in places.items() if store.bring(place).is_dir()}
    folder = run_folder(workspace, record["run_id"])
    folder.mkdir(parents=True, exist_ok=True)
    folders |= _failed_validation(record, workspace, folder)
    return render_run(record, folders, folder / "report.html")


def keep_run(run_id: str, workspace: Workspace) -> None:
    """Put record and report of a run into a store that lies elsewhere, so that they outlive this disk; as it was first closed.

    Args:
        run_id: The run.
        workspace: The loop's places.
    """
    store, folder = Store.of(workspace), run_folder(workspace, run_id)
    if store.blobs is None:
        return
    with tempfile.TemporaryDirectory(prefix="run-") as made:
        for name in KEPT:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, Path(made) / name)
        store.blobs.publish(Path(made), RUNS, run_id)


def _failed_validation(record: dict[str, Any], workspace: Workspace, folder: Path) -> dict[str, Path]:
    """The results of a validation that stopped this run: a step that fails leaves no artifact, so they lie beside the store.

    The next failing run replaces them there; so the run keeps a copy, which counts from then on.
    """
    step = next((line for line in record["steps"] if step_name(line["name"]) == _VALIDATION), None)
    if step is None or step["status"] != "failed":
        return {}
    kept = folder / "failed-validation"
    if not (kept / REPORT).is_file():
        written = workspace.kfloop_dir / "failed" / "validation" / REPORT
        if not written.is_file() or not _within(written.stat().st_mtime, step):
            return {}
        kept.mkdir(exist_ok=True)
        shutil.copyfile(written, kept / REPORT)
    return {step["name"]: kept}


def _within(moment: float, step: dict[str, Any]) -> bool:
    """Whether something happened while the step ran."""
    started = step.get("started")
    if started is None:
        return False
    ended = started + (step.get("seconds") or 0.0)
    return bool(started - _CLOCK_SLACK <= moment <= ended + _CLOCK_SLACK)
