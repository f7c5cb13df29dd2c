"""The report of one monitoring round."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kfloop.core.statistics.effects import BLIND_SPOT, Effect
from kfloop.core.statistics.estimate import Estimate

if TYPE_CHECKING:
    from kfloop.components.monitor.memory import Point

UNJUDGED = "How right the answers are is not estimated: only what turned out to be true shows that."
UNKNOWN = Estimate(value=math.nan, low=math.nan, high=math.nan, n=0)


@dataclass(frozen=True, kw_only=True)
class MonitorReport:
    """What one round saw and concluded.

    Attributes:
        outcome: The trigger.
        reason: Why, in one sentence.
        champion_digest: Package of the champion, None without one.
        champion_version: Its version.
        rows_seen: Valid rows of the champion so far.
        rows_new: Rows that came since the last round.
        rows_unusable: Rows of the champion so far that held a value that is not finite.
        other_versions: Rows that other versions answered.
        e_value: The evidence, at most 1e300.
        threshold: Evidence at which drift is declared.
        alarm_row: Row at which it was declared.
        history: Evidence over time.
        views: Logarithm of the best open bet of each view: where the drift is.
        effects: Size of each shift, latest rows against the reference.
        c2st_auc: How well a classifier tells the latest rows from the reference.
        estimated_accuracy: Of the latest rows, without labels.
        reference_accuracy: The same estimate for the reference.
        blind_spot: What that estimate cannot see, or that there is none: classes alone come with a confidence.
        data_quality: What was wrong with the rows, one sentence each.
        fresh_labels: Labelled rows the champion's dataset did not have, None when no folder is configured.
        fingerprint: Digest of champion, cause and number of new labels.
    """

    outcome: str
    reason: str
    champion_digest: str | None = None
    champion_version: int | None = None
    rows_seen: int = 0
    rows_new: int = 0
    rows_unusable: int = 0
    other_versions: dict[str, int] = field(default_factory=dict)
    e_value: float = 0.0
    threshold: float
    alarm_row: int | None = None
    history: tuple[Point, ...] = ()
    views: dict[str, float] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()
    c2st_auc: Estimate = UNKNOWN
    estimated_accuracy: Estimate = UNKNOWN
    reference_accuracy: Estimate = UNKNOWN
    blind_spot: str = BLIND_SPOT
    data_quality: tuple[str, ...] = ()
    fresh_labels: int | None = None
    fingerprint: str = ""
