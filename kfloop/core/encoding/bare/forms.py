"""The raw form of an example: what a client has, before an encoder made tensors of it, and how the tensors come out of it.

Bytes stand for texts, categories and times; empty ones are missing. Numbers and flags are float64; what is not finite is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from .columns import MISSING, UNKNOWN, codes_of, numbers_of, stacked
from .texts import Lookup

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

TEXT = "text"
PREFIX = "column."  # before the name of a column that is also the name of a tensor
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class BadRow(ValueError):
    """A raw row cannot be encoded; the message names its column."""


@dataclass(frozen=True)
class RawInput:
    """One input of the raw form.

    Attributes:
        name: Its name in a request.
        kind: ``text``, ``category``, ``time``, ``number`` or ``flag``.
    """

    name: str
    kind: str

    @property
    def is_bytes(self) -> bool:
        """Whether its values are bytes; numbers otherwise."""
        return self.kind in {TEXT, "category", "time"}


def raw_inputs(encoder: Mapping[str, Any], tensors: Collection[str]) -> tuple[RawInput, ...]:
    """The raw form that belongs to an encoder; nothing where the tensors are what a client has.

    Args:
        encoder: Content of ``encoder.json``.
        tensors: Names of the model's own inputs and outputs; a column of such a name is called ``column.NAME``.
    """
    if encoder.get("modality") == "text":
        return (RawInput(TEXT, TEXT),)
    if encoder.get("modality") != "table":
        return ()
    names = [column["name"] for column in encoder["columns"]]
    taken, found = {*tensors, *names}, []
    for column in encoder["columns"]:
        name = column["name"]
        while name in tensors or (name != column["name"] and name in taken):
            name = PREFIX + name
        taken.add(name)
        found.append(RawInput(name, column["kind"]))
    return tuple(found)


class RawForm:
    """Makes tensors of raw rows, by the same functions as kfloop's encoders.

    Args:
        encoder: Content of ``encoder.json``, of texts or of a table.
        tensors: Names of the model's own inputs and outputs.
    """

    def __init__(self, encoder: Mapping[str, Any], tensors: Collection[str]) -> None:
        self.inputs = raw_inputs(encoder, tensors)
        self._columns: list[Mapping[str, Any]] = list(encoder.get("columns", []))
        self._codes = [codes_of(column) if column["kind"] == "category" else {} for column in self._columns]
        if encoder["modality"] == "text":
            sizes = [int(encoder[key]) for key in ("length", "buckets", "parts")]
            self._lookup = Lookup(encoder["words"], *sizes)

    def encoded(self, arrays: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """The model's tensors.

        Args:
            arrays: One array [N] for each of ``inputs``: of bytes, or float64.

        Raises:
            BadRow: A value is nothing that its column can hold.
        """
        if not self._columns:
            places, tokens, pieces = self._lookup.found([_word(value, TEXT) for value in arrays[0]])
            return tokens[places], pieces[places]
        numbers: list[NDArray[np.float32]] = []
        codes: list[NDArray[np.int64]] = []
        for column, known, array in zip(self._columns, self._codes, arrays, strict=True):
            if column["kind"] == "category":
                found = [_code(_word(value, column["name"]), known) for value in array]
                codes.append(np.array(found, dtype=np.int64))
            else:
                numbers += numbers_of(_raw_numbers(array, column), column)
        return stacked(numbers, codes)


def _word(value: bytes | str, name: str) -> str:
    try:
        return value if isinstance(value, str) else bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"column '{name}': {bytes(value)[:40]!r} is no UTF-8 text"  # type: ignore[arg-type]
        raise BadRow(message) from error


def _code(word: str, codes: Mapping[str, int]) -> int:
    """The code of a category; an empty one is missing, unless the training rows had it as a category of its own."""
    return codes.get(word, UNKNOWN if word else MISSING)


def _raw_numbers(array: NDArray[Any], column: Mapping[str, Any]) -> NDArray[np.float64]:
    if column["kind"] == "time":
        return np.array([_seconds(_word(value, column["name"]), column["name"]) for value in array], dtype=np.float64)
    numbers = np.array(array, dtype=np.float64)
    if column["kind"] == "flag":
        odd = numbers[np.isfinite(numbers) & (numbers != 0) & (numbers != 1)]
        if len(odd):
            message = f"column '{column['name']}' is true or false: 1, 0, or NaN where missing, got {odd[0]:g}"
            raise BadRow(message)
    return numbers


def _seconds(text: str, name: str) -> float:
    """Seconds since 1970; a time without a zone is UTC, as in training."""
    if not text:
        return float("nan")
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        message = f"column '{name}': '{text[:40]}' is no time, expected ISO 8601 such as 2026-03-01T12:30:00"
        raise BadRow(message) from error
    return ((moment - EPOCH) // MICROSECOND) * 1e-6
