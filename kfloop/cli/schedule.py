"""``kfloop schedule``."""

from __future__ import annotations

from pathlib import Path

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import ca_option, config_option, json_option
from kfloop.errors import EXIT_DONE


@click.group("schedule")
def schedule_command() -> None:
    """Recurring runs on Kubeflow Pipelines, from a file in git.

    \b
    Example:
      kfloop schedule apply schedules.yaml --dry-run
      kfloop schedule list
    """


@schedule_command.command("apply")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default=Path("schedules.yaml"))
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--prune", is_flag=True, help="Also delete schedules of this set that the file does not name.")
@click.option(
    "--compiled",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Schedule the reviewed IR of this folder instead of compiling now.",
)
@ca_option
@json_option
def apply_command(
    file: Path, *, dry_run: bool, prune: bool, compiled: Path | None, ca: Path | None, as_json: bool
) -> int:
    """Make the cluster's schedules those of the file; a second time changes nothing.

    \b
    Example:
      kfloop schedule apply schedules.yaml --dry-run
      kfloop schedule apply schedules.yaml --prune
    """
    from kfloop.pipelines.cluster.schedules import load_schedules
    from kfloop.pipelines.cluster.scheduling import apply, plan

    schedules = load_schedules(file)
    found = plan(schedules, file.resolve().parent, prune=prune, compiled=compiled, ca=ca)
    for change in found.changes:
        say(f"  {change.action:<8} {change.name:<24} {change.why}")
    for name in found.left:
        say(f"  {'left':<8} {name}: made by kfloop, not in this file")
    if dry_run:
        say(f"{len(found.todo)} change(s) to make; nothing was changed (--dry-run)")
    else:
        try:
            apply(found)
        except KeyboardInterrupt:
            say("\nsome of it may be done: the same command again does the rest")
            raise
        say(f"{len(found.todo)} change(s) made" if found.todo else "nothing to change")
    if as_json:
        changes = [change.as_dict() for change in found.changes]
        print_json({"changes": changes, "left": found.left, "dry_run": dry_run})
    return EXIT_DONE


@schedule_command.command("list")
@config_option
@ca_option
@json_option
def list_command(path: Path, *, ca: Path | None, as_json: bool) -> int:
    """The schedules that kfloop made in the namespace of a loop's cluster.

    \b
    Example:
      kfloop schedule list -c loop.yaml
    """
    from kfloop.pipelines.cluster.recurring import list_recurring
    from kfloop.pipelines.cluster.submitting import open_target

    target = open_target(path, ca=ca)
    found = list_recurring(target.server, target.config.cluster.namespace)
    for one in found:
        say(f"  {'on' if one.enabled else 'off':<4} {one.name:<24} {one.cron:<20} set {one.set}  {one.id}")
    if not found:
        say(f"kfloop made no schedules in namespace '{target.config.cluster.namespace}'")
    if as_json:
        names = ("id", "set", "name", "digest", "enabled", "cron")
        print_json({"schedules": [{name: getattr(one, name) for name in names} for one in found]})
    return EXIT_DONE
