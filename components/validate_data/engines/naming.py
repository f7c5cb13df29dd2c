"""Columns under plain names, for engines that read more into a name: a dot is a path to Spark, and Great Expectations takes ``A`` for ``a``."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kfloop.core.expectations.outcomes import ERROR

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from kfloop.core.expectations.checks import Check

COLUMN_KEYS = ("column", "column_A", "column_B")


class Naming:
    """Plain names of a table's columns, and the way back.

    Args:
        names: The columns.
        always: Whether all are renamed; else only where two of them differ by nothing but their case.
    """

    def __init__(self, names: list[str], *, always: bool = False) -> None:
        renamed = always or len({name.casefold() for name in names}) < len(names)
        self._names = names
        self._plain = {name: f"column_{place}" if renamed else name for place, name in enumerate(names)}

    def table(self, table: pa.Table) -> pa.Table:
        """The table under plain names."""
        return table.rename_columns([self._plain[name] for name in table.schema.names])

    def check(self, check: Check) -> Check:
        """The check about the same columns under their plain names."""

        def arguments(told: Mapping[str, Any]) -> dict[str, Any]:
            new = {key: self._one(told[key]) for key in COLUMN_KEYS if key in told}
            if "column_list" in told:
                new["column_list"] = [self._one(name) for name in told["column_list"]]
            return {**told, **new}

        columns = tuple(self._one(name) for name in check.columns)
        return replace(check, kwargs=arguments(check.kwargs), fitted=arguments(check.fitted), columns=columns)

    def told(self, result: dict[str, Any], check: Check) -> dict[str, Any]:
        """The result under the names that the suite knows."""
        detail = result["detail"]
        if result["word"] == ERROR and self._plain.keys() != set(self._plain.values()):
            detail = re.sub(r"\bcolumn_(\d+)\b", self._name, detail)
        return result | {"column": check.where, "detail": detail}

    def _one(self, name: Any) -> Any:
        return self._plain.get(name, name) if isinstance(name, str) else name

    def _name(self, found: re.Match[str]) -> str:
        place = int(found[1])
        return self._names[place] if place < len(self._names) else found[0]
