"""From configuration and data to a training that is fully determined: encoder, examples, network description, plan."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from kfloop.components.train.weighting import weighted
from kfloop.core.encoding import fit_encoder
from kfloop.core.families import CUSTOM, FINETUNE, NetworkSpec, choose_family, family_module, objective_of
from kfloop.core.learning.plan import Plan
from kfloop.core.signature import Port
from kfloop.errors import ConfigError, InputError, nearest

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.encoding import Encoder, Examples
    from kfloop.core.sections import TrainConfig
    from kfloop.core.versions import DatasetVersion

NOISE = "noise"  # a generator's inputs: noise, and the class to draw


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A training, ready to start.

    Attributes:
        spec: Description of the network.
        encoder: Encoder of the rows.
        train: Rows to learn from.
        validation: Rows to choose the best epoch on.
        plan: Hyper-parameters.
        n_quarantined: Rows of the train split that the label check leaves out.
    """

    spec: NetworkSpec
    encoder: Encoder
    train: Examples
    validation: Examples
    plan: Plan
    n_quarantined: int


def prepare(config: TrainConfig, version: DatasetVersion, labels: Path) -> Prepared:
    """Everything that determines the weights.

    Args:
        config: Section ``train``.
        version: Dataset version.
        labels: Output of ``check_labels``.

    Raises:
        ConfigError: The family does not fit the data, or ``train.options`` does not fit the family.
        InputError: A split is empty.
        TerminalError: A class has no training row.
    """
    objective = objective_of(version.task, config.family)
    name, options, encoder = _model(config, version, objective)
    normal = _normal(config, version) if objective == "anomaly" else None
    train = encoder.examples(version, "train", objective, normal=normal)
    n_rows = len(train)
    classes = version.labels if objective in {"classification", "generation"} else []
    train = weighted(train, labels, classes, balance_origins=config.balance_origins)
    n_quarantined = n_rows - len(train)
    validation = encoder.examples(version, "validation", objective, normal=normal)
    if normal is not None:
        train = train.take(train.target <= 0)  # what is odd must not be learned
    for split, examples, why in (
        ("train", train, "there is nothing to learn from"),
        ("validation", validation, "the best epoch is chosen on it"),
    ):
        if not len(examples):
            raise InputError(
                f"the {split} split has no rows, but {why}", hint=f"add examples, or change data.split ({split})"
            )
    if normal is not None and not (validation.target <= 0).any():
        raise InputError(
            f"no validation row is labelled '{normal}', which is what the best epoch is chosen on",
            hint="change data.split, or train.normal",
        )
    if config.shuffle_labels:
        train = replace(train, target=np.random.default_rng(config.seed).permutation(train.target))
    spec = NetworkSpec(
        family=name,
        objective=objective,
        modality=version.modality,
        inputs=_ports(encoder, objective),
        labels=tuple(version.labels) if objective != "anomaly" else (),
        target_shape=tuple(train.target.shape[1:]),
        facts=encoder.facts | _target_facts(train, objective, encoder.facts) | ({"normal": normal} if normal else {}),
        options=options,
    )
    return Prepared(
        spec=spec,
        encoder=encoder,
        train=train,
        validation=validation,
        plan=_plan(config, spec, train),
        n_quarantined=n_quarantined,
    )


def replanned(prepared: Prepared, config: TrainConfig) -> Prepared:
    """The same rows under another configuration: the network's options and the plan anew.

    Raises:
        ConfigError: ``train.options`` does not fit the family.
    """
    name, spec = prepared.spec.family, prepared.spec
    if name == CUSTOM:
        spec = replace(spec, options=_own_options(config))
    elif name == FINETUNE:  # beside what builds the pretrained model
        spec = replace(spec, options=spec.options | _options(name, config.options))
    else:
        spec = replace(spec, options=_options(name, config.options))
    return replace(prepared, spec=spec, plan=_plan(config, spec, prepared.train))


def _model(config: TrainConfig, version: DatasetVersion, objective: str) -> tuple[str, dict[str, Any], Encoder]:
    """Name of the family (or ``custom``, ``finetune``), its checked options, and the encoder of the rows."""
    if config.model is not None:
        return CUSTOM, _own_options(config), fit_encoder(version)
    if config.finetune is not None:
        from kfloop.core.families.finetune import prepared as pretrained

        options, encoder = pretrained(config.finetune, _options(FINETUNE, config.options), version, objective)
        return FINETUNE, options, encoder or fit_encoder(version)
    name = choose_family(version.modality, objective, config.family)
    return name, _options(name, config.options), fit_encoder(version)


def _own_options(config: TrainConfig) -> dict[str, Any]:
    """What builds the user's own module."""
    from kfloop.core.families.custom import checked

    if config.options:
        raise ConfigError(
            f"train.options is {config.options}, but train.model has none",
            hint="move them to train.hyperparameters",
        )
    rates = {"learning_rate": config.learning_rate, "weight_decay": config.weight_decay}
    return checked(str(config.model), config.hyperparameters, rates)


def _ports(encoder: Encoder, objective: str) -> tuple[Port, ...]:
    """What the network takes: the encoder's tensors, or noise and class where examples are drawn."""
    if objective != "generation":
        return encoder.ports
    return (
        Port(name=NOISE, dtype="float32", shape=encoder.ports[0].shape),
        Port(name="label", dtype="int64", shape=()),
    )


def _normal(config: TrainConfig, version: DatasetVersion) -> str:
    """The label of normal rows: the one told, else the most frequent in the train split."""
    if version.task != "multiclass":
        raise ConfigError(
            f"train.family '{config.family}' needs rows labelled normal or odd, but this data is for {version.task}",
            hint="set data.task: multiclass and data.label",
        )
    if config.normal is not None:
        return config.normal
    counts = Counter(version.table("train", ["label"])["label"].to_pylist())
    return version.labels[counts.most_common(1)[0][0]]


def _target_facts(train: Examples, objective: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation of a number, or of each channel of a forecast: losses are in standard deviations."""
    if objective == "regression":
        values = train.target.astype(np.float64)
        return {"target_mean": float(values.mean()), "target_std": max(float(values.std()), 1e-12)}
    if objective == "forecasting":
        return {"target_std": facts["std"]}  # without missing values, and 1 where a channel is constant
    return {}


def _options(name: str, told: dict[str, Any]) -> dict[str, Any]:
    """``train.options`` after the family has checked them and filled its defaults."""
    model = family_module(name).Options
    try:
        options: dict[str, Any] = model.model_validate(told).model_dump(mode="json")
    except ValidationError as error:
        problem = error.errors()[0]
        key = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "extra_forbidden":
            raise ConfigError(
                f"train.options: family '{name}' has no option '{key}'", hint=nearest(key, model.model_fields)
            ) from error
        raise ConfigError(f"train.options.{key} is {problem['input']!r}: {problem['msg']}") from error
    return options


def _refuse_unused(config: TrainConfig, spec: NetworkSpec) -> None:
    """Refuse keys that this training would not follow.

    Raises:
        ConfigError: One of them is set.
    """
    what = f"'{config.model}'" if spec.family == CUSTOM else f"a training for {spec.objective}"
    own = spec.family == CUSTOM  # whose loss is its own
    for key, is_set, follows in (
        ("class_weights", config.class_weights != "none", not own and spec.objective == "classification"),
        ("label_smoothing", config.label_smoothing > 0, not own and spec.objective in {"classification", "multilabel"}),
        ("normal", config.normal is not None, spec.objective == "anomaly"),
    ):
        if is_set and not follows:
            raise ConfigError(
                f"train.{key} is {getattr(config, key)!r}, which {what} does not use", hint=f"remove train.{key}"
            )


def _plan(config: TrainConfig, spec: NetworkSpec, train: Examples) -> Plan:
    """Hyper-parameters: what the loop file says, else what the family suggests for so many rows."""
    _refuse_unused(config, spec)
    suggested = family_module(spec.family).defaults(spec, len(train))
    told = {
        key: value if (value := getattr(config, key)) is not None else getattr(suggested, key)
        for key in ("epochs", "batch_size", "learning_rate", "weight_decay", "patience")
    }
    weights = None
    if config.class_weights == "balanced":
        counts = np.bincount(train.target, weights=train.weights, minlength=len(spec.labels))
        weights = tuple((counts.sum() / (len(counts) * np.maximum(counts, 1e-12))).tolist())
    return Plan(
        **told,
        seed=config.seed,
        total_steps=told["epochs"] * max(1, -(-len(train) // told["batch_size"])),
        schedule=config.schedule,
        label_smoothing=config.label_smoothing,
        class_weights=weights,
    )
