"""Which labels people settled, who they were and when: read from the rows of the dataset version."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.report.pictures import COUNTED, DAMAGE, Pictures
from kfloop.report.values import moment, number, text

if TYPE_CHECKING:
    import pyarrow as pa

_BY, _AT = "label_by", "label_at"
_PEOPLE = 20


@dataclass(frozen=True, kw_only=True)
class Person:
    """What one person settled.

    Attributes:
        name: Who it is.
        rows: How many rows have their label from this person.
        first: When the first was settled, in words.
        last: When the last was.
    """

    name: str
    rows: int
    first: str
    last: str


def people(pictures: Pictures) -> list[Person]:
    """Everybody whose answers are labels of the version, who settled most first; nobody for a very large or damaged version."""
    if pictures.version is None or (number(pictures.card.get("n_rows")) or 0) > COUNTED:
        return []
    times: dict[str, list[str]] = {}
    try:
        for split in pictures.version.splits:
            for line in _settled(pictures.version.table(split)):
                times.setdefault(text(line[_BY], limit=60), []).append(text(line[_AT]))
    except DAMAGE:
        return []
    found = [
        Person(name=name, rows=len(when), first=moment(min(when)), last=moment(max(when)))
        for name, when in times.items()
    ]
    return sorted(found, key=lambda person: (-person.rows, person.name))[:_PEOPLE]


def settled_by(pictures: Pictures, ids: Iterable[Any]) -> dict[str, str]:
    """Who settled the label and on which day, by id, of those of ``ids`` that people settled."""
    found = {}
    for name, row in pictures.rows_by_id(ids).items():
        by = text(row.value(_BY), limit=60)
        if by:
            found[name] = f"{by}, {moment(row.value(_AT))[: len('2026-11-21')]}"
    return found


def _settled(table: pa.Table) -> list[dict[str, Any]]:
    import pyarrow.compute as pc

    if not {_BY, _AT} <= set(table.column_names):
        return []
    part = table.select([_BY, _AT])
    rows: list[dict[str, Any]] = part.filter(pc.is_valid(part[_BY])).to_pylist()
    return rows
