"""Augmentation: each training example changed a little, in the way of its modality, on the arrays of a batch.

A function of this package takes the inputs of a batch and a random generator and gives changed inputs of the same shapes and types; it never
writes into what it was given. Which random numbers a batch gets depends on seed, epoch and number of the batch alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kfloop.components.train.augment import audio, edges, image, series, table, text
from kfloop.errors import ConfigError

if TYPE_CHECKING:
    from kfloop.components.train.batches import Augment
    from kfloop.core.families import NetworkSpec


def augment_for(spec: NetworkSpec, *, flip: bool = False) -> Augment:
    """The augmentation of a modality.

    Args:
        spec: Says what an example is and what is learned from it.
        flip: Mirror half of the images.

    Raises:
        ConfigError: Samples would be drawn like the changed examples, or the modality is unknown.
    """
    if flip and spec.modality != "image":
        raise ConfigError(
            f"train.augment_flip mirrors images, but this loop has {spec.modality} data",
            hint="remove train.augment_flip",
        )
    if spec.modality == "image":
        if spec.objective == "generation" and not flip:
            raise ConfigError(
                f"train.augment would teach '{spec.family}' to draw shifted and erased images",
                hint="use train.augment: false, or train.augment_flip: true, which then only mirrors",
            )
        # A generator draws what it was shown, so there mirrored images are the only change.
        return image.mirrored if spec.objective == "generation" else image.Images(flip=flip)
    if spec.modality == "audio":
        return audio.changed
    if spec.modality == "text":
        return text.without_words
    if spec.modality == "series":
        return series.Series(spec.facts["std"], scaled=spec.objective in {"classification", "multilabel"})
    if spec.modality in {"table", "vector"}:
        return table.swapped
    if spec.modality in {"nodes", "graphs"}:
        return edges.EdgesDropped([port.name for port in spec.inputs].index("edges"))
    raise ConfigError(
        f"train.augment knows nothing of {spec.modality} data",
        hint="use train.augment: false",
        modality=spec.modality,
    )
