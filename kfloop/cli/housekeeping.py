"""``kfloop gc``, ``kfloop backup`` and ``kfloop restore``: house-keeping of state and store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import config_option, json_option
from kfloop.core.housekeeping import KEPT_RUNS
from kfloop.errors import EXIT_DONE, EXIT_FAILED

if TYPE_CHECKING:
    from kfloop.core.housekeeping.copying import Damaged
    from kfloop.core.workspace import Workspace

SHOWN = 20


@click.command("gc")
@config_option
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=KEPT_RUNS,
    show_default=True,
    help="Newest runs of each loop whose results stay.",
)
@json_option
def gc_command(path: Path, *, dry_run: bool, runs: int, as_json: bool) -> None:
    """Remove from the store what nothing names any more.

    What the ledger names stays, and so does all that the champion, the one before it, a challenger on hold or being rolled out, and the newest
    runs rest on. Blobs that no run of this state gave are left alone.

    \b
    Example:
      kfloop gc --dry-run
    """
    from kfloop.core.housekeeping.collecting import collect_garbage
    from kfloop.pipelines.rounds import open_loop

    loop = open_loop(path)
    found = collect_garbage(loop.state, loop.workspace, runs=runs, dry_run=dry_run)
    if as_json:
        print_json(asdict(found))
        return
    for kind, digest in found.removed[:SHOWN]:
        say(f"  {kind}/{digest}")
    if len(found.removed) > SHOWN:
        say(f"  ... and {len(found.removed) - SHOWN} more")
    what = "would be removed" if dry_run else "removed"
    foreign = f", {found.foreign} of others left alone" if found.foreign else ""
    say(
        f"{len(found.removed)} blobs and {len(found.leftovers)} left-overs {what}: {found.bytes / 1e6:.1f} MB ({found.kept} kept{foreign})"
    )


@click.command("backup")
@click.argument("destination", metavar="DEST")
@config_option
@json_option
def backup_command(destination: str, path: Path, *, as_json: bool) -> int:
    """Copy state and store to DEST, a folder or an fsspec URL; blobs that DEST has are not copied again.

    State is the whole database, of all loops that share it. What is copied is read back. Damaged blobs are named and left out, and the exit status
    is 1 then.

    \b
    Example:
      kfloop backup /mnt/backups/sorter
      kfloop backup s3://backups/sorter
    """
    from kfloop.core.housekeeping.backup import back_up
    from kfloop.pipelines.rounds import open_loop

    loop = open_loop(path)
    saved = back_up(loop.state, loop.workspace, destination)
    if as_json:
        print_json(asdict(saved))
    else:
        say(
            f"backup {saved.name}: {sum(saved.rows.values())} rows of {', '.join(saved.loops) or 'no loop'}; {saved.copied} blobs copied, {saved.present} were there"
        )
    return _tell_damaged(
        saved.damaged, "are damaged and not in the backup; a good copy may come from: kfloop restore SRC --blobs"
    )


@click.command("restore")
@click.argument("source", metavar="[SRC]", required=False)
@config_option
@click.option("--at", metavar="NAME", help="The backup; the latest when left out.")
@click.option("--replace", is_flag=True, help="Replace the state that is there, of all its loops.")
@click.option("--blobs", is_flag=True, help="Bring back lost and damaged blobs of the store only; state stays.")
@click.option("--dataset", metavar="DIGEST", help="Bring this dataset version back from DVC's remote, not from SRC.")
@json_option
def restore_command(
    source: str | None, path: Path, *, at: str | None, replace: bool, blobs: bool, dataset: str | None, as_json: bool
) -> int:
    """Bring state and store back from SRC, also into another kind of database than they came from.

    State that is there is replaced only with --replace. Nothing is written before digests and the ledger's hash chain were checked, and no run of
    its loops begins meanwhile.

    \b
    Example:
      kfloop restore /mnt/backups/sorter
      kfloop restore /mnt/backups/sorter --blobs
      kfloop restore --dataset 3f0c9a12b1d44f6e9d7c1a2b3c4d5e6f
    """
    from kfloop.core.config import load_config
    from kfloop.core.housekeeping.restore import restore, restore_blobs

    if dataset is not None:
        if source or replace or at or blobs:
            raise click.UsageError("--dataset asks DVC's remote, so SRC and the other options do not go with it")
        return _bring_dataset(load_config(path).workspace(path.resolve().parent), dataset, as_json=as_json)
    if source is None:
        raise click.UsageError("give SRC, the folder or URL of the backups, or --dataset DIGEST")
    if blobs and (replace or at):
        raise click.UsageError("--blobs leaves state alone, so --at and --replace do not go with it")
    workspace = load_config(path).workspace(path.resolve().parent)
    done = restore_blobs(workspace, source) if blobs else restore(workspace, source, at=at, replace=replace)
    if as_json:
        print_json(asdict(done))
        return EXIT_FAILED if done.damaged else EXIT_DONE
    if blobs:
        say(f"{done.copied} blobs brought back, {done.present} were there")
        return _tell_damaged(done.damaged, "are damaged in the backup and were not brought back")
    ledgers = ", ".join(f"{loop}: {rows}" for loop, rows in done.ledgers.items()) or "none"
    say(
        f"restored {done.name}: {sum(done.rows.values())} rows (ledgers {ledgers}); {done.copied} blobs copied, {done.present} were there"
    )
    return EXIT_DONE


def _bring_dataset(workspace: Workspace, digest: str, *, as_json: bool) -> int:
    """Bring a dataset version back into the store."""
    from kfloop.core import tracking

    place = tracking.restore(digest, workspace)
    if as_json:
        print_json({"digest": digest, "path": str(place)})
    else:
        say(f"dataset version {digest} is in the store: {place}")
    return EXIT_DONE


def _tell_damaged(damaged: tuple[Damaged, ...], what: str) -> int:
    """Name the damaged blobs on stderr.

    Returns:
        The exit status.
    """
    for blob in damaged:
        say(f"  {blob.kind}/{blob.digest}: {blob.reason}")
    if damaged:
        say(f"{len(damaged)} blobs {what}")
    return EXIT_FAILED if damaged else EXIT_DONE
