"""One rule of section ``gate``: what it may say, and what it is called."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from kfloop.core.sections.base import Positive, Section
from kfloop.core.statistics.metrics import FIGURES
from kfloop.errors import nearest

SLICES = ("class:", "channel:", "origin:", "column:", "group:", "segment:", "corruption:", "drifted:", "old:")
FEWEST_TO_REFUTE = 10  # rows below which hardly anything could be proved wrong


class Rule(Section):
    """One gate condition."""

    metric: str
    """Name of the number, for example ``accuracy`` or ``p95_ms``."""
    source: Literal["evaluate", "cost", "bless", "labels"] = "evaluate"
    """Report that holds the number; ``cost`` is what the evaluation measured of size, speed and money."""
    slice: str = "overall"
    """``overall``, or a slice as the report names it: ``class:NAME``, ``origin:fresh``, ``origin:new`` (fresh rows that the champion's data
    lacked), ``column:NAME=VALUE``, ``group:NAME=VALUE``; a ``*`` at the end stands for every slice that begins so, as in ``class:*``, with Holm's
    correction over them. ``drifted:*`` are the rows where requests moved to, ``old:*`` all others, in a retraining for which drift named columns."""
    versus: Literal["absolute", "champion", "baseline"] = "absolute"
    """``absolute`` judges the challenger's value, the others the difference challenger minus other."""
    relative: bool = False
    """The difference is a share of the other's value: ``at_most: 0.05`` allows an error 5 % larger. Only for errors, and with ``versus``."""
    at_least: float | None = None
    """Lower bound, for what is better the more it is; exactly one of ``at_least`` and ``at_most``."""
    at_most: float | None = None
    """Upper bound, for what is better the less it is; exactly one of ``at_least`` and ``at_most``."""
    use: Literal["point", "interval", "unless_refuted"] = "point"
    """What must satisfy the bound: the ``point`` estimate, the whole ``interval`` (it is proved), or any part of it (``unless_refuted``: the rule fails
    only where the opposite is proved)."""
    min_n: Positive = 1
    """Fewer examples than this make the rule ``not_evaluated``."""
    mode: Literal["enforce", "warn", "off"] = "enforce"
    """``warn`` reports without deciding; ``off`` leaves the rule out."""
    when: Literal["always", "slice_exists", "large_enough"] = "always"
    """``slice_exists`` leaves the rule out where the test rows have no such slice, ``large_enough`` each slice of fewer than ``min_n`` rows; otherwise
    such a slice rejects."""

    @model_validator(mode="after")
    def _one_bound(self) -> Rule:
        if (self.at_least is None) == (self.at_most is None):
            message = f"rule on {self.metric!r}: give exactly one of at_least and at_most"
            raise ValueError(message)
        if self.relative and self.versus == "absolute":
            message = f"rule on {self.metric!r}: relative says of whom, so set versus to champion or baseline"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _can_be_judged(self) -> Rule:
        """Refuse before a training what could only reject after it, or would protect from nothing."""
        problem = self._problem_of_figure() or self._problem_of_place() or self._problem_of_use()
        if problem:
            message = f"rule on {self.metric!r}: {problem}"
            raise ValueError(message)
        return self

    def name(self, place: str | None = None) -> str:
        """What the rule is called, made of what it says: ``accuracy[class:3] vs champion >= -0.05 (interval)``, ``rmse vs champion <= +5%``.

        Args:
            place: Slice, with a wildcard resolved; null means the rule's own.
        """
        place = self.slice if place is None else place
        where = "" if place == "overall" else f"[{place}]"
        versus = "" if self.versus == "absolute" else f" vs {self.versus}"
        sign, number = (">=", self.at_least) if self.at_least is not None else ("<=", self.at_most)
        bound = f"{100 * (number or 0.0):+.12g}%" if self.relative else f"{number:.12g}"
        use = {"point": "", "interval": " (interval)", "unless_refuted": " (unless refuted)"}[self.use]
        # A figure that two steps measure is told apart by the step.
        source = (
            f"{self.source} "
            if sum(self.metric in known for known in FIGURES.values()) > 1 and self.source != "evaluate"
            else ""
        )
        return f"{source}{self.metric}{where}{versus} {sign} {bound}{use}"

    def _problem_of_figure(self) -> str:
        known = FIGURES[self.source]
        if self.metric not in known:
            return f"{self.source} has no such figure ({nearest(self.metric, known)})"
        better = known[self.metric].better
        wanted = "at_least" if better == "higher" else "at_most"
        if better is None:
            return "it says nothing of the challenger"
        if getattr(self, wanted) is None:
            return f"{better} is better, so give {wanted}"
        return "relative is for errors; give the difference itself" if self.relative and better == "higher" else ""

    def _problem_of_place(self) -> str:
        if self.source in {"bless", "labels"} and (self.versus != "absolute" or self.slice != "overall"):
            return f"{self.source} measures the challenger as a whole, alone: leave versus and slice out"
        if self.source == "cost" and self.slice != "overall":
            return "a cost is that of the model as a whole: leave slice out"
        if self.slice != "overall" and not self.slice.startswith(SLICES):
            return f"there is no slice {self.slice!r} (known: overall, {', '.join(f'{kind}NAME' for kind in SLICES)})"
        return ""

    def _problem_of_use(self) -> str:
        if self.source in {"bless", "cost"} and self.use != "point":
            return f"{self.source} gives no intervals: leave use out"
        if self.use == "unless_refuted" and self.min_n < FEWEST_TO_REFUTE:
            return f"few rows refute nothing, so with use: unless_refuted give min_n of at least {FEWEST_TO_REFUTE}"
        return ""
