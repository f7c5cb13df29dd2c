"""Clips that are the same recording at another loudness, start or encoding.

Candidates are neighbours by a coarse picture of their spectrum over time; each is verified by the spectra, frame by frame, and by the samples themselves,
for two takes of one word by one speaker look much alike.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Pairs = tuple[Ints, Ints, NDArray[np.float64]]

FRAME, HOP = 0.032, 0.016  # seconds
BANDS = 24
LOWEST_HZ = 60.0
PRINT = 8  # a clip's fingerprint: its loudness in so many parts of its time and of its bands
SILENT_DB = 40.0  # frames this far below the loudest are cut off at both ends
SLACK = 3  # frames that one clip may lag behind the other
LENGTHS = 0.85  # least ratio of the lengths of near clips
SAME_SOUND = 0.7  # least correlation of the log spectra of a candidate
SAME_WAVE = 0.92  # least correlation of the samples at the best lag; takes of one word by one speaker reach .88
NEIGHBOURS = 16
RADIUS = 0.5  # largest distance of fingerprints of unit length
FEWEST_FRAMES = 4


def near_audio(column: pa.ChunkedArray, rows: Ints, rate: int) -> Pairs:
    """Near duplicates among clips of different content: the same recording at another loudness, encoding or start.

    Args:
        column: list<int16>, mono.
        rows: Rows to compare.
        rate: Samples a second.

    Returns:
        Positions in ``rows`` (left < right) and the distance, 1 - correlation of the samples.
    """
    from scipy.spatial import cKDTree

    def samples(place: int) -> NDArray[np.float32]:
        return np.asarray(column[int(rows[place])].values.to_numpy(), dtype=np.float32)

    spectra = [log_spectrum(samples(place), rate) for place in range(len(rows))]
    usable = np.array(
        [place for place, spectrum in enumerate(spectra) if len(spectrum) >= FEWEST_FRAMES], dtype=np.int64
    )
    if len(usable) < 2:  # noqa: PLR2004
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    prints = np.stack([_print(spectra[place]) for place in usable])
    _, near = cKDTree(prints).query(prints, k=min(NEIGHBOURS + 1, len(usable)), distance_upper_bound=RADIUS)
    left, right = np.repeat(np.arange(len(usable)), near.shape[1]), near.ravel()
    valid = (right < len(usable)) & (left != right)
    pairs = np.unique(np.sort(np.column_stack([left[valid], right[valid]]), axis=1), axis=0)
    found = []
    for a, b in usable[pairs]:
        if correlation(spectra[a], spectra[b]) >= SAME_SOUND:
            alike = wave_correlation(samples(a), samples(b))
            if alike >= SAME_WAVE:
                found.append((a, b, 1 - alike))
    table = np.array(found, dtype=np.float64).reshape(-1, 3)
    return table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2]


def log_spectrum(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Log power in bands of equal width on the mel scale, without silence at the ends, [frames, BANDS]; empty where there is no sound.

    Source of the scale: S. S. Stevens, J. Volkmann, E. B. Newman, 1937, in the form of D. O'Shaughnessy, 1987.
    """
    length, hop = max(int(FRAME * rate), 16), max(int(HOP * rate), 8)
    if len(samples) < length or not samples.any():
        return np.empty((0, BANDS), dtype=np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, length)[::hop] * np.hanning(length).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    low, high_mel = (2595 * math.log10(1 + hertz / 700) for hertz in (LOWEST_HZ, rate / 2))
    mel = np.linspace(low, high_mel, BANDS + 1)
    edges = (700 * (10 ** (mel / 2595) - 1) / rate * length).astype(int)
    sums = np.cumsum(np.pad(power, [(0, 0), (1, 0)]), axis=1)
    high = np.maximum(edges[1:], edges[:-1] + 1)
    bands = (sums[:, np.minimum(high, power.shape[1])] - sums[:, edges[:-1]]) / (high - edges[:-1])
    loud = bands.sum(axis=1)
    heard = np.flatnonzero(loud > loud.max() * 10 ** (-SILENT_DB / 10))
    floor = bands.max() * 10 ** (-SILENT_DB / 10) / BANDS
    return np.log(bands[heard[0] : heard[-1] + 1] + floor).astype(np.float32)


def _print(spectrum: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of a spectrum in PRINT x PRINT fields, about their mean, of unit length, [PRINT * PRINT]."""
    time = (
        np.array_split(np.arange(len(spectrum)), PRINT)
        if len(spectrum) >= PRINT
        else [np.arange(len(spectrum))] * PRINT
    )
    fields = np.stack([spectrum[part].mean(axis=0).reshape(PRINT, -1).mean(axis=1) for part in time])
    fields = fields - fields.mean()
    return np.asarray(fields.ravel() / max(float(np.linalg.norm(fields)), 1e-12))


def correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Largest correlation of two spectra over lags of at most SLACK frames; 0 where their lengths differ too much."""
    if min(len(first), len(second)) < LENGTHS * max(len(first), len(second)) - SLACK:
        return 0.0
    best = 0.0
    for lag in range(-SLACK, SLACK + 1):
        here, there = first[max(lag, 0) :], second[max(-lag, 0) :]
        n = min(len(here), len(there))
        if n >= FEWEST_FRAMES and n >= LENGTHS * max(len(first), len(second)) - SLACK:
            u, v = here[:n] - here[:n].mean(), there[:n] - there[:n].mean()
            size = float(np.linalg.norm(u) * np.linalg.norm(v))
            best = max(best, float((u * v).sum()) / size if size else 0.0)
    return best


def wave_correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Largest correlation of two clips' samples over all lags; 0 for silence."""
    from scipy.signal import correlate

    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return min(1.0, float(correlate(first, second, mode="full", method="fft").max()) / size) if size else 0.0
