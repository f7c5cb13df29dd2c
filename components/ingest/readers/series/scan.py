"""One pass over a series: is time in order, how long are its steps, what is missing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.readers.series.reading import read_blocks
from kfloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.components.ingest.readers.series.layout import Layout
    from kfloop.components.ingest.readers.series.reading import Block

MICRO = 1_000_000
MOST_STEPS = 10_000  # distinct steps that are counted apart


@dataclass(kw_only=True)
class Scan:
    """What one pass found.

    Attributes:
        instants: Whether times are timestamps; else whole numbers of unknown unit.
        rows: Usable rows.
        n_bad: Rows left out.
        first_bad: The first of them, with its reason.
        last: Last time and row of each series; the key is None without groups.
        lengths: Usable rows of each series.
        steps: How often each step occurs, in microseconds or as a number.
        missing: Missing cells of each channel.
        labels: Distinct labels and the first row of each.
        interleaved: Whether rows of a series lie apart.
    """

    instants: bool = True
    rows: int = 0
    n_bad: int = 0
    first_bad: str = ""
    last: dict[str | None, tuple[int, int]] = field(default_factory=dict)
    lengths: Counter[str | None] = field(default_factory=Counter)
    steps: Counter[int] = field(default_factory=Counter)
    missing: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    labels: dict[str, int] = field(default_factory=dict)
    interleaved: bool = False

    @property
    def step(self) -> int | None:
        """The most common step; of equally common ones the shortest."""
        return min(self.steps, key=lambda step: (-self.steps[step], step)) if self.steps else None

    @property
    def step_seconds(self) -> float | None:
        """The most common step in seconds; None where times are numbers, whose unit nobody told."""
        return self.step / MICRO if self.instants and self.step is not None else None


def scan(layout: Layout) -> Scan:
    """Look at every row once.

    Args:
        layout: Roles of the columns.

    Raises:
        InputError: Time goes back or stands still within a series, naming the row and both times.
    """
    import pyarrow as pa

    found = Scan(instants=layout.time_format != "int", missing=np.zeros(len(layout.channels), dtype=np.int64))
    for block in read_blocks(layout):
        found.n_bad += len(block.bad)
        if block.bad and not found.first_bad:
            found.first_bad = f"row {block.bad[0][0]} {block.bad[0][1]}"
        if not len(block.rows):
            continue
        found.instants = pa.types.is_timestamp(block.times.type)
        found.rows += len(block.rows)
        found.missing += np.isnan(block.values).sum(axis=0)
        _follow(layout, found, block)
        if block.labels is not None and not layout.quantity:
            _collect(found, block.labels, block.rows)
    return found


def _follow(layout: Layout, found: Scan, block: Block) -> None:
    """Check and count the steps of a block, each series after its own last row."""
    import pyarrow as pa

    times = block.times.cast(pa.int64()).to_numpy()
    if block.groups is None:
        _one_series(layout, found, None, times, block.rows)
        return
    encoded = block.groups.dictionary_encode()
    codes = encoded.indices.to_numpy()
    names = encoded.dictionary.to_pylist()
    order = np.argsort(codes, kind="stable")
    bounds = [0, *(np.flatnonzero(np.diff(codes[order])) + 1).tolist(), len(codes)]
    runs = 1 + int((codes[1:] != codes[:-1]).sum())
    last = next(reversed(found.last), None)
    found.interleaved |= runs > len(names) or any(name in found.last and name != last for name in names)
    for first, end in pairwise(bounds):
        places = order[first:end]
        _one_series(layout, found, names[int(codes[places[0]])], times[places], block.rows[places])
    # The series of the block's last row is the one that may go on in the next block.
    ended = names[int(codes[-1])]
    found.last[ended] = found.last.pop(ended)


def _one_series(
    layout: Layout, found: Scan, name: str | None, times: NDArray[np.int64], rows: NDArray[np.int64]
) -> None:
    before = found.last.get(name)
    if before is not None:
        times = np.concatenate([[before[0]], times])
        rows = np.concatenate([[before[1]], rows])
    steps = np.diff(times)
    wrong = np.flatnonzero(steps <= 0)
    if len(wrong):
        raise _out_of_order(layout, found, name, times, rows, int(wrong[0]))
    if len(found.steps) < MOST_STEPS:
        values, counts = np.unique(steps, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            found.steps[value] += count
    found.lengths[name] += len(rows) - (before is not None)
    found.last[name] = (int(times[-1]), int(rows[-1]))


def _out_of_order(
    layout: Layout, found: Scan, name: str | None, times: NDArray[np.int64], rows: NDArray[np.int64], place: int
) -> InputError:
    early, late = (show_time(int(times[place + more]), instants=found.instants) for more in (0, 1))
    series = f" of series '{name}'" if name is not None else ""
    where = f"'{layout.head.path}' row {rows[place + 1]}, column '{layout.time}'"
    facts: dict[str, Any] = {"row": int(rows[place + 1]), "column": layout.time}
    told = (
        ""
        if layout.group
        else "; if the file holds several series, name the column that tells them apart in data.group"
    )
    if early == late:
        return InputError(
            f"{where}: time {late}{series} is there twice (also in row {rows[place]})",
            hint=f"keep one row for each time{told}",
            **facts,
        )
    return InputError(
        f"{where}: time goes back from {early} (row {rows[place]}) to {late}{series}",
        hint=f"sort the rows by '{layout.time}'{' within each series' if layout.group else ''}{told}",
        **facts,
    )


def _collect(found: Scan, labels: pa.Array, rows: NDArray[np.int64]) -> None:
    encoded = labels.dictionary_encode()
    _, firsts = np.unique(encoded.indices.to_numpy(), return_index=True)
    for name, first in zip(encoded.dictionary.to_pylist(), firsts.tolist(), strict=True):
        found.labels.setdefault(name, int(rows[first]))


def show_time(value: int, *, instants: bool) -> str:
    """A time as people write it."""
    return (
        str(datetime.fromtimestamp(0, UTC).replace(tzinfo=None) + timedelta(microseconds=value))
        if instants
        else str(value)
    )
