"""The recipe of a version: which old training rows stay when fresh rows come in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.versions.splitting import TRAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa

    from kfloop.core.sections import RecipeConfig
    from kfloop.core.versions.assigning import Splitter

    Hashes = tuple[pa.Array, np.ndarray, np.ndarray]

BASE = "base"


class Mixture:
    """Leaves out old training rows by a hash of their content that has nothing to do with their split.

    So the same rows and recipe give the same version in whatever order they come, a smaller share is a part of a larger one, and no row of
    validation or test ever leaves.

    Args:
        recipe: ``data.recipe``.
        labels: Class names by index; empty without classes.
        fresh: Whether there are fresh rows; without them nothing is left out.
    """

    def __init__(self, recipe: RecipeConfig, labels: Sequence[str], *, fresh: bool) -> None:
        self._share = recipe.old_share if fresh else None
        self._floor = recipe.per_class_floor
        self._labels = labels
        self._bars = np.zeros(len(labels))  # draws up to which the rows of a class stay for the sake of its floor
        self.left_out = 0

    @property
    def must_learn(self) -> bool:
        """Whether all rows must be seen before the first can be left out."""
        return self._share is not None and self._floor > 0 and len(self._labels) > 0

    def learn(self, parts: Iterable[tuple[pa.Table, Hashes]], splitter: Splitter) -> None:
        """Find what keeps the floor of each class."""
        draws: list[list[np.ndarray]] = [[] for _ in self._labels]
        for table, hashes in parts:
            old, draw = self._old(table, hashes, splitter), _draws(hashes)
            for row, labels in enumerate(_classes(table)):
                if old[row]:
                    for label in labels:
                        draws[label].append(draw[row : row + 1])
        for label, found in enumerate(draws):
            ordered = np.sort(np.concatenate(found)) if found else np.zeros(0)
            self._bars[label] = ordered[min(self._floor, len(ordered)) - 1] if len(ordered) else 0.0

    def mixed(self, table: pa.Table, hashes: Hashes, splitter: Splitter) -> tuple[pa.Table, Hashes]:
        """The rows that stay, with their hashes."""
        import pyarrow as pa

        if self._share is None:
            return table, hashes
        draw = _draws(hashes)
        keep = ~self._old(table, hashes, splitter) | (draw < self._share)
        if self.must_learn:
            keep |= np.array(
                [any(draw[row] <= self._bars[label] for label in labels) for row, labels in enumerate(_classes(table))]
            )
        if keep.all():
            return table, hashes
        self.left_out += int((~keep).sum())
        kept = pa.array(keep)
        return table.filter(kept), (hashes[0].filter(kept), hashes[1][keep], hashes[2][keep])

    def _old(self, table: pa.Table, hashes: Hashes, splitter: Splitter) -> np.ndarray:
        """Old rows of the train split, bool [N]."""
        import pyarrow.compute as pc

        old = pc.equal(table["origin"], BASE).to_numpy()
        return old & (splitter.assign(table, hashes[2]) == TRAIN)


def _draws(hashes: Hashes) -> np.ndarray:
    """A number in [0, 1) for each row, of the half of its hash that its split is not drawn from."""
    return hashes[1][:, 1] / 2.0**64


def _classes(table: pa.Table) -> list[list[int]]:
    """Classes of each row: one, or those of its set."""
    labels: list[Any] = table["label"].to_pylist()
    return [label if isinstance(label, list) else [label] for label in labels]
