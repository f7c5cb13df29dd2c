"""Rows with noise, gaps and the like: what reaches a model when a lens is dirty, a sensor drops out or a user mistypes.

A corruption changes the rows before a model's encoder (of a series, whose windows overlap: the windows), each kind at three severities. It
depends on the seed alone, so that every model meets the same rows. The severities are of the order of those of Hendrycks & Dietterich,
"Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.corruptions import graphs, media
from kfloop.components.evaluate.corruptions import rows as rows_of
from kfloop.components.evaluate.corruptions.altered import AlteredVersion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Numbers = np.random.Generator

SEVERITIES = (1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of corruption.

    Attributes:
        amounts: How much of it, by severity.
        unit: What the amount is, for people.
        apply: Takes what is corrupted, the amount, a generator of random numbers and the training rows; gives the corrupted.
    """

    amounts: tuple[float, float, float]
    unit: str
    apply: Callable[[Any, float, Numbers, Any], Any]


def numbers_for(seed: int, kind: str, severity: int) -> Numbers:
    """Random numbers of one corruption: the same whatever other kinds there are."""
    return np.random.default_rng([seed, zlib.crc32(kind.encode()), severity])


def kinds_of(modality: str) -> dict[str, Kind]:
    """The corruptions of a modality, by name; none for one without any."""
    return KINDS.get(modality, {})


def altered(
    version: DatasetVersion, kind: Kind, severity: int, random: Numbers, rows: NDArray[np.int64]
) -> AlteredVersion:
    """The version with corrupted test rows, those of ``rows`` alone.

    Nodes of one graph are corrupted as a whole, because every answer depends on the whole graph, and all test rows stay.

    Raises:
        InputError: The rows have nothing that this kind could change.
    """
    amount = kind.amounts[severity - 1]
    if version.modality == "nodes":
        return kind.apply(version, amount, random, None)
    test = version.table("test").take(rows)
    return AlteredVersion(version, {"test": kind.apply(test, amount, random, version)})


STD = "standard deviations of the training rows"
KINDS: dict[str, dict[str, Kind]] = {
    "image": {
        "gaussian_noise": Kind(
            amounts=(0.08, 0.18, 0.38),
            unit="standard deviation of the noise, white being 1",
            apply=media.pixels(
                lambda images, amount, random: images + amount * media.PIXEL * random.standard_normal(images.shape)
            ),
        ),
        "blur": Kind(
            amounts=(0.04, 0.07, 0.12),
            unit="width of the blur as a share of the side",
            apply=media.pixels(media.blurred),
        ),
        "brightness": Kind(
            amounts=(0.1, 0.25, 0.4),
            unit="added brightness, white being 1",
            apply=media.pixels(lambda images, amount, _: images + amount * media.PIXEL),
        ),
        "contrast": Kind(
            amounts=(0.6, 0.35, 0.15), unit="contrast that is left", apply=media.pixels(media.less_contrast)
        ),
        "shift": Kind(amounts=(0.05, 0.1, 0.2), unit="shift as a share of the side", apply=media.pixels(media.shifted)),
    },
    "audio": {
        "noise": Kind(amounts=(20.0, 10.0, 0.0), unit="signal above the noise, in dB", apply=media.samples(media.hiss)),
        "gain": Kind(
            amounts=(-6.0, -12.0, -20.0),
            unit="change of loudness, in dB",
            apply=media.samples(lambda wave, _loudness, amount, _random: wave * 10 ** (amount / 20)),
        ),
        "clipping": Kind(
            amounts=(2.0, 1.0, 0.5),
            unit="level of clipping in multiples of the sound's root mean square",
            apply=media.samples(lambda wave, loudness, amount, _: np.clip(wave, -amount * loudness, amount * loudness)),
        ),
    },
    "text": {
        "typos": Kind(amounts=(0.02, 0.05, 0.1), unit="share of the letters", apply=rows_of.typos),
        "dropped_words": Kind(amounts=(0.1, 0.2, 0.4), unit="share of the words", apply=rows_of.dropped_words),
    },
    "series": {
        "noise": Kind(amounts=(0.1, 0.25, 0.5), unit=STD, apply=graphs.noisy_windows),
        "missing": Kind(amounts=(0.1, 0.2, 0.4), unit="share of the window", apply=graphs.gaps_in_windows),
        "jitter": Kind(amounts=(1.0, 2.0, 4.0), unit="steps", apply=graphs.jitter),
    },
    "table": {
        "noise": Kind(amounts=(0.1, 0.25, 0.5), unit=STD, apply=rows_of.noisy_numbers),
        "missing": Kind(amounts=(0.05, 0.15, 0.3), unit="share of the values", apply=rows_of.without_values),
        "swapped": Kind(amounts=(0.05, 0.15, 0.3), unit="share of the values", apply=rows_of.swapped_words),
    },
    "vector": {
        "noise": Kind(amounts=(0.1, 0.25, 0.5), unit=STD, apply=rows_of.noisy_vectors),
        "missing": Kind(amounts=(0.05, 0.15, 0.3), unit="share of the values", apply=rows_of.gaps_in_vectors),
    },
    "nodes": {
        "noise": Kind(amounts=(0.1, 0.25, 0.5), unit=STD, apply=graphs.noisy_nodes),
        "dropped_edges": Kind(amounts=(0.1, 0.25, 0.5), unit="share of the edges", apply=graphs.fewer_edges),
    },
    "graphs": {
        "noise": Kind(amounts=(0.1, 0.25, 0.5), unit=STD, apply=graphs.graphs_with_noise),
        "dropped_edges": Kind(
            amounts=(0.1, 0.25, 0.5), unit="share of the edges", apply=graphs.graphs_with_fewer_edges
        ),
    },
}
