"""The sections of ``loop.yaml``, one for each step: what can be told, in which unit, with which default."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """Base of every section: frozen, strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SplitConfig(Section):
    """Shares of the rows that are held out; the rest is for training."""

    validation: Share = 0.15
    """Share used to choose the best epoch."""
    test: Share = 0.25
    """Share on which challenger and champion are compared."""

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> SplitConfig:
        if self.validation <= 0 or self.test <= 0 or self.validation + self.test >= 1:
            message = f"validation {self.validation} and test {self.test} must be above 0 and sum to less than 1"
            raise ValueError(message)
        return self


class DataConfig(Section):
    """Where the examples come from."""

    source: str = "digits"
    """``digits`` (shipped with scikit-learn) or the path of an image folder."""
    limit: Positive | None = None
    """Use only this many rows of the source (chosen by a stable hash); null means all."""
    label: str | None = None
    """Column of ``metadata.csv`` that holds the label; null means that subfolders are the classes."""
    image_size: Positive | None = None
    """Side in pixels to which images are resized; null means chosen from the data (at most 32)."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for colour; null means grey when every image is grey."""
    fresh: str | None = None
    """Folder of newly labelled images in the same layout; it may not exist yet."""
    split: SplitConfig = SplitConfig()
    """How rows are held out."""
    max_quarantined_share: Share = 0.1
    """Share of unreadable files above which ingest stops."""


class ValidationConfig(Section):
    """Checks on the dataset version before anything is learned from it."""

    suite: str | None = None
    """Path of a Great Expectations suite (JSON); null means the default suite for the task."""


class LabelsConfig(Section):
    """How wrong labels are looked for, and what is done about them."""

    policy: Literal["report", "weight", "quarantine"] = "report"
    """``report`` only tells; ``weight`` halves doubtful examples; ``quarantine`` leaves them out of training."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Number of folds of the out-of-sample probabilities."""
    seed: int = 0
    """Seed of the folds."""


class TrainConfig(Section):
    """The challenger's training."""

    family: Literal["cnn"] = "cnn"
    """Model family."""
    epochs: Positive = 12
    """Largest number of passes over the training rows."""
    batch_size: Positive = 64
    """Examples per step."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    """Peak learning rate of AdamW."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Decoupled weight decay of AdamW."""
    patience: Positive = 5
    """Epochs without a better validation loss after which training stops."""
    seed: int = 0
    """Seed of weights, order and augmentation."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """``gpu`` is an error where there is none; ``auto`` takes one when it is there."""
    shuffle_labels: bool = False
    """Shuffle the training labels: makes a challenger that must be rejected, to test the gate."""
    augment: bool = False
    """Shift each training image by up to one pixel, anew in every epoch."""
    balance_origins: bool = False
    """Give base and freshly labelled rows the same total weight in the loss."""


class PackageConfig(Section):
    """Export of the checkpoint for serving."""

    tolerance: Annotated[float, Field(gt=0)] = 1e-4
    """Largest absolute difference between torch and ONNX outputs."""
    max_batch_size: Positive = 64
    """Largest number of images in one request to the served model."""


class EvaluateConfig(Section):
    """Scoring of challenger, champion and a simple baseline on the same test rows."""

    bootstrap: Annotated[int, Field(ge=200)] = 1000
    """Number of bootstrap resamples."""
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence level of every interval."""
    seed: int = 0
    """Seed of the resamples."""
    baseline: Literal["logistic_regression", "nearest_neighbour", "none"] = "logistic_regression"
    """The simple model the deep one is compared with."""


class BlessConfig(Section):
    """Trial of the packaged model on a private Triton."""

    tolerance: Annotated[float, Field(gt=0)] = 1e-3
    """Largest absolute difference between golden and served answers."""
    requests: Positive = 200
    """Timed requests."""
    concurrency: Positive = 4
    """Clients that send at the same time."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Longest wait for the server or the model, in seconds."""


class Rule(Section):
    """One gate condition."""

    metric: str
    """Name of the number, for example ``accuracy`` or ``p95_ms``."""
    source: Literal["evaluate", "bless", "labels"] = "evaluate"
    """Report that holds the number."""
    slice: str = "overall"
    """``overall``, ``class:NAME``, ``class:*`` (each class) or ``origin:fresh``."""
    versus: Literal["absolute", "champion", "baseline"] = "absolute"
    """``absolute`` judges the challenger's value, the others the difference challenger minus other."""
    at_least: float | None = None
    """Lower bound; exactly one of ``at_least`` and ``at_most``."""
    at_most: float | None = None
    """Upper bound; exactly one of ``at_least`` and ``at_most``."""
    use: Literal["point", "interval"] = "point"
    """Whether the point estimate or the whole interval must satisfy the bound."""
    min_n: Positive = 1
    """Fewer examples than this make the rule ``not_evaluated``."""
    mode: Literal["enforce", "warn", "off"] = "enforce"
    """``warn`` reports without deciding; ``off`` leaves the rule out."""
    when: Literal["always", "slice_exists"] = "always"
    """``slice_exists`` leaves the rule out where the test rows have no such slice; otherwise a missing slice rejects."""

    @model_validator(mode="after")
    def _one_bound(self) -> Rule:
        if (self.at_least is None) == (self.at_most is None):
            message = f"rule on {self.metric!r}: give exactly one of at_least and at_most"
            raise ValueError(message)
        return self


class GateConfig(Section):
    """Rules that a challenger must pass."""

    rules: tuple[Rule, ...] | None = None
    """The rules; null means the defaults of the task. An empty list rejects everything."""
    approval: Literal["auto", "manual"] = "auto"
    """``manual`` holds a challenger that passed until a person decides."""


class DeployConfig(Section):
    """Promotion of a challenger."""

    tolerance: Annotated[float, Field(gt=0)] = 1e-3
    """Largest absolute difference between golden and served answers."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Longest wait for a load, in seconds."""


class MonitorConfig(Section):
    """What the monitor looks for and when it starts a retraining."""

    false_alarm: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Chance of any false drift alarm in the life of one champion."""
    tolerance: Annotated[float, Field(ge=0)] = 0.1
    """A shift below this many standard deviations is not worth a retraining."""
    batch: Positive = 50
    """Rows per bet."""
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


class NotifyConfig(Section):
    """Who is told how a run ended."""

    webhook_env: str | None = None
    """NAME of the environment variable that holds a Slack-style webhook URL (the URL itself is a secret)."""
