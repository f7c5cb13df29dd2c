"""Model families: the networks kfloop can train, each buildable from a small, plain description.

A network takes the tensors its spec names, in that order, and gives a pair: its answer and an embedding float32 [B, D]. The answer is logits
[B, K] for classes, [B] for regression in the unit of the label, [B, horizon, C] for forecasts in the unit of the series, [B] for an
anomaly score (higher is odder). A generator takes noise and class, and gives (sample float32 [B, ...] in the unit of the inputs,).
Normalisation constants are part of the network, so that nothing has to be remembered outside it. This module imports no torch; the
families themselves do, and are imported only when one is built.

A family is a module of this package with three names: ``Options`` (a pydantic section: what ``train.options`` may say), ``build(spec) ->
nn.Module`` and ``defaults(spec, n_train) -> Defaults``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kfloop.core.signature import Port
from kfloop.errors import ConfigError, TerminalError, nearest

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn

EMBEDDING_SIZE = 64
FEWEST_CLASSES = 2


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a family is for.

    Attributes:
        module: Where its network is.
        learner: The LightningModule that trains it, ``module:Class``.
        modalities: What its examples may be.
        objectives: What it can learn.
    """

    module: str
    learner: str
    modalities: tuple[str, ...]
    objectives: tuple[str, ...]


_SUPERVISED = "kfloop.core.learning.supervised:Supervised"
_CLASSES = ("classification", "multilabel", "regression")
FAMILIES = {
    "mlp": Family(
        module="kfloop.core.families.mlp",
        learner=_SUPERVISED,
        modalities=("table", "vector"),
        objectives=_CLASSES,
    ),
    "cnn": Family(
        module="kfloop.core.families.cnn",
        learner=_SUPERVISED,
        modalities=("image", "audio"),
        objectives=_CLASSES,
    ),
    "rnn": Family(
        module="kfloop.core.families.rnn",
        learner=_SUPERVISED,
        modalities=("series", "text"),
        objectives=(*_CLASSES, "forecasting"),
    ),
    "transformer": Family(
        module="kfloop.core.families.transformer",
        learner=_SUPERVISED,
        modalities=("text", "series", "image"),
        objectives=(*_CLASSES, "forecasting"),
    ),
    "gnn": Family(
        module="kfloop.core.families.gnn",
        learner=_SUPERVISED,
        modalities=("nodes", "graphs"),
        objectives=_CLASSES,
    ),
    "autoencoder": Family(
        module="kfloop.core.families.autoencoder",
        learner="kfloop.core.learning.reconstruction:Reconstruction",
        modalities=("table", "vector", "image"),
        objectives=("anomaly",),
    ),
    "gan": Family(
        module="kfloop.core.families.gan",
        learner="kfloop.core.learning.adversarial:Adversarial",
        modalities=("image",),
        objectives=("generation",),
    ),
    "diffusion": Family(
        module="kfloop.core.families.diffusion",
        learner="kfloop.core.learning.denoising:Denoising",
        modalities=("image",),
        objectives=("generation",),
    ),
}
DEFAULTS = {
    "image": "cnn",
    "audio": "cnn",
    "text": "transformer",
    "table": "mlp",
    "vector": "mlp",
    "series": "rnn",
    "nodes": "gnn",
    "graphs": "gnn",
}
OBJECTIVE_OF_TASK = {
    "multiclass": "classification",
    "multilabel": "multilabel",
    "regression": "regression",
    "forecasting": "forecasting",
}
OBJECTIVE_OF_FAMILY = {"autoencoder": "anomaly", "gan": "generation", "diffusion": "generation"}
CUSTOM = "custom"  # the user's own LightningModule
FINETUNE = "finetune"  # a pretrained model of timm or transformers


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Everything needed to build a network again, apart from its weights; all of it plain values.

    Attributes:
        family: Name of the model family, ``custom`` or ``finetune``.
        objective: What is learned, one of ``kfloop.core.signature.OBJECTIVES``.
        modality: What an example is.
        inputs: The tensors it takes, as the encoder gives them (for generation: noise and label).
        labels: Class names; output k belongs to ``labels[k]``. Empty without classes.
        target_shape: Axes of one target: () for a class or a number, (K,) for several labels, (horizon, C) for forecasts.
        facts: What the encoder and the training rows told: means, standard deviations, vocabulary, categories, sample rate.
        options: ``train.options`` after the family has checked them and filled its defaults.
        embedding_size: Length D of the embedding.
    """

    family: str
    objective: str
    modality: str
    inputs: tuple[Port, ...]
    labels: tuple[str, ...] = ()
    target_shape: tuple[int, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    embedding_size: int = EMBEDDING_SIZE

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        if self.objective in {"classification", "generation"} and len(self.labels) < FEWEST_CLASSES:
            raise TerminalError(
                f"the dataset has {len(self.labels)} class(es) {list(self.labels)}, a '{self.family}' needs at least 2",
                hint="add examples of another class",
            )
        empty = [port for port in self.inputs if 0 in port.shape]
        if empty or not self.inputs:
            raise TerminalError(f"the inputs {list(self.inputs)} hold no numbers, so there is nothing to learn from")

    @property
    def n_outputs(self) -> int:
        """Numbers in one answer: classes, labels, values of a forecast, or 1."""
        if self.objective in {"classification", "multilabel"}:
            return len(self.labels)
        size = 1
        for axis in self.target_shape:
            size *= axis
        return size


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a family suggests for data of this size; ``train`` keys that are set win.

    Attributes:
        epochs: Largest number of passes over the training rows.
        batch_size: Examples in a step.
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Decoupled weight decay.
        patience: Epochs without a better validation loss after which training stops.
    """

    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    patience: int = 5


def choose_family(modality: str, objective: str, wanted: str | None = None) -> str:
    """The family that is trained: the wanted one if it fits the data, else the default of the modality.

    Raises:
        ConfigError: There is no such family, or it cannot learn this from such data.
    """
    name = wanted or DEFAULTS[modality]
    if name not in FAMILIES:
        raise ConfigError(f"unknown model family '{name}'", hint=nearest(name, FAMILIES))
    family = FAMILIES[name]
    if modality not in family.modalities or objective not in family.objectives:
        fitting = [
            key for key, item in FAMILIES.items() if modality in item.modalities and objective in item.objectives
        ]
        raise ConfigError(
            f"train.family '{name}' does {' or '.join(family.objectives)} of {' or '.join(family.modalities)} data, "
            f"but this loop has {modality} data for {objective}",
            hint=f"families for that: {', '.join(fitting) or 'none'}",
            modality=modality,
            objective=objective,
        )
    return name


def objective_of(task: str, family: str | None) -> str:
    """What is learned from data for ``task`` by ``family``: autoencoders and generators have an objective of their own."""
    return OBJECTIVE_OF_FAMILY.get(family or "", OBJECTIVE_OF_TASK[task])


def family_module(name: str) -> ModuleType:
    """The module of a family.

    Raises:
        ConfigError: There is no such family.
    """
    if name in {CUSTOM, FINETUNE}:
        return importlib.import_module(f"kfloop.core.families.{name}")
    if name not in FAMILIES:
        raise ConfigError(f"unknown model family '{name}'", hint=nearest(name, FAMILIES))
    return importlib.import_module(FAMILIES[name].module)


def build_network(spec: NetworkSpec) -> nn.Module:
    """A freshly initialised network of the family named in ``spec``.

    Raises:
        ConfigError: There is no such family.
    """
    network: nn.Module = family_module(spec.family).build(spec)
    return network
