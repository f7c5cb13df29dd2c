"""Log-mel spectrograms inside a network: samples in, a picture of bands and frames out, with nothing to be computed before serving."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAME_SECONDS = 0.025
STEP_SECONDS = 0.010
MOST_FRAMES = 400  # of longer sounds the steps are longer
FULL_SCALE = 32768.0  # of int16
FLOOR = 1e-10  # energy below which a band is silent
QUIETEST = -16.0  # a loudest band below this (natural logarithm) is silence, not a soft sound
RANGE = 11.5  # what is quieter than the loudest by more than this (50 dB) is cut
MASKS = 2
MASKED = 0.15  # largest share of the bands, and of the frames, under one mask
SHIFTED = 0.06  # largest share of the bands by which voices are moved up or down


class LogMel(nn.Module):
    """Samples [B, T] to the logarithm of the energy in mel bands, relative to the loudest, standardised by band: [B, 1, bands, frames].

    The short-time Fourier transform is a convolution with a windowed basis, so that it exports to ONNX like any layer. While training, bands
    and frames are masked (Park et al., "SpecAugment", Interspeech 2019) and the spectrum is moved by a few bands, as another voice would.

    Args:
        length: Samples T.
        rate: Samples per second.
        bands: Mel bands.
        masking: Whether to mask and to move while training.
    """

    basis: Tensor
    filters: Tensor

    def __init__(self, length: int, rate: int, bands: int, *, masking: bool) -> None:
        super().__init__()
        self.bands, self.masking = bands, masking
        width = max(4, round(FRAME_SECONDS * rate))
        self.step = max(1, round(STEP_SECONDS * rate), -(-length // MOST_FRAMES))
        self.fill = max(0, width - length)
        self.frames = (length + self.fill - width) // self.step + 1
        size = 1 << (width - 1).bit_length()
        self.register_buffer("basis", torch.from_numpy(fourier_basis(width, size)))
        self.register_buffer("filters", torch.from_numpy(mel_filters(size, rate, bands))[:, :, None])
        self.normalise = nn.BatchNorm1d(bands, affine=False)

    def forward(self, samples: Tensor) -> Tensor:
        """The picture."""
        signal = functional.pad(samples.to(self.basis.dtype) / FULL_SCALE, (0, self.fill))
        parts = functional.conv1d(signal[:, None], self.basis, stride=self.step)
        real, imaginary = parts.chunk(2, dim=1)
        energy = functional.conv1d(real.square() + imaginary.square(), self.filters)
        levels = (energy + FLOOR).log()
        loudest = levels.amax(dim=(1, 2), keepdim=True).clamp(min=QUIETEST)
        picture: Tensor = self.normalise((levels - loudest).clamp(min=-RANGE))
        if self.training and self.masking:
            picture = masked(moved(picture))
        return picture[:, None]


def fourier_basis(width: int, size: int) -> NDArray[np.float32]:
    """Real and imaginary parts of the windowed Fourier basis as filters of a convolution, float32 [2 * (size // 2 + 1), 1, width]."""
    angles = 2 * np.pi * np.outer(np.arange(size // 2 + 1), np.arange(width)) / size
    window = np.hanning(width + 2)[1:-1]
    return np.concatenate([np.cos(angles) * window, -np.sin(angles) * window])[:, None].astype(np.float32)


def mel_filters(size: int, rate: int, bands: int) -> NDArray[np.float32]:
    """Triangles evenly spaced on the mel scale, each at least as wide as the distance of two frequencies, float32 [bands, size // 2 + 1]."""
    highest = 2595.0 * np.log10(1.0 + rate / 2 / 700.0)
    centres = 700.0 * (10.0 ** (np.linspace(0.0, highest, bands + 2) / 2595.0) - 1.0)
    frequencies = np.arange(size // 2 + 1) * rate / size
    apart = np.maximum(
        np.diff(centres), rate / size
    )  # else a low band could lie between two frequencies and stay empty
    rising = (frequencies - centres[1:-1, None]) / apart[:-1, None] + 1
    falling = (centres[1:-1, None] - frequencies) / apart[1:, None] + 1
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def masked(picture: Tensor) -> Tensor:
    """Some bands and some frames of each picture [B, bands, frames] set to 0, their mean."""
    for axis in (1, 2):
        count = picture.shape[axis]
        places = torch.arange(count, device=picture.device)
        for _ in range(MASKS):
            width = torch.rand(len(picture), 1, device=picture.device) * MASKED * count
            start = torch.rand(len(picture), 1, device=picture.device) * (count - width)
            hidden = (places >= start) & (places < start + width)
            picture = picture.masked_fill(hidden.unsqueeze(3 - axis), 0.0)
    return picture


def moved(picture: Tensor) -> Tensor:
    """Each picture [B, bands, frames] moved up or down by some bands; the band at the edge is repeated."""
    bands = picture.shape[1]
    most = round(SHIFTED * bands)
    shift = torch.randint(-most, most + 1, (len(picture), 1), device=picture.device)
    source = (torch.arange(bands, device=picture.device) + shift).clamp(0, bands - 1)
    return picture.gather(1, source[:, :, None].expand_as(picture))
