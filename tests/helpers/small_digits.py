"""Handwritten digits, prepared for training without any file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.train.preparing import Prepared, replanned
from kfloop.core.encoding import Encoder, Examples
from kfloop.core.encoding.image import Encoder as Images
from kfloop.core.encoding.numbers import number_facts
from kfloop.core.encoding.vector import Encoder as Vectors
from kfloop.core.families import NetworkSpec
from kfloop.core.learning.plan import Plan
from kfloop.core.sections import TrainConfig
from kfloop.core.signature import Port

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLAN = Plan(epochs=1, batch_size=1, learning_rate=1, weight_decay=0, patience=1, seed=0, total_steps=1)


def told(**keys: Any) -> TrainConfig:
    """A small training on the CPU."""
    return TrainConfig.model_validate(
        {"epochs": 3, "batch_size": 32, "patience": 9, "learning_rate": 0.01, "accelerator": "cpu"} | keys
    )


def prepared(config: TrainConfig, family: str = "mlp", rows: int = 200) -> Prepared:
    """Rows as vectors for ``mlp``, as images for ``cnn``."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    pixels = pixels.reshape(-1, 8, 8, 1).astype(np.uint8) if family == "cnn" else pixels.astype(np.float32)
    train, validation = _examples(pixels[:rows], labels[:rows]), _examples(pixels[-100:], labels[-100:])
    facts = {"mean": [4.9], "std": [6.0]} if family == "cnn" else number_facts(pixels[:rows])
    shape = pixels.shape[1:]
    spec = NetworkSpec(
        family=family,
        objective="classification",
        modality="image" if family == "cnn" else "vector",
        inputs=(
            Port(name="image", dtype="uint8", shape=shape)
            if family == "cnn"
            else Port(name="vector", dtype="float32", shape=shape),
        ),
        labels=tuple("0123456789"),
        facts=facts,
    )
    encoder: Encoder = Images((8, 8, 1), [4.9], [6.0]) if family == "cnn" else Vectors(64, facts)
    found = Prepared(spec=spec, encoder=encoder, train=train, validation=validation, plan=PLAN, n_quarantined=0)
    return replanned(found, config)


def _examples(pixels: NDArray[Any], labels: NDArray[Any]) -> Examples:
    names = np.array([f"r{row}" for row in range(len(labels))])
    return Examples(
        inputs=(pixels,),
        target=labels.astype(np.int64),
        weights=np.linspace(0.5, 1.5, len(labels), dtype=np.float32),
        ids=names,
        content=names,
        origin=np.full(len(labels), "base"),
    )
