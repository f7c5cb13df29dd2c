"""What families share: the layer that turns an embedding into an answer, and the network as it is served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from kfloop.core.families import NetworkSpec


class Head(nn.Module):
    """Embedding [B, D] to logits [B, K], or to a number [B] in the unit of the label.

    Args:
        spec: Objective, classes, and ``target_mean`` and ``target_std`` among the facts for regression.
        width: Length D of the embedding.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, spec: NetworkSpec, width: int) -> None:
        super().__init__()
        self.number = spec.objective == "regression"
        self.linear = nn.Linear(width, spec.n_outputs)
        self.register_buffer("shift", torch.tensor(float(spec.facts.get("target_mean", 0.0))))
        self.register_buffer("scale", torch.tensor(float(spec.facts.get("target_std", 1.0))))

    def forward(self, embedding: Tensor) -> Tensor:
        """The answer."""
        answer: Tensor = self.linear(embedding)
        return answer[:, 0].to(self.scale.dtype) * self.scale + self.shift if self.number else answer


class Served(nn.Module):
    """A network as it is exported and served: probabilities instead of logits, a tuple of tensors.

    Args:
        network: Network of a family.
        objective: What it learned.
        temperature: Number by which the logits of classes are divided; 1 leaves the graph as it is.
    """

    def __init__(self, network: nn.Module, objective: str, temperature: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.objective = objective
        self.temperature = temperature

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs in the order of ``kfloop.core.signature.OUTPUTS``."""
        answer, *rest = self.network(*inputs)
        if self.objective == "classification":
            if self.temperature != 1.0:  # the same checkpoint without calibration keeps its digest
                answer = answer / self.temperature
            answer = torch.softmax(answer, dim=-1)
        elif self.objective == "multilabel":
            answer = torch.sigmoid(answer)
        return (answer, *rest)


def standardiser(facts: dict[str, Any], *shape: int) -> tuple[Tensor, Tensor]:
    """``mean`` and ``std`` of the inputs as tensors of a shape that broadcasts over them."""
    mean = torch.tensor(facts["mean"], dtype=torch.float32).reshape(shape)
    return mean, torch.tensor(facts["std"], dtype=torch.float32).reshape(shape)
