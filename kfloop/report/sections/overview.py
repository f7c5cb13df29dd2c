"""The head of the report: what the run concluded, in one sentence and its reason, and how each step went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfloop.core.records import outcome_words
from kfloop.report.sections.following import following
from kfloop.report.sources import Context, step_name
from kfloop.report.values import duration, mapping, moment, number, rows, said, short, text, words

# Sentence and tone of each conclusion. The reason beside it is always that of the object which concluded.
_DECISIONS = {
    "promote": ("The challenger was promoted.", "good"),
    "reject": ("The challenger was rejected.", "bad"),
    "hold": ("The challenger waits for a person.", "wait"),
}
_TRIGGERS = {
    "none": ("No drift that matters.", "good"),
    "retrain": ("Drift that matters: retrain.", "wait"),
    "needs_labels": ("Labels are needed before a retraining.", "wait"),
    "cooldown": ("No retraining yet: cooling down after the last one.", "wait"),
    "in_flight": ("No second retraining: one is already running.", "wait"),
    "over_budget": ("No retraining: the budget is spent.", "wait"),
    "not_evaluated": ("Drift was not evaluated.", "bad"),
}
_REASONS = 5  # at the head of the page
# From here on a run is about models.
_MODEL_STEPS = frozenset({"train", "package", "incumbent", "evaluate", "bless", "gate", "deploy", "keep", "monitor"})
_STATUSES = {
    "succeeded": ("The run succeeded.", "good"),
    "failed": ("The run failed.", "bad"),
    "rejected": ("The challenger was rejected.", "bad"),
    "held": ("The challenger waits for a person.", "wait"),
    "needs_labels": ("Labels are needed.", "wait"),
    "nothing_new": ("Nothing new since the last run.", "quiet"),
    "running": ("The run has not ended.", "quiet"),
}


def headline(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the run concluded: sentence, tone, and the reasons in order of weight.

    A failure outweighs a decision: a promotion that the deployment did not finish must not read as one.
    """
    status = text(record.get("status"))
    decision, trigger = mapping(record.get("decision")), mapping(record.get("trigger"))
    sentence, tone = _STATUSES.get(status, (f"The run ended as '{status or 'unknown'}'.", "quiet"))
    if status == "succeeded" and record.get("until"):
        sentence = f"Every step up to {words(step_name(record['until']))} succeeded."
    if status not in {"failed", "nothing_new", "running"}:
        sentence, tone = _TRIGGERS.get(text(trigger.get("outcome")), (sentence, tone))
        sentence, tone = _DECISIONS.get(text(decision.get("outcome")), (sentence, tone))
    reasons = failures(record)
    if status == "failed" and not reasons:
        reasons = [said(record.get("error"))]
    for name, concluded in (("Decision", decision), ("Trigger", trigger)):
        if rows(concluded.get("blocking")):
            reasons += [_blocked(line) for line in rows(concluded.get("blocking"))]
        elif concluded:
            label = _caused(concluded) or f"{name} {words(concluded.get('outcome'))}"
            reasons.append(f"{label}: {text(concluded.get('reason'))}" if text(concluded.get("reason")) else label)
    if record.get("repeated_of"):
        reasons.append(f"Repeats run {text(record.get('repeated_of'))}.")
    if not any(reasons):
        reasons = [text(record.get("message"))]
    return {"sentence": sentence, "tone": tone, "reasons": [reason for reason in reasons if reason]}


def _caused(concluded: Mapping[str, Any]) -> str:
    """What a retraining was for, and the evidence that it rests on; empty for any other conclusion."""
    if concluded.get("outcome") != "retrain" or not text(concluded.get("cause")):
        return ""
    evidence = text(concluded.get("evidence_digest"))
    return f"Caused by {words(concluded.get('cause'))}" + (f" (evidence {short(evidence)})" if evidence else "")


def _blocked(line: Mapping[str, Any]) -> str:
    """A verdict that forbade the promotion: its sentence, and what to do about it."""
    told, advice = text(line.get("sentence")), text(line.get("advice"))
    name = f"[{text(line.get('rule'))}] " if number(line.get("threshold")) is not None else ""
    return f"{name}{told}. What to do: {advice}." if advice else f"{name}{told}"


def _shortened(found: dict[str, Any]) -> dict[str, Any]:
    """The headline with as many reasons as the head of a page holds; the verdicts below have all."""
    reasons = found["reasons"]
    if len(reasons) <= _REASONS:
        return found
    return found | {"reasons": [*reasons[: _REASONS - 1], f"And {len(reasons) - _REASONS + 1} more, see Verdicts."]}


def failures(record: Mapping[str, Any]) -> list[str]:
    """The steps that failed, each with the message and the hint of its error."""
    found = []
    for line in rows(record.get("steps")):
        if line.get("status") == "failed" or line.get("error"):
            why = said(line.get("error")) or "it left no message"
            found.append(f"Step {words(step_name(line.get('name')))} failed: {why}")
    return found


def champion(record: Mapping[str, Any]) -> dict[str, Any]:
    """The champion before and after the run, whether it changed, and whether the run was about a champion at all.

    A run that was told to stop before any model, or that failed before one, says nothing of a champion that is not there.
    """
    both = mapping(record.get("champion"))
    before, after = mapping(both.get("before")), mapping(both.get("after"))
    return {
        "concerned": bool(after) or (bool(_MODEL_STEPS & _taken(record)) and not record.get("until")),
        "before": _version(before),
        "after": _version(after),
        "changed": (before.get("version"), before.get("digest")) != (after.get("version"), after.get("digest")),
    }


def overrides(record: Mapping[str, Any]) -> list[str]:
    """The overrides of rules that lasted when the run began, a sentence each."""
    return [
        f"{text(line.get('rule'))} does not block until {text(line.get('ends'))}: {text(line.get('who'))} overrode it ({text(line.get('why'))}; "
        f"ledger row {text(line.get('row'))})"
        for line in rows(record.get("overrides"))
    ]


def _taken(record: Mapping[str, Any]) -> set[str]:
    """The steps that the run came to."""
    return {
        step_name(line.get("name"))
        for line in rows(record.get("steps"))
        if line.get("status") not in {None, "not_run", "skipped"}
    }


def _version(entry: Mapping[str, Any]) -> str:
    if not entry:
        return "none"
    return f"version {text(entry.get('version'))} ({short(entry.get('digest'))})"


def build(context: Context) -> Mapping[str, Any]:
    """What the head of the report and its timeline show."""
    record = context.record
    return {
        "headline": _shortened(headline(record)),
        "champion": champion(record),
        "next": following(context),
        "overrides": overrides(record),
        "facts": [
            ("pipeline", text(record.get("pipeline"))),
            ("started", moment(record.get("started"))),
            ("took", duration(record.get("seconds"))),
            ("engine", text(record.get("engine"))),
            ("exit code", text(record.get("exit_code"))),
        ],
        "steps": _timeline(record),
    }


def _timeline(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    lines = rows(record.get("steps"))
    begun, total = _span(record, lines)
    shown = []
    for line in lines:
        seconds, started = number(line.get("seconds")) or 0.0, _seconds(line.get("started"))
        offset = 0.0 if started is None or begun is None else min(max(started - begun, 0.0), total)
        status = text(line.get("status")) or "not_run"
        ran = status in {"succeeded", "failed", "running"}
        shown.append(
            {
                "name": words(step_name(line.get("name"))),
                "status": words(status),
                "seconds": duration(seconds) if ran else "",
                "left": round(100 * offset / total, 2),
                "width": round(100 * min(seconds, total - offset) / total, 2) if ran else 0,
                "outcome": outcome_words(text(line.get("outcome"))),
                "digest": short(mapping(line.get("artifact")).get("digest")) if line.get("artifact") else "",
                "message": text(mapping(line.get("error")).get("message")),
                "hint": text(mapping(line.get("error")).get("hint")),
            }
        )
    return shown


def _span(record: Mapping[str, Any], lines: list[dict[str, Any]]) -> tuple[float | None, float]:
    """When the first step began, and the seconds that the time axis covers."""
    times = [
        (begun, number(line.get("seconds")) or 0.0)
        for line in lines
        if (begun := _seconds(line.get("started"))) is not None
    ]
    if not times:
        return None, max([number(line.get("seconds")) or 0.0 for line in lines], default=0.0) or 1.0
    first = min(begun for begun, _ in times)
    start = _seconds(record.get("started"))
    first = first if start is None else min(first, start)
    return first, max(begun + seconds for begun, seconds in times) - first or 1.0


def _seconds(value: Any) -> float | None:
    """A UNIX or ISO time as UNIX time."""
    from datetime import datetime

    if number(value) is not None:
        return number(value)
    try:
        return datetime.fromisoformat(text(value)).timestamp()
    except ValueError:
        return None
