"""Whether equal rows of a table mean anything: with few columns of few values, rows are equal by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from kfloop.core.versions import DatasetVersion

FEWEST = 50  # rows below which shares of values say nothing
MANY = 0.01  # other rows that are equal to a row by chance; with more, equal rows are no evidence


def expected_coincidences(version: DatasetVersion) -> float:
    """How many other rows equal a row by chance, if the columns had nothing to do with each other.

    The chance that two rows agree in a column is the sum of its squared shares (Simpson's index, Nature 1949). Columns that do have to
    do with each other make more rows equal, so the figure is a lower bound.

    Returns:
        The number for a table of 50 rows or more; 0 for everything else, where equal content does not come by chance.
    """
    if version.modality != "table":
        return 0.0
    import pyarrow as pa
    import pyarrow.compute as pc

    n, agree = 0, 1.0
    for name in version.inputs:
        column = pa.chunked_array(
            [chunk for split in version.splits for chunk in version.table(split, [name])[name].chunks]
        )
        counts = pc.struct_field(pc.value_counts(column), 1).to_numpy(zero_copy_only=False).astype(np.float64)
        n = len(column)
        agree *= float((counts**2).sum()) / max(1, n) ** 2
    return (n - 1) * agree if n >= FEWEST else 0.0
