"""The circumstances of a conclusion, read from state: what is under way, what was tried, which labels wait, what is due or asked for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kfloop.components.monitor.policy.causes import MANUAL, SCHEDULE, Cause
from kfloop.components.monitor.policy.concluding import IN_FLIGHT, RETRAIN, Attempt, Facts, calls, conclude
from kfloop.components.monitor.policy.freshness import count_fresh_labels
from kfloop.core.state.origins import STARTING, started_training
from kfloop.core.state.standing import active_rollout
from kfloop.core.store import Store
from kfloop.core.workspace import run_id

if TYPE_CHECKING:
    from kfloop.core.sections import MonitorConfig
    from kfloop.core.state import State
    from kfloop.core.state.ledger import Entry
    from kfloop.core.workspace import Workspace

DAY_SECONDS = 24 * 3600.0
DECIDED = ("succeeded", "rejected", "held")
REJECT = "reject"
FIRST = "ingest"  # step of every training
SILENT_SECONDS = 25 * 3600.0
"""A training on a cluster that has told nothing for so long was killed: no step may take longer, its wait for a node included (24 hours by default)."""


def judge(
    config: MonitorConfig,
    *,
    causes: tuple[Cause, ...],
    problem: str | None,
    champion: Entry,
    state: State,
    workspace: Workspace,
    now: float,
) -> dict[str, Any]:
    """Conclude one trigger from what the watches found.

    Labels are counted only where a cause calls for them: that reads the champion's dataset.

    Args:
        config: Section ``monitor``.
        causes: What each watch found.
        problem: Why the rows cannot be judged, None when they can.
        champion: The ledger's row of the champion.
        state: State of the loop.
        workspace: Places of the loop.
        now: The clock, seconds since 1970.

    Returns:
        What ``MonitorReport`` says of it: ``outcome``, ``reason``, ``cause``, ``causes``, ``fingerprint``, ``fresh_labels``, ``known_labels``, ``at``.

    Raises:
        StateError: Labels are to be counted, and the champion's package or dataset is missing.
    """
    attempts = past_attempts(state, workspace.loop)
    found = (*causes, *_asked(config, now), *_due(config, champion, attempts, now))
    labels = None
    if calls(config, found, problem):
        package = Store.of(workspace).require("models", champion.model_digest)
        labels = count_fresh_labels(config, package, workspace)
    facts = Facts(
        config=config,
        now=now,
        problem=problem,
        causes=found,
        champion=champion.model_digest,
        under_way=_under_way(state, workspace.loop, now),
        labels=labels,
        attempts=attempts,
    )
    conclusion = conclude(facts)
    return {
        "outcome": conclusion.outcome,
        "reason": conclusion.reason,
        "cause": conclusion.cause.kind if conclusion.cause else "",
        "causes": found,
        "fingerprint": conclusion.fingerprint,
        "fresh_labels": labels.fresh if labels else None,
        "known_labels": labels.known if labels else None,
        "at": now,
    }


def past_attempts(state: State, loop: str) -> tuple[Attempt, ...]:
    """Every retraining of the loop that was triggered, in the order in which they were recorded.

    A round that found another training at work when it came to start its own took that back (`standing.stand_back`) and is no attempt.
    """
    promoting = {entry.run_id for entry in state.ledger.history(loop) if entry.phase == "done" and entry.run_id}
    back = {trigger.run_id for trigger in state.triggers.history(loop, IN_FLIGHT)} - {""}
    triggers = [trigger for trigger in state.triggers.history(loop, RETRAIN) if trigger.run_id not in back]
    trained = [str(started_training(state, trigger.run_id).get("outcome") or trigger.run_id) for trigger in triggers]
    return tuple(
        Attempt(
            at=trigger.at,
            champion=trigger.champion_digest,
            labels=trigger.labels,
            decided=run in promoting or _decided(state, run),
            promoted=run in promoting,
            begun=not _not_started(state, trigger.run_id),
        )
        for trigger, run in zip(triggers, trained, strict=True)
    )


def awaited(state: State, loop: str) -> dict[str, Any]:
    """The training that the last trigger started as a run of its own and that has no record yet (its last step writes that): ``outcome``, its id, and ``until``."""
    for trigger in state.triggers.history(loop, RETRAIN)[-1:]:
        started = started_training(state, trigger.run_id)
        if started and state.runs.get(started["outcome"]) is None:
            return started
    return {}


def _not_started(state: State, run: str) -> bool:
    """Whether a round on a cluster says that it could not start the training: nothing was trained then."""
    events = [item for item in (state.runs.events(run) if run else []) if item.step == STARTING]
    return bool(events) and events[-1].event == "failed"


def _decided(state: State, run: str) -> bool:
    """Whether a run came to a decision.

    One that was killed after its gate had rejected has: the record is closed later than the decision is published. One that was
    killed before it could promote, or put on hold, what its gate let pass has not.
    """
    record: dict[str, Any] = (state.runs.get(run) if run else None) or {}
    return record.get("status") in DECIDED or (bool(run) and _of_gate(state, run) == REJECT)


def _of_gate(state: State, run: str) -> str:
    events = [item for item in state.runs.events(run) if item.step == "gate" and item.event == "succeeded"]
    return str(events[-1].payload.get("outcome") or "") if events else ""


def _under_way(state: State, loop: str, now: float) -> tuple[str, ...]:
    """Whatever is at work for the loop, whoever started it; a record or an event that a killed run left behind binds nobody for ever."""
    # Of an engine's own runs only the holder of the lease is alive; the records of the others say so once somebody holds it next.
    holder = state.leases.holder(loop)
    found = [name for name in state.runs.active(loop) if holder is not None and name == holder.run_id]
    found += state.runs.without_record(loop, FIRST, after=now - SILENT_SECONDS, until=now + SILENT_SECONDS)
    started = awaited(state, loop)
    # It may wait for its first step; one that was killed never writes its record, so it counts for as long as it may take.
    if started and now < started["until"]:
        found.append(started["outcome"])
    runs = [f"run {name}" for name in dict.fromkeys(found) if name != run_id()]
    opened = state.ledger.open_intent(loop)
    runs += [f"the {opened.action} of version {opened.version}"] if opened is not None else []
    rollout = active_rollout(state.ledger.history(loop))
    return (*runs, *([f"the roll-out of version {rollout.version}"] if rollout is not None else []))


def _asked(config: MonitorConfig, now: float) -> tuple[Cause, ...]:
    """A person who wants a retraining now; each time it is another cause."""
    if config.retrain is None:
        return ()
    reason = f"somebody asked for a retraining: {config.retrain}"
    return (Cause(kind=MANUAL, declared=True, matters=True, key=repr(now), reason=reason),)


def _due(config: MonitorConfig, champion: Entry, attempts: tuple[Attempt, ...], now: float) -> tuple[Cause, ...]:
    """The schedule: due when neither the champion nor the last decision about it is younger than its period.

    What lies in the future, farther than a period, was written by a clock that was set back.
    """
    if config.schedule_days is None:
        return ()
    times = [champion.at, *(attempt.at for attempt in attempts if attempt.decided)]
    ages = [(now - at) / DAY_SECONDS for at in times]
    youngest = min((abs(age) for age in ages), default=math.inf)
    due = youngest >= config.schedule_days
    told = f"the schedule asks for a retraining every {config.schedule_days:g} days"
    reason = f"{told}, and the last one was {youngest:.1f} days ago"
    key = str(math.floor(ages[0] / config.schedule_days))
    return (Cause(kind=SCHEDULE, declared=due, matters=due, key=key, reason=reason),)
