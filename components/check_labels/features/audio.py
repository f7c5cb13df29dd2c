"""Sound: how mel-frequency cepstral coefficients lie and move over a recording.

Coefficients after Davis & Mermelstein, "Comparison of parametric representations for monosyllabic word recognition", IEEE ASSP 1980. A recording is cut into
five parts, so that the order of sounds is not lost.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Floats = NDArray[np.float64]

FRAME_SECONDS = 0.025
STEP_SECONDS = 0.010
BANDS = 40
COEFFICIENTS = 20
PARTS = 5
FLOOR = 1e-3
QUIETEST = 1e-3  # deviation of a signal below which it is silence, not a soft sound
SILENCE_DB = 40.0  # below the loudest frame, at the ends


def describe(version: DatasetVersion, splits: Sequence[str]) -> Floats:
    """Features of all recordings, in order, standardised, float64 [N, D]."""
    rate = int(version.schema["sample_rate"])
    result = []
    for split in splits:
        for table in version.batches(split):
            column = table["audio"].combine_chunks()
            samples = column.flatten().to_numpy(zero_copy_only=False)
            ends = np.cumsum(column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
            result += [
                sound_features(samples[start:end], rate)
                for start, end in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)
            ]
    array = np.array(result) if result else np.empty((0, 1))
    return np.asarray((array - array.mean(axis=0)) / np.maximum(array.std(axis=0), 1e-9))


def sound_features(samples: NDArray[np.int16], rate: int) -> Floats:
    """Features of one recording, float64 [D]; silence at the ends is left out, loudness hardly matters."""
    bands = _trimmed(log_mel(samples, rate))
    from scipy.fft import dct

    cepstrum = dct(bands, type=2, norm="ortho", axis=1)[:, :COEFFICIENTS]
    moves = np.gradient(cepstrum, axis=0) if len(cepstrum) > 1 else np.zeros_like(cepstrum)
    edges = np.linspace(0, len(cepstrum), PARTS + 1).astype(np.int64)
    parts = [
        cepstrum[min(start, len(cepstrum) - 1) : max(end, min(start, len(cepstrum) - 1) + 1)].mean(axis=0)
        for start, end in pairwise(edges)
    ]
    length = np.array([np.log(len(cepstrum))])
    return np.concatenate([*parts, cepstrum.mean(axis=0), cepstrum.std(axis=0), moves.std(axis=0), length])


def log_mel(samples: NDArray[np.int16], rate: int) -> Floats:
    """Logarithm of the energy in mel bands of a recording brought to one loudness, float64 [frames, bands]; at least one frame."""
    width, step = max(2, round(FRAME_SECONDS * rate)), max(1, round(STEP_SECONDS * rate))
    signal = samples.astype(np.float64) / 32768.0
    if len(signal):
        signal /= max(float(signal.std()), QUIETEST)
    signal = np.pad(signal, (0, max(0, width - len(signal))))
    frames = np.lib.stride_tricks.sliding_window_view(signal, width)[::step]
    size = 1 << (width - 1).bit_length()
    power = np.abs(np.fft.rfft(frames * np.hanning(width), size, axis=1)) ** 2
    return np.asarray(np.log(power @ mel_filters(size, rate).T + FLOOR))


def mel_filters(size: int, rate: int) -> Floats:
    """Triangles that overlap by half, evenly spaced on the mel scale, float64 [bands, size // 2 + 1]."""
    highest = 2595.0 * np.log10(1.0 + rate / 2 / 700.0)
    centres = 700.0 * (10.0 ** (np.linspace(0.0, highest, BANDS + 2) / 2595.0) - 1.0)
    frequencies = np.arange(size // 2 + 1) * rate / size
    rising = (frequencies - centres[:-2, None]) / np.diff(centres)[:-1, None]
    falling = (centres[2:, None] - frequencies) / np.diff(centres)[1:, None]
    return np.maximum(0.0, np.minimum(rising, falling))


def _trimmed(bands: Floats) -> Floats:
    """Frames between the first and the last that is not much quieter than the loudest."""
    energy = np.log(np.exp(bands).sum(axis=1)) * 10.0 / np.log(10.0)
    loud = np.flatnonzero(energy > energy.max() - SILENCE_DB)
    return bands[loud[0] : loud[-1] + 1]
