"""Section ``evaluate``: scoring on the same test rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kfloop.core.sections.base import Positive, Section, Seed


class EvaluateConfig(Section):
    """Scoring of challenger, champion and a simple baseline on the same test rows."""

    bootstrap: Annotated[int, Field(ge=200)] = 1000
    """Number of bootstrap resamples."""
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence level of every interval."""
    seed: Seed = 0
    """Seed of the resamples."""
    baseline: (
        Literal[
            "logistic_regression",
            "nearest_neighbour",
            "gradient_boosting",
            "ridge",
            "repeat_last",
            "isolation_forest",
            "gaussian",
            "none",
        ]
        | None
    ) = None
    """The simple model the deep one is compared with; null means the usual one for the data and the task, ``none`` none."""
    samples: Annotated[int, Field(ge=100)] = 1000
    """Examples that a generator draws to be judged by."""
    slices: tuple[str, ...] | None = None
    """Columns and facts of the rows by whose values and ranges the figures are given too; null means up to 8 that fit, ``[]`` none."""
    segments: Annotated[int, Field(ge=0, le=5)] = 3
    """Most segments on which the challenger is weak that are looked for among the validation rows and scored on the test rows; 0 looks for none."""
    groups: tuple[str, ...] = ()
    """Columns by whose values people are to be treated alike: rates by group and the gaps between groups."""
    smallest_group: Positive = 30
    """Test rows from which a group counts for a gap."""
    corrupted_rows: Annotated[int, Field(ge=0)] = 500
    """Most test rows that are also scored with noise, gaps and the like; fewer of large inputs, 0 none."""
    explain: Annotated[int, Field(ge=0, le=24)] = 6
    """Test rows whose answers are explained; 0 for no explanations."""
    latency_batch: Positive = 32
    """Examples in one call of the timed batch; a model that takes fewer at once is timed with as many as it takes."""
    latency_seconds: Annotated[float, Field(gt=0)] = 0.2
    """Longest time for each timing, in seconds: with slow models there are fewer calls, but at least 3."""
    price_per_hour: Annotated[float, Field(gt=0)] | None = None
    """Price of the machine that answers, in any currency for an hour: then the report says what 1000 answers cost."""
