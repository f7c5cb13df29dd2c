"""A LightningModule of one's own: what kfloop asks of it is in the comments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from kfloop.core.families import NetworkSpec
    from kfloop.core.learning.plan import Batch


class SmallNetwork(pl.LightningModule):
    """Two layers on the pixels.

    Args:
        spec: What kfloop found in the data: shape of the inputs, classes. Given because the argument is called ``spec``.
        width: Units of the hidden layer; from ``train.hyperparameters``, checked against this annotation.
        learning_rate: As above.
    """

    def __init__(self, spec: NetworkSpec, width: int = 64, learning_rate: float = 1e-3) -> None:
        super().__init__()
        height, width_in, channels = spec.inputs[0].shape
        self.hidden = nn.Linear(height * width_in * channels, width)
        self.head = nn.Linear(width, len(spec.labels))
        self.learning_rate = learning_rate

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and an embedding of uint8 images [B, H, W, C]; the embedding may be left out."""
        embedding = functional.relu(self.hidden(image.flatten(1).float() / 255))
        return self.head(embedding), embedding

    def training_step(self, batch: Batch) -> Tensor:
        """The loss of a batch; ``batch.weight`` holds what the label check thinks of each row."""
        losses = functional.cross_entropy(self(*batch.inputs)[0], batch.target, reduction="none")
        return (losses * batch.weight).sum() * batch.scale

    def validation_step(self, batch: Batch) -> None:
        """Log ``validation_loss``: the best epoch is chosen by it."""
        logits, _ = self(*batch.inputs)
        self.log("validation_loss", functional.cross_entropy(logits, batch.target), batch_size=len(batch.target))
        hits = (logits.argmax(1) == batch.target).float().mean()
        self.log("validation_accuracy", hits, batch_size=len(batch.target))

    def configure_optimizers(self) -> Any:
        """Any optimiser."""
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate)
