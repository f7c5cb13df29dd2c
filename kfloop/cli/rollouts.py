"""``kfloop rollout``: where a canary or shadow stands, and what people and the supervisor do about it."""

from __future__ import annotations

import os
import select
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import by_option, config_option, json_option
from kfloop.core.workspace import Workspace
from kfloop.errors import EXIT_DONE, EXIT_FAILED, EXIT_REJECTED, EXIT_WAITING, ConfigError

if TYPE_CHECKING:
    from kfloop.components.deploy.advancing import Progress

OWNER_VARIABLE = "KFLOOP_ROLLOUT_OWNER"
EXITS = {"withdrawn": EXIT_REJECTED, "busy": EXIT_WAITING, "promoted": EXIT_DONE}


@click.command("rollout")
@config_option
@click.option("--advance", "ask_advance", is_flag=True, help="Promote or withdraw where the evidence says so.")
@click.option("--promote", "ask_promote", is_flag=True, help="Promote now; refused where something was shown worse.")
@click.option("--withdraw", "ask_withdraw", is_flag=True, help="End it; the champion stays.")
@click.option("--report", "ask_report", is_flag=True, help="Write the HTML page of the latest one and print its path.")
@click.option("--reason", default="", help="Why; stands in the ledger. Needed with --promote and --withdraw.")
@click.option("--workspace", "places", default="", hidden=True, help="Places of the loop as JSON, for the supervisor.")
@by_option
@json_option
def rollout_command(
    path: Path,
    *,
    ask_advance: bool,
    ask_promote: bool,
    ask_withdraw: bool,
    ask_report: bool,
    reason: str,
    places: str,
    by: str,
    as_json: bool,
) -> int:
    """Where the roll-out of a challenger stands (`deploy.rollout` in the loop file): requests, errors, times, disagreement, quality.

    A running `kfloop serve` and every `kfloop monitor` advance it by themselves; one may look at any time. Exit status: 3 when it was withdrawn
    by this command's look, 4 when it waits: for a run at work, or for a person because its time is over and something is still open.

    \b
    Example:
      kfloop rollout
      kfloop rollout --report
      kfloop rollout --advance
      kfloop rollout --withdraw --reason "complaints about sevens"
    """
    from kfloop.components.deploy.advancing import advance, look, withdraw_by_hand

    _end_with_owner()
    if ask_advance + ask_promote + ask_withdraw + ask_report > 1:
        raise ConfigError("--advance, --promote, --withdraw and --report are four things", hint="give one of them")
    if (ask_promote or ask_withdraw) and not reason:
        raise ConfigError("a person's word needs --reason", hint='such as: --reason "complaints about sevens"')
    workspace = Workspace.from_json(places) if places else _workspace(path)
    if ask_report:
        return _report(workspace, as_json=as_json)
    if ask_withdraw:
        told, status = withdraw_by_hand(workspace, reason, actor=by), EXIT_DONE
    elif ask_advance or ask_promote:
        told = advance(workspace, actor=by, by_hand=reason if ask_promote else "")
        status = EXITS.get(told.outcome, EXIT_WAITING if told.advice == "hold" else EXIT_DONE)
    else:
        told, status = look(workspace), EXIT_DONE
    _tell(told, as_json=as_json)
    return status


def _workspace(path: Path) -> Workspace:
    from kfloop.core.config import load_config

    return load_config(path).workspace(path.resolve().parent)


def _report(workspace: Workspace, *, as_json: bool) -> int:
    """Write the page of the roll-out that goes on, or of the last one."""
    import time

    from kfloop.components.deploy.looking import looks_file, story
    from kfloop.core.state.database import exists
    from kfloop.report.rollout import render_rollout

    told = story(workspace) if exists(workspace.state) else None
    if told is None:
        raise ConfigError(
            f"loop '{workspace.loop}' never rolled a challenger out",
            hint="set deploy.rollout.strategy in the loop file",
        )
    page = looks_file(workspace, told["ledger_row"]).with_suffix(".html")
    render_rollout(workspace.loop, told, page, made=time.time())
    if as_json:
        print_json(told | {"report": str(page)})
    else:
        click.echo(str(page))
    return EXIT_DONE


def _tell(told: Progress, *, as_json: bool) -> None:
    """The state for people on stderr, or as JSON on stdout."""
    from dataclasses import asdict

    say(told.sentence)
    for finding in told.findings:
        mean = "-" if finding.mean is None else f"{finding.mean:+.4f}"
        say(
            f"  {finding.question:<13} {mean:>8} on {finding.n} requests, bound {finding.bound:g}; evidence for worse "
            f"{finding.worse:.3g} of {finding.worse_needed:g}, for not worse {finding.fine:.3g} of {finding.fine_needed:g}"
        )
    if told.dropped:
        say(f"  {told.dropped} records were dropped because the log did not keep up")
    if told.damaged:
        say(f"  {told.damaged} files of evidence cannot be read, and what is in them does not count")
    if as_json:
        print_json(asdict(told))


def _end_with_owner() -> None:
    """End this process when the supervisor that started it ends; whatever is half done is finished by the next look."""
    owner = os.environ.get(OWNER_VARIABLE)
    if not owner:
        return
    try:
        descriptor = os.pidfd_open(int(owner))
    except (ProcessLookupError, ValueError):
        os._exit(EXIT_FAILED)

    def watch() -> None:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        poller.poll()
        os._exit(EXIT_FAILED)

    threading.Thread(target=watch, name="kfloop-owner", daemon=True).start()
