"""What a scanned series tells its owner: too short, gaps, missing cells."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from kfloop.components.ingest.readers.series.scan import MICRO, Scan
from kfloop.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.components.ingest.readers.series.layout import Layout
    from kfloop.core.sections import DataConfig

DAY = 86_400 * MICRO
MONTHS = (28 * DAY, 31 * DAY)
YEARS = (365 * DAY, 366 * DAY)


def enough_rows(path: Path, config: DataConfig, found: Scan, *, context: int, horizon: int) -> None:
    """Refuse a series whose splits cannot hold one window each.

    With cutoffs, or splits by something else than time, the rows of each split are known later: then one window in all must fit.

    Raises:
        InputError: Naming the rows of the smallest split and the rows of a window.
    """
    need = context + horizon
    name, longest = max(found.lengths.items(), key=lambda item: item[1])
    split = config.split
    by_time = split.method in {None, "time"} and split.validation_from is None and split.column is None
    shares = {"train": 1 - split.validation - split.test, "validation": split.validation, "test": split.test}
    least, share = min(shares.items(), key=lambda item: item[1]) if by_time else ("only", 1.0)
    rows = math.floor(longest * share + 1e-9)
    if rows >= need:
        return
    series = f"the longest series, '{name}', has {longest} rows" if name is not None else f"it has {longest} rows"
    part = f", of which the {least} split ({share:.0%}) gets {rows}" if by_time else ""
    parts = f"data.series.context {context}" + (f" and horizon {horizon}" if horizon else "")
    raise InputError(
        f"'{path}' is too short: {series}{part}, but one window needs {need} ({parts})",
        hint=f"bring {math.ceil(need / share)} rows or more, or make context{' and horizon' if horizon else ''} smaller: at most {rows} in all",
        rows=longest,
        needed=need,
    )


def notes(layout: Layout, config: DataConfig, found: Scan) -> tuple[str, ...]:
    """What a person should know: irregular steps, missing cells, series that are interleaved or short, columns left out."""
    told: list[str] = []
    irregular = _irregular(found)
    if irregular:
        told.append(irregular)
    for name, count in zip(layout.channels, found.missing.tolist(), strict=True):
        share = count / max(1, found.rows)
        if count:
            much = f", more than data.max_quarantined_share ({config.max_quarantined_share:.0%})"
            more = much if share > config.max_quarantined_share else ""
            told.append(
                f"channel '{name}' has no value in {count} of {found.rows} rows ({share:.1%}){more}: kept as NaN"
            )
    if layout.limit is not None and found.rows + found.n_bad >= layout.limit:
        told.append(f"data.limit keeps the first {layout.limit} rows, because a series has no holes")
    if found.interleaved:
        told.append(
            f"the rows of a series lie apart (column '{layout.group}'): windows are made for each series by itself"
        )
    need = config.series.context + (config.series.horizon if layout.label is None else 0)
    short = [str(name) for name, length in found.lengths.items() if length < need]
    if short:
        told.append(
            f"{len(short)} of {len(found.lengths)} series are shorter than one window ({need} rows), such as '{short[0]}'"
        )
    unnamed = sum(not name for name in layout.head.columns)
    if unnamed:
        told.append(
            f"{unnamed} column(s) without a name are left out: most likely row numbers that a table was saved with"
        )
    return tuple(told)


def _irregular(found: Scan) -> str:
    common = found.step
    if common is None or len(found.steps) == 1:
        return ""
    shortest, longest = min(found.steps), max(found.steps)
    if found.instants and any(low <= shortest and longest <= high for low, high in (MONTHS, YEARS)):
        return ""  # months and years have different lengths
    total = sum(found.steps.values())
    gaps = sum(count for step, count in found.steps.items() if step > common)
    return (
        f"steps are irregular: the most common is {_show_step(common, found)} ({found.steps[common]} of {total}); "
        f"{gaps} gap{'' if gaps == 1 else 's'} longer than that, the longest {_show_step(longest, found)}"
        + ("" if shortest == common else f"; the shortest step is {_show_step(shortest, found)}")
        + "; windows count rows, whatever time lies between them"
    )


def _show_step(value: int, found: Scan) -> str:
    return str(timedelta(microseconds=value)) if found.instants else str(value)
