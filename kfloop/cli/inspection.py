"""``kfloop status`` and ``kfloop report``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from kfloop.cli.console import print_json
from kfloop.cli.options import config_option, json_option
from kfloop.errors import EXIT_DONE, ConfigError


@click.command("status")
@config_option
@json_option
def status_command(path: Path, *, as_json: bool) -> int:
    """Whether the model is well: champion, server, last runs, last trigger, ledger.

    \b
    Example:
      kfloop status
    """
    facts = gather(path)
    if as_json:
        print_json(facts)
    else:
        click.echo("\n".join(lines(facts)))
    return EXIT_DONE


@click.command("report")
@click.argument("run_id", required=False)
@config_option
@json_option
def report_command(run_id: str | None, path: Path, *, as_json: bool) -> int:
    """Write the HTML report of RUN_ID (the latest run when left out) and print its path.

    \b
    Example:
      kfloop report
    """
    from kfloop.pipelines.rounds import open_loop
    from kfloop.report.runs import write_run_report

    loop = open_loop(path)
    last = loop.state.runs.last(loop.config.name)
    record = loop.state.runs.get(run_id) if run_id else (last[0] if last else None)
    if record is None:
        raise ConfigError(f"no run '{run_id or ''}' of loop '{loop.config.name}'", hint="see: kfloop status")
    written = write_run_report(record, loop.workspace)
    if as_json:
        print_json({"run_id": record["run_id"], "report": str(written)})
    else:
        click.echo(str(written))
    return EXIT_DONE


def gather(path: Path) -> dict[str, Any]:
    """The facts of ``kfloop status``; nothing is created for a loop that never ran."""
    from kfloop.core.config import load_config
    from kfloop.core.records import champion_dict
    from kfloop.core.state.database import exists, open_state
    from kfloop.serving.endpoint import attach

    config = load_config(path)
    workspace = config.workspace(path.resolve().parent)
    facts: dict[str, Any] = {"loop": config.name, "champion": None, "previous": None, "runs": [], "trigger": None}
    facts["ledger_rows"] = 0
    endpoint = attach(workspace)
    facts["server"] = None if endpoint is None else {"http": endpoint.http, "grpc": endpoint.grpc}
    if not exists(workspace.state):
        return facts
    state = open_state(workspace.state)
    name = config.name
    trigger = state.triggers.last(name)
    return facts | {
        "champion": champion_dict(state.ledger.champion(name)),
        "previous": champion_dict(state.ledger.previous(name)),
        "ledger_rows": state.ledger.verify(name),
        "trigger": None
        if trigger is None
        else {"outcome": trigger.trigger, "reason": trigger.reason, "at": trigger.at},
        "runs": [
            {
                key: record.get(key)
                for key in ("run_id", "pipeline", "status", "message", "started", "seconds", "report")
            }
            for record in state.runs.last(name, 5)
        ],
    }


def lines(facts: dict[str, Any]) -> list[str]:
    """The facts for people, one screen."""
    champion, previous, server, trigger = (facts[key] for key in ("champion", "previous", "server", "trigger"))
    text = [
        f"loop       {facts['loop']}",
        "champion   " + (f"version {champion['version']} ({champion['digest'][:12]})" if champion else "none yet"),
        "previous   " + (f"version {previous['version']} ({previous['digest'][:12]})" if previous else "none"),
        "server     "
        + (f"{server['http']} (http), {server['grpc']} (grpc)" if server else "not running (kfloop serve)"),
        f"ledger     {facts['ledger_rows']} rows, chain intact",
        "trigger    " + (f"{trigger['outcome']}: {trigger['reason']}" if trigger else "never monitored"),
    ]
    for run in facts["runs"]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run["started"]))
        text.append(f"run        {when} {run['pipeline']} {run['status']}: {run['message'][:140]}")
    return text
