"""Networks that judge rows they were not trained on."""

from __future__ import annotations

import numpy as np

from kfloop.core.crossfit import NetworkLearner
from kfloop.core.encoding.image import Encoder


def stripes(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Images with a bright upper or lower half."""
    generator = np.random.default_rng(0)
    labels = np.arange(n) % 2
    images = generator.integers(0, 60, (n, 8, 8, 1), dtype=np.uint8)
    images[labels == 0, :4] += 150
    images[labels == 1, 4:] += 150
    return images, labels


def learner(images: np.ndarray, labels: np.ndarray, epochs: int) -> NetworkLearner:
    encoder = Encoder((8, 8, 1), [80.0], [60.0])
    return NetworkLearner((images,), labels, ["up", "down"], encoder, seed=1, epochs=epochs)


def test_what_is_learned_tells_held_rows_apart_and_repeats() -> None:
    images, labels = stripes(120)
    fit, held = np.arange(80), np.arange(80, 120)
    found = [learner(images, labels, 3)(fit, held, clean=False) for _ in range(2)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    np.testing.assert_allclose(found[0].sum(axis=1), 1.0)
    assert (found[0].argmax(axis=1) == labels[held]).mean() > 0.9
    other = learner(images, labels, 3)(fit, held, clean=True)
    assert np.abs(other - found[0]).max() > 1e-6


def test_the_random_state_of_the_caller_is_left_alone() -> None:
    import torch

    images, labels = stripes(40)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    learner(images, labels, 1)(np.arange(30), np.arange(30, 40), clean=False)
    assert torch.rand(1) == expected
