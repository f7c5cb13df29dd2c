"""What follows from the evidence: the one place that turns causes and circumstances into a trigger. Pure, and every answer has a reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kfloop.components.monitor.policy.causes import DATA_QUALITY, DRIFT, ESTIMATED, MANUAL, REALISED, SCHEDULE, Cause
from kfloop.core.artifacts import canonical_json, sha256_text

if TYPE_CHECKING:
    from kfloop.components.monitor.policy.freshness import Labels
    from kfloop.core.sections import MonitorConfig

NONE = "none"
RETRAIN = "retrain"
NEEDS_LABELS = "needs_labels"
COOLDOWN = "cooldown"
IN_FLIGHT = "in_flight"
OVER_BUDGET = "over_budget"
NOT_EVALUATED = "not_evaluated"
TRIGGERS = (NONE, RETRAIN, NEEDS_LABELS, COOLDOWN, IN_FLIGHT, OVER_BUDGET, NOT_EVALUATED)

ORDER = (MANUAL, REALISED, DRIFT, ESTIMATED, DATA_QUALITY, SCHEDULE)
"""Which of several causes a retraining is for. An estimate leans on the confidence of the model, which means little on rows unlike any in the reference: what was seen comes first."""
MEASURED = (DRIFT, ESTIMATED, REALISED)
"""Causes that have a size; one without it cannot be judged."""
REFUTED = (DRIFT, ESTIMATED)
"""Causes that are no harm where labels show that the champion is as good as it was."""
BESIDE_ROWS = (MANUAL, SCHEDULE)
"""Causes that do not rest on the rows of the log."""
GROWTH = 0.25
"""Share of further labels without which another retraining of the same champion would learn the same again."""
MONTH_SECONDS = 30 * 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A retraining that was triggered before.

    Attributes:
        at: When, seconds since 1970.
        champion: Digest of the champion that it was to replace.
        labels: Labelled rows known then; None where none were configured, or nobody wrote it down.
        decided: Whether its gate came to a decision; one that failed or was killed may be tried again.
        promoted: Whether it gave the next champion.
        begun: Whether its training began, or may have; one that could not be started costs nothing of the budget.
    """

    at: float
    champion: str
    labels: int | None = None
    decided: bool = False
    promoted: bool = False
    begun: bool = True


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything a conclusion rests on.

    Attributes:
        config: Section ``monitor``.
        now: The clock, seconds since 1970.
        problem: Why the rows cannot be judged, None when they can.
        causes: What each watch found.
        champion: Digest of the champion.
        under_way: What of this loop is at work, in words; this round left out.
        labels: Labelled rows to learn from; None when none are configured, or when nothing calls for them.
        attempts: Retrainings of this loop, in the order in which they were recorded.
    """

    config: MonitorConfig
    now: float
    problem: str | None = None
    causes: tuple[Cause, ...] = ()
    champion: str = ""
    under_way: tuple[str, ...] = ()
    labels: Labels | None = None
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """One trigger.

    Attributes:
        outcome: One of ``TRIGGERS``.
        reason: Why, in one sentence.
        cause: What it is for; None where nothing calls for a retraining.
        fingerprint: Digest of champion, cause and labels: the same for the same retraining; empty without a cause.
    """

    outcome: str
    reason: str
    cause: Cause | None = None
    fingerprint: str = ""


def counted(config: MonitorConfig) -> tuple[str, ...]:
    """Kinds of causes that may start a retraining: what the user chose, a schedule, and a person who asks."""
    return (*config.causes, SCHEDULE, MANUAL)


def calls(config: MonitorConfig, causes: tuple[Cause, ...], problem: str | None) -> tuple[Cause, ...]:
    """The causes that were declared, count, and can be judged; the most telling one first."""
    return tuple(
        sorted(
            (
                cause
                for cause in causes
                if cause.declared and cause.kind in counted(config) and (problem is None or cause.kind in BESIDE_ROWS)
            ),
            key=lambda cause: ORDER.index(cause.kind),
        )
    )


def conclude(facts: Facts) -> Conclusion:
    """Return the trigger that the facts call for.

    The order is the policy: rows that cannot be judged, then evidence, then whether it matters, then whether a retraining may start now.
    """
    called = calls(facts.config, facts.causes, facts.problem)
    if facts.problem is not None and not called:
        return Conclusion(outcome=NOT_EVALUATED, reason=facts.problem)
    if not called:
        return Conclusion(outcome=NONE, reason=_nothing(facts))
    well = next((cause for cause in facts.causes if cause.refutes and not cause.declared), None)
    harmless = {cause.kind: _harmless(cause, well) for cause in called}
    left = [cause for cause in called if not harmless[cause.kind]]
    material = [cause for cause in left if _matters(cause)]
    if material:
        found = [_retraining(facts, cause) for cause in material]
        return next((conclusion for conclusion in found if conclusion.outcome == RETRAIN), found[0])
    if left:
        cause = left[0]
        reason = f"{cause.reason}, but its size is unknown: {cause.size.n} rows are too few to judge it"
        return Conclusion(outcome=NOT_EVALUATED, reason=reason, cause=cause)
    return Conclusion(outcome=NONE, reason="; ".join(filter(None, harmless.values())), cause=called[0])


def fingerprint(champion: str, cause: Cause, labels: Labels | None) -> str:
    """Digest of a retraining: the same champion, the same cause, the same labels."""
    known = None if labels is None else labels.known
    return sha256_text(canonical_json([champion, cause.kind, cause.key, known]))


def _nothing(facts: Facts) -> str:
    """Why nothing calls for a retraining: what was declared but does not count, else what each watch says."""
    ignored = [cause for cause in facts.causes if cause.declared]
    if ignored:
        return "; ".join(f"{cause.reason}, which monitor.causes leaves out" for cause in ignored)
    quiet = [cause.reason for cause in facts.causes if cause.kind in counted(facts.config)]
    return "; ".join(quiet) or "nothing calls for a retraining"


def _matters(cause: Cause) -> bool | None:
    """Whether a cause is worth a retraining; None where its size is not known, whatever its watch says.

    What is wrong with rows is worth none by itself: whoever names it in `monitor.causes` says that it is.
    """
    if cause.kind == DATA_QUALITY:
        return True
    return None if cause.kind in MEASURED and not cause.size.known else cause.matters


def _harmless(cause: Cause, well: Cause | None) -> str:
    """Why a cause is not worth a retraining; empty where it may be."""
    if well is not None and cause.kind in REFUTED:
        return f"{cause.reason}, but {well.reason}"
    return f"{cause.reason}: too small now to be worth a retraining" if _matters(cause) is False else ""


def _retraining(facts: Facts, cause: Cause) -> Conclusion:
    """A retraining for this cause, or the first obstacle in the order of the policy."""
    obstacles = (
        _under_way(facts),
        _too_few_labels(facts, cause),
        _too_soon(facts, cause),
        _tried(facts, cause),
        _spent(facts),
    )
    found = next((obstacle for obstacle in obstacles if obstacle is not None), None)
    mark = fingerprint(facts.champion, cause, facts.labels)
    if found is not None:
        outcome, why = found
        return Conclusion(outcome=outcome, reason=f"{cause.reason}, but {why}", cause=cause, fingerprint=mark)
    learned = f"; {facts.labels.fresh} new labelled rows to learn from" if facts.labels is not None else ""
    return Conclusion(outcome=RETRAIN, reason=f"{cause.reason}{learned}", cause=cause, fingerprint=mark)


Obstacle = tuple[str, str] | None


def _under_way(facts: Facts) -> Obstacle:
    return (IN_FLIGHT, f"{', '.join(facts.under_way)} is under way") if facts.under_way else None


def _takes_labels(facts: Facts, cause: Cause) -> bool:
    """Whether a cause needs new labels: not where a person insists, nor where a schedule reads a source that grows by itself."""
    return cause.kind != MANUAL and not (cause.kind == SCHEDULE and facts.labels is None)


def _too_few_labels(facts: Facts, cause: Cause) -> Obstacle:
    least = facts.config.min_fresh_labels
    if not _takes_labels(facts, cause):
        return None
    if facts.labels is None:
        return NEEDS_LABELS, f"there are no new labels: set data.fresh; {least} labelled rows are needed"
    if facts.labels.fresh < least:
        return NEEDS_LABELS, f"only {facts.labels.fresh} labelled rows are new to the champion, {least} are needed"
    return None


def _too_soon(facts: Facts, cause: Cause) -> Obstacle:
    """A time in the future counts like one as long ago; farther than the cooldown it is a clock that was set back, and binds nobody."""
    if cause.kind == MANUAL:
        return None
    promoted = [attempt for attempt in facts.attempts if attempt.promoted]
    for attempts, least, what in (
        (facts.attempts, facts.config.cooldown_minutes, "the last retraining was triggered"),
        (promoted, facts.config.cooldown_after_success_minutes, "the last retraining that was promoted was triggered"),
    ):
        minutes = (facts.now - attempts[-1].at) / 60 if attempts else math.inf
        if abs(minutes) < least:
            return COOLDOWN, f"{what} {max(minutes, 0.0):.1f} minutes ago, {least:g} must pass"
    return None


def _tried(facts: Facts, cause: Cause) -> Obstacle:
    """Whatever the cause is called, the same champion and the same labels give the same challenger."""
    if not _takes_labels(facts, cause) or facts.labels is None:
        return None
    decided = [
        (a.labels, a.at) for a in facts.attempts if a.decided and a.champion == facts.champion and a.labels is not None
    ]
    if not decided:
        return None
    most = max(labels for labels, _ in decided)
    learned = max(0, most - facts.labels.taken)  # of them new to the champion
    wanted = max(1, math.ceil(GROWTH * learned))
    came = facts.labels.known - most
    if (
        facts.labels.told
    ):  # what the request log has deleted since is known no more: then the answers that came later tell
        came = max(came, facts.labels.since(max(at for _, at in decided)))
    if came >= wanted:
        return None
    missing = wanted - came
    return NEEDS_LABELS, f"a retraining with these labels was decided and the champion stayed: label {missing} more"


def _spent(facts: Facts) -> Obstacle:
    spent = sum(attempt.begun and abs(facts.now - attempt.at) < MONTH_SECONDS for attempt in facts.attempts)
    budget = facts.config.max_retrains_per_month
    if spent < budget:
        return None
    return OVER_BUDGET, f"{spent} retrainings were triggered in 30 days, the budget is {budget}"
