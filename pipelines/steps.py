"""The steps by name, with their inputs and cores: what ``kfloop step`` runs without KFP."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import read_report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

STEPS: dict[str, tuple[str, ...]] = {
    "ingest": (),
    "validate_data": ("dataset",),
    "check_labels": ("dataset",),
    "train": ("dataset", "labels"),
    "package": ("dataset", "checkpoint"),
    "incumbent": ("model",),
    "evaluate": ("dataset", "model", "incumbent"),
    "bless": ("dataset", "model"),
    "gate": ("validation", "labels", "evaluation", "blessing"),
    "deploy": ("model", "decision"),
    "monitor": (),
}
CORES = {
    "ingest": "kfloop.components.ingest.ingestion",
    "validate_data": "kfloop.components.validate_data.validation",
    "check_labels": "kfloop.components.check_labels.labels",
    "train": "kfloop.components.train.training",
    "package": "kfloop.components.package.packaging",
    "incumbent": "kfloop.components.incumbent.incumbency",
    "evaluate": "kfloop.components.evaluate.evaluation",
    "bless": "kfloop.components.bless.blessing",
    "gate": "kfloop.components.gate.deciding",
    "deploy": "kfloop.components.deploy.deployment",
    "keep": "kfloop.components.deploy.keeping",
    "monitor": "kfloop.components.monitor.monitoring",
}


def core_of(name: str, inputs: Mapping[str, Path]) -> tuple[str, Callable[..., Any]]:
    """The step to run and its core; ``deploy`` of a decision that does not promote is ``keep``, as in the pipeline."""
    step = name
    if name == "deploy" and read_report(inputs["decision"])["outcome"] != "promote":
        step = "keep"
    run: Callable[..., Any] = importlib.import_module(CORES[step]).run
    return step, run
