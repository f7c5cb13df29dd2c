"""``kfloop approve``, ``reject`` and ``rollback``: what people decide about challengers and champions."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import by_option, config_option, json_option
from kfloop.errors import EXIT_DONE

if TYPE_CHECKING:
    from kfloop.pipelines.rounds import Loop


@click.command("approve")
@click.argument("run")
@config_option
@click.option("--reason", required=True, help="Why; stands in the ledger.")
@by_option
@json_option
def approve_command(run: str, path: Path, *, reason: str, by: str, as_json: bool) -> int:
    """Promote the challenger that waits for a person: exactly what was held, judged by exactly the evidence of that decision.

    RUN is the id of the run that held it, or its evidence digest, or the beginning of either. Refused when it was rejected, when a newer
    challenger is held, when the champion has changed since, after gate.approval_days, when it rests on an override that has
    ended since, and when the decision was edited.

    \b
    Example:
      kfloop approve 829e23ac --reason "looked at the report"
    """
    from kfloop.components.deploy.approval import approve
    from kfloop.pipelines.rounds import open_loop

    loop = open_loop(path)
    done = approve(loop.workspace, run, actor=by, reason=reason, config=loop.config.deploy, gate=loop.config.gate)
    say(done.sentence)
    if as_json:
        print_json(
            {
                "champion": done.version,
                "outcome": done.outcome,
                "evidence_digest": done.evidence_digest,
                "ledger_row": done.ledger_row,
                "sentence": done.sentence,
            }
        )
    return EXIT_DONE


@click.command("reject")
@click.argument("run")
@config_option
@click.option("--reason", required=True, help="Why; stands in the ledger.")
@by_option
@json_option
def reject_command(run: str, path: Path, *, reason: str, by: str, as_json: bool) -> int:
    """Turn down the challenger that waits for a person; RUN as in `kfloop approve`. The champion stays.

    Also gives up a promotion that stays open because the server it needs is away.

    \b
    Example:
      kfloop reject 829e23ac --reason "too weak on sevens"
    """
    from kfloop.components.deploy.approval import reject
    from kfloop.pipelines.rounds import open_loop

    loop = open_loop(path)
    done = reject(loop.workspace, run, actor=by, reason=reason, config=loop.config.deploy)
    say(done.sentence)
    if as_json:
        print_json(vars(done))
    return EXIT_DONE


@click.command("rollback")
@config_option
@click.option("--to", type=int, help="Version to bring back; the champion before when left out.")
@click.option("--reason", default="asked for by hand", show_default=True, help="Why; stands in the ledger.")
@by_option
@json_option
def rollback_command(path: Path, *, to: int | None, reason: str, by: str, as_json: bool) -> int:
    """Bring the champion before back; a second rollback goes forward again.

    The old version is verified by its golden answers before it serves.

    \b
    Example:
      kfloop rollback --reason "complaints about sevens"
    """
    from kfloop.pipelines.rounds import open_loop

    loop = open_loop(path)
    version = roll(loop, to=to, reason=reason, by=by)
    if as_json:
        print_json({"champion": version})
    return EXIT_DONE


def roll(loop: Loop, *, to: int | None, reason: str, by: str = "") -> int:
    """Roll back.

    Returns:
        The version that is champion now.
    """
    from kfloop.components.deploy.rollback import rollback

    done = rollback(loop.workspace, to, actor=by or getpass.getuser(), reason=reason, config=loop.config.deploy)
    say(f"   {done.sentence} Ledger row {done.ledger_row}.")
    return done.version
