"""Tables: numbers as they are, categories as codes, times as parts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from kfloop.core.encoding.bare.columns import DAY, FIRST, MISSING, coded, codes_of, numbers_of, stacked
from kfloop.core.encoding.base import Encoder as Base
from kfloop.core.encoding.numbers import number_facts
from kfloop.core.signature import Port
from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

MOST_CATEGORIES = 1000
RARE_ROWS, RARE_SHARE = 5, 0.01  # a category is rare below both
FAR = 1e4  # standard deviations from zero beyond which float32 would lose what tells the values apart
ANOTHER = "(another)"  # a category out of the request log that the model had no code for: it gets none now either
PERIODS = (DAY, 7 * DAY, 365.2425 * DAY)
KINDS = {
    "number": "numbers",
    "flag": "true or false",
    "time": "timestamps",
    "category": "text",
}


class Encoder(Base):
    """Gives ``number`` float32 [n] (NaN where missing) and ``category`` int64 [m] (0 missing, 1 unknown); a table without one kind has one port.

    A number or a boolean is one number. A timestamp is the days since the first one of the training, and its place in the day, the week and
    the year on circles, where the training rows differ in that.

    Args:
        columns: In the order of the version's inputs: ``name``, ``kind`` (``number``, ``flag``, ``time``, ``category``), and for numbers
            and times ``offset``, what is taken from each value; for times ``periods`` in seconds; for categories ``names``, those with a
            code of their own from 2 on.
        facts: What ``number_facts`` tells of the numbers, and ``cardinalities``, the codes of each category.
    """

    modality = "table"

    def __init__(self, columns: list[dict[str, Any]], facts: Mapping[str, Any]) -> None:
        self.columns = columns
        self._facts = dict(facts)
        self._codes = {column["name"]: codes_of(column) for column in columns if column["kind"] == "category"}

    @classmethod
    def fit(cls, version: DatasetVersion, **options: Any) -> Self:
        """Categories, offsets, means, standard deviations and quantiles."""
        del options
        table = version.table("train", version.inputs)
        if not table.num_rows:
            raise InputError("the train split has no rows", hint="add examples, or lower data.split")
        encoder = cls([_described(name, table[name]) for name in table.column_names], {})
        facts: dict[str, Any] = {"cardinalities": [len(codes) + FIRST for codes in encoder._codes.values()]}
        if encoder._numbers:
            facts |= number_facts(encoder.encode(table)[0])
        encoder._facts = facts
        return encoder

    @classmethod
    def restore(cls, plain: Mapping[str, Any]) -> Self:
        """As ``state`` says."""
        return cls([dict(column) for column in plain["columns"]], plain["facts"])

    def state(self) -> dict[str, Any]:
        """Columns and constants."""
        return {"columns": self.columns, "facts": self._facts}

    @property
    def _numbers(self) -> list[str]:
        """Names of the numbers in ``number``."""
        found = []
        for column in self.columns:
            if column["kind"] != "category":
                found.append(column["name"])
            for period in column.get("periods", []):
                found += [f"{column['name']} {part} {period / DAY:g} days" for part in ("sin", "cos")]
        return found

    @property
    def ports(self) -> tuple[Port, ...]:
        """Numbers and categories, those that there are."""
        sizes = (("number", "float32", len(self._numbers)), ("category", "int64", len(self._codes)))
        return tuple(Port(name=name, dtype=dtype, shape=(size,)) for name, dtype, size in sizes if size)

    @property
    def facts(self) -> dict[str, Any]:
        """Constants of the numbers (see ``number_facts``) and ``cardinalities``."""
        return self._facts

    def encode(self, table: pa.Table) -> tuple[NDArray[Any], ...]:
        """Numbers float32 [N, n] and codes int64 [N, m], those that there are."""
        numbers: list[NDArray[np.float32]] = []
        codes: list[NDArray[np.int64]] = []
        for column in self.columns:
            name = column["name"]
            if name not in table.column_names:
                raise InputError(
                    f"column '{name}' is missing: the rows have {table.column_names}",
                    hint=nearest(name, table.column_names),
                    column=name,
                )
            values = table[name]
            _require_kind(column, values.type)
            if column["kind"] == "category":
                codes.append(_codes(values, self._codes[name]))
            else:
                numbers += numbers_of(_floats(values), column)
        return stacked(numbers, codes)


def _kind(kind: pa.DataType) -> str | None:
    """The kind of a column; null where every value is missing or no kind fits."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "time"
    if pa.types.is_boolean(kind):
        return "flag"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return "category" if pa.types.is_string(value) or pa.types.is_large_string(value) else None


def _require_kind(column: Mapping[str, Any], found: pa.DataType) -> None:
    import pyarrow as pa

    if pa.types.is_null(found) or _kind(found) == column["kind"]:
        return
    raise InputError(
        f"column '{column['name']}' is of type {found}, but the model was trained on {KINDS[column['kind']]}",
        hint="give the column the type it had in training, or train the model anew",
        column=column["name"],
    )


def column_kind(name: str, values: pa.ChunkedArray) -> str:
    """``number``, ``flag``, ``time`` or ``category``.

    Raises:
        InputError: The column is of none of these kinds.
    """
    kind = _kind(values.type)
    if kind is None:
        raise InputError(
            f"column '{name}' is of type {values.type}: expected {', '.join(KINDS.values())}",
            hint="leave the column out, or write it as one of these",
            column=name,
        )
    return kind


def _described(name: str, values: pa.ChunkedArray) -> dict[str, Any]:
    """What encoding needs to know about a column of the training rows."""
    kind = column_kind(name, values)
    if kind == "category":
        return {"name": name, "kind": kind, "names": _frequent(values)}
    raw = _floats(values)
    known = raw[np.isfinite(raw)]
    if kind == "time":
        periods = [period for period in PERIODS if len(known) and np.ptp(known % period) > 0]
        return {"name": name, "kind": kind, "offset": float(known.min()) if len(known) else 0.0, "periods": periods}
    middle = float(np.median(known)) if len(known) else 0.0
    far = len(known) > 0 and abs(middle) > FAR * float(known.std()) and known.std() > 0
    return {"name": name, "kind": kind, "offset": middle if far else 0.0}


def _frequent(values: pa.ChunkedArray) -> list[str]:
    """Categories with a code of their own, the most frequent first; of equally frequent ones in the order of the alphabet."""
    counts = Counter({item["values"]: item["counts"] for item in values.value_counts().to_pylist()})
    counts.pop(None, None)
    counts.pop(ANOTHER, None)
    least = min(RARE_ROWS, max(2, RARE_SHARE * len(values)))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [name for name, count in ranked[:MOST_CATEGORIES] if count >= least]


def _codes(values: pa.ChunkedArray, codes: Mapping[str, int]) -> NDArray[np.int64]:
    """The code of each row."""
    import pyarrow as pa

    if pa.types.is_null(values.type):
        return np.full(len(values), MISSING, dtype=np.int64)
    encoded = values.cast(pa.string()).combine_chunks().dictionary_encode()
    found = coded(encoded.dictionary.to_pylist(), codes)
    places = encoded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)
    return np.array([*found, MISSING], dtype=np.int64)[places]


def _floats(values: pa.ChunkedArray) -> NDArray[np.float64]:
    """Numbers, or seconds since 1970; NaN where missing or not finite."""
    import pyarrow as pa

    scale = 1.0
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        values, scale = values.cast(pa.timestamp("us")).cast(pa.int64()), 1e-6
    found = values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values
    numbers = np.array(found.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64) * scale
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers
