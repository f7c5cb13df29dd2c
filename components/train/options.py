"""How a training is computed: from the keys of section ``train`` to arguments, callbacks and layouts of Lightning and torch."""

from __future__ import annotations

import contextlib
import os
import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from kfloop.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytorch_lightning as pl

    from kfloop.components.train.batches import Augment
    from kfloop.components.train.preparing import Prepared
    from kfloop.core.families import NetworkSpec
    from kfloop.core.learning.base import Learner
    from kfloop.core.learning.plan import Plan
    from kfloop.core.sections import TrainConfig

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
COMPILERS = ("g++", "clang++")
IMAGE_AXES = 4  # of the weights of a two-dimensional convolution
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def trainer_options(config: TrainConfig, plan: Plan, learner: pl.LightningModule | None = None) -> dict[str, Any]:
    """Arguments of ``pl.Trainer`` that say how steps are computed.

    Args:
        config: Section ``train``.
        plan: Hyper-parameters.
        learner: The module; one that steps its optimisers by itself clips its gradients by itself too.

    Raises:
        ConfigError: The machine or the module cannot do what is asked.
    """
    on_gpu = config.accelerator != "cpu" and torch.cuda.is_available()
    if config.precision == "16" and not on_gpu:
        raise ConfigError(
            "train.precision is '16', which needs a GPU, but this training runs on the CPU",
            hint="use train.precision: bf16, or 32",
        )
    found: dict[str, Any] = {
        "max_epochs": plan.epochs,
        "precision": PRECISIONS[config.precision],
        "accumulate_grad_batches": config.accumulate,
        "gradient_clip_val": config.gradient_clip or None,
        "use_distributed_sampler": False,  # Batches gives each process its part
    }
    if learner is not None and not learner.automatic_optimization:
        if config.accumulate > 1:
            raise ConfigError(
                f"train.accumulate is {config.accumulate}, but {type(learner).__name__} steps its optimisers by itself",
                hint="use train.accumulate: 1",
            )
        found["gradient_clip_val"] = None
    return found


def extra_callbacks(config: TrainConfig, prepared: Prepared) -> list[pl.Callback]:
    """Callbacks that stand after the learning curve and before the checkpoints."""
    from kfloop.components.train.averaging import WeightAverage

    if config.weight_averaging == "none":
        return []
    if prepared.spec.objective == "generation":
        raise ConfigError(
            f"train.weight_averaging is '{config.weight_averaging}', but a '{prepared.spec.family}' keeps a moving average anyway",
            hint="remove train.weight_averaging",
        )
    if config.strategy == "fsdp":
        raise ConfigError(
            f"train.weight_averaging is '{config.weight_averaging}', but train.strategy fsdp shares the weights out",
            hint="use train.strategy: ddp, or train.weight_averaging: none",
        )
    return [WeightAverage(config.weight_averaging, prepared.plan.epochs)]


def prepare_module(learner: Learner, config: TrainConfig) -> Learner:
    """Memory layout and compilation of the network.

    Raises:
        ConfigError: The network has no images to lay out, or there is nothing to compile with.
    """
    trained = getattr(learner, "trained", learner.network)  # generators train a copy of what they keep
    if config.channels_last:
        if not any(parameter.ndim == IMAGE_AXES for parameter in trained.parameters()):
            raise ConfigError(
                f"train.channels_last is a layout of images, but this network ({type(learner.network).__name__}) has no "
                "two-dimensional convolution",
                hint="remove train.channels_last",
            )
        networks: set[Any] = {trained, learner.network}  # the stubs of Module.to do not know memory_format alone
        for network in networks:
            network.to(memory_format=torch.channels_last)
    if config.compile:
        _require_compiler(on_gpu=config.accelerator != "cpu" and torch.cuda.is_available())
        trained.compile()  # in place, so that the names of the weights stay
    return learner


def _require_compiler(*, on_gpu: bool) -> None:
    if on_gpu and find_spec("triton") is None:
        raise ConfigError(
            "train.compile needs the package triton to compile for a GPU, and it is not installed",
            hint="pip install triton, or use train.compile: false",
        )
    told = os.environ.get("CXX")
    names = (told,) if told else COMPILERS
    if not on_gpu and not any(shutil.which(name) for name in names):
        raise ConfigError(
            f"train.compile needs a C++ compiler on the CPU, and {' or '.join(names)} is not on the PATH",
            hint="install g++ (or name a compiler in the environment variable CXX), or use train.compile: false",
        )


def augmentation(config: TrainConfig, spec: NetworkSpec) -> Augment | None:
    """What changes the inputs of training batches, or null."""
    from kfloop.components.train.augment import augment_for

    return augment_for(spec, flip=config.augment_flip) if config.augment else None


@contextlib.contextmanager
def reproducible(config: TrainConfig) -> Iterator[None]:
    """Where ``deterministic`` is on: only deterministic algorithms and one thread for sums, all put back at the end."""
    if not config.deterministic:
        yield
        return
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    strict, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    workspace = os.environ.get(CUBLAS)
    try:
        torch.set_num_threads(1)  # sums depend on the number of threads, and that on the machine and its load
        torch.backends.cudnn.benchmark = False
        os.environ.setdefault(
            CUBLAS, ":4096:8"
        )  # cuBLAS reads it when it starts, and torch refuses to go on without it
        torch.use_deterministic_algorithms(True)
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        torch.set_num_threads(threads)
        if workspace is None:
            os.environ.pop(CUBLAS, None)
