"""Columns by their names: which holds the label, which says what belongs together, which is a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kfloop.components.ingest.labels.names import number_of
from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    from kfloop.core.sections import DataConfig

LABEL_NAMES = ("label", "target", "class", "y")
GROUP_WORDS = frozenset({"patient", "speaker", "user", "subject", "group", "household", "customer", "person", "client"})
TIME_NAMES = frozenset({"time", "timestamp", "date", "datetime"})


def guess_label(columns: Sequence[str], config: DataConfig, where: str) -> tuple[str, bool]:
    """The label column, and whether it was guessed.

    Args:
        columns: All columns.
        config: Section ``data``; its ``label`` wins.
        where: The file, for messages.

    Raises:
        InputError: There is none, or more than one could be it.
    """
    if config.label is not None:
        if config.label not in columns:
            raise InputError(
                f"{where} has no column '{config.label}' (data.label): it has {listed(columns)}",
                hint=nearest(config.label, columns),
                columns=list(columns),
            )
        return config.label, False
    found = [name for name in columns if name.strip().lower() in LABEL_NAMES]
    if len(found) == 1:
        return found[0], True
    if not found:
        raise InputError(
            f"{where} has no column called {', '.join(LABEL_NAMES)}: it has {listed(columns)}",
            hint=_without_label(columns, config),
            columns=list(columns),
        )
    raise InputError(
        f"{where} has {len(found)} columns that could be the label: {', '.join(found)}",
        hint="name one in data.label (kfloop init: --label NAME)",
        columns=list(columns),
    )


def listed(columns: Sequence[str], most: int = 40) -> str:
    """Names for a message, cut when there are many."""
    more = f" and {len(columns) - most} more" if len(columns) > most else ""
    return ", ".join(columns[:most]) + more


def _without_label(columns: Sequence[str], config: DataConfig) -> str:
    if sum(number_of(name) is not None for name in columns) * 3 >= len(columns):
        return "the first line looks like data: write a line with the names of the columns above it"
    series = config.modality == "auto" and config.time is None
    return "name the column in data.label (kfloop init: --label NAME)" + (
        "; for a time series to forecast, that of the times in data.time (kfloop init: --time NAME)" if series else ""
    )


def is_group_name(column: str) -> bool:
    """Whether a name such as ``patient_id`` or ``Speaker`` says that rows belong together."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column).lower().replace("-", "_").split("_")
    return bool(GROUP_WORDS & set(words)) and set(words) <= GROUP_WORDS | {"id", "nr", "no", "number", "name", "code"}
