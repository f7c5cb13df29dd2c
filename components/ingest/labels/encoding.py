"""Labels as a model needs them: class indices, sorted lists of class indices, or numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kfloop.components.ingest.readers.table.kinds import lists_of, parsed

if TYPE_CHECKING:
    import pyarrow as pa

    from kfloop.components.ingest.labels.plan import LabelPlan

NO_LABEL = "no label"


def encode(plan: LabelPlan, labels: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """Encode a batch of ``plain_labels``.

    Args:
        plan: What ``settle`` found.
        labels: The labels, N of them.

    Returns:
        The column ``label`` (int64, list<int64> or float64; null where unusable), and what is wrong with a label, by its place in the batch.
    """
    if plan.task == "regression":
        return _quantities(labels)
    if plan.task == "multilabel":
        return _sets(plan, labels)
    codes, known = _codes(plan, labels)
    problems = dict.fromkeys(np.flatnonzero(labels.is_null().to_numpy(zero_copy_only=False)).tolist(), NO_LABEL)
    for at in np.flatnonzero(~known).tolist():
        if at not in problems:
            problems[at] = f"'{labels[at].as_py()}' is no class of this source"
    return _masked(codes, ~known), problems


def label_type(task: str) -> pa.DataType:
    """Arrow type of the column ``label``."""
    import pyarrow as pa

    if task == "regression":
        return pa.float64()
    return pa.list_(pa.int64()) if task == "multilabel" else pa.int64()


def _masked(codes: np.ndarray, missing: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return pa.array(codes, type=pa.int64(), mask=missing)


def _codes(plan: LabelPlan, values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Class index of each value, int64 [N], and whether it has one, bool [N]."""
    import pyarrow as pa
    import pyarrow.compute as pc

    places = pc.index_in(values, value_set=pa.array(plan.values, type=values.type), skip_nulls=True)
    known = places.is_valid().to_numpy(zero_copy_only=False)
    return np.array([*plan.codes, 0], dtype=np.int64)[places.fill_null(-1).to_numpy(zero_copy_only=False)], known


def _quantities(labels: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    problems: dict[int, str] = {}
    if pa.types.is_string(labels.type):
        numbers, unfit = parsed("float64", labels)
        problems = {at: f"'{labels[at].as_py()}': expected a number" for at in np.flatnonzero(unfit).tolist()}
    else:
        numbers = labels.cast(pa.float64())
    finite = pc.fill_null(pc.is_finite(numbers), False).to_numpy(zero_copy_only=False)
    for at in np.flatnonzero(~finite).tolist():
        problems.setdefault(
            at, NO_LABEL if not numbers[at].is_valid else f"{numbers[at].as_py()}: expected a finite number"
        )
    return pc.if_else(pa.array(finite), numbers, pa.scalar(None, pa.float64())), problems


def _sets(plan: LabelPlan, labels: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """Lists of labels as sorted lists of class indices, each index once."""
    import pyarrow as pa

    missing = labels.is_null().to_numpy(zero_copy_only=False)
    lengths = labels.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    flat = labels.flatten()
    codes, known = _codes(plan, flat)
    owner = np.repeat(np.arange(len(labels)), lengths)
    problems = dict.fromkeys(np.flatnonzero(missing).tolist(), NO_LABEL)
    for at in np.flatnonzero(~known).tolist():
        value = flat[at].as_py()
        problems.setdefault(
            int(owner[at]), "an empty label in the list" if value is None else f"'{value}' is no class of this source"
        )
    # One number for each pair of row and class: sorted and distinct pairs are sorted and distinct classes within each row.
    pairs = np.unique(owner[known] * np.int64(max(1, len(plan.names))) + codes[known])
    rows, distinct = np.divmod(pairs, max(1, len(plan.names)))
    counts = np.bincount(rows, minlength=len(labels))
    return lists_of(pa.array(distinct, type=pa.int64()), counts, missing), problems
