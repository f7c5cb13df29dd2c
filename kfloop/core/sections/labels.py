"""Section ``labels``: how wrong labels are looked for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kfloop.core.sections.base import Section, Seed, Share


class LabelsConfig(Section):
    """How wrong labels are looked for, and what is done about them."""

    policy: Literal["report", "weight", "quarantine", "relabel_queue"] = "report"
    """``report`` only tells; ``weight`` halves doubtful examples; ``quarantine`` leaves them out of training; ``relabel_queue`` asks people (``kfloop review export``)."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Number of folds of the out-of-sample probabilities."""
    seed: Seed = 0
    """Seed of the folds."""
    probabilities: Literal["stand_in", "model"] = "stand_in"
    """Out-of-sample probabilities from fast models on an embedding of the data, or from the usual model family for such data, trained once per fold."""
    review_below: Share = 0.5
    """Confidence of the given label's best rival or of any class below which a prediction is worth a person's look."""
    near_distance: Annotated[int, Field(ge=0)] | None = None
    """Largest distance of near duplicates, in the unit of the modality; null means kfloop's own."""
    groups: tuple[str, ...] = ()
    """Columns whose values are looked at for worse labels; empty means the group, the origin, and columns with few values."""
