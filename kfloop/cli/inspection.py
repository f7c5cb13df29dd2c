"""``kfloop status`` and ``kfloop report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kfloop.cli.console import print_json
from kfloop.cli.options import config_option, json_option
from kfloop.cli.standing import gather
from kfloop.cli.status_text import ledger_lines, lines
from kfloop.errors import EXIT_DONE, ConfigError

if TYPE_CHECKING:
    from kfloop.pipelines.rounds import Loop


@click.command("status")
@config_option
@click.option("--ledger", "whole", is_flag=True, help="The whole ledger: who changed what, when and why.")
@json_option
def status_command(path: Path, *, whole: bool, as_json: bool) -> int:
    """Whether the model is well, in one screen: why, champion, service, drift, quality, labels, the last conclusions, and what to do next.

    The first line has one word: well, watch (something is beyond its limit), ill (the champion is worse, or its data moved so far that it matters) or unknown.

    \b
    Example:
      kfloop status
      kfloop status --ledger
    """
    facts = gather(path, whole=whole, fresh=True)
    if as_json:
        print_json(facts)
    else:
        click.echo("\n".join(ledger_lines(facts) if whole else lines(facts)))
    return EXIT_DONE


@click.command("report")
@click.argument("run_id", required=False)
@config_option
@click.option("--card", type=int, metavar="VERSION", help="The model card of a version instead.")
@json_option
def report_command(run_id: str | None, path: Path, *, card: int | None, as_json: bool) -> int:
    """Write the HTML report of RUN_ID (the latest run when left out) and print its path.

    \b
    Example:
      kfloop report
      kfloop report --card 3
    """
    from kfloop.pipelines.rounds import open_loop
    from kfloop.report.runs import write_run_report

    loop = open_loop(path)
    if card is not None:
        return _card(loop, card, as_json=as_json)
    last = loop.state.runs.last(loop.config.name)
    record = loop.state.runs.get(run_id) if run_id else (last[0] if last else None)
    if record is None and run_id is None:
        raise ConfigError(f"loop '{loop.config.name}' has no run yet", hint="start one with: kfloop run")
    if record is None:
        raise ConfigError(f"no run '{run_id}' of loop '{loop.config.name}'", hint="see: kfloop status")
    written = write_run_report(record, loop.workspace)
    if as_json:
        print_json({"run_id": record["run_id"], "report": str(written)})
    else:
        click.echo(str(written))
    return EXIT_DONE


def _card(loop: Loop, version: int, *, as_json: bool) -> int:
    """Print where the model card of a version is."""
    from kfloop.core.cards import find_card
    from kfloop.core.cards.keeping import CARD, PAGE

    folder = find_card(loop.workspace, version)
    if folder is None:
        known = sorted({entry.version for entry in loop.state.ledger.history(loop.config.name) if entry.version})
        raise ConfigError(
            f"version {version} of loop '{loop.config.name}' has no model card",
            hint=f"versions that were promoted or held: {', '.join(map(str, known)) or 'none'}",
        )
    if as_json:
        print_json({"version": version, "card": str(folder / CARD), "report": str(folder / PAGE)})
    else:
        click.echo(str(folder / PAGE))
    return EXIT_DONE
