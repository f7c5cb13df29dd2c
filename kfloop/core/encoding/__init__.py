"""Encoders: rows of a dataset version to the tensors a network takes.

What a server can be sent as it is stays as it is (pixels, waveforms, windows): its normalisation is part of the network. What no tensor
can hold (words, categories) is encoded here, by an encoder that was fitted on the training rows, travels with the model as plain values,
and gives the same numbers everywhere. One module for each modality, with a class ``Encoder``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kfloop.core.encoding.base import Encoder
from kfloop.core.encoding.examples import Examples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kfloop.core.versions import DatasetVersion

__all__ = ["Encoder", "Examples", "encoder_class", "fit_encoder", "restore_encoder"]


def encoder_class(modality: str) -> type[Encoder]:
    """The encoder of a modality."""
    found: type[Encoder] = importlib.import_module(f"kfloop.core.encoding.{modality}").Encoder
    return found


def fit_encoder(version: DatasetVersion, **options: Any) -> Encoder:
    """An encoder fitted on the train split.

    Args:
        version: Dataset version.
        **options: What the modality's ``fit`` takes; a model may ask for its own, such as longer texts.
    """
    return encoder_class(version.modality).fit(version, **options)


def restore_encoder(plain: Mapping[str, Any]) -> Encoder:
    """The encoder that ``Encoder.plain`` described."""
    values = dict(plain)
    return encoder_class(str(values.pop("modality"))).restore(values)
