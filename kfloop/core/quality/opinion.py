"""A second opinion on realised quality: ADWIN of river over the latest labelled answers. It is told and decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

DELTA = 0.002


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What ADWIN says.

    Attributes:
        changes: Labels (counted from the oldest of those asked about) after which it saw a change.
        before: Mean quality before the last change; None without one.
        after: Mean quality since; None without one.
        n: Labels asked about.
        statement: One sentence.
    """

    changes: tuple[int, ...] = ()
    before: float | None = None
    after: float | None = None
    n: int = 0
    statement: str


def ask_adwin(found: Sequence[float], delta: float = DELTA) -> Opinion:
    """Ask river's ADWIN (Bifet and Gavalda, SDM 2007); without river it says so.

    Args:
        found: Quality of the labelled answers in [0, 1], in the order in which their truth came.
        delta: Its confidence; river's default.
    """
    if not found:  # river takes a second to load
        return Opinion(statement="ADWIN was not asked: there are no labels yet")
    try:
        from river.drift import ADWIN
    except ImportError:
        statement = "ADWIN was not asked: river is not installed (pip install 'kfloop[monitor]')"
        return Opinion(n=len(found), statement=statement)
    detector, changes = ADWIN(delta=delta), []
    for number, value in enumerate(found, start=1):
        detector.update(value)
        if detector.drift_detected:
            changes.append(number)
    if not changes:
        return Opinion(n=len(found), statement=f"ADWIN sees no change in the latest {len(found)} labels")
    # It tells the label at which it noticed; what it kept begins where it thinks that the change was.
    kept = max(int(detector.width), 1)
    before, after = list(found[:-kept]), list(found[-kept:])
    earlier = sum(before) / len(before) if before else None
    later = sum(after) / len(after)
    told = f" from {earlier:.3f} to {later:.3f}" if earlier is not None else ""
    return Opinion(
        changes=tuple(changes),
        before=earlier,
        after=later,
        n=len(found),
        statement=f"ADWIN sees a change{told} in the latest {len(found)} labels",
    )
