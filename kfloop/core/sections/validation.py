"""Section ``validation``: checks on the dataset version."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kfloop.core.sections.base import Positive, Section
from kfloop.core.sections.spark import SparkConfig


class ValidationConfig(Section):
    """Checks on the dataset version before anything is learned from it."""

    suite: str | None = None
    """Path of a Great Expectations suite (JSON); null means the default suite. ``kfloop step validate_data --propose`` writes one."""
    engine: Literal["auto", "great_expectations", "polars", "spark"] = "auto"
    """What evaluates the suite; all give the same verdicts. ``auto`` takes polars for big tables; ``spark`` is taken only where it is named (section ``spark``)."""
    polars_above: Positive = 2_000_000
    """Rows above which ``auto`` takes polars."""
    skew_level: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Chance that any column of a pair of sets that do not differ is called skewed (Bonferroni over columns)."""
    skew_effect: Annotated[float, Field(ge=0)] = 0.1
    """Smallest effect that counts as skew: Kolmogorov-Smirnov distance, or total variation distance for categories."""
    requests: str | None = None
    """Folder of the request log to compare with; a run fills in the loop's own."""
    requests_digest: str | None = None
    """State of that log; filled in by a run, so that no cached answer is older than the log."""
    spark: SparkConfig = SparkConfig()
    """Filled from section ``spark``."""
