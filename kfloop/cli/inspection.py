"""``kfloop status`` and ``kfloop report``."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kfloop.cli.console import print_json
from kfloop.cli.options import config_option, json_option
from kfloop.cli.targets import target_facts, target_lines
from kfloop.cli.traffic import traffic_facts, traffic_lines
from kfloop.errors import EXIT_DONE, ConfigError

if TYPE_CHECKING:
    from kfloop.pipelines.rounds import Loop

DAY_SECONDS = 86400.0
STAGES = {"intent": "begun", "withdrawn": "withdrawn", "done": "", "noted": ""}


@click.command("status")
@config_option
@click.option("--ledger", "whole", is_flag=True, help="The whole ledger: who changed what, when and why.")
@json_option
def status_command(path: Path, *, whole: bool, as_json: bool) -> int:
    """Whether the model is well: champion, who waits for a person, server, last runs, last trigger, ledger.

    \b
    Example:
      kfloop status
      kfloop status --ledger
    """
    facts = gather(path, whole=whole)
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
    if record is None:
        raise ConfigError(f"no run '{run_id or ''}' of loop '{loop.config.name}'", hint="see: kfloop status")
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


def gather(path: Path, *, whole: bool = False) -> dict[str, Any]:
    """The facts of ``kfloop status``; nothing is created for a loop that never ran.

    Args:
        path: The loop file.
        whole: With every row of the ledger.
    """
    from kfloop.core.config import load_config
    from kfloop.core.records import champion_dict
    from kfloop.core.state.anchor import verified
    from kfloop.core.state.database import exists, open_state
    from kfloop.core.state.standing import active_overrides, active_rollout, pending_hold
    from kfloop.serving.endpoint import attach

    config = load_config(path)
    workspace = config.workspace(path.resolve().parent)
    facts: dict[str, Any] = {"loop": config.name, "champion": None, "previous": None, "runs": [], "trigger": None}
    facts |= {"ledger_rows": 0, "waiting": None, "rollout": None, "overrides": []} | ({"ledger": []} if whole else {})
    endpoint = attach(workspace)
    facts["server"] = None if endpoint is None else {"http": endpoint.http, "grpc": endpoint.grpc}
    facts |= traffic_facts(workspace, endpoint)
    facts["target"] = target_facts(config, workspace)
    if not exists(workspace.state):
        return facts
    state = open_state(workspace.state)
    name = config.name
    trigger = state.triggers.last(name)
    rows = verified(workspace)
    history = state.ledger.history(name)
    held = pending_hold(history)
    if held is not None:
        facts["waiting"] = {
            "version": held.version,
            "evidence_digest": held.evidence_digest,
            "run_id": held.run_id,
            "since": held.at,
            "expires": held.at + config.gate.approval_days * DAY_SECONDS,
        }
    rolled = active_rollout(history)
    if rolled is not None:
        facts["rollout"] = {"version": rolled.version, "since": rolled.at} | {
            key: rolled.details[key] for key in ("mode", "share")
        }
    if whole:
        facts["ledger"] = [asdict(entry) for entry in history]
    facts["overrides"] = [override.as_dict() for override in active_overrides(history)]
    return facts | {
        "champion": champion_dict(state.ledger.champion(name)),
        "previous": champion_dict(state.ledger.previous(name)),
        "ledger_rows": rows,
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
        *target_lines(facts["target"], server),
        *traffic_lines(facts),
        f"ledger     {facts['ledger_rows']} rows, chain intact",
        *_people_lines(facts),
        "trigger    " + (f"{trigger['outcome']}: {trigger['reason']}" if trigger else "never monitored"),
    ]
    return text + [
        f"run        {_when(run['started'])} {run['pipeline']} {run['status']}: {run['message'][:140]}"
        for run in facts["runs"]
    ]


def _people_lines(facts: dict[str, Any]) -> list[str]:
    """Who waits for a person, and which rules rest."""
    waiting = facts["waiting"]
    text = []
    if waiting:
        ends = "expired" if waiting["expires"] < time.time() else f"until {_when(waiting['expires'])}"
        text.append(
            f"waiting    version {waiting['version']}, {ends}: kfloop approve {waiting['evidence_digest'][:12]}"
        )
    rolled = facts["rollout"]
    if rolled:
        text.append(
            f"rollout    version {rolled['version']} as a {rolled['mode']} ({rolled['share']:.0%}) since {_when(rolled['since'])}: kfloop rollout"
        )
    return text + [
        f"override   {override['rule']} until {override['ends']} by {override['who']}: {override['why']}"
        for override in facts["overrides"]
    ]


def ledger_lines(facts: dict[str, Any]) -> list[str]:
    """The ledger for people: a line for each row and one that says whether it can be believed."""
    rows = facts["ledger"]
    text = []
    for row in rows:
        about = row["details"].get("rule") or f"version {row['version']}"
        what = " ".join(part for part in (row["action"].replace("_", " of "), about, STAGES[row["phase"]]) if part)
        until = f" until {_when(row['details']['until'])}" if row["details"].get("until") else ""
        evidence = f"  [{row['evidence_digest'][:12]}]" if row["evidence_digest"] else ""
        text.append(f"{row['seq']:>4}  {_when(row['at'])}  {row['actor']:<10} {what}{until}: {row['reason']}{evidence}")
    intact = (
        "each row's hash follows from the row before, and none is missing of those that kfloop saw in this folder"
        if rows
        else "empty"
    )
    return [*text, f"ledger of loop '{facts['loop']}': {len(rows)} rows, {intact}"]


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
