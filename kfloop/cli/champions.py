"""``kfloop rollback``."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import config_option, json_option
from kfloop.errors import EXIT_DONE

if TYPE_CHECKING:
    from kfloop.pipelines.rounds import Loop


@click.command("rollback")
@config_option
@click.option("--to", type=int, help="Version to bring back; the champion before when left out.")
@click.option("--reason", default="asked for by hand", show_default=True, help="Why; stands in the ledger.")
@json_option
def rollback_command(path: Path, *, to: int | None, reason: str, as_json: bool) -> int:
    """Bring the champion before back; a second rollback goes forward again.

    The old version is verified by its golden answers before it serves.

    \b
    Example:
      kfloop rollback --reason "complaints about sevens"
    """
    from kfloop.pipelines.rounds import open_loop

    loop = open_loop(path)
    version = roll(loop, to=to, reason=reason)
    if as_json:
        print_json({"champion": version})
    return EXIT_DONE


def roll(loop: Loop, *, to: int | None, reason: str) -> int:
    """Roll back.

    Returns:
        The version that is champion now.
    """
    from kfloop.components.deploy.rollback import rollback

    done = rollback(loop.workspace, to, actor=getpass.getuser(), reason=reason, config=loop.config.deploy)
    say(f"   {done.sentence} Ledger row {done.ledger_row}.")
    return done.version
