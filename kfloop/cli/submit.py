"""``kfloop submit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import ca_option, config_option, json_option
from kfloop.errors import EXIT_DONE, EXIT_FAILED, InputError

if TYPE_CHECKING:
    from kfloop.pipelines.cluster.following import Progress, Task
    from kfloop.pipelines.cluster.submitting import Target

SEE_ITS_END = "see its end, so that the loop does not wait for it: kfloop submit --attach {}"
COLORS = {"succeeded": "green", "failed": "red", "canceled": "red", "skipped": "bright_black", "running": "cyan"}


@click.command("submit")
@config_option
@click.option(
    "--pipeline",
    type=click.Choice(["training", "monitoring"]),
    default="training",
    show_default=True,
    help="What runs.",
)
@click.option("--name", help="Name of the run; loop and pipeline when left out.")
@click.option("--experiment", help="KFP experiment; cluster.experiment, or the loop's name, when left out.")
@click.option(
    "--follow/--no-follow", default=True, show_default=True, help="Wait for the end and fetch what it came to."
)
@click.option("--every", type=click.FloatRange(0.01), default=5.0, show_default=True, help="Seconds between two looks.")
@click.option(
    "--compiled",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Submit the reviewed IR of this folder instead of compiling now.",
)
@click.option("--attach", metavar="RUN_ID", help="Follow a run that was submitted before.")
@click.option("--cancel", metavar="RUN_ID", help="Cancel a run, and see its end.")
@ca_option
@json_option
def submit_command(
    path: Path,
    pipeline: str,
    *,
    name: str | None,
    experiment: str | None,
    follow: bool,
    every: float,
    compiled: Path | None,
    attach: str | None,
    cancel: str | None,
    ca: Path | None,
    as_json: bool,
) -> int:
    """Run a pipeline on Kubeflow Pipelines, follow it, and fetch what it came to.

    The same loop file as on the laptop; its section cluster says where. The same submission while one is at work attaches to it.

    \b
    Example:
      kfloop submit
      kfloop submit --pipeline monitoring --no-follow
      kfloop submit --attach 3f0c9a9e-...
    """
    from kfloop.pipelines.cluster.submitting import open_target, submit

    if attach and cancel:
        raise click.UsageError("--attach and --cancel do not go together")
    target = open_target(path, ca=ca)
    if cancel:
        return _cancel(target, cancel, every, wait=follow, as_json=as_json)
    if attach:
        return _follow(target, attach, every, as_json=as_json)
    try:
        submitted = submit(target, pipeline, name=name, experiment=experiment, compiled=compiled)
    except KeyboardInterrupt:
        say("\nit may have arrived all the same: the same command again attaches to it")
        raise
    if submitted.attached:
        say(f"the same run is at work already: {submitted.name}")
    else:
        say(f"submitted {submitted.name}; paths are those of the cluster ({target.config.cluster_root})")
    say(f"run {submitted.run_id}  {target.url(submitted.run_id)}")
    if follow:
        return _follow(target, submitted.run_id, every, known=True, as_json=as_json)
    say(f"follow it with: kfloop submit --attach {submitted.run_id}")
    if as_json:
        print_json(vars(submitted) | {"url": target.url(submitted.run_id)})
    return EXIT_DONE


class TaskPrinter:
    """Prints a line for each step whose state changed."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}

    def __call__(self, progress: Progress) -> None:
        """Print what changed."""
        for task in progress.tasks:
            if self._states.get(task.name) != task.state:
                self._states[task.name] = task.state
                say(self._line(task))

    @staticmethod
    def _line(task: Task) -> str:
        seconds = f"{task.seconds:8.1f} s" if task.seconds else ""
        state = click.style(f"{task.state:<10}", fg=COLORS.get(task.state))
        return f"  {state} {task.name:<15} {seconds}".rstrip() + (f"  {task.error}" if task.error else "")


def _follow(target: Target, run_id: str, every: float, *, known: bool = False, as_json: bool) -> int:
    """Follow to the end, fetch, and tell; an interrupt ends the following and not the run."""
    from kfloop.pipelines.cluster.fetching import fetch
    from kfloop.pipelines.cluster.following import follow

    try:
        progress = follow(target.server, run_id, TaskPrinter(), every=every, known=known)
    except KeyboardInterrupt:
        say(f"\nnot followed any more; the run goes on. Follow it again: kfloop submit --attach {run_id}")
        say(f"cancel it: kfloop submit --cancel {run_id}")
        return EXIT_FAILED
    record = fetch(target, progress)
    return _tell(target, record, as_json=as_json)


def _tell(target: Target, record: Any, *, as_json: bool) -> int:
    """Write the report, and the end in plain words."""
    from kfloop.pipelines.cluster.fetching import save
    from kfloop.report.runs import write_run_report

    local = target.config.workspace(target.root)
    record.report = str(write_run_report(record.as_dict(), local))
    save(target, record)
    say(f"{record.status}: {record.message}")
    say(f"report: {record.report}")
    if as_json:
        print_json(record.as_dict() | {"url": target.url(record.run_id)})
    return int(record.exit_code)


def _cancel(target: Target, run_id: str, every: float, *, wait: bool, as_json: bool) -> int:
    """Cancel, and see the end of it, so that state knows of it too and nobody waits for that run."""
    from kfloop.pipelines.cluster.fetching import close_gone, fetch
    from kfloop.pipelines.cluster.following import follow, progress_of
    from kfloop.pipelines.cluster.transport import NOT_FOUND

    try:
        before = now = progress_of(target.server.run(run_id))
    except InputError as error:
        if error.data.get("status") != NOT_FOUND or not close_gone(target, run_id):
            raise
        say(f"run {run_id} is gone from the server; the loop does not wait for it any more")
        if as_json:
            print_json({"run_id": run_id, "cancelled": False, "state": "gone"})
        return EXIT_DONE
    if before.ended:
        say(f"run {run_id} has ended already: {before.state}")
    else:
        target.server.terminate(run_id)
        try:
            say(f"run {run_id} is being cancelled; finished steps stay in the cache")
            now = follow(target.server, run_id, lambda _: None, every=every, known=True) if wait else before
        except KeyboardInterrupt:
            say(f"\n{SEE_ITS_END.format(run_id)}")
            raise
    if now.ended and now.loop in {"", target.config.name}:
        fetch(target, now)
    elif not now.ended:
        say(SEE_ITS_END.format(run_id))
    if as_json:
        print_json({"run_id": run_id, "cancelled": not before.ended, "state": now.state})
    return EXIT_DONE
