"""Which columns of a table are inputs, under which names and types; or the one that is the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.labels.columns import listed
from kfloop.components.ingest.readers.table.doubtful import doubtful_inputs
from kfloop.components.ingest.readers.table.kinds import EXPECTED, arrow_type, parsed, type_name
from kfloop.components.ingest.readers.table.roles import feature_names
from kfloop.components.ingest.readers.text.facts import is_free_text
from kfloop.errors import ConfigError, InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from kfloop.components.ingest.readers.table.feed import Feed
    from kfloop.components.ingest.readers.table.roles import Roles
    from kfloop.components.ingest.source import Source
    from kfloop.core.sections import DataConfig

TEXT = "text"
KIND_OF = {"int64": "int64", "float64": "float64", "bool": "bool", "timestamp[us]": "time", "string": "string"}


@dataclass(frozen=True, kw_only=True)
class Features:
    """The inputs.

    Attributes:
        modality: ``table`` or ``text``.
        columns: Columns of the file.
        types: Name and type of each of ``columns`` in the dataset version.
        guessed: Whether the text column was guessed.
    """

    modality: str
    columns: tuple[str, ...]
    types: dict[str, pa.DataType]
    guessed: bool = False

    @property
    def text(self) -> str:
        """The text column."""
        return self.columns[0]


def choose_features(
    feed: Feed, roles: Roles, config: DataConfig, sample: Any, like: Source | None
) -> tuple[Features, list[str]]:
    """The inputs of a table, and notes.

    Args:
        feed: The table.
        roles: What the other columns are for.
        config: Section ``data``.
        sample: First rows of the columns without a role.
        like: The base source, for freshly labelled rows: they must have its inputs.

    Raises:
        InputError: There is no input, or one of a type that cannot be used, or one that ``like`` has is missing.
        ConfigError: The modality asked for is another.
    """
    modality = config.modality if like is None else like.modality
    if modality not in {"auto", "table", "text"}:
        raise ConfigError(
            f"data.modality is '{modality}', but {feed.where} holds rows: they can be a table or text",
            hint="set data.modality: auto, or point data.source to something else",
        )
    column, guessed = _text_column(feed, roles, config, sample, modality)
    if column is not None:
        return _text(roles, column, guessed)
    if not roles.others:
        raise InputError(
            f"{feed.where} has no column to learn from: it has {listed(tuple(feed.types))}", hint="add one"
        )
    if like is not None:
        return _alike(feed, roles, like), []
    names, notes = feature_names(roles.others, feed.types, feed.where)
    types = {names[column]: feed.types[column] for column in roles.others}
    return Features(modality="table", columns=roles.others, types=types), notes + doubtful_inputs(roles.others, sample)


def conform(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    """A column as type ``kind``, and what is wrong with a value that does not fit, by its place."""
    import pyarrow as pa

    if array.type == kind:
        return array, {}
    if array.null_count == len(array):
        return pa.nulls(len(array), kind), {}
    name = KIND_OF[type_name(kind)]
    texts = array if pa.types.is_string(array.type) else array.cast(pa.string())
    if pa.types.is_floating(array.type) and name == "int64":
        import pyarrow.compute as pc

        texts = pc.replace_substring_regex(texts, r"\.0$", "")
    values, unfit = parsed(name, texts)
    wrong = np.flatnonzero(unfit).tolist()
    expected = "a whole number, as in data.source" if name == "int64" else f"{EXPECTED[name]}, as in data.source"
    return values, {at: f"'{texts[at].as_py()}': expected {expected}" for at in wrong}


def kept_texts(like: Source | None, config: DataConfig) -> frozenset[str]:
    """Columns of a file of texts that are texts whatever they look like."""
    known = {} if like is None else like.schema.get("columns", {})
    return frozenset(name for name, kind in known.items() if kind == "string") | frozenset(filter(None, [config.text]))


def _text_column(feed: Feed, roles: Roles, config: DataConfig, sample: Any, modality: str) -> tuple[str | None, bool]:
    """The column of texts, if the rows are texts, and whether it was guessed."""
    import pyarrow as pa

    if config.text is not None:
        if not pa.types.is_string(feed.types[config.text]):
            raise InputError(
                f"{feed.where}: column '{config.text}' (data.text) is of type {feed.types[config.text]}: expected text",
                hint="name another column in data.text",
                column=config.text,
            )
        return config.text, False
    strings = [name for name in roles.others if pa.types.is_string(feed.types[name])]
    if modality == "text":
        named = [name for name in strings if name.lower() == TEXT] or strings
        if len(named) != 1:
            raise InputError(
                f"data.modality is 'text', but {feed.where} has {len(strings)} columns of text: it has {listed(tuple(feed.types))}",
                hint="name one in data.text",
                columns=list(feed.types),
            )
        return named[0], True
    if modality == "auto" and list(roles.others) == strings and len(strings) == 1:
        column = sample[strings[0]].combine_chunks()
        return (strings[0], True) if is_free_text(column) else (None, False)
    return None, False


def _text(roles: Roles, column: str, guessed: bool) -> tuple[Features, list[str]]:
    left = [name for name in roles.others if name != column]
    notes = [f"only the text is learned from: {listed(left)} left out"] if left else []
    return Features(modality="text", columns=(column,), types={TEXT: arrow_type("string")}, guessed=guessed), notes


def _alike(feed: Feed, roles: Roles, like: Source) -> Features:
    """The columns that the base source has, in its order and types."""
    found, _ = feature_names(roles.others, feed.types, feed.where)
    back = {name: column for column, name in found.items()}
    wanted = like.schema["columns"]
    for name in wanted:
        if name not in back:
            raise InputError(
                f"{feed.where} has no column '{name}', which data.source has: it has {listed(tuple(feed.types))}",
                hint="write the same columns as in data.source",
                column=name,
            )
    return Features(
        modality="table",
        columns=tuple(back[name] for name in wanted),
        types={name: arrow_type(KIND_OF[kind]) for name, kind in wanted.items()},
    )
