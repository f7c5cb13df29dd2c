"""Levels: an interval at another level, the correction for several slices, and the smallest effect that a rule can see.

All three see an interval as an arm on either side of the value that is a multiple of one standard error, the multiple being the normal
quantile of the level. Score intervals of shares reach a little further than that at high levels, so that going down to a lower level keeps
them slightly too wide, never too narrow.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfloop.components.gate.measurement import Measurement

NORMAL = NormalDist()
LEVEL = 0.95  # of intervals that do not say theirs
LOWEST_LEVEL = 0.5  # of an interval that says anything
POWER = 0.8  # share of rounds in which an effect that counts as detectable is seen (Cohen, "Statistical power analysis", 1988)


def quantile(level: float) -> float:
    """Normal quantile of a two-sided level."""
    return NORMAL.inv_cdf(0.5 + level / 2)


def at_level(measured: Measurement, level: float) -> Measurement:
    """The same measurement with its interval at another level."""
    if measured.value is None or measured.low is None or measured.high is None:
        return measured
    factor = quantile(level) / quantile(measured.level or LEVEL)
    low = measured.value - (measured.value - measured.low) * factor
    high = measured.value + (measured.high - measured.value) * factor
    return replace(measured, low=low, high=high, level=level)


def standard_errors_beyond(measured: Measurement, threshold: float, *, at_least: bool) -> float:
    """How far the value is on the right side of the threshold, in standard errors; below 0 on the wrong side.

    The arm of the interval that reaches towards the threshold is the measure. NaN without a value or an interval.
    """
    if measured.value is None or measured.low is None or measured.high is None:
        return math.nan
    good = measured.value - threshold if at_least else threshold - measured.value
    down = at_least is (good >= 0)  # the arm below the value reaches towards a threshold below it
    arm = measured.value - measured.low if down else measured.high - measured.value
    if arm <= 0:
        return math.inf if good >= 0 else -math.inf
    return good / arm * quantile(measured.level or LEVEL)


def standard_error(measured: Measurement) -> float | None:
    """Half the interval in normal quantiles; null without an interval, or where it has no width."""
    if measured.low is None or measured.high is None or measured.high <= measured.low:
        return None
    return (measured.high - measured.low) / (2 * quantile(measured.level or LEVEL))


def holm_levels(distances: Sequence[float], level: float) -> list[float]:
    """The level at which each of several hypotheses is judged, so that any false claim among them has one hypothesis' chance.

    Step-down: the clearest is judged at tail/m, the next at tail/(m-1) and so on until one is not clear, whose level the rest share
    (S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979).

    Args:
        distances: Of each from its threshold, in standard errors, positive for what would be claimed; NaN for what cannot be judged,
            which counts among the m and is never clear.
        level: Two-sided level of a single hypothesis; the tail is half of what it leaves.
    """
    tail, m = (1 - level) / 2, len(distances)
    order = sorted(range(m), key=lambda place: -math.inf if math.isnan(distances[place]) else distances[place])[::-1]
    levels = [level] * m
    step, clear = 0, True
    for rank, place in enumerate(order):
        step = rank if clear else step
        levels[place] = 1 - 2 * tail / (m - step)
        clear = clear and distances[place] >= quantile(levels[place])
    return levels


def detectable(measured: Measurement, threshold: float, *, at_least: bool, use: str) -> float | None:
    """The true value that is seen in 80 % of rounds with as many rows: passed by the rule, or with ``unless_refuted`` noticed by it.

    Args:
        measured: Value and interval.
        threshold: The number asked for.
        at_least: True for ``>=``.
        use: ``point``, ``interval`` or ``unless_refuted``.

    Returns:
        None without an interval, or where it has no width.
    """
    error = standard_error(measured)
    if error is None or measured.value is None:
        return None
    multiple = quantile(measured.level or LEVEL)
    reach = (NORMAL.inv_cdf(POWER) + (0.0 if use == "point" else multiple)) * error
    upwards = at_least is (use != "unless_refuted")
    return threshold + (reach if upwards else -reach)
