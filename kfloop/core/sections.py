"""The sections of ``loop.yaml``, one for each step: what can be told, in which unit, with which default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from kfloop.core.statistics.metrics import FIGURES
from kfloop.errors import nearest

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy and torch both take
SLICES = ("class:", "channel:", "origin:")


class Section(BaseModel):
    """Base of every section: frozen, strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


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
    """``digits`` (shipped with scikit-learn), ``sample:NAME`` (data other packages carry: breast_cancer, co2, diabetes, digits_graph, docstrings, sounds), or the path of a file or folder: CSV, Parquet, JSON lines, text lines, npz, IDX, a folder of images, wav/flac files or
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
    """Newly labelled examples in the layout of the source; it may not exist yet."""
    split: SplitConfig = SplitConfig()
    """How rows are held out."""
    max_quarantined_share: Share = 0.1
    """Share of unreadable or unlabelled rows above which ingest stops."""


class ValidationConfig(Section):
    """Checks on the dataset version before anything is learned from it."""

    suite: str | None = None
    """Path of a Great Expectations suite (JSON); null means the default suite. ``kfloop step validate_data --propose`` writes one."""
    engine: Literal["auto", "great_expectations", "polars"] = "auto"
    """What evaluates the suite; both give the same verdicts. ``auto`` takes polars for big tables."""
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


class FinetuneConfig(Section):
    """A pretrained model that is trained further on the loop's data."""

    model: str
    """Local folder (what ``save_pretrained`` wrote, or timm weights with a ``config.json``), name on the hub, or ``sentence:NAME`` for an installed package of sentence
    embeddings."""
    library: Literal["auto", "timm", "transformers", "sentence"] = "auto"
    """What loads it; ``auto`` looks at the data and the folder."""
    mode: Literal["frozen", "partial", "full"] = "frozen"
    """``frozen`` trains a new head alone, ``partial`` also the last blocks, ``full`` all of it."""
    blocks: Positive = 2
    """Last blocks that ``partial`` trains."""
    backbone_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Learning rate of the pretrained weights, as a share of the head's."""


class SearchConfig(Section):
    """A small search for hyper-parameters on the validation split, before the training proper."""

    trials: Positive = 12
    """Largest number of trials."""
    minutes: Annotated[float, Field(gt=0)] = 10.0
    """No trial starts after so many minutes."""
    epochs: Positive | None = None
    """Passes of a trial; null means those of the training."""
    seed: Seed = 0
    """Seed of the sampler."""
    space: dict[str, tuple[StrictBool, ...] | tuple[float, float] | tuple[str | int | float | bool, ...]] = {}
    """Ranges ``[low, high]`` of numbers and lists of choices by key of ``train`` or of ``train.options`` (``options.width``); empty means learning rate, weight decay and
    batch size around their defaults."""


class TrainConfig(Section):
    """The challenger's training. A null is chosen from the data by the model family."""

    family: Literal["mlp", "cnn", "rnn", "transformer", "gnn", "autoencoder", "gan", "diffusion"] | None = None
    """Model family; null means the usual one for the data. ``autoencoder`` learns anomalies, ``gan`` and ``diffusion`` generate."""
    options: dict[str, Any] = {}
    """The family's own options, such as width and depth; see the README of ``components/train``."""
    model: str | None = None
    """Your own LightningModule instead of a family, as ``package.module:Class``."""
    hyperparameters: dict[str, Any] = {}
    """Arguments of your own LightningModule; checked against its annotations."""
    finetune: FinetuneConfig | None = None
    """A pretrained model instead of a family."""
    normal: str | None = None
    """For anomalies: the label of normal rows; null means the most frequent one."""
    epochs: Positive | None = None
    """Largest number of passes over the training rows."""
    batch_size: Positive | None = None
    """Examples per step, over all processes together."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of AdamW. A module of your own gets it where its ``__init__`` takes it."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """Decoupled weight decay of AdamW."""
    patience: Positive | None = None
    """Epochs without a better validation loss after which training stops."""
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    """Course of the learning rate of AdamW; an optimiser of your own has its own."""
    seed: Seed = 0
    """Seed of weights, order and augmentation."""
    deterministic: bool = False
    """Two runs on the same kind of machine give the same weights bit for bit, at some cost in speed: the CPU computes on one thread."""
    shuffle_labels: bool = False
    """Shuffle the training labels: makes a challenger that must be rejected, to test the gate."""
    augment: bool = False
    """Change each training example a little, anew in every epoch, in the way of its modality."""
    augment_flip: bool = False
    """With ``augment``: also mirror half of the images left to right; wrong for digits, letters and everything else that has a side."""
    balance_origins: bool = False
    """Give base and freshly labelled rows the same total weight in the loss."""
    class_weights: Literal["none", "balanced"] = "none"
    """``balanced`` weighs each class by the inverse of its frequency."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all classes."""
    weight_averaging: Literal["none", "ema", "swa"] = "none"
    """``ema`` keeps a moving average of the weights, ``swa`` the mean over the steps of the last quarter of the epochs; the average is what is validated and kept."""
    gradient_clip: Annotated[float, Field(ge=0)] = 5.0
    """Largest norm of the gradient; 0 for none. A module that steps its optimisers by itself clips by itself."""
    accumulate: Positive = 1
    """Parts in which a batch is computed, one after the other, to save memory."""
    find_batch_size: bool = False
    """Look for the largest batch that fits into memory and runs fastest, instead of ``batch_size``."""
    precision: Literal["32", "bf16", "16"] = "32"
    """``bf16`` and ``16`` compute in half precision where that is safe; ``16`` needs a GPU."""
    compile: bool = False
    """Compile the network with ``torch.compile``: slower to start, faster per step."""
    channels_last: bool = False
    """Memory layout of images that most convolutions like better."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """``gpu`` is an error where there is none; ``auto`` takes one when it is there."""
    processes: Positive = 1
    """Processes on this machine, started by torchrun; one for each GPU is usual."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How several processes share the work: ``fsdp`` also shares out weights and optimiser state."""
    restarts: Annotated[int, Field(ge=0)] = 3
    """How often a group of processes is started again when one of them dies."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0
    """A checkpoint is written at the end of each epoch, and in between when the last one is older than this."""
    search: SearchConfig | None = None
    """Look for good hyper-parameters first."""
    price_per_hour: Annotated[float, Field(gt=0)] | None = None
    """Price of this machine, in any currency: then the report says what the training cost."""
    watts: Annotated[float, Field(gt=0)] | None = None
    """Power of this machine while it trains: then the report says samples per joule."""

    @model_validator(mode="after")
    def _one_model(self) -> TrainConfig:
        told = [key for key in ("family", "model", "finetune") if getattr(self, key) is not None]
        if len(told) > 1:
            message = f"{' and '.join(told)} are set: give at most one of family, model and finetune"
            raise ValueError(message)
        if self.hyperparameters and self.model is None:
            message = "hyperparameters belong to train.model; a family takes train.options"
            raise ValueError(message)
        if self.augment_flip and not self.augment:
            message = "augment_flip without augment changes nothing: set augment too"
            raise ValueError(message)
        return self


class PackageConfig(Section):
    """Export of the checkpoint for serving."""

    tolerance: Annotated[float, Field(gt=0)] = 1e-4
    """Largest difference between torch and ONNX outputs: absolute for probabilities, else in units of the output's largest magnitude."""
    max_batch_size: Positive = 64
    """Largest number of examples in one request to the served model; graphs are asked about one request at a time."""


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


class BlessConfig(Section):
    """Trial of the packaged model on a private Triton."""

    tolerance: Annotated[float, Field(gt=0)] = 1e-3
    """Largest difference between golden and served answers, measured as in section ``package``."""
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
    """``overall``, ``class:NAME``, ``class:*`` (each class), ``channel:NAME``, ``channel:*``, ``origin:base`` or ``origin:fresh``."""
    versus: Literal["absolute", "champion", "baseline"] = "absolute"
    """``absolute`` judges the challenger's value, the others the difference challenger minus other."""
    relative: bool = False
    """The difference is a share of the other's value: ``at_most: 0.05`` allows an error 5 % larger. Only for errors, and with ``versus``."""
    at_least: float | None = None
    """Lower bound, for what is better the more it is; exactly one of ``at_least`` and ``at_most``."""
    at_most: float | None = None
    """Upper bound, for what is better the less it is; exactly one of ``at_least`` and ``at_most``."""
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
        if self.relative and self.versus == "absolute":
            message = f"rule on {self.metric!r}: relative says of whom, so set versus to champion or baseline"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _can_be_judged(self) -> Rule:
        """Refuse before a training what could only reject after it, or would protect from nothing."""
        known = FIGURES[self.source]
        better = known[self.metric].better if self.metric in known else None
        wanted = "at_least" if better == "higher" else "at_most"
        problem = ""
        if self.metric not in known:
            problem = f"{self.source} has no such figure ({nearest(self.metric, known)})"
        elif better is None:
            problem = "it says nothing of the challenger"
        elif getattr(self, wanted) is None:
            problem = f"{better} is better, so give {wanted}"
        elif self.relative and better == "higher":
            problem = "relative is for errors; give the difference itself"
        elif self.source != "evaluate" and (self.versus != "absolute" or self.slice != "overall"):
            problem = f"{self.source} measures the challenger as a whole, alone: leave versus and slice out"
        elif self.source == "bless" and self.use == "interval":
            problem = "bless gives no intervals: leave use out"
        elif self.slice != "overall" and not self.slice.startswith(SLICES):
            problem = (
                f"there is no slice {self.slice!r} (known: overall, {', '.join(f'{kind}NAME' for kind in SLICES)})"
            )
        if problem:
            message = f"rule on {self.metric!r}: {problem}"
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
    """Largest difference between golden and served answers, measured as in section ``package``."""
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
