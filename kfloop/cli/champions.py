"""``kfloop approve``, ``override`` and ``rollback``: what people decide."""

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


@click.command("approve")
@click.argument("evidence")
@config_option
@click.option("--reason", default="approved", show_default=True, help="Why; stands in the ledger.")
@json_option
def approve_command(evidence: str, path: Path, *, reason: str, as_json: bool) -> int:
    """Promote the challenger of a decision on hold; EVIDENCE is the beginning of the decision's evidence digest.

    The report of the run shows that digest. If the champion has changed since, the approval is refused.

    \b
    Example:
      kfloop approve 829e23ac --reason "looked at the report"
    """
    from kfloop.components.deploy.approval import approve
    from kfloop.pipelines.rounds import open_loop

    loop = open_loop(path)
    done = approve(loop.workspace, evidence, actor=getpass.getuser(), reason=reason, config=loop.config.deploy)
    return _told(done.sentence, done.version, as_json=as_json)


@click.command("override")
@click.argument("evidence")
@config_option
@click.option("--reason", required=True, help="Why; stands in the ledger beside your name.")
@json_option
def override_command(evidence: str, path: Path, *, reason: str, as_json: bool) -> int:
    """Promote the challenger of a decision that rejected it, against the gate and on record.

    \b
    Example:
      kfloop override 829e23ac --reason "the slow answers came from a busy machine"
    """
    from kfloop.components.deploy.approval import override
    from kfloop.pipelines.rounds import open_loop

    loop = open_loop(path)
    done = override(loop.workspace, evidence, actor=getpass.getuser(), reason=reason, config=loop.config.deploy)
    return _told(done.sentence, done.version, as_json=as_json)


def _told(sentence: str, version: int, *, as_json: bool) -> int:
    say(sentence)
    if as_json:
        print_json({"champion": version, "sentence": sentence})
    return EXIT_DONE


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
