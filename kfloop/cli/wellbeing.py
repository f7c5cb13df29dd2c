"""One word for how the model is, why, and what to do next. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WELL, WATCH, ILL, UNKNOWN = "well", "watch", "ill", "unknown"
STATES = (WELL, WATCH, ILL, UNKNOWN)
STALE_SECONDS = 86_400.0
JUSTIFIED = ("retrain", "needs_labels", "cooldown", "in_flight", "over_budget")
NO_HARM = (
    "",
    "schedule",
    "manual",
)  # causes of a trigger that say nothing of the model: none, another run held the loop; a period; a wish
OTHERS = "rows of other versions"
LOST = 0.01  # share of the log's rows: losing a few in the beginning is no reason to look


def conclude(facts: Mapping[str, Any], now: float) -> tuple[str, str, str]:
    """The word, the reason in a sentence, and the next thing to do.

    Args:
        facts: As ``standing.gather`` gathers them.
        now: Seconds since 1970.
    """
    word, why, then = _state(facts, now)
    waiting = facts.get("waiting")
    if waiting:
        then = f"kfloop approve {waiting['evidence_digest'][:12]} (or kfloop reject): version {waiting['version']} waits for a person"
    return word, why, then


def _state(facts: Mapping[str, Any], now: float) -> tuple[str, str, str]:
    return _unseen(facts) or _harmed(facts) or _unsure(facts, now) or _odd(facts)


def _unseen(facts: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Nobody has looked at this champion."""
    trigger, monitor = facts.get("trigger"), facts.get("monitor") or {}
    if not facts.get("champion"):
        return _nothing_promoted(facts)
    if not trigger:
        return UNKNOWN, "the champion was never monitored", _serve(facts) or "kfloop monitor"
    if not monitor.get("current"):
        return UNKNOWN, "the champion is new: no round has watched it yet", _serve(facts) or "kfloop monitor"
    return None


def _nothing_promoted(facts: Mapping[str, Any]) -> tuple[str, str, str]:
    """Without a champion; the same command again helps where the last round was cut off, and nowhere else."""
    tried = [run for run in mappings(facts.get("runs")) if run.get("pipeline") == "training"]
    last = next((run.get("status") for run in tried if run.get("status") != "nothing_new"), None)
    why = "there is no champion yet"
    if last == "rejected":
        advice = "kfloop report shows what each rule missed; change data or training, then: kfloop run"
        return UNKNOWN, f"{why}: the last challenger was rejected", advice
    if last == "failed":
        return UNKNOWN, f"{why}: the last run failed", "kfloop report shows the failed step; mend it, then: kfloop run"
    return UNKNOWN, why, "kfloop run"


def _harmed(facts: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Something was found that matters; that stays so however long ago it was."""
    trigger = facts["trigger"]
    harm = [cause for cause in causes(facts["monitor"]) if cause.get("declared") and cause.get("matters")]
    if trigger["outcome"] in JUSTIFIED and trigger.get("cause") not in NO_HARM:
        return ILL, trigger["reason"], _cure(trigger["outcome"])
    return (ILL, str(harm[0].get("reason")), _cure(trigger["outcome"])) if harm else None


def _unsure(facts: Mapping[str, Any], now: float) -> tuple[str, str, str] | None:
    trigger = facts["trigger"]
    age = now - min(
        trigger["at"], facts["monitor"].get("at") or trigger["at"]
    )  # a round that found the loop held did not look
    if age > STALE_SECONDS:
        return UNKNOWN, f"the last monitoring round was {age / STALE_SECONDS:.1f} days ago", "kfloop monitor"
    seen = facts["monitor"].get("rows_seen")
    if trigger["outcome"] == "not_evaluated" and seen is not None and seen < facts.get("min_rows", 0):
        advice = f"kfloop monitor again, when {facts['min_rows']} rows were answered"
        return UNKNOWN, trigger["reason"], _serve(facts) or advice
    if trigger["outcome"] == "not_evaluated":
        return UNKNOWN, trigger["reason"], _serve(facts) or "kfloop report shows what was wrong with the rows"
    return None


def _odd(facts: Mapping[str, Any]) -> tuple[str, str, str]:
    odd = oddities(facts)
    if odd:
        more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
        return WATCH, f"{odd[0]}{more}", "kfloop report shows it; nothing is retrained for this"
    return WELL, facts["trigger"]["reason"], _serve(facts) or "nothing"


def causes(monitor: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The causes of the last round; drift alone for reports that have none."""
    found = mappings(monitor.get("causes"))
    if found:
        return found
    if monitor.get("threshold") is None:
        return []
    declared = monitor.get("alarm_row") is not None
    reason = f"drift was declared at row {monitor['alarm_row']}" if declared else "no drift"
    return [{"kind": "drift", "declared": declared, "matters": None, "reason": reason}]


def findings(monitor: Mapping[str, Any]) -> list[str]:
    """What was wrong with the rows or the service; that another version answered before is no fault of either."""
    health = monitor.get("health")
    found = [
        *_items(health.get("findings") if isinstance(health, Mapping) else None),
        *_items(monitor.get("data_quality")),
    ]
    return [line for line in dict.fromkeys(map(str, found)) if not line.startswith(OTHERS)]


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a list; nothing for what is none."""
    return [item for item in _items(value) if isinstance(item, Mapping)]


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def oddities(facts: Mapping[str, Any]) -> list[str]:
    """What is beyond a limit, or declared, but does not call for a retraining."""
    monitor = facts.get("monitor") or {}
    found = [str(cause.get("reason")) for cause in causes(monitor) if cause.get("declared")]
    found += findings(monitor)
    log = facts.get("log")
    if log and log["dropped"] > LOST * (log["written"] + log["dropped"]):
        found.append(f"the request log lost {log['dropped']} of {log['written'] + log['dropped']} rows")
    return list(dict.fromkeys(found))


def _serve(facts: Mapping[str, Any]) -> str:
    own = (facts.get("target") or {}).get("kind") == "embedded"
    return "kfloop serve: the champion is not served" if own and not facts.get("server") else ""


def _cure(outcome: str) -> str:
    return {
        "retrain": "kfloop report shows the evidence; the retraining was started by kfloop monitor",
        "needs_labels": "kfloop review, or kfloop feedback: people say what is true of the latest requests",
        "cooldown": "wait, or kfloop run to retrain now",
        "in_flight": "wait for the run that is under way",
        "over_budget": "kfloop run to retrain all the same; monitor.max_retrains_per_month is the budget",
    }.get(outcome, "kfloop report shows the evidence")
