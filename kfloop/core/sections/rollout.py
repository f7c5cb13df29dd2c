"""Section ``deploy.rollout``: how the traffic goes over to the challenger."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kfloop.core.sections.base import Positive, Section


class MarginConfig(Section):
    """The worst that one will bear of a challenger in a roll-out; each is tested against the champion on the same requests.

    Null asks no such question.
    """

    errors: Annotated[float, Field(gt=0, lt=1)] = 0.005
    """Share of requests on which it fails, more than the champion."""
    latency: Annotated[float, Field(ge=1)] | None = 1.5
    """Times the champion's own time; more than that on most requests is too slow."""
    disagreement: Annotated[float, Field(gt=0, lt=1)] | None = 0.3
    """Share of rows with another answer than the champion's."""
    quality: Annotated[float, Field(gt=0, lt=1)] | None = 0.01
    """Share of labelled rows on which it is wrong, more than the champion; asked as far as there is feedback (``data.feedback``)."""


class RolloutConfig(Section):
    """How a challenger that may be promoted gets the traffic. These values are fixed when a roll-out starts and hold until its end."""

    strategy: Literal["all_at_once", "canary", "shadow"] = "all_at_once"
    """``all_at_once``: champion at once. ``canary``: it answers a share of the requests, sticky by key, until evidence promotes or withdraws it. ``shadow``: it
    answers them in the background, and its answers are compared and never returned. The first champion of a loop is always promoted at once."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the keys (requests without a key: of the requests) that the challenger gets."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Chance of withdrawing a challenger that is worse in nothing, however often one looks; also of calling one not worse that is."""
    margin: MarginConfig = MarginConfig()
    """The worst that one will bear."""
    close: Annotated[float, Field(ge=0)] = 0.1
    """Two answers that are numbers agree when they differ by at most this share of the larger one."""
    min_requests: Positive = 200
    """Fewest requests that both answered before it is promoted."""
    max_requests: Positive = 20000
    """Requests after which a person decides, where it was neither shown worse nor shown to be as good."""
    max_hours: Annotated[float, Field(gt=0)] = 24.0
    """Hours after which a person decides, too; with fewer than ``min_requests`` it is withdrawn."""
    look_seconds: Annotated[float, Field(ge=1)] = 15.0
    """Time between two looks of the running server's supervisor, in seconds."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_requests < self.min_requests:
            message = f"max_requests ({self.max_requests}) is smaller than min_requests ({self.min_requests})"
            raise ValueError(message)
        return self

    def bounds(self) -> dict[str, float]:
        """The questions that are asked, with the worst mean one will bear (see ``kfloop.core.statistics.paired_bets``)."""
        asked = {
            "errors": self.margin.errors,
            "latency": None if self.margin.latency is None else 0.5,
            "disagreement": self.margin.disagreement,
            "quality": self.margin.quality,
        }
        return {name: bound for name, bound in asked.items() if bound is not None}
