"""Section ``monitor``: what the monitor looks for, and when it starts a retraining."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kfloop.core.sections.base import Positive, Section
from kfloop.core.sections.spark import SparkConfig


class MonitorConfig(Section):
    """What the monitor looks for and when it starts a retraining."""

    engine: Literal["pyarrow", "spark"] = "pyarrow"
    """What reads the request log and brings it into the order of time: this process, or Spark (section ``spark``). The conclusions are the same."""
    min_rows: Positive = 50
    """Fewer logged rows than this give ``not_evaluated``."""
    materiality: Annotated[float, Field(ge=0.5, le=1)] = 0.6
    """AUC of telling reference from current rows below which drift does not matter."""
    min_fresh_labels: Positive = 60
    """Newly labelled rows needed to retrain; fewer give ``needs_labels``."""
    cooldown_minutes: Annotated[float, Field(ge=0)] = 60.0
    """Least time between two retraining attempts, in minutes."""
    max_retrains_per_month: Positive = 10
    """Budget of retraining attempts in 30 days."""
    fresh: str | None = None
    """Filled from ``data.fresh``."""
    false_alarms_per_year: Annotated[float, Field(gt=0, le=100)] = 1.0
    """False alarms of drift that are borne in a year, on average."""
    tolerance: Annotated[float, Field(ge=0, lt=10)] = 0.0
    """A shift below this many standard deviations is no drift; 0 declares whatever the reference can prove, and leaves it to ``materiality`` whether that matters."""
    batch: Positive | None = None
    """Units per bet; null means 50, and more where many rows come in a quarter of an hour."""
    unit: Positive | None = 1
    """Neighbouring rows that make one unit, above 1 where they hang together; null means as many as the reference suggests."""
    season: Literal["hour", "weekday", "hour_of_week"] | None = None
    """What rows are compared within (UTC): the reference then needs times."""
    unlogged: tuple[str, ...] = ()
    """Filled from ``serve.log``: columns that are not in the log as they came."""
    causes: tuple[Literal["drift", "estimated", "realised", "data_quality"], ...] = ("drift", "estimated", "realised")
    """What may start a retraining; what is left out is only told."""
    schedule_days: Annotated[float, Field(gt=0)] | None = None
    """Days after which a champion is retrained whatever the evidence says; null means never."""
    cooldown_after_success_minutes: Annotated[float, Field(ge=0)] = 1440.0
    """Least time after a retraining that was promoted, in minutes."""
    queue: Positive = 100
    """Requests that are put into the review queue when labels are needed."""
    retrain: str | None = None
    """Filled from ``kfloop monitor --retrain``: why a person wants a retraining now."""
    feedback: str | None = None
    """Filled from ``data.feedback``."""
    latency_ms_p95: Annotated[float, Field(gt=0)] | None = None
    """95th percentile of the time of an answer, in milliseconds, above which the service is not well; null: twice that of the champion's first day."""
    failure_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of the latest requests that may fail."""
    dropped_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of the latest rows that the request log may lose."""
    unexpected_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of request values that may break an expectation of the training suite, beyond what the suite's ``mostly`` allows."""
    price_per_1000: Annotated[float, Field(ge=0)] | None = None
    """What 1000 answers cost, in any currency; null: as the evaluation measured it with ``evaluate.price_per_hour``."""
    estimated_drop: Annotated[float, Field(gt=0, lt=1)] | None = 0.05
    """Fall of the quality estimated without labels that is worth a retraining; null: it is told and starts nothing."""
    realised_drop: Annotated[float, Field(gt=0, lt=1)] | None = 0.02
    """Fall of the quality found by labels that is worth a retraining; null: it is told and starts nothing."""
    window_days: float | None = None
    """Filled from ``data.recipe``."""
    spark: SparkConfig = SparkConfig()
    """Filled from section ``spark``."""
