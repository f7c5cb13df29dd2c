"""Learning from labels: classes, several labels, numbers, forecasts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from kfloop.core.learning.base import Learner

if TYPE_CHECKING:
    from torch import nn

    from kfloop.core.families import NetworkSpec
    from kfloop.core.learning.plan import Batch, Plan


class Supervised(Learner):
    """Cross-entropy for classes, binary cross-entropy for several labels, squared error in standard deviations for numbers.

    Args:
        network: Network of a family.
        spec: Its description; ``target_std`` among its facts is the standard deviation of a number, or of each channel of a forecast.
        plan: Hyper-parameters.
    """

    target_std: Tensor
    class_weights: Tensor

    def __init__(self, network: nn.Module, spec: NetworkSpec, plan: Plan) -> None:
        super().__init__(network, spec, plan)
        weights = plan.class_weights or (1.0,) * len(spec.labels)
        self.register_buffer("class_weights", torch.tensor(weights), persistent=False)
        self.register_buffer("target_std", torch.tensor(spec.facts.get("target_std", 1.0)), persistent=False)

    def answers(self, batch: Batch) -> Tensor:
        """The network's answers for the examples of a batch."""
        answer: Tensor = self.network(*batch.inputs)[0]
        return answer if batch.rows is None else answer[batch.rows]

    def losses(self, batch: Batch) -> Tensor:
        """Loss of each example."""
        found = self._losses(self.answers(batch), batch.target, self.plan.label_smoothing)
        return found * self.class_weights[batch.target] if self.plan.class_weights else found

    def measures(self, batch: Batch) -> dict[str, Tensor]:
        """Loss, and accuracy or errors."""
        answers = self.answers(batch)
        found = {"loss": (self._losses(answers, batch.target, 0.0) * batch.weight).sum(), "count": batch.weight.sum()}
        if self.spec.objective == "classification":
            found["accuracy"] = ((answers.argmax(-1) == batch.target) * batch.weight).sum()
        elif self.spec.objective == "multilabel":
            hits = ((answers > 0) == (batch.target > 0.5)).float().mean(-1)  # noqa: PLR2004 - targets are 0 or 1
            found["accuracy"] = (hits * batch.weight).sum()
        else:
            errors = (answers - batch.target).flatten(1) if answers.ndim > 1 else (answers - batch.target)[:, None]
            found["mae"] = (errors.abs().mean(-1) * batch.weight).sum()
            found["rmse"] = (errors.square().mean(-1) * batch.weight).sum()
        return found

    def finish_metrics(self, metrics: dict[str, float]) -> None:
        """The root of the mean squared error."""
        if "validation_rmse" in metrics:
            metrics["validation_rmse"] = math.sqrt(metrics["validation_rmse"])

    def _losses(self, answers: Tensor, target: Tensor, smoothing: float) -> Tensor:
        if self.spec.objective == "classification":
            return functional.cross_entropy(answers, target, reduction="none", label_smoothing=smoothing)
        if self.spec.objective == "multilabel":
            smoothed = target * (1 - smoothing) + 0.5 * smoothing
            return functional.binary_cross_entropy_with_logits(answers, smoothed, reduction="none").mean(-1)
        errors = ((answers - target) / self.target_std).square()
        return errors.flatten(1).mean(-1) if errors.ndim > 1 else errors
