"""What each column of a table is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kfloop.components.ingest.labels.columns import TIME_NAMES, guess_label, is_group_name, listed
from kfloop.components.ingest.readers.table.kinds import RESERVED, normal_type
from kfloop.errors import ConfigError, InputError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

    from kfloop.core.sections import DataConfig

ID = "id"


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Columns by their use; null where there is none.

    Attributes:
        label: Label.
        label_guessed: Whether by its name alone.
        id: Row id.
        id_guessed: Whether by its name alone; dropped when its values are not unique.
        group: Group.
        time: Time of the row.
        split: Official split.
        others: The columns left, which are inputs.
    """

    label: str
    label_guessed: bool
    id: str | None
    id_guessed: bool
    group: str | None
    time: str | None
    split: str | None
    others: tuple[str, ...]

    def taken(self) -> frozenset[str]:
        """Columns that must stay texts in a file of texts, because they name something."""
        return frozenset(name for name in (self.label, self.id, self.group, self.split) if name is not None)


def find_roles(columns: Sequence[str], config: DataConfig, where: str) -> Roles:
    """Give each column its role, from the configuration, else from its name.

    Raises:
        InputError: A column that the configuration names is not there, or there is no label.
        ConfigError: One column has two roles.
    """
    label, guessed = guess_label(columns, config, where)
    named = {
        "data.label": label,
        "data.id": config.id,
        "data.group": config.group,
        "data.time": config.time,
        "data.split.column": config.split.column,
        "data.text": config.text,
    }
    seen: dict[str, str] = {}
    for key, name in named.items():
        if name is None:
            continue
        if name not in columns:
            raise InputError(
                f"{where} has no column '{name}' ({key}): it has {listed(columns)}",
                hint=nearest(name, columns),
                columns=list(columns),
            )
        if name in seen and {key, seen[name]} != {"data.id", "data.group"}:
            raise ConfigError(
                f"{seen[name]} and {key} both name column '{name}'", hint="name another column in one of them"
            )
        seen.setdefault(name, key)
    id_ = config.id or next((name for name in columns if name.lower() == ID and name not in seen), None)
    used = {*seen, id_} - {config.text}
    return Roles(
        label=label,
        label_guessed=guessed,
        id=id_,
        id_guessed=config.id is None and id_ is not None,
        group=config.group,
        time=config.time,
        split=config.split.column,
        others=tuple(name for name in columns if name not in used),
    )


def feature_names(others: Sequence[str], types: dict[str, pa.DataType], where: str) -> tuple[dict[str, str], list[str]]:
    """Name of each feature in the dataset version, and notes on those that had to change.

    Raises:
        InputError: A column cannot be a feature, or there is none.
    """
    names: dict[str, str] = {}
    notes = []
    for column in others:
        normal_type(column, types[column], where)
        name = column
        while name in RESERVED or (name != column and name in others):
            name += "_"
        if name != column:
            notes.append(
                f"column '{column}' is called '{name}' in the dataset version: kfloop keeps that name for itself"
            )
        names[column] = name
    return names, notes


def suggested(roles: Roles, types: dict[str, pa.DataType], distinct: dict[str, int], rows: int) -> dict[str, str]:
    """Values of the configuration that the names of the columns suggest.

    Args:
        roles: Roles.
        types: Type of each column.
        distinct: Number of different values of some columns, in the first ``rows`` rows.
        rows: Rows looked at.
    """
    import pyarrow as pa

    found: dict[str, str] = {}
    if roles.label_guessed:
        found["label"] = roles.label
    if roles.id_guessed and roles.id is not None:
        found["id"] = roles.id
    if roles.group is None:
        groups = [name for name in roles.others if is_group_name(name) and 1 < distinct.get(name, 0) <= rows // 2]
        if len(groups) == 1:
            found["group"] = groups[0]
    if roles.time is None:
        times = [name for name in roles.others if name.lower() in TIME_NAMES and pa.types.is_timestamp(types[name])]
        if len(times) == 1:
            found["time"] = times[0]
    return found
