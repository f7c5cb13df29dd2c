"""What a search may change, and between which values."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from pydantic.fields import FieldInfo

from kfloop.core.families import CUSTOM, FINETUNE, family_module
from kfloop.core.sections import TrainConfig
from kfloop.errors import ConfigError, nearest

if TYPE_CHECKING:
    from kfloop.components.train.preparing import Prepared
    from kfloop.core.sections import SearchConfig

KEYS = (
    "learning_rate",
    "weight_decay",
    "batch_size",
    "schedule",
    "gradient_clip",
    "label_smoothing",
    "class_weights",
    "weight_averaging",
    "augment",
    "augment_flip",
)
RATES = {"learning_rate": 5.0, "weight_decay": 10.0}  # looked for between their default over this and times this
BATCH_FACTOR = 2
SMALL_DECAY = 1e-4  # middle of the range where the default is no decay
FEWEST_STEPS = 4  # of an epoch with the largest batch
LOSS_KEYS = ("class_weights", "label_smoothing", "schedule")  # of no use to a module with its own loss and optimiser
WIDE = 10.0  # a positive range whose ends differ by more than this factor is searched by orders of magnitude


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One key of the space: a range of numbers, or choices.

    Attributes:
        key: Key of ``train``, or ``options.`` and a key of the family, or ``hyperparameters.`` and one of the user's module.
        low: Lower end, or null for choices.
        high: Upper end, or null for choices.
        whole: Whether only whole numbers are allowed.
        choices: The choices; empty for a range.
    """

    key: str
    low: float | None = None
    high: float | None = None
    whole: bool = False
    choices: tuple[Any, ...] = ()

    def suggest(self, trial: Any) -> Any:
        """A value for a trial of Optuna."""
        if self.low is None or self.high is None:
            return trial.suggest_categorical(self.key, self.choices)
        log = self.low > 0 and self.high / self.low >= WIDE
        if self.whole:
            return trial.suggest_int(self.key, round(self.low), round(self.high), log=log)
        return trial.suggest_float(self.key, self.low, self.high, log=log)

    def inside(self, value: Any) -> Any:
        """The value, or what the space has nearest to it."""
        if self.low is None or self.high is None:
            return value if value in self.choices else self.choices[0]
        found = min(max(value, self.low), self.high)
        return round(found) if self.whole else float(found)


def dimensions(told: SearchConfig, config: TrainConfig, prepared: Prepared) -> list[Dimension]:
    """The space of a search, in a fixed order.

    Raises:
        ConfigError: A key is unknown or cannot be searched, or a range is empty.
    """
    if not told.space:
        return _around_defaults(config, prepared)
    fields = _fields(prepared)
    found = []
    for key, values in sorted(told.space.items()):
        if key not in fields:
            raise ConfigError(
                f"train.search.space has the key '{key}', which a search cannot change",
                hint=nearest(key, fields) or f"it can change: {', '.join(fields)}",
            )
        found.append(_dimension(key, values, fields[key]))
    return found


def default_values(space: list[Dimension], config: TrainConfig, prepared: Prepared) -> list[tuple[Dimension, Any]]:
    """What each key would be without a search; keys whose default is no single value are left to the sampler."""
    found = []
    for one in space:
        place, _, name = one.key.rpartition(".")
        if place == "hyperparameters" or (prepared.spec.family == CUSTOM and name in RATES):
            value = _own_value(prepared, name)
        elif place:
            value = prepared.spec.options.get(name)
        else:
            value = getattr(prepared.plan, name, None)
            value = getattr(config, name) if value is None else value
        fits = isinstance(value, int | float) or one.low is None
        if value is not None and fits:
            found.append((one, value))
    return found


def _fields(prepared: Prepared) -> dict[str, FieldInfo]:
    """Every key that may be searched."""
    family = prepared.spec.family
    found = {key: TrainConfig.model_fields[key] for key in KEYS}
    if family == CUSTOM:
        own = _own_fields(prepared)
        unused = [*LOSS_KEYS, *(key for key in RATES if key not in own)]
        named = {f"hyperparameters.{key}": field for key, field in own.items()}
        return {key: field for key, field in found.items() if key not in unused} | named
    options = family_module(family).Options.model_fields
    # The rows of a finetuned text model are cut to their length before the first trial.
    return found | {f"options.{key}": field for key, field in options.items() if (family, key) != (FINETUNE, "longest")}


def _own_fields(prepared: Prepared) -> dict[str, FieldInfo]:
    """Arguments of the user's module."""
    from kfloop.core.families.custom import annotations_of, module_class, parameters_of

    kind = module_class(str(prepared.spec.options["model"]))
    hints = annotations_of(kind)
    return {
        name: FieldInfo(annotation=hints.get(name, Any), default=item.default)
        for name, item in parameters_of(kind).items()
    }


def _own_value(prepared: Prepared, name: str) -> Any:
    """What an argument of the user's module is without a search; null where nothing says it."""
    field = _own_fields(prepared).get(name)
    default = None if field is None or field.default is inspect.Parameter.empty else field.default
    return prepared.spec.options["hyperparameters"].get(name, default)


def _dimension(key: str, values: tuple[Any, ...], field: FieldInfo) -> Dimension:
    kinds = _kinds(field.annotation)
    whole = int in kinds and float not in kinds and bool not in kinds
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values) == 2 and not kinds.isdisjoint({int, float}):  # noqa: PLR2004 - two ends
        low, high = float(values[0]), float(values[1])
        if not low < high or (whole and not (low.is_integer() and high.is_integer())):
            raise ConfigError(
                f"train.search.space.{key} is {list(values)}, expected [low, high] with low < high"
                + (" in whole numbers" if whole else ""),
                hint="give the lower end first; for choices give more than two, or a list of one",
            )
        return Dimension(key=key, low=low, high=high, whole=whole)
    if not values:
        raise ConfigError(
            f"train.search.space.{key} is empty, expected [low, high] or choices", hint="remove the key, or fill it"
        )
    return Dimension(
        key=key,
        choices=tuple(
            int(value) if whole and isinstance(value, float) and value.is_integer() else value for value in values
        ),
    )


def _kinds(annotation: Any) -> set[Any]:
    """The plain types in an annotation."""
    parts = get_args(annotation)
    return {annotation} if not parts else set().union(*(_kinds(part) for part in parts))


def _around_defaults(config: TrainConfig, prepared: Prepared) -> list[Dimension]:
    """Learning rate, weight decay and batch size around their defaults; what the loop file fixes stays fixed."""
    plan = prepared.plan
    largest = max(1, len(prepared.train) // FEWEST_STEPS)
    sizes = {plan.batch_size // BATCH_FACTOR, plan.batch_size, plan.batch_size * BATCH_FACTOR}
    rates = {key: getattr(plan, key) for key in RATES}
    if prepared.spec.family == CUSTOM:
        rates = {key: _own_value(prepared, key) for key in RATES if key not in config.hyperparameters}
    space = {
        "batch_size": Dimension(
            key="batch_size",
            choices=tuple(sorted(size for size in sizes if size == plan.batch_size or 0 < size <= largest)),
        ),
    }
    for key, factor in RATES.items():
        if isinstance(middle := rates.get(key), int | float):
            middle = middle or SMALL_DECAY
            space[key] = Dimension(key=key, low=middle / factor, high=middle * factor)
    free = [one for key, one in space.items() if getattr(config, key) is None]
    if not free:
        raise ConfigError(
            "train.search.space is empty, which means learning rate, weight decay and batch size, but all three are set",
            hint="remove one of them from train, or say in train.search.space what to look for",
        )
    return free
