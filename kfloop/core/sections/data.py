"""Section ``data``: where the examples come from, and how rows are held out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kfloop.core.sections.base import Positive, Section, Share

REQUESTS = "requests"  # value of data.fresh: the loop's own request log


class SplitConfig(Section):
    """Shares of the rows that are held out, and by what they are chosen; the rest is for training.

    A row keeps its split in every later version: by a stable hash of its content or group, or by cutoffs that the first version sets.
    """

    method: Literal["random", "stratified", "group", "time", "official"] | None = None
    """``random`` by content; ``stratified`` keeps the share of each class; ``group`` keeps the rows of a group together; ``time`` tests on the latest; ``official`` takes
    the source's own. Null: official where the source has splits, time for series, by group where the data has groups, else random."""
    validation: Share = 0.15
    """Share used to choose the best epoch."""
    test: Share = 0.25
    """Share on which challenger and champion are compared."""
    column: str | None = None
    """Column that holds the official split (train, validation, test)."""
    validation_from: str | None = None
    """First time of the validation split (ISO 8601, or a number); null means by share."""
    test_from: str | None = None
    """First time of the test split; null means by share."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another seed draws other rows by hash (``random``, ``stratified``, ``group``): a fresh test set for a new loop."""

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> SplitConfig:
        if self.validation <= 0 or self.test <= 0 or self.validation + self.test >= 1:
            message = f"validation {self.validation} and test {self.test} must be above 0 and sum to less than 1"
            raise ValueError(message)
        if (self.validation_from is None) != (self.test_from is None):
            message = "validation_from and test_from belong together"
            raise ValueError(message)
        return self


class SeriesConfig(Section):
    """How a time series becomes examples: a window of the past, and what follows it."""

    context: Positive = 96
    """Steps a model sees."""
    horizon: Positive = 24
    """Steps it has to forecast, right after the context."""
    stride: Positive = 1
    """Steps between the starts of two windows."""
    channels: tuple[str, ...] | None = None
    """Columns of the series; null means every numeric column."""


class RecipeConfig(Section):
    """How the next dataset version is mixed of old and fresh rows; without fresh rows nothing is left out.

    Old rows in the validation and test splits always stay: models are compared on the same rows.
    """

    window_days: Annotated[float, Field(gt=0)] | None = None
    """With ``fresh: requests``: only labelled requests of so many days before the latest one; null takes all that the log still has."""
    old_share: Share | None = None
    """Share of the old training rows that is kept, chosen by a stable hash; null keeps all."""
    per_class_floor: Annotated[int, Field(ge=0)] = 0
    """Old training rows of each class that are kept at least, whatever ``old_share`` is."""


class DvcConfig(Section):
    """A revision of a DVC repository, of which ``data.source`` is a path."""

    repo: str
    """URL or path of the Git repository."""
    rev: str | None = None
    """Commit, tag or branch; null means its default branch, and the commit found is recorded."""


MODALITIES = ("image", "audio", "text", "table", "vector", "series", "nodes", "graphs")
Modality = Literal["image", "audio", "text", "table", "vector", "series", "nodes", "graphs"]
Task = Literal["multiclass", "multilabel", "regression", "forecasting"]


class DataConfig(Section):
    """Where the examples come from. ``kfloop init`` fills what it can see."""

    source: str = "digits"
    """``digits`` (shipped with scikit-learn), ``sample:NAME`` (data other packages carry: breast_cancer, co2, diabetes, digits_graph, docstrings, sounds), or the path of a file or folder (or its address, ``s3://bucket/path``): CSV, Parquet, JSON lines, text lines, npz, IDX, a folder of images, wav/flac files or
    graphs, or a request log."""
    limit: Positive | None = None
    """Use only this many rows of the source (chosen by a stable hash); null means all."""
    modality: Literal["auto"] | Modality = "auto"
    """What the examples are; ``auto`` looks."""
    task: Literal["auto"] | Task = "auto"
    """What is to be learned; ``auto``: classes, unless the label is a number with many values; a series without label is forecast."""
    label: str | None = None
    """Column that holds the label (in ``metadata.csv`` for a folder); null means subfolders, or a column called label, target, class or y."""
    text: str | None = None
    """Column that holds the text; makes a table a text dataset."""
    id: str | None = None
    """Column that names each row; null means its place in the source."""
    group: str | None = None
    """Column of what must not cross splits: a patient, a speaker, a household."""
    time: str | None = None
    """Column of the time of each row."""
    delimiter: str | None = None
    """Delimiter of a CSV file; null means found out."""
    pattern: str | None = None
    """What the names of files in a folder tell, such as ``{label}_{group}_{take}``; null means that subfolders are the classes."""
    image_size: Positive | None = None
    """Side in pixels to which images are resized; null means chosen from the data (at most 32)."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for colour; null means grey when every image is grey."""
    sample_rate: Positive | None = None
    """Samples per second to which audio is resampled; null means the most common one, at most 16000."""
    max_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Audio is cut after this many seconds."""
    series: SeriesConfig = SeriesConfig()
    """Windows of a time series."""
    dvc: DvcConfig | None = None
    """Take ``source`` from this DVC repository."""
    feedback: str | None = None
    """JSON lines with ``request_id`` and ``label``: the truth about requests, when ``source`` is a request log."""
    votes: str | None = None
    """CSV or Parquet of several people's answers: columns ``id``, ``annotator``, ``label``."""
    corrections: str | None = "corrections.jsonl"
    """Answers of people, as ``kfloop review import`` keeps them; the file need not exist yet."""
    fresh: str | None = None
    """Newly labelled examples in the layout of the source; it may not exist yet. ``requests``: the loop's own request log, joined with ``feedback``."""
    recipe: RecipeConfig = RecipeConfig()
    """How old and fresh rows are mixed."""
    places: str | None = None
    """Filled when ``fresh`` is ``requests``: where the loop lives."""
    split: SplitConfig = SplitConfig()
    """How rows are held out."""
    max_quarantined_share: Share = 0.1
    """Share of unreadable or unlabelled rows above which ingest stops."""
