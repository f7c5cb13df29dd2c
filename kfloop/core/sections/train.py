"""Section ``train``: the challenger's training."""
# ruff: noqa: RUF012 - pydantic gives each section a copy of a default

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, model_validator

from kfloop.core.sections.base import Positive, Section, Seed
from kfloop.core.sections.external import ExternalConfig
from kfloop.core.sections.launcher import LauncherConfig


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
