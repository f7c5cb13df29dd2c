"""``train.model``: the user's own LightningModule, named as ``package.module:Class``.

Its ``__init__`` takes ``train.hyperparameters`` (checked against its annotations) and, where it has a parameter ``spec``, the description of
inputs and answers (``NetworkSpec``). ``forward(*inputs)`` gives the answer, or answer and embedding, as networks of families do. The module is
imported again from its name wherever the checkpoint is opened; the folder of the loop file counts among the places of modules.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, create_model
from torch import Tensor, nn

from kfloop.core.families import Defaults
from kfloop.core.sections import Section
from kfloop.errors import ConfigError, TerminalError, nearest

if TYPE_CHECKING:
    from kfloop.core.families import NetworkSpec

LEARNER = "kfloop.core.learning.custom:Custom"
SPEC = "spec"  # the parameter of ``__init__`` that takes the NetworkSpec
OWN_RATES = ("learning_rate", "weight_decay")  # keys of ``train`` that a module takes as hyper-parameters, if at all
# What a LightningModule may define and a training here would not follow: batches come ready, and the gradient is Lightning's own.
NOT_CALLED = (
    "backward",
    "configure_callbacks",
    "configure_model",
    "configure_sharded_model",
    "on_after_batch_transfer",
    "on_before_batch_transfer",
    "transfer_batch_to_device",
)
FORM = "write it as package.module:Class, such as my_package.my_module:MyLitModule"


class Options(Section):
    """What the checkpoint keeps: ``train.model`` and the checked ``train.hyperparameters``."""

    model: str
    """``package.module:Class``."""
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    """Arguments of its ``__init__``."""


def build(spec: NetworkSpec) -> nn.Module:
    """The user's module, whose answers come as a pair.

    Raises:
        ConfigError: It cannot be imported, or is no LightningModule with a ``forward``.
        TerminalError: Its ``__init__`` fails.
    """
    options = Options.model_validate(spec.options)
    kind = module_class(options.model)
    told = dict(options.hyperparameters)
    if SPEC in inspect.signature(kind.__init__).parameters:
        told[SPEC] = spec
    try:
        module = kind(**told)
    except Exception as error:
        raise TerminalError(
            f"train.model '{options.model}' cannot be made with {options.hyperparameters}: {type(error).__name__}: {error}",
            hint="see the traceback in the log; try the class by itself in Python",
        ) from error
    return Answers(module)


def defaults(spec: NetworkSpec, n_train: int) -> Defaults:
    """Those of any family; the optimiser is the module's own."""
    del spec, n_train
    return Defaults()


class Answers(nn.Module):
    """The user's module, giving a pair whether or not it has an embedding: the answer stands in for one that is missing.

    Args:
        module: The user's module.
    """

    def __init__(self, module: pl.LightningModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Answer, and an embedding [B, D]."""
        found = self.module(*inputs)
        if isinstance(found, Tensor):
            return found, found.reshape(found.shape[0], -1)
        answer, embedding = found
        return answer, embedding


def checked(model: str, hyperparameters: dict[str, Any], rates: dict[str, float | None]) -> dict[str, Any]:
    """``Options`` as plain values, after the hyper-parameters were compared with the annotations of the class.

    Args:
        model: ``train.model``.
        hyperparameters: ``train.hyperparameters``.
        rates: ``train.learning_rate`` and ``train.weight_decay``; they are handed on where the class takes them.

    Raises:
        ConfigError: The class cannot be imported or is no LightningModule; a name is unknown or missing; a value is of another type.
    """
    kind = module_class(model)
    parameters = parameters_of(kind)
    for name, rate in rates.items():
        if rate is None or name in hyperparameters:
            continue
        if name not in parameters:
            raise ConfigError(
                f"train.{name} is {rate}, but '{model}' has no parameter '{name}': its optimiser is its own",
                hint=f"remove train.{name}, or give __init__ a parameter {name}",
            )
        hyperparameters = hyperparameters | {name: rate}
    free = any(item.kind == item.VAR_KEYWORD for item in inspect.signature(kind.__init__).parameters.values())
    unknown = [name for name in hyperparameters if name not in parameters]
    if unknown and not free:
        raise ConfigError(
            f"train.hyperparameters: '{model}' has no parameter '{unknown[0]}'", hint=nearest(unknown[0], parameters)
        )
    missing = [name for name, item in parameters.items() if item.default is item.empty and name not in hyperparameters]
    if missing:
        raise ConfigError(
            f"train.hyperparameters: '{model}' needs '{missing[0]}', which is not given",
            hint=f"add {missing[0]} under train.hyperparameters",
        )
    values = _typed(model, kind, parameters, hyperparameters)
    return Options(model=model, hyperparameters=values).model_dump(mode="json")


def parameters_of(kind: type) -> dict[str, inspect.Parameter]:
    """Arguments of a class that ``train.hyperparameters`` may name."""
    return {
        name: item
        for name, item in inspect.signature(kind).parameters.items()
        if name != SPEC and item.kind in {item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY}
    }


def annotations_of(kind: type) -> dict[str, Any]:
    """Types of these arguments, as far as they can be known."""
    try:
        return typing.get_type_hints(inspect.getattr_static(kind, "__init__"))
    except (NameError, TypeError):  # an annotation that exists for type checkers alone
        return {}


def _typed(model: str, kind: type, parameters: dict[str, inspect.Parameter], told: dict[str, Any]) -> dict[str, Any]:
    """The values as the annotations have them, in plain form."""
    hints = annotations_of(kind)
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ...) for name in parameters if name in told and not name.startswith("_")
    }
    shape = create_model(
        "Hyperparameters", __config__=ConfigDict(extra="allow", arbitrary_types_allowed=True), **fields
    )
    try:
        found = shape.model_validate(told)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        wanted = hints.get(str(problem["loc"][0]), Any)
        raise ConfigError(
            f"train.hyperparameters.{key} is {problem['input']!r}, but '{model}' wants {getattr(wanted, '__name__', wanted)}: "
            f"{problem['msg']}",
            hint="change the value, or the annotation in __init__",
        ) from error
    plain: dict[str, Any] = TypeAdapter(dict[str, Any]).dump_python(found.model_dump(), mode="json")
    return plain


def module_class(model: str) -> type[pl.LightningModule]:
    """The class named ``package.module:Class``.

    Raises:
        ConfigError: It cannot be imported, or is no LightningModule with its own ``forward`` and ``training_step``.
    """
    place, _, name = model.partition(":")
    if not place or not name.isidentifier() or not all(part.isidentifier() for part in place.split(".")):
        raise ConfigError(f"train.model is '{model}'", hint=FORM)
    module = _imported(model, place)
    kind = getattr(module, name, None)
    if kind is None:
        classes = [key for key, value in vars(module).items() if inspect.isclass(value)]
        raise ConfigError(
            f"train.model: module '{place}' has no class '{name}'", hint=nearest(name, classes or ["none"])
        )
    if not (inspect.isclass(kind) and issubclass(kind, pl.LightningModule)):
        raise ConfigError(
            f"train.model '{model}' is {kind!r}, expected a subclass of pytorch_lightning.LightningModule",
            hint="a plain nn.Module needs a training_step, a validation_step and configure_optimizers: wrap it in one",
        )
    for method, why in (
        ("forward", "the packaged model answers with forward(*inputs)"),
        ("training_step", "it gives the loss of a batch"),
        ("validation_step", "the best epoch is chosen by the validation_loss it logs"),
    ):
        if (
            getattr(kind, method) is getattr(pl.LightningModule, method, None)
            or getattr(kind, method) is nn.Module.forward
        ):
            raise ConfigError(f"train.model '{model}' has no {method}: {why}", hint=f"define {method} in {name}")
    for method in NOT_CALLED:
        if getattr(kind, method) is not getattr(pl.LightningModule, method):
            raise ConfigError(
                f"train.model '{model}' defines {method}, which a training of kfloop does not call",
                hint="do it in training_step, forward or __init__",
            )
    return kind


def _imported(model: str, place: str) -> Any:
    """The module of that name; ``Workspace.find_modules`` has added the folder of the loop file."""
    importlib.invalidate_caches()
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        found = error.name is not None and place != error.name and not place.startswith(f"{error.name}.")
        what = f"importing '{place}' needs '{error.name}', which is not installed" if found else f"no module '{place}'"
        raise ConfigError(
            f"train.model '{model}': {what}",
            hint="install it"
            if found
            else f"{FORM}; it is looked for among installed packages and in the folder of the loop file",
        ) from error
    except Exception as error:
        raise ConfigError(
            f"train.model '{model}': importing '{place}' fails: {type(error).__name__}: {error}",
            hint="import it by itself in Python to see the whole traceback",
        ) from error
