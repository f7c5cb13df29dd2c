"""Time series: windows of the past, and what is to be told about each.

The windows of a split may look back into the rows before it: what is past is known when a forecast is made. What is forecast, or the step that
has a label, never lies outside the split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from kfloop.core.encoding.base import Encoder as Base
from kfloop.core.encoding.base import columns_of, targets
from kfloop.core.encoding.examples import Examples
from kfloop.core.signature import Port
from kfloop.core.versions.splitting import SPLITS
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

LEAST_SPREAD = (
    1e-9  # standard deviation, as a share of the size of the values, below which a channel counts as constant
)


@dataclass(frozen=True, kw_only=True)
class Windows(Examples):
    """Windows that are cut out of the series when a batch needs them: ``inputs`` holds every window there is, and a row is one of these.

    Attributes:
        starts: Which window each row is, int64 [N].
    """

    starts: NDArray[np.int64]

    def batch_inputs(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """Windows float32 [B, context, C]."""
        return (np.ascontiguousarray(self.inputs[0][self.starts[rows]]),)

    def take(self, rows: NDArray[Any]) -> Windows:
        """Some rows, by index or mask."""
        rest = {"ids": self.ids, "content": self.content, "origin": self.origin}
        return replace(
            self,
            target=self.target[rows],
            weights=self.weights[rows],
            starts=self.starts[rows],
            **{name: array[rows] for name, array in rest.items()},
        )


class Encoder(Base):
    """Gives ``window`` float32 [context, C] in the unit of the series; NaN where a value is missing.

    Args:
        channels: Columns, in their order.
        context: Steps of a window.
        mean: Mean of each channel over the training rows.
        std: Standard deviation of each channel; 1 where it is constant.
    """

    modality = "series"

    def __init__(self, channels: list[str], context: int, mean: list[float], std: list[float]) -> None:
        self.channels, self.context, self.mean, self.std = channels, context, mean, std

    @classmethod
    def fit(cls, version: DatasetVersion, **options: Any) -> Self:
        """Mean and standard deviation of each channel.

        Args:
            version: Dataset version.
            **options: ``context``: steps of a window instead of the version's.
        """
        told = version.schema["series"]
        encoder = cls(list(told["channels"]), int(options.get("context") or told["context"]), [], [])
        values = encoder._values(version.table("train", encoder.channels))
        known = np.isfinite(values)
        empty = [name for name, count in zip(encoder.channels, known.sum(0), strict=True) if not count]
        if empty:
            raise InputError(
                f"the train split has no value of {', '.join(empty)}",
                hint="leave such columns out of data.series.channels",
            )
        mean = np.mean(values, axis=0, where=known)
        std = np.std(values, axis=0, where=known)
        std = np.where(std > LEAST_SPREAD * np.maximum(np.abs(mean), LEAST_SPREAD), std, 1.0)
        encoder.mean, encoder.std = mean.tolist(), std.tolist()
        return encoder

    @classmethod
    def restore(cls, plain: Mapping[str, Any]) -> Self:
        """As ``state`` says."""
        return cls(list(plain["channels"]), int(plain["context"]), list(plain["mean"]), list(plain["std"]))

    def state(self) -> dict[str, Any]:
        """Channels, length of a window and constants."""
        return {"channels": self.channels, "context": self.context, **self.facts}

    @property
    def ports(self) -> tuple[Port, ...]:
        """One window."""
        return (Port(name="window", dtype="float32", shape=(self.context, len(self.channels))),)

    @property
    def facts(self) -> dict[str, Any]:
        """Mean and standard deviation of each channel over the training rows."""
        return {"mean": self.mean, "std": self.std}

    def encode(self, table: pa.Table) -> tuple[NDArray[Any], ...]:
        """The windows float32 [N, context, C] that end at each row of one series from row ``context - 1`` on; read-only views."""
        values = self._values(table).astype(np.float32)
        if len(values) < self.context:
            raise InputError(
                f"the series has {len(values)} rows, but a window has {self.context}", hint="give a longer past"
            )
        return (_sliding(values, self.context),)

    def examples(self, version: DatasetVersion, split: str, objective: str, *, normal: str | None = None) -> Examples:
        """One example for each window whose target lies in the split: the ``horizon`` steps after it, or the label of its last step.

        Windows in which a value to be forecast is missing are left out. Ids, content and origin are those of the first row of the target.
        Windows are views of the series, and so are targets of one series; targets of several are copied.

        Raises:
            InputError: A value is missing in every window's target.
        """
        told = version.schema["series"]
        ahead = int(told["horizon"]) if objective == "forecasting" else 0
        history = [version.table(name) for name in SPLITS[: SPLITS.index(split)]] if split in SPLITS else []
        own = version.table(split)
        tables = [*history, own]
        order, bounds = _series(tables)
        n_before = len(order) - own.num_rows
        values = np.concatenate([self._values(table) for table in tables]).astype(np.float32)[order]
        starts = _starts(order >= n_before, bounds, self.context, ahead, int(told["stride"]))
        if ahead:
            starts = self._complete(values, starts, ahead, split)
        # Places of the first rows of the targets among the rows of the split.
        firsts = order[starts + self.context - (0 if ahead else 1)] - n_before
        return Windows(
            inputs=(_sliding(values, self.context),),
            starts=starts,
            target=_followers(values, starts + self.context, ahead)
            if ahead
            else targets(own, version, objective, normal)[firsts],
            weights=np.ones(len(firsts), dtype=np.float32),
            **columns_of(own.select(["id", "content", "origin"]).take(firsts)),
        )

    def _complete(
        self, values: NDArray[np.float32], starts: NDArray[np.int64], ahead: int, split: str
    ) -> NDArray[np.int64]:
        """The starts of windows whose targets have no missing value."""
        gaps = np.concatenate([[0], np.cumsum(np.isnan(values).any(axis=1))])
        firsts = starts + self.context
        kept = starts[gaps[firsts + ahead] == gaps[firsts]]
        if len(starts) and not len(kept):
            raise InputError(
                f"each of the {len(starts)} windows of the {split} split has a missing value among the {ahead} steps to forecast",
                hint="fill the gaps, shorten data.series.horizon, or leave the channel with most gaps out",
            )
        return kept

    def _values(self, table: pa.Table) -> NDArray[np.float64]:
        missing = [name for name in self.channels if name not in table.column_names]
        if missing:
            raise InputError(
                f"the rows have no column {', '.join(missing)}",
                hint=f"a window has the channels {', '.join(self.channels)}",
            )
        columns = [np.asarray(table[name].to_numpy(), dtype=np.float64) for name in self.channels]
        values = np.stack(columns, axis=1)
        return np.where(np.isfinite(values), values, np.nan)


def _series(tables: list[pa.Table]) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
    """The order that brings the rows of each series together, in time order, and where each begins and ends in it."""
    n = sum(table.num_rows for table in tables)
    if "group" not in tables[0].column_names:
        return np.arange(n, dtype=np.int64), [(0, n)]
    names = [name for table in tables for name in table["group"].to_pylist()]
    codes = np.unique(np.array(names, dtype=str), return_inverse=True)[1]
    order = np.argsort(codes, kind="stable").astype(np.int64)
    edges = [0, *(np.flatnonzero(np.diff(codes[order])) + 1).tolist(), n]
    return order, list(pairwise(edges))


def _starts(
    own: NDArray[np.bool_], bounds: list[tuple[int, int]], context: int, ahead: int, stride: int
) -> NDArray[np.int64]:
    """First rows of the windows whose target rows are all of the split.

    Args:
        own: Whether each row is one of the split's; in a series these come last.
        bounds: First and last + 1 row of each series.
        context: Rows of a window.
        ahead: Rows of a target after the window; 0 where the target is the window's last row.
        stride: Rows between two windows.
    """
    seen = context if ahead else context - 1  # rows of a window before its target
    places = []
    for begin, end in bounds:
        first = end - int(own[begin:end].sum())
        places.append(np.arange(max(begin, first - seen), end - context - ahead + 1, stride, dtype=np.int64))
    return np.concatenate(places) if places else np.empty(0, dtype=np.int64)


def _followers(values: NDArray[np.float32], firsts: NDArray[np.int64], ahead: int) -> NDArray[np.float32]:
    """The ``ahead`` rows from each of ``firsts`` on, [N, ahead, C]; a view where they have one common step."""
    if not len(firsts):
        return np.empty((0, ahead, values.shape[1]), dtype=np.float32)
    every = _sliding(values, ahead)
    steps = np.unique(np.diff(firsts))
    step = int(steps[0]) if len(steps) else 1
    return every[firsts] if len(steps) > 1 else every[firsts[0] : firsts[-1] + 1 : step]


def _sliding(values: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Every window [T - width + 1, width, C], a read-only view."""
    if len(values) < width:
        return np.empty((0, width, values.shape[1]), dtype=np.float32)
    found: NDArray[np.float32] = np.lib.stride_tricks.sliding_window_view(values, width, axis=0).transpose(0, 2, 1)
    return found
