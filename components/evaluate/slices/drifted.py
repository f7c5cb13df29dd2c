"""Slices of the cause: the test rows that lie where requests moved to, and all others, which are the old distribution.

A part that the monitor named and that cannot be found among the test rows is told as a problem, and the gate lets no challenger pass with one: nobody would know
whether it mends what it was trained for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.slices.columns import Column, column_names, read_columns, spelled
from kfloop.components.evaluate.slices.slicing import Slice
from kfloop.core.drifted import MOST_PARTS, RANGES, Part, read_part
from kfloop.core.number_words import range_words
from kfloop.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Rows = NDArray[np.bool_]

DRIFTED, OLD = "drifted", "old"


@dataclass(frozen=True, kw_only=True)
class Caused:
    """What a training was for, and the slices of it.

    Attributes:
        slices: For each part two: ``drifted:NAME=WHERE`` and ``old:NAME=all but WHERE``.
        facts: ``cause`` of the report: ``kind``, ``reason`` and ``evidence`` as the monitor told them; ``parts`` with the names of both slices, their test rows, and
            the share of the part in the reference and in the requests; ``problems``, one sentence each; null where a person asked for the training.
    """

    slices: tuple[Slice, ...] = ()
    facts: dict[str, Any] | None = None


@dataclass(kw_only=True)
class _Found:
    slices: list[Slice] = field(default_factory=list)
    parts: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def caused(version: DatasetVersion, cause: Any, ids: NDArray[np.str_]) -> Caused:
    """The slices of a cause.

    Args:
        version: Dataset version.
        cause: ``cause`` in the report of ``incumbent``.
        ids: The test rows.
    """
    if cause is None:
        return Caused()
    told: Mapping[str, Any] = cause if isinstance(cause, dict) else {}
    found = _Found()
    named = told.get("drifted")
    if not told or told.get("problem"):
        found.problems.append(str(told.get("problem") or f"the cause is {cause!r}, expected an object"))
    elif not isinstance(named, list) or len(named) > MOST_PARTS:
        found.problems.append(f"the cause names the parts {named!r}, expected a list of at most {MOST_PARTS}")
    else:
        for one in named:
            try:
                _add(found, version, read_part(one), ids)
            except (ConfigError, InputError) as error:
                found.problems.append(error.message)
    facts = {name: str(told.get(name) or "") for name in ("kind", "reason", "evidence")}
    return Caused(slices=tuple(found.slices), facts=facts | {"parts": found.parts, "problems": found.problems})


def _add(found: _Found, version: DatasetVersion, part: Part, ids: NDArray[np.str_]) -> None:
    """Add both slices of a part.

    Raises:
        ConfigError: The dataset has no such column.
        InputError: The column holds something else than the part is about.
    """
    (name,) = column_names(version, [part.column], "the cause of this training")
    (column,) = read_columns(version, "test", [name], ids)
    rows, where = _rows(part, column), _where(part)
    names = (f"{DRIFTED}:{spelled(name)}={where}", f"{OLD}:{spelled(name)}=all but {where}")
    if any(known["drifted"] == names[0] for known in found.parts):
        raise InputError(f"the cause names the part '{part.text}' twice")
    found.slices.append(Slice(name=names[0], text=f"{part.text}: where requests moved to", rows=rows))
    found.slices.append(Slice(name=names[1], text=f"all rows but {part.text}: the old distribution", rows=~rows))
    shares = {"column": part.column, "text": part.text, "reference": part.reference, "current": part.current}
    sizes = {"n": int(rows.sum()), "n_old": int((~rows).sum())}
    found.parts.append({"drifted": names[0], "old": names[1], **shares, **sizes})


def _rows(part: Part, column: Column) -> Rows:
    """The rows of a part, bool [N].

    Raises:
        InputError: The column holds something else.
    """
    if part.kind == "missing":
        return column.missing
    expected = part.kind if part.kind in RANGES else "category"
    if column.kind != expected:
        raise InputError(f"the cause names '{part.text}', but the column holds values of the kind {column.kind}")
    if part.kind in RANGES:
        with np.errstate(invalid="ignore"):
            inside = np.isfinite(column.values)
            inside &= column.values >= (-np.inf if part.low is None else part.low)
            return np.asarray(inside & (column.values < (np.inf if part.high is None else part.high)))
    among = np.array([value in set(part.values) for value in column.values.tolist()], dtype=np.bool_)
    return ~among & ~column.missing if part.kind == "unknown" else among


def _where(part: Part) -> str:
    """The part as names of slices have it."""
    if part.kind in RANGES:
        return range_words(part.low, part.high, time=part.kind == "time")
    return ", ".join(map(spelled, part.values)) if part.kind == "category" else part.kind
