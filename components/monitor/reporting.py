"""The report of one monitoring round."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kfloop.core.statistics.effects import Effect
from kfloop.core.statistics.estimate import Estimate

if TYPE_CHECKING:
    from kfloop.components.monitor.drift.evidence import Point
    from kfloop.components.monitor.policy.causes import Cause
    from kfloop.core.drifted import Part

UNKNOWN = Estimate(value=math.nan, low=math.nan, high=math.nan, n=0)


@dataclass(frozen=True, kw_only=True)
class MonitorReport:
    """What one round saw and concluded.

    Attributes:
        outcome: The trigger.
        reason: Why, in one sentence.
        champion_digest: Package of the champion, None without one.
        champion_version: Its version.
        at: Clock of the round, seconds since 1970.
        rows_seen: Rows of the champion so far.
        rows_new: Rows that came since the last round.
        rows_unusable: Rows of the champion so far that held an answer or an embedding that cannot be.
        other_versions: Rows that other versions answered.
        e_value: The evidence of drift as a share of what declares it, at most 1e300.
        threshold: The share at which drift is declared: 1.
        alarm_row: Row at which it was declared.
        history: Evidence over time.
        streams: Logarithm of the evidence of the strongest questions: where the drift is.
        guarantee: What is promised about false alarms, with the size of the reference and the tolerance.
        rehearsal: What a short simulation on the reference said about that promise.
        unwatched: What is not watched and why, one sentence each.
        causes: What each watch found.
        effects: Size of each shift, latest rows against the reference, the largest first.
        columns: Largest shift of each column of the request, in standard deviations.
        moved: What moved most.
        drifted: Parts of a table to which requests moved, at most three, once drift was declared or cells were found wrong: the retraining is judged on them.
        c2st_auc: How well a classifier tells the latest rows from the reference.
        quality: What the answers are worth, ``estimated`` without labels and ``realised`` with them.
        health: Volume, latency, failures, cost, and what requests hold.
        data_quality: What was wrong with the rows, one sentence each.
        fresh_labels: Labelled rows the champion's dataset did not have, None when no folder is configured.
        known_labels: Labelled rows that came and are known still, None likewise or when nothing calls for them.
        questions: Requests that people are asked to label; see ``kfloop review export``.
        cause: Kind of the cause that the trigger is for; empty where nothing calls for a retraining.
        fingerprint: Digest of champion, cause and labels; empty likewise.
    """

    outcome: str
    reason: str
    champion_digest: str | None = None
    champion_version: int | None = None
    at: float = 0.0
    rows_seen: int = 0
    rows_new: int = 0
    rows_unusable: int = 0
    other_versions: dict[str, int] = field(default_factory=dict)
    e_value: float = 0.0
    threshold: float = 1.0
    alarm_row: int | None = None
    history: tuple[Point, ...] = ()
    streams: dict[str, float] = field(default_factory=dict)
    guarantee: str = ""
    rehearsal: str = ""
    unwatched: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()
    effects: tuple[Effect, ...] = ()
    columns: dict[str, float] = field(default_factory=dict)
    moved: tuple[str, ...] = ()
    drifted: tuple[Part, ...] = ()
    c2st_auc: Estimate = UNKNOWN
    data_quality: tuple[str, ...] = ()
    quality: dict[str, Any] = field(default_factory=dict)
    health: dict[str, Any] = field(default_factory=dict)
    fresh_labels: int | None = None
    known_labels: int | None = None
    questions: int = 0
    cause: str = ""
    fingerprint: str = ""
