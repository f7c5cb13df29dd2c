"""Images: pixels as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from kfloop.core.encoding.base import Encoder as Base
from kfloop.core.signature import Port
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

COUNTED = 20_000  # images, evenly spread, from which mean and standard deviation are taken


class Encoder(Base):
    """Gives ``image`` uint8 [H, W, C].

    Args:
        shape: Height, width, channels.
        mean: Mean of each channel over the training images, in 0..255.
        std: Standard deviation of each channel, in 0..255, at least 1.
    """

    modality = "image"

    def __init__(self, shape: tuple[int, int, int], mean: list[float], std: list[float]) -> None:
        self.shape, self.mean, self.std = shape, mean, std

    @classmethod
    def fit(cls, version: DatasetVersion, **options: Any) -> Self:
        """Mean and standard deviation of each channel."""
        del options
        encoder = cls(version.image_shape, [], [])
        table = version.table("train", ["image"])
        images = encoder.encode(table)[0][:: max(1, table.num_rows // COUNTED)]
        if not len(images):
            raise InputError("the train split has no images", hint="add examples, or lower data.split")
        pixels = images.reshape(-1, encoder.shape[2])
        means = np.array([pixels[:, channel].mean(dtype=np.float64) for channel in range(pixels.shape[1])])
        squares = np.array(
            [np.square(pixels[:, channel], dtype=np.float64).mean() for channel in range(pixels.shape[1])]
        )
        stds = np.maximum(np.sqrt(np.maximum(squares - means**2, 0)), 1.0)
        encoder.mean, encoder.std = means.tolist(), stds.tolist()
        return encoder

    @classmethod
    def restore(cls, plain: Mapping[str, Any]) -> Self:
        """As ``state`` says."""
        height, width, channels = plain["shape"]
        return cls((height, width, channels), list(plain["mean"]), list(plain["std"]))

    def state(self) -> dict[str, Any]:
        """Shape and constants."""
        return {"shape": list(self.shape), **self.facts}

    @property
    def ports(self) -> tuple[Port, ...]:
        """One image."""
        return (Port(name="image", dtype="uint8", shape=self.shape),)

    @property
    def facts(self) -> dict[str, Any]:
        """Normalisation constants of the pixels."""
        return {"mean": self.mean, "std": self.std}

    def encode(self, table: pa.Table) -> tuple[NDArray[Any], ...]:
        """Pixels uint8 [N, H, W, C], without a copy where the rows lie in one piece."""
        flat = table["image"].combine_chunks()
        size = int(np.prod(self.shape))
        if flat.type.list_size != size:
            raise InputError(
                f"the images have {flat.type.list_size} values each, but the model takes {list(self.shape)}",
                hint="set data.image_size and data.channels to what the model was trained on, or train it anew",
            )
        pixels = flat.flatten().to_numpy(zero_copy_only=False) if table.num_rows else np.empty(0, np.uint8)
        return (pixels.reshape(table.num_rows, *self.shape),)
