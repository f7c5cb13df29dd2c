"""How a loop stands: the facts that ``kfloop status`` prints and ``kfloop metrics`` exposes."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kfloop.cli.targets import target_facts
from kfloop.cli.traffic import bring_log, traffic_facts
from kfloop.cli.wellbeing import conclude

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.config import LoopConfig
    from kfloop.core.state import State
    from kfloop.core.workspace import Workspace

DAY_SECONDS = 86400.0
RUNS = 5
DECLINED = 3
WATCHED = (
    "champion_version",
    "rows_seen",
    "rows_new",
    "rows_unusable",
    "e_value",
    "threshold",
    "alarm_row",
    "c2st_auc",
    "guarantee",
    "causes",
    "effects",
    "columns",
    "data_quality",
    "fresh_labels",
    "quality",
    "health",
)
RUN_KEYS = ("run_id", "pipeline", "status", "message", "started", "seconds", "report")


def gather(path: Path, *, whole: bool = False, fresh: bool = False) -> dict[str, Any]:
    """The facts of ``kfloop status``; nothing is created for a loop that never ran.

    Args:
        path: The loop file.
        whole: With every row of the ledger.
        fresh: Bring first what servers published of the request log; without it, what was brought last is told of.
    """
    from kfloop.core.config import load_config
    from kfloop.core.records import champion_dict
    from kfloop.core.state.anchor import verified
    from kfloop.core.state.database import exists, open_state
    from kfloop.serving.endpoint import attach

    config = load_config(path)
    workspace = config.workspace(path.resolve().parent)
    facts: dict[str, Any] = {"loop": config.name, "champion": None, "previous": None, "runs": [], "trigger": None}
    facts |= {"ledger_rows": 0, "waiting": None, "rollout": None, "overrides": []} | ({"ledger": []} if whole else {})
    facts |= {
        "monitor": None,
        "declined": [],
        "triggers": {},
        "materiality": config.monitor.materiality,
        "min_rows": config.monitor.min_rows,
    }
    endpoint = attach(workspace)
    facts["server"] = None if endpoint is None else {"http": endpoint.http, "grpc": endpoint.grpc}
    problem = bring_log(workspace) if fresh else ""
    facts |= traffic_facts(workspace, endpoint)
    if facts["published"]:
        facts["published"]["problem"] = problem
    facts["target"] = target_facts(config, workspace)
    facts["feedback"] = _feedback(config, workspace)
    if exists(workspace.state):
        state = open_state(workspace.state)
        facts["ledger_rows"] = verified(workspace)
        facts |= _people(config, state, whole=whole)
        facts |= {
            "champion": champion_dict(state.ledger.champion(config.name)),
            "previous": champion_dict(state.ledger.previous(config.name)),
            "runs": [{key: record.get(key) for key in RUN_KEYS} for record in state.runs.last(config.name, RUNS)],
        }
        facts |= _watched(state, workspace, (facts["champion"] or {}).get("digest"))
    word, why, then = conclude(facts, time.time())
    return {"state": word, "why": why, "next": then} | facts


def _people(config: LoopConfig, state: State, *, whole: bool) -> dict[str, Any]:
    """Who waits for a person, what is rolled out, which rules rest."""
    from kfloop.core.state.standing import active_overrides, active_rollout, pending_hold

    history = state.ledger.history(config.name)
    held, rolled = pending_hold(history), active_rollout(history)
    facts: dict[str, Any] = {"overrides": [override.as_dict() for override in active_overrides(history)]}
    if held is not None:
        facts["waiting"] = {
            "version": held.version,
            "evidence_digest": held.evidence_digest,
            "run_id": held.run_id,
            "since": held.at,
            "expires": held.at + config.gate.approval_days * DAY_SECONDS,
        }
    if rolled is not None:
        facts["rollout"] = {"version": rolled.version, "since": rolled.at} | {
            key: rolled.details[key] for key in ("mode", "share")
        }
    return facts | ({"ledger": [asdict(entry) for entry in history]} if whole else {})


def _watched(state: State, workspace: Workspace, champion: str | None) -> dict[str, Any]:
    """What the monitor concluded, last and before, and the evidence of its last round; ``current`` when that was about the present champion."""
    from kfloop.core.artifacts import read_report
    from kfloop.core.store import Store

    history = state.triggers.history(workspace.loop)
    if not history:
        return {}
    last = history[-1]
    looked = next(
        (line for line in reversed(history) if line.evidence_digest), last
    )  # others found the loop held by a run
    try:
        report = read_report(Store.of(workspace).path("evidence", looked.evidence_digest))
    except (OSError, ValueError, TypeError):  # rounds of old, or a store that lost it: the trigger says what it can
        report = {}
    seen = {key: report.get(key) for key in WATCHED} | {"champion_digest": looked.champion_digest, "at": looked.at}
    seen |= {"current": looked.champion_digest == champion, "readable": bool(report)}
    return {
        "trigger": {"outcome": last.trigger, "reason": last.reason, "at": last.at, "cause": last.cause},
        "triggers": _rounds(history),
        "declined": _declined([line for line in history[:-1] if line.trigger != "retrain"]),
        "monitor": seen,
    }


def _rounds(history: list[Any]) -> dict[str, int]:
    """Rounds by what they concluded; one that took its trigger back, since another training was at work, concluded that."""
    last = {line.run_id or place: line.trigger for place, line in enumerate(history)}
    return dict(Counter(last.values()))


def _declined(history: list[Any]) -> list[dict[str, Any]]:
    """The last conclusions not to retrain before the last one; those of one kind that follow each other are one line with their number."""
    found: list[dict[str, Any]] = []
    for line in reversed(history):
        if found and found[-1]["outcome"] == line.trigger:
            found[-1]["times"] += 1
            continue
        if len(found) == DECLINED:
            break
        found.append({"outcome": line.trigger, "reason": line.reason, "at": line.at, "times": 1})
    return found


def _feedback(config: LoopConfig, workspace: Workspace) -> dict[str, Any]:
    """How many answers people gave to served requests."""
    from kfloop.core.ground_truth import truth_file

    place = truth_file(config.data.feedback, workspace.root)
    try:
        with (workspace.root / place).open("rb") as stream:
            return {"answers": sum(1 for line in stream if line.strip())}
    except OSError:
        return {"answers": 0}
