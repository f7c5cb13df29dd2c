"""The watch over drift, fitted on the champion's reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.monitor.drift.reference import MOST_UNITS, SEASONS, Reference, seasons_of
from kfloop.components.monitor.drift.table import Table, fit_table
from kfloop.core.drift.budget import Budget
from kfloop.core.drift.dependence import suggested_unit
from kfloop.core.drift.fitting import dealt, fit_watch
from kfloop.core.drift.rehearsal import rehearse
from kfloop.core.drift.settings import Settings
from kfloop.core.drift.watch import Watch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.components.monitor.log.layout import Layout
    from kfloop.core.sections import MonitorConfig
    from kfloop.core.signature import Signature

SMALLEST_BLOCK, LARGEST_BLOCK = 50, 4000
_PENDING_CELLS = 320_000  # of rows that do not fill a block yet: they are part of the memory
_REHEARSED = {"runs": 5, "blocks": 16}
_REHEARSED_ROWS = 2000


@dataclass(frozen=True, kw_only=True, eq=False)
class Watched:
    """What is watched, fitted on the reference.

    Attributes:
        table: From rows to columns.
        watch: The watch.
        season: What a season is, None where there is only one.
        columns: The reference, columns by name.
        seasons: Season of each reference row.
    """

    table: Table
    watch: Watch
    season: str | None
    columns: dict[str, NDArray[Any]]
    seasons: NDArray[np.int64] | None

    def rehearsed(self) -> str:
        """Whether a short simulation on the reference is in keeping with the promise, one sentence."""
        unit = self.watch.settings.unit
        n = min(len(next(iter(self.columns.values()))), _REHEARSED_ROWS * unit)
        return rehearse(
            {name: cells[:n] for name, cells in self.columns.items()},
            kinds=self.table.kinds,
            seasons=None if self.seasons is None else self.seasons[:n],
            settings=replace(self.watch.settings, most=None),
            **_REHEARSED,
        ).statement


def fit_watched(
    config: MonitorConfig,
    reference: Reference,
    layout: Layout,
    signature: Signature,
    *,
    inputs: bool,
    embedding: bool,
    champion: str = "",
) -> Watched:
    """Fit the watch on the champion's reference.

    Args:
        config: Section `monitor`.
        reference: The reference.
        layout: How the rows stand in the log.
        signature: The champion's signature.
        inputs: Whether inputs are in the log.
        embedding: Whether embeddings are.
        champion: Digest of its package, which names the reference.

    Raises:
        InputError: The reference has too few units.
        ConfigError: Seasons are asked for, but the reference has no times.
    """
    if config.unit != 1:
        reference = reference.in_order()
    columns = layout.unpacked(reference.tensors) if inputs else {}
    kinds = {name: kind for name, kind in layout.kinds.items() if name in columns and name not in config.unlogged}
    unit = config.unit or suggested_unit(_numbers(columns, reference))
    reference = reference.bounded(unit)
    columns = layout.unpacked(reference.tensors) if inputs else {}
    seasons = seasons_of(reference.times, config.season)
    table = fit_table(
        kinds,
        reference.embedding if embedding else np.zeros((len(reference), 0)),
        reference.answers,
        objective=signature.objective,
        labels=signature.labels,
        learn=dealt(len(reference), unit)[0],
    )
    watched = table.columns(columns, reference.embedding, reference.answers)
    batch = config.batch or max(4, -(-SMALLEST_BLOCK // unit))
    largest = min(LARGEST_BLOCK, _PENDING_CELLS // (2 * len(table.kinds) + 1)) // unit
    settings = Settings(
        batch=batch,
        most=None if config.batch else max(batch, largest),
        unit=unit,
        n_seasons=SEASONS[config.season] if config.season else 1,
        tolerance=config.tolerance,
    )
    budget = Budget.per_year(config.false_alarms_per_year)
    watch = fit_watch(watched, budget, kinds=table.kinds, seasons=seasons, settings=settings, identity=champion)
    return Watched(table=table, watch=watch, season=config.season, columns=watched, seasons=seasons)


def _numbers(columns: dict[str, NDArray[Any]], reference: Reference) -> NDArray[np.float64]:
    """Everything of the reference that is a number, [n, d], a bounded part of it."""
    parts = [cells[:, None] for cells in columns.values() if cells.dtype.kind == "f"]
    found = np.column_stack([*parts, reference.answers, reference.embedding[:, :64]])[: 2 * MOST_UNITS]
    return found[:, np.isfinite(found).any(axis=0)]
