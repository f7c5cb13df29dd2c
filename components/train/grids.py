"""Sample grids: what a generator draws from the same noise while it learns, one row for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kfloop.core.families import NetworkSpec

GRID = "samples.png"
COLUMNS = 8
MOST_CLASSES = 12
GRIDS = 8  # over a whole training; each costs a few samples
GAP = 1  # pixels between pictures
SMALLEST_SIDE = 24  # smaller pictures are enlarged, so that people can see them


class Grids(pl.Callback):
    """Draws a grid now and then during a training, and hands it on.

    Args:
        spec: Description of the generator.
        epochs: Largest number of epochs.
        folder: Where the pictures go.
        listen: Called with the path of each picture.
    """

    def __init__(self, spec: NetworkSpec, epochs: int, folder: Path, listen: Callable[[Path], None]) -> None:
        self.spec, self.folder, self.listen = spec, folder, listen
        self.every = max(1, epochs // GRIDS)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw after some of the epochs."""
        epoch = trainer.current_epoch
        if trainer.is_global_zero and epoch % self.every == 0:
            path = self.folder / f"samples-{epoch:05d}.png"
            save_grid(pl_module.network, self.spec, path)
            self.listen(path)


def save_grid(network: Any, spec: NetworkSpec, path: Path) -> None:
    """Write a picture of samples: eight from fixed noise for each of up to twelve classes.

    Args:
        network: Generator, forward(noise, label) -> (sample in 0..255,).
        spec: Its description.
        path: PNG file.
    """
    from PIL import Image

    classes = min(len(spec.labels), MOST_CLASSES)
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((classes * COLUMNS, *spec.inputs[0].shape), generator=generator).to(device)
    labels = torch.arange(classes).repeat_interleave(COLUMNS).to(device)
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            drawn = network(noise, labels)[0].float().cpu().numpy()
    finally:
        network.train(training)
    picture = grid(np.clip(np.round(drawn), 0, 255).astype(np.uint8), COLUMNS)
    factor = max(1, round(SMALLEST_SIDE / drawn.shape[1]))
    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(path)


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Images [N, H, W, C] side by side, ``columns`` in a row, uint8 [rows * (H + 1), columns * (W + 1), C]."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * columns, height + GAP, width + GAP, channels), 128, dtype=np.uint8)
    sheet[:count, :height, :width] = images
    tiles = sheet.reshape(rows, columns, height + GAP, width + GAP, channels).transpose(0, 2, 1, 3, 4)
    return tiles.reshape(rows * (height + GAP), columns * (width + GAP), channels)
