"""The simple generator: a normal distribution for each class, in the space of the main components of the training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

COMPONENTS = 64
FITTED = 20_000  # rows from which the components are found
SHRINKAGE = 0.05  # share of the covariance of all classes in that of each: a class may have fewer rows than components


class GaussianBaseline:
    """Draws from a normal distribution for each class, fitted to training rows.

    Args:
        images: Training rows in 0..255, [N, ...].
        labels: Class of each, int64 [N]; every class has at least one row.
        n_classes: Number of classes.
        components: Largest number of main components.
    """

    def __init__(
        self, images: NDArray[Any], labels: NDArray[np.int64], *, n_classes: int, components: int = COMPONENTS
    ) -> None:
        self.shape = images.shape[1:]
        flat = images.reshape(len(images), -1).astype(np.float32)
        self.mean = flat.mean(0)
        some = flat[:: max(1, len(flat) // FITTED)] - self.mean
        _, vectors = np.linalg.eigh(some.T.astype(np.float64) @ some)
        self.components = vectors[:, ::-1][:, :components].astype(np.float32)
        codes = ((flat - self.mean) @ self.components).astype(np.float64)
        size = codes.shape[1]
        whole = np.cov(codes, rowvar=False).reshape(size, size)
        self.means, self.roots = np.zeros((n_classes, size)), np.zeros((n_classes, size, size))
        for label in range(n_classes):
            own = codes[labels == label]
            self.means[label] = own.mean(0)
            spread = np.cov(own, rowvar=False).reshape(size, size) if len(own) > 1 else whole
            values, directions = np.linalg.eigh((1 - SHRINKAGE) * spread + SHRINKAGE * whole)
            self.roots[label] = directions * np.sqrt(np.maximum(values, 0))

    def sample(self, labels: NDArray[np.int64], *, seed: int) -> NDArray[np.float32]:
        """One row of each of the classes asked for, float32 [N, ...] in 0..255."""
        noise = np.random.default_rng(seed).standard_normal((len(labels), self.means.shape[1]))
        codes = self.means[labels] + np.einsum("nij,nj->ni", self.roots[labels], noise)
        flat = np.clip(codes.astype(np.float32) @ self.components.T + self.mean, 0, 255)
        return flat.reshape(len(labels), *self.shape).astype(np.float32)
