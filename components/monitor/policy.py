"""What follows from the evidence: the one place that turns facts into a trigger. Pure, and every answer has a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfloop.core.statistics.estimate import Estimate

NONE = "none"
RETRAIN = "retrain"
NEEDS_LABELS = "needs_labels"
COOLDOWN = "cooldown"
IN_FLIGHT = "in_flight"
OVER_BUDGET = "over_budget"
NOT_EVALUATED = "not_evaluated"
TRIGGERS = (NONE, RETRAIN, NEEDS_LABELS, COOLDOWN, IN_FLIGHT, OVER_BUDGET, NOT_EVALUATED)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything a conclusion rests on.

    Attributes:
        problem: Why nothing could be evaluated, None when it could.
        rows_seen: Valid rows of this champion that were watched.
        rows_new: Rows that came since the last round.
        e_value: Evidence now.
        threshold: Evidence at which drift is declared.
        alarm_row: Number of rows at which drift was declared, None if it never was for this champion.
        size: C2ST AUC of the latest rows against the reference.
        materiality: AUC from which on drift matters.
        active_runs: Runs of this loop under way, this one left out.
        fresh_labels: Labelled rows that the champion's dataset did not have, None when no folder is configured.
        min_fresh_labels: Rows needed to retrain.
        minutes_since_retrain: Since the last retraining was triggered, None if never.
        cooldown_minutes: Least time between two.
        retrains: Retrainings triggered in the last 30 days.
        budget: Most of them.
        tried: Whether a retraining for this champion, cause and number of labels was decided already.
    """

    problem: str | None
    rows_seen: int
    rows_new: int
    e_value: float
    threshold: float
    alarm_row: int | None
    size: Estimate
    materiality: float
    active_runs: tuple[str, ...]
    fresh_labels: int | None
    min_fresh_labels: int
    minutes_since_retrain: float | None
    cooldown_minutes: float
    retrains: int
    budget: int
    tried: bool


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """One trigger with its reason."""

    outcome: str
    reason: str


def conclude(facts: Facts) -> Conclusion:
    """Return the trigger that the facts call for.

    The order is the policy: data that cannot be judged, then evidence, then its size, then whether a retraining may start now.
    """
    if facts.problem is not None:
        return Conclusion(outcome=NOT_EVALUATED, reason=facts.problem)
    if facts.alarm_row is None:
        return Conclusion(outcome=NONE, reason=_no_alarm(facts))
    if not facts.size.known:
        reason = f"drift was declared at row {facts.alarm_row}, but its size is unknown: {facts.size.n} rows are too few to judge it"
        return Conclusion(outcome=NOT_EVALUATED, reason=reason)
    drift = f"drift since row {facts.alarm_row}, C2ST AUC {facts.size.value:.2f}"
    if facts.size.value < facts.materiality:
        reason = f"{drift}: below {facts.materiality:.2f}, too small now to be worth a retraining"
        return Conclusion(outcome=NONE, reason=reason)
    obstacle = _obstacle(facts)
    if obstacle is not None:
        return Conclusion(outcome=obstacle.outcome, reason=f"{drift}, but {obstacle.reason}")
    labels = f"{facts.fresh_labels} new labelled rows"
    return Conclusion(
        outcome=RETRAIN, reason=f"{drift} (at least {facts.materiality:.2f} matters); {labels} to learn from"
    )


def _no_alarm(facts: Facts) -> str:
    if facts.rows_new == 0:
        return f"no new rows since the last round; evidence {facts.e_value:.3g} of {facts.threshold:g} after {facts.rows_seen} rows"
    return f"no drift in {facts.rows_seen} rows: evidence {facts.e_value:.3g}, {facts.threshold:g} would declare it"


def _obstacle(facts: Facts) -> Conclusion | None:
    """Return what keeps a justified retraining from starting now: the first obstacle in the order of the policy."""
    since = facts.minutes_since_retrain
    obstacles = (
        (bool(facts.active_runs), IN_FLIGHT, f"run {', '.join(facts.active_runs)} is under way"),
        (
            facts.fresh_labels is None,
            NEEDS_LABELS,
            f"there are no new labels: set data.fresh to a folder; {facts.min_fresh_labels} labelled rows are needed",
        ),
        (
            facts.fresh_labels is not None and facts.fresh_labels < facts.min_fresh_labels,
            NEEDS_LABELS,
            f"only {facts.fresh_labels} labelled rows are new to the champion, {facts.min_fresh_labels} are needed",
        ),
        (
            since is not None and since < facts.cooldown_minutes,
            COOLDOWN,
            f"the last retraining was triggered {since or 0:.1f} minutes ago, {facts.cooldown_minutes:g} must pass",
        ),
        (
            facts.tried,
            NEEDS_LABELS,
            f"a retraining with the same {facts.fresh_labels} new labels was decided and the champion stayed: label more",
        ),
        (
            facts.retrains >= facts.budget,
            OVER_BUDGET,
            f"{facts.retrains} retrainings were triggered in 30 days, the budget is {facts.budget}",
        ),
    )
    return next((Conclusion(outcome=outcome, reason=reason) for holds, outcome, reason in obstacles if holds), None)
