"""The temperature that is built into the exported graph, fitted on rows that are neither trained nor tested on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.scoring import BATCH
from kfloop.core.statistics.temperature import FEWEST_ROWS, fit_temperature
from kfloop.errors import ConfigError, TerminalError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from kfloop.core.encoding import Examples
    from kfloop.core.families.checkpoints import Checkpoint
    from kfloop.core.sections import PackageConfig
    from kfloop.core.versions import DatasetVersion


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """What the logits of the exported graph are divided by.

    Attributes:
        value: The number.
        n_fitted: Validation rows it was fitted on.
    """

    value: float
    n_fitted: int

    def plain(self) -> dict[str, Any]:
        """As the report has it."""
        return asdict(self)


def temperature_of(config: PackageConfig, trained: Checkpoint, version: DatasetVersion) -> Temperature | None:
    """The temperature that ``package.calibration`` asks for; null for none.

    Raises:
        ConfigError: The model does not tell classes apart.
        TerminalError: There are fewer than 30 labelled validation rows, or the network's answers to them are no numbers.
    """
    if config.calibration == "none":
        return None
    objective = trained.spec.objective
    if objective != "classification":
        raise ConfigError(
            f"package.calibration is '{config.calibration}', which is for classification, but this model learned {objective}",
            hint="set package.calibration: none",
        )
    rows = trained.encoder.examples(version, "validation", objective)
    known = np.flatnonzero(rows.target >= 0)
    if len(known) < FEWEST_ROWS:
        raise TerminalError(
            f"package.calibration: temperature is fitted on at least {FEWEST_ROWS} labelled validation rows, there are {len(known)}",
            hint="raise data.split.validation, add examples, or set package.calibration: none",
        )
    whole = trained.spec.modality == "nodes"  # one call answers for all nodes of a graph
    logits = _logits(trained.network, rows, known, len(known) if whole else BATCH)
    if not np.isfinite(logits).all():
        raise TerminalError(
            "the network's answers to the validation rows are no finite numbers, so no temperature fits them",
            hint="look at the training's loss: a smaller train.learning_rate often helps",
        )
    return Temperature(value=fit_temperature(logits, rows.target[known]), n_fitted=len(known))


def _logits(network: nn.Module, examples: Examples, rows: NDArray[np.int64], batch: int) -> NDArray[np.float64]:
    """The network's answers before the softmax, [N, K], ``batch`` rows at a time."""
    import torch

    network.eval()
    parts = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        with torch.inference_mode():
            answer, *_ = network(*(torch.from_numpy(array.copy()) for array in examples.batch_inputs(part)))
        parts.append(answer.double().numpy()[examples.batch_rows(part)])
    return np.concatenate(parts)
