"""The sections of ``loop.yaml``, one for each step: what can be told, in which unit, with which default."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, StrictBool, field_validator, model_validator
from pydantic_core import PydanticCustomError

from kfloop.core.statistics.metrics import FIGURES
from kfloop.errors import nearest

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy and torch both take
REQUESTS = "requests"  # value of data.fresh: the loop's own request log
SLICES = ("class:", "channel:", "origin:", "column:", "group:", "segment:", "corruption:")
FEWEST_TO_REFUTE = 10  # rows below which hardly anything could be proved wrong


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


class SparkConfig(Section):
    """Where Spark runs, for the steps whose ``engine`` is ``spark``."""

    master: str | None = None
    """Spark's master: ``local[*]``, ``spark://HOST:PORT``, ``k8s://https://HOST:PORT`` or ``yarn``; null: ``KFLOOP_SPARK_MASTER``, or all cores of this machine."""
    folder: str | None = None
    """Folder for the tables that Spark is given, which this process and all executors see, or ``s3://bucket/path`` (validation only); null: ``.kfloop/spark`` of the loop. A table is deleted when it was judged."""
    settings: dict[str, str] = {}
    """Properties of Spark, such as ``spark.driver.memory: 4g``. Credentials do not belong here: Spark takes those of S3 from the environment."""

    @field_validator("folder")
    @classmethod
    def _a_folder(cls, folder: str | None) -> str | None:
        if folder is not None and "://" in folder and not folder.startswith("s3://"):
            message = f"'{folder}' is an address: expected s3://bucket/path, or a folder, on a shared volume where executors are elsewhere"
            raise ValueError(message)
        return folder

    @field_validator("settings")
    @classmethod
    def _no_secrets(cls, settings: dict[str, str]) -> dict[str, str]:
        for name in settings:
            if not name.startswith("spark."):
                message = f"'{name}' is no property of Spark: they begin with spark."
                raise ValueError(message)
            if re.match(r"spark\.kubernetes\.(driver|executor)\.secretKeyRef\.", name):
                continue  # names a Secret and its key
            if re.search(r"(secret|password|token|access\.key|credential(?!s\.provider))", name, re.IGNORECASE):
                raise PydanticCustomError("secret", "credentials are no settings; give them by the environment")
        return settings


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


class AdapterConfig(Section):
    """How rows become the JSON that an endpoint takes, and its JSON an array."""

    body: Any = {"instances": "$rows"}
    """What is posted: ``$rows`` is replaced by the list of rows, ``$row`` by the only one (with ``batch: 1``)."""
    answer: str = "predictions"
    """Where the answers stand: keys, places of a list and ``*`` for each item, such as ``outputs.*.scores``. An object with the classes as keys is taken by name."""
    request: str | None = None
    """Your own function ``module:function`` instead of ``body``: a list of rows in, what is posted as JSON out."""
    response: str | None = None
    """Your own function ``module:function`` instead of ``answer``: the JSON that came back in, one answer for each row out. Same module as ``request``; it is
    copied into the package, so it imports nothing but the standard library and NumPy."""

    @model_validator(mode="after")
    def _one_module(self) -> AdapterConfig:
        told = [name for name in (self.request, self.response) if name is not None]
        if any(
            not all(part.isidentifier() for part in name.replace(":", ".").split(".")) or name.count(":") != 1
            for name in told
        ):
            message = f"{' and '.join(map(repr, told))}: expected module:function"
            raise ValueError(message)
        if len({name.split(":", maxsplit=1)[0] for name in told}) > 1:
            message = f"{' and '.join(map(repr, told))} stand in two modules: put both functions into one"
            raise ValueError(message)
        return self


class ExternalConfig(Section):
    """A model that somebody else serves: nothing is trained, it is asked. What it is sent leaves this machine; see docs/external-models.md."""

    protocol: Literal["kserve", "json"]
    """``kserve``: the Open Inference Protocol (KServe v2) over HTTP; ``json``: any JSON over HTTP, by ``adapter``."""
    url: str
    """``http://`` or ``https://``: the server (kserve), or the very address that is posted to (json). No token or password in it."""
    model: str | None = None
    """kserve: the model's name there."""
    version: str | None = None
    """kserve: its version there; null means whatever the server answers with."""
    revision: str | None = None
    """A word of yours for the state of the endpoint. Its owner's new model is asked anew when you change this word."""
    token_env: str | None = None
    """NAME of the environment variable that holds the token; it begins with ``MODEL_TOKEN``. Only variables of such names are handed to the embedded server."""
    token_header: str = "Authorization"  # noqa: S105 - the name of a header
    """Header that carries the token; ``Authorization`` says ``Bearer`` before it, another header the token alone."""
    price_per_1000: Annotated[float, Field(ge=0)] | None = None
    """What 1000 rows (or calls, see ``price_of``) cost, in any currency; null: unknown."""
    price_of: Literal["rows", "calls"] = "rows"
    """What the price is for: rows that are answered, or calls with up to ``batch`` rows."""
    batch: Positive = 32
    """Rows in one call."""
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Longest wait for one answer, in seconds."""
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    """Further attempts where a call may work later: no connection, no answer in time, status 429, 502, 503, 504."""
    unseen_rows: bool = False
    """You vouch that the model was not trained on the test rows. Otherwise nobody knows, and the gate promotes nothing."""
    labels: tuple[str, ...] | None = None
    """Classes in the endpoint's order; null means the order of the dataset (alphabetical)."""
    gives: Literal["probabilities", "logits"] = "probabilities"
    """For classes: what the numbers are; logits are put through softmax (several labels: sigmoid) here."""
    input: str | None = None
    """kserve: the input tensor; null means the only one, as the server's metadata say. Columns of a table go to inputs of their names."""
    datatype: str | None = None
    """kserve: type of that tensor, such as ``FP32``; null means as the metadata say."""
    input_shape: tuple[Positive, ...] | None = None
    """kserve: shape of one row there; null means the row's own, or that of the metadata where it has as many numbers."""
    channels_first: bool = False
    """kserve: send images as [C, H, W]."""
    output: str | None = None
    """kserve: the output tensor with the answer; null means the first, or ``probabilities``, ``prediction`` or ``forecast`` where there is one."""
    embedding: str | None = None
    """kserve: an output tensor with an embedding, for the monitor; null means that the answer stands for it."""
    binary: bool = False
    """kserve: send tensors as bytes (Triton's binary extension); JSON cannot say missing numbers."""
    adapter: AdapterConfig | None = None
    """json: how to speak; null means ``{"instances": rows}`` and ``predictions``."""

    @field_validator("url")
    @classmethod
    def _public(cls, url: str) -> str:
        """Refuse a secret in the address, without repeating it."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise PydanticCustomError("secret", "expected http://HOST... or https://HOST...")
        asked = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
        hiding = any(word in name for name in asked for word in ("key", "token", "secret", "password", "sig"))
        if parts.username or parts.password or hiding:
            raise PydanticCustomError(
                "secret", "the address holds a secret (not shown): give its token through token_env and token_header"
            )
        return url

    @field_validator("token_env")
    @classmethod
    def _names_a_variable(cls, name: str | None) -> str | None:
        """A token that was written here by mistake must not be repeated in the error."""
        if name is not None and not re.fullmatch(r"MODEL_TOKEN[A-Z0-9_]*", name):
            raise PydanticCustomError(
                "secret",
                "expected the NAME of an environment variable, MODEL_TOKEN or MODEL_TOKEN_SOMETHING (what stands here is not shown: it may be the token)",
            )
        return name

    @model_validator(mode="after")
    def _one_protocol(self) -> ExternalConfig:
        kserve = {
            "model",
            "version",
            "input",
            "datatype",
            "input_shape",
            "channels_first",
            "output",
            "embedding",
            "binary",
        }
        told = sorted(key for key in self.model_fields_set & kserve if getattr(self, key))
        if self.protocol == "json" and told:
            message = f"{', '.join(told)} belong to protocol kserve; json takes adapter"
            raise ValueError(message)
        if self.protocol == "kserve" and (self.adapter is not None or not self.model):
            message = "protocol kserve takes the model's name in model, and no adapter"
            raise ValueError(message)
        return self


class LauncherConfig(Section):
    """Where the training runs: in the step itself, or in pods of its own that a Kubeflow TrainJob starts. See docs/multi-gpu.md."""

    kind: Literal["local", "trainjob"] = "local"
    """``local``: the machine or pod of the step; ``trainjob``: a TrainJob of Kubeflow Trainer v2, which the step follows."""
    nodes: Positive = 1
    """Pods that train together."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of each pod, and processes in it; 0: the CPU, with ``train.processes`` processes in each pod."""
    gpu_type: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9_.-]+$")] = "nvidia.com/gpu"
    """Name of the resource that is a GPU."""
    cpu: Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)?|[0-9]+m)$")] = "4"
    """CPUs of each pod, which it asks for and may use at most."""
    memory: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti)$")] = "16Gi"
    """Memory of each pod, ``/dev/shm`` included."""
    resources: dict[str, str] = {}
    """Further resources of each pod, such as ``rdma/ib: "1"``."""
    runtime: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")] = "kfloop-torch"
    """ClusterTrainingRuntime that the pods are made from."""
    image: str | None = None
    """Image of the pods; null: the runtime's. It must hold the same kfloop as the step's."""
    namespace: str | None = None
    """Namespace of the TrainJob; null: that of the step's pod."""
    queue: str | None = None
    """Kueue's LocalQueue; null: the pods do not queue there."""
    deadline_minutes: Annotated[float, Field(gt=0)] | None = None
    """Longest training in minutes, counted from when the first pod runs: time in a queue does not count. Null: no limit."""
    claim: str | None = "kfloop-work"
    """PersistentVolumeClaim (ReadWriteMany) with the loop's folder and store; null: ``volumes`` bring it."""
    mount: Annotated[str, Field(pattern=r"^/.+")] = "/kfloop"
    """Where ``claim`` is mounted: at the same path as in the step's pod."""
    node_selector: dict[str, str] = {}
    """Labels that the nodes must have."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Tolerations of the pods, as Kubernetes writes them."""
    affinity: dict[str, Any] | None = None
    """Affinity of the pods, as Kubernetes writes it."""
    volumes: tuple[dict[str, Any], ...] = ()
    """Further volumes of the pods, as Kubernetes writes them."""
    volume_mounts: tuple[dict[str, Any], ...] = ()
    """Where they are mounted, as Kubernetes writes it."""
    env: dict[str, str] = {}
    """Environment variables of the pods; public, so never a secret."""
    secrets: dict[str, dict[str, str]] = {}
    """Environment variables from Secrets: name of the Secret -> {variable: key in it}."""
    service_account: str | None = None
    """Service account of the pods; null: the runtime's."""
    labels: dict[str, str] = {}
    """Further labels of the TrainJob and its pods, such as those for cost."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        told = [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]
        strange = [name for name in told if name != "kind"]
        if self.kind == "local" and strange:
            message = f"{strange[0]} belongs to kind trainjob, but kind is local"
            raise ValueError(message)
        reserved = [
            name
            for name in (*self.env, *(v for keys in self.secrets.values() for v in keys))
            if name.startswith("PET_")
        ]
        if reserved:
            message = f"{reserved[0]} is set by Kubeflow Trainer: take another name"
            raise ValueError(message)
        return self


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
    external: ExternalConfig | None = None
    """A model that somebody else serves instead of a training."""
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
    launcher: LauncherConfig = LauncherConfig()
    """Where the training runs."""
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
        told = [key for key in ("family", "model", "finetune", "external") if getattr(self, key) is not None]
        if len(told) > 1:
            message = f"{' and '.join(told)} are set: give at most one of family, model, finetune and external"
            raise ValueError(message)
        if self.hyperparameters and self.model is None:
            message = "hyperparameters belong to train.model; a family takes train.options"
            raise ValueError(message)
        if self.augment_flip and not self.augment:
            message = "augment_flip without augment changes nothing: set augment too"
            raise ValueError(message)
        if self.launcher.gpus and self.processes not in {1, self.launcher.gpus}:
            message = f"processes {self.processes} and launcher.gpus {self.launcher.gpus}: a pod has one process for each GPU, leave processes out"
            raise ValueError(message)
        return self


class ReviewConfig(Section):
    """Which answers of a classifier a person should look at."""

    precision: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Precision that the accepted answers of each predicted class shall have, as a share: an answer below its class's confidence threshold is flagged. Null flags nothing."""
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence level at which each class's threshold, found on the validation rows, holds that precision; and level of the intervals in the report."""


class PackageConfig(Section):
    """Export of the checkpoint for serving."""

    tolerance: Annotated[float, Field(gt=0)] = 1e-4
    """Largest difference between torch and ONNX outputs: absolute for probabilities, else in units of the output's largest magnitude."""
    max_batch_size: Positive = 64
    """Largest number of examples in one request to the served model; graphs are asked about one request at a time."""
    calibration: Literal["none", "temperature"] = "none"
    """``temperature`` divides the logits of classes by one number, fitted on the validation rows, in the graph itself: the stated confidence fits better, the classes stay."""
    review: ReviewConfig = ReviewConfig()
    """Which answers are flagged for a person."""
    variants: tuple[Literal["fp16", "int8"], ...] = ()
    """Smaller graphs that are made and compared with the one in single precision; the package holds the served one alone."""
    serve: Literal["fp32", "fp16", "int8"] = "fp32"
    """Which graph is ``model.onnx``: scored, judged by the gate, blessed and served. One of ``variants`` need not be named there, too."""
    variant_tolerance: Annotated[float, Field(gt=0)] = 0.1
    """Largest difference between torch and a variant, measured as ``tolerance``."""
    variant_agreement: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Least share of validation rows to which a variant gives the same class as the graph in single precision."""
    variant_rows: Positive = 200
    """Most training rows on which the ranges of ``int8`` are measured."""


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


class BlessConfig(Section):
    """Trial of the packaged model on a private Triton."""

    tolerance: Annotated[float, Field(gt=0)] = 1e-3
    """Largest difference between golden and served answers, measured as in section ``package``."""
    requests: Positive = 200
    """Timed requests."""
    concurrency: Positive = 4
    """Clients that send at the same time."""
    protocol: Literal["both", "http", "grpc"] = "both"
    """Protocol that is timed; ``both``: one after the other, each with all ``requests``."""
    latency_ms_p95: Annotated[float, Field(gt=0)] | None = None
    """Longest 95th percentile of an answer's time that passes, in milliseconds, over each timed protocol; null: any."""
    memory_mb: Annotated[float, Field(gt=0)] | None = None
    """Most memory of server and backend that passes, in MiB; null: any."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Longest wait for the server or the model, in seconds."""


class Rule(Section):
    """One gate condition."""

    metric: str
    """Name of the number, for example ``accuracy`` or ``p95_ms``."""
    source: Literal["evaluate", "cost", "bless", "labels"] = "evaluate"
    """Report that holds the number; ``cost`` is what the evaluation measured of size, speed and money."""
    slice: str = "overall"
    """``overall``, or a slice as the report names it: ``class:NAME``, ``origin:fresh``, ``origin:new`` (fresh rows that the champion's data
    lacked), ``column:NAME=VALUE``, ``group:NAME=VALUE``; a ``*`` at the end stands for every slice that begins so, as in ``class:*``, with Holm's
    correction over them."""
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


class OverriddenRule(Section):
    """An override of a rule that lasts when a round starts; ``kfloop override`` makes them."""

    rule: str
    """Name of the rule, as the report prints it."""
    row: Positive
    """Number of the ledger's row that says who, why and until when."""


class GateConfig(Section):
    """Rules that a challenger must pass."""

    rules: tuple[Rule, ...] | None = None
    """The rules; null means the defaults of the task. An empty list rejects everything."""
    approval: Literal["auto", "manual"] = "auto"
    """``manual`` holds a challenger that passed until a person decides."""
    approval_days: Annotated[float, Field(gt=0)] = 14.0
    """Days after which a challenger on hold can no longer be approved."""
    looks: Annotated[float, Field(gt=0)] = 20.0
    """Challengers that the same test rows may judge before they count as worn out."""
    worn_holdout: Literal["warn", "reject"] = "warn"
    """What worn-out test rows do."""
    overrides: tuple[OverriddenRule, ...] | None = ()
    """Filled from the ledger. Null on a cluster, where the gate is never cached: those that the ledger has when the gate decides."""
    champion_row: int = 0
    """Filled from the ledger: number of the row that made the champion."""
    turned_down: tuple[int, ...] = ()
    """Filled from the ledger: numbers of the rows by which people turned challengers down."""

    @model_validator(mode="after")
    def _told_apart(self) -> GateConfig:
        """An override names a rule, so no two may have one name."""
        names = [rule.name() for rule in self.rules or ()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            message = f"two rules are called {twice[0]!r}: keep one of them, or give them different bounds"
            raise ValueError(message)
        return self


class AboutConfig(Section):
    """What people should know of the model; stands in its card."""

    intended_use: str | None = None
    """What the model is for, and what it is not for."""
    limits: str | None = None
    """Where it is known to fail."""
    owner: str | None = None
    """Who answers for it."""


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


OF_TARGETS = {
    "triton": ("url", "grpc", "key_env", "key_header", "ca", "repository", "backend", "gpus", "instances"),
    "kserve": (
        *("repository", "storage_uri", "gpus", "instances", "manifests", "namespace", "image", "service_account"),
        *("min_replicas", "cpu", "memory"),
    ),
    "embedded": (),
}
NEEDED_BY_TARGETS = {"triton": ("url", "repository"), "kserve": ("repository",), "embedded": ()}


class TargetConfig(Section):
    """Where the champion is served. See docs/targets.md."""

    kind: Literal["embedded", "triton", "kserve"] = "embedded"
    """``embedded``: the server of ``kfloop serve``; ``triton``: somebody else's Triton with explicit model control; ``kserve``: manifests for a cluster."""
    url: str | None = None
    """triton: ``http://HOST:PORT`` or ``https://HOST:PORT`` of its HTTP endpoint."""
    grpc: str | None = None
    """triton: ``HOST:PORT`` of its gRPC endpoint; null: gRPC is not checked."""
    key_env: str | None = None
    """triton: NAME of the environment variable with the key of its restricted APIs (``--http-restricted-api``); null: model control is open."""
    key_header: str = "kfloop-key"
    """triton: header that carries the key."""
    ca: str | None = None
    """triton: file of the authorities that are trusted with ``https://`` (PEM); null: the system's own."""
    repository: str | None = None
    """Folder or fsspec URL (``/mnt/models``, ``s3://bucket/models``) that kfloop writes. triton: the repository the server reads; kserve: the parent of ``storageUri``."""
    backend: Literal["onnxruntime", "python"] = "onnxruntime"
    """triton: what runs the graph; ``python`` for servers without the onnxruntime backend, whose python then needs NumPy and onnxruntime."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of the server, each with instances of its own; 0: the CPU."""
    instances: Positive = 1
    """Instances of the model on each GPU, or on the CPU."""
    storage_uri: str | None = None
    """kserve: ``repository`` as the cluster knows it (``pvc://models/kfloop``); null: the same URL."""
    manifests: str = "manifests"
    """kserve: folder of the manifests, in the project."""
    namespace: str = "default"
    """kserve: namespace of the InferenceService."""
    image: str | None = None
    """kserve: image of Triton; null: the patched release that ``kfloop export`` names."""
    service_account: str | None = None
    """kserve: service account that may read the repository."""
    min_replicas: Positive = 1
    """kserve: fewest pods."""
    cpu: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?m?$")] = "2"
    """kserve: CPUs that a pod asks for and may use at most."""
    memory: Annotated[str, Field(pattern=r"^[0-9]+(Ki|Mi|Gi|Ti)$")] = "4Gi"
    """kserve: memory that a pod asks for and may use at most."""

    @field_validator("url", "repository", "storage_uri")
    @classmethod
    def _no_secret(cls, url: str | None) -> str | None:
        """Refuse a secret in an address, without repeating it."""
        parts = urlsplit(url or "")
        # Azure writes its container where others write a user.
        if parts.password or parts.query or (parts.username and parts.scheme in {"http", "https"}):
            raise PydanticCustomError(
                "secret", "the address holds a user, a password or a query (not shown): keys come from the environment"
            )
        return url

    @field_validator("url")
    @classmethod
    def _with_a_port(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "http://host:1")
        if parts.scheme not in {"http", "https"} or not parts.hostname or not parts.port or parts.path not in {"", "/"}:
            message = f"{url!r}: expected http://HOST:PORT or https://HOST:PORT"
            raise ValueError(message)
        return url and url.rstrip("/")

    @field_validator("grpc")
    @classmethod
    def _host_and_port(cls, grpc: str | None) -> str | None:
        if grpc is not None and not re.fullmatch(r"[^/\s]+:[0-9]+", grpc):
            message = f"{grpc!r}: expected HOST:PORT, without a scheme"
            raise ValueError(message)
        return grpc

    @field_validator("key_env")
    @classmethod
    def _names_a_variable(cls, name: str | None) -> str | None:
        """A key that was written here by mistake must not be repeated in the error."""
        if name is not None and not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
            raise PydanticCustomError(
                "secret",
                "expected the NAME of an environment variable in capitals (what stands here is not shown: it may be the key)",
            )
        return name

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        missing = [name for name in NEEDED_BY_TARGETS[self.kind] if not getattr(self, name)]
        if missing:
            message = f"kind {self.kind} needs {' and '.join(missing)}"
            raise ValueError(message)
        told = [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]
        strange = [name for name in told if name != "kind" and name not in OF_TARGETS[self.kind]]
        if strange:
            owners = [kind for kind, names in OF_TARGETS.items() if strange[0] in names]
            message = f"{strange[0]} belongs to kind {' and '.join(owners)}, not to {self.kind}"
            raise ValueError(message)
        if self.ca and not (self.url or "").startswith("https://"):
            message = f"ca is for https://, but url is {self.url!r}"
            raise ValueError(message)
        if self.backend == "python" and self.gpus:
            message = f"backend python runs on the CPU alone, but gpus is {self.gpus}"
            raise ValueError(message)
        return self


class DeployConfig(Section):
    """Promotion of a challenger."""

    target: TargetConfig = TargetConfig()
    """Where the champion is served."""

    tolerance: Annotated[float, Field(gt=0)] = 1e-3
    """Largest difference between golden and served answers, measured as in section ``package``."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Longest wait for a load, in seconds."""
    rollout: RolloutConfig = RolloutConfig()
    """How the traffic goes over to the challenger."""
    feedback: str | None = None
    """Filled from ``data.feedback``."""
    about: AboutConfig = AboutConfig()
    """Filled from ``about``."""

    @model_validator(mode="after")
    def _split_by_kfloop(self) -> Self:
        if self.target.kind != "embedded" and self.rollout.strategy != "all_at_once":
            message = (
                f"rollout.strategy {self.rollout.strategy!r} needs target embedded: the split is made inside kfloop's own model, and a {self.target.kind} "
                "server has none. Take 'all_at_once' here, and let what stands in front of that server (a mesh, a gateway) split the traffic"
            )
            raise ValueError(message)
        return self


class LogConfig(Section):
    """What is kept of the requests that were answered."""

    sample: Share = 1.0
    """Share of the requests that are logged, chosen by a hash of the request's id: a request that is sent again is treated alike."""
    inputs: Literal["full", "embedding", "none"] = "full"
    """``embedding``: the inputs are left out, the embedding stays; ``none``: both are left out, the answers stay."""
    hash: tuple[str, ...] = ()
    """Columns (``text`` of texts) that are written as missing, with a keyed digest of the value in ``hash.COLUMN``.
    The embedding is still made of them, but where a text or a whole tensor is private: leave it out with ``inputs: none``."""
    drop: tuple[str, ...] = ()
    """Columns (``text`` of texts) that are written as missing."""
    max_bytes: Positive = 10_000_000_000
    """Largest size of the log in bytes: the oldest files are deleted, but none that the monitor has yet to read; then new rows are dropped."""
    days: Annotated[float, Field(gt=0)] = 30.0
    """Age in days from which files are deleted, when the monitor has read them."""

    @model_validator(mode="after")
    def _one_or_the_other(self) -> LogConfig:
        both = sorted(set(self.hash) & set(self.drop))
        if both:
            message = f"column {both[0]!r} is in hash and in drop: choose one"
            raise ValueError(message)
        return self


class EdgeConfig(Section):
    """The validating port for callers that are not trusted (``kfloop serve --edge``)."""

    max_body_bytes: Positive = 16_000_000
    """Largest body of a request, in bytes."""
    connections: Positive = 128
    """Most connections at a time."""
    seconds: Annotated[float, Field(gt=0)] = 10.0
    """Longest time for a caller to send a request, in seconds."""
    missing: Literal["auto", "allow", "refuse"] = "auto"
    """NaN in inputs: ``auto`` allows it in tables and vectors, where it stands for a missing number. Infinite numbers are always refused."""


class ServeConfig(Section):
    """The running server: what it logs, and what its validating port takes."""

    log: LogConfig = LogConfig()
    edge: EdgeConfig = EdgeConfig()


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


class NotifyConfig(Section):
    """Who is told how a run ended."""

    webhook_env: str | None = None
    """NAME of the environment variable that holds a Slack-style webhook URL (the URL itself is a secret)."""
