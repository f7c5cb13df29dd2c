"""Which training rows count, and how much: what the label check said, and the balance of origins."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kfloop.errors import InputError, StateError, TerminalError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.core.encoding import Examples

WEIGHTS = "weights.parquet"


def weighted(examples: Examples, labels_folder: Path, classes: Sequence[str], *, balance_origins: bool) -> Examples:
    """Training rows without quarantined ones, weighted as the label check said; the mean weight is 1.

    Args:
        examples: The train split.
        labels_folder: Folder of ``check_labels``.
        classes: Class names where each row has one class, else empty.
        balance_origins: Give each origin the same total weight.

    Raises:
        InputError: A weight is negative or not a number.
        StateError: The label check does not belong to this dataset.
        TerminalError: A class has no row left, or no row is left at all.
    """
    weights, quarantined = _label_weights(labels_folder, examples.ids)
    keep = ~quarantined
    weights, origin = weights[keep], examples.origin[keep]
    if balance_origins:
        for name in np.unique(origin):
            rows = origin == name
            weights[rows] /= max(float(weights[rows].sum()), 1e-12)
    kept = examples.take(keep) if quarantined.any() else examples
    if not weights.sum() > 0:
        raise TerminalError(
            f"no training row is left of {len(examples)} ({int(quarantined.sum())} quarantined)",
            hint="add examples, or use labels.policy: report",
        )
    if classes:
        present = np.bincount(kept.target, weights=weights > 0, minlength=len(classes))
        empty = [name for name, count in zip(classes, present, strict=True) if not count]
        if empty:
            raise TerminalError(
                f"no training row is left for {len(empty)} class(es), such as {empty[0]!r}, out of {len(examples)} rows "
                f"({int(quarantined.sum())} quarantined)",
                hint="add examples of that class, or use labels.policy: report",
                classes=empty,
            )
    weights *= len(weights) / weights.sum()  # mean 1, so that the learning rate keeps its meaning
    return replace(kept, weights=weights)


def _label_weights(folder: Path, ids: NDArray[np.str_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Weight and quarantine of every id; a row the label check does not name counts fully."""
    import pyarrow.parquet as pq

    path = folder / WEIGHTS
    if not path.is_file():
        raise StateError(
            f"the label check '{folder}' has no {WEIGHTS}", hint="run the label check again: kfloop step check_labels"
        )
    table = pq.read_table(path, columns=["id", "weight", "quarantined"])
    known = {
        name: (weight, bool(set_aside))
        for name, weight, set_aside in zip(*(table[key].to_pylist() for key in table.column_names), strict=True)
    }
    if known and len(ids) and not any(name in known for name in ids.tolist()):
        raise StateError(
            f"none of the {len(known)} ids in '{path}' is among the {len(ids)} training rows",
            hint="run the label check again on this dataset version",
        )
    rows = [known.get(name, (1.0, False)) for name in ids.tolist()]
    weights = np.array([np.nan if weight is None else weight for weight, _ in rows], dtype=np.float32)
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"'{path}' gives row '{ids[first]}' the weight {weights[first]}, expected a number of at least 0",
            hint="run the label check again: kfloop step check_labels",
        )
    return weights, np.array([set_aside for _, set_aside in rows], dtype=np.bool_)
