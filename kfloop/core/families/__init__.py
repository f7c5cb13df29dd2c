"""Model families: the networks kfloop can train, each buildable from a small, plain description.

A family is a torch module that takes ``image`` uint8 [B, H, W, C] and gives ``logits`` float32 [B, K] and ``embedding``
float32 [B, D]. Its normalisation constants are part of it, so that nothing has to be remembered outside the network. This
module imports no torch; the families themselves do, and are imported only when one is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kfloop.errors import ConfigError, TerminalError, nearest

if TYPE_CHECKING:
    from torch import nn

FAMILIES = ("cnn",)
EMBEDDING_SIZE = 64
FEWEST_CLASSES = 2


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Everything needed to build a network again, apart from its weights.

    Attributes:
        family: Name of the model family.
        image_shape: Height, width and channels of one image.
        labels: Class names; output k belongs to ``labels[k]``.
        mean: Mean of each channel over the training images, in 0..255.
        std: Standard deviation of each channel, in 0..255, above 0.
        embedding_size: Length D of the embedding.
    """

    family: str
    image_shape: tuple[int, int, int]
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    embedding_size: int = EMBEDDING_SIZE

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        if len(self.labels) < FEWEST_CLASSES:
            raise TerminalError(
                f"the dataset has {len(self.labels)} class(es) {list(self.labels)}, a classifier needs at least 2",
                hint="add examples of another class",
            )
        if min(self.image_shape) < 1:
            raise TerminalError(f"images of shape {self.image_shape} are empty, expected height, width, channels >= 1")
        if not len(self.mean) == len(self.std) == self.image_shape[2]:
            raise TerminalError(f"{len(self.mean)} means for {self.image_shape[2]} channels, expected one of each")


def build_network(spec: NetworkSpec) -> nn.Module:
    """A freshly initialised network of the family named in ``spec``.

    Raises:
        ConfigError: There is no such family.
    """
    if spec.family not in FAMILIES:
        raise ConfigError(f"unknown model family '{spec.family}'", hint=nearest(spec.family, FAMILIES))
    from kfloop.core.families.cnn import Cnn

    return Cnn(spec)
