"""``kfloop run`` and ``kfloop monitor``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kfloop.cli.console import StepPrinter, print_json, say
from kfloop.cli.options import config_option, json_option

if TYPE_CHECKING:
    from kfloop.core.records import RunRecord
    from kfloop.core.workspace import Workspace


@click.command("run")
@config_option
@click.option(
    "--force", is_flag=True, help="Decide again even when nothing is new; finished steps still come from the cache."
)
@click.option("--until", metavar="STEP", help="Last step to run, such as check_labels; nothing is decided then.")
@json_option
def run_command(path: Path, *, force: bool, until: str | None, as_json: bool) -> int:
    """One training round: ingest, validate, check labels, train, package, evaluate, bless, gate, deploy.

    \b
    Example:
      kfloop run -c loop.yaml
      kfloop run --until check_labels
      kfloop run --json | jq .decision
    """
    from kfloop.pipelines.rounds import training_round

    record = training_round(path, force=force, until=until, progress=StepPrinter())
    return finish(path, record, as_json=as_json)


@click.command("monitor")
@config_option
@click.option(
    "--retrain",
    metavar="WHY",
    help="Retrain now, for this reason: only a run under way and the monthly budget can keep it from starting.",
)
@json_option
def monitor_command(path: Path, *, retrain: str | None, as_json: bool) -> int:
    """One look at the request log; a training round when the trigger says 'retrain'.

    \b
    Example:
      kfloop monitor -c loop.yaml
      kfloop monitor --retrain "the camera was replaced"
    """
    from kfloop.pipelines.rounds import monitoring_round

    record = monitoring_round(path, retrain=retrain, progress=StepPrinter())
    return finish(path, record, as_json=as_json)


def finish(path: Path, record: RunRecord, *, as_json: bool) -> int:
    """Write the report, tell the end in plain words, and give the exit status."""
    from kfloop.pipelines.rounds import open_loop, save_record
    from kfloop.report import render_summary
    from kfloop.report.runs import keep_run, write_run_report

    loop = open_loop(path)
    if record.repeated_of is None:
        record.report = str(write_run_report(record.as_dict(), loop.workspace))
        save_record(loop, record)
    say(render_summary(record.as_dict()) + _log_of_failure(record, loop.workspace) + _set_aside(record))
    if record.repeated_of is None:
        keep_run(record.run_id, loop.workspace)
    if as_json:
        print_json(record.as_dict())
    return record.exit_code


def _log_of_failure(record: RunRecord, workspace: Workspace) -> str:
    """A line that says where the traceback of a failed step is; empty where nothing failed."""
    from kfloop.pipelines.local import run_folder

    log = run_folder(workspace, record.run_id) / "log.txt"
    return f"\nLog: {log}" if record.status == "failed" and log.is_file() else ""


def _set_aside(record: RunRecord) -> str:
    """A line that says how many rows the ingest could not use; empty where it took them all, or did not come to its end."""
    path = next((step.artifact["path"] for step in record.steps if step.name == "ingest" and step.artifact), None)
    try:
        card = json.loads((Path(path) / "card.json").read_text(encoding="utf-8")) if path else {}
        aside, rows = int(card.get("quarantined", 0)), int(card.get("n_rows", 0))
    except (AttributeError, OSError, TypeError, ValueError):  # the report tells what is wrong with it
        return ""
    return (
        f"\n{aside} of {aside + rows} rows were set aside; the reasons stand in the report's section Data."
        if aside
        else ""
    )
