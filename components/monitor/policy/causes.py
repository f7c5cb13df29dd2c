"""What may call for a retraining: one finding of one kind of watch, in the terms the policy decides by."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kfloop.core.statistics.estimate import Estimate

DRIFT = "drift"
ESTIMATED = "estimated"
REALISED = "realised"
DATA_QUALITY = "data_quality"
SCHEDULE = "schedule"
MANUAL = "manual"
KINDS = (DRIFT, ESTIMATED, REALISED, DATA_QUALITY, SCHEDULE, MANUAL)
UNKNOWN = Estimate(value=math.nan, low=math.nan, high=math.nan, n=0)


@dataclass(frozen=True, kw_only=True)
class Cause:
    """What one kind of watch found.

    Attributes:
        kind: One of ``KINDS``.
        declared: Whether its evidence crossed its threshold. A declared cause stays declared until the champion changes.
        matters: Whether its size is worth a retraining; None when the size is not known.
        refutes: Whether it shows that the champion is as good as it was: realised quality with enough labels and no fall.
        size: How large it is, in ``unit``.
        unit: What ``size`` measures, such as ``C2ST AUC`` or ``fall of accuracy``.
        since: Time at which it was declared, ISO 8601; empty when it was not.
        key: What tells this cause from a later one of the same kind, for instance the row at which it was declared.
        moved: Columns, classes or slices that moved most, the largest first.
        reason: One sentence for people.
    """

    kind: str
    declared: bool
    matters: bool | None
    refutes: bool = False
    size: Estimate = UNKNOWN
    unit: str = ""
    since: str = ""
    key: str = ""
    moved: tuple[str, ...] = ()
    reason: str
