"""Types of columns: the few that a table may have, and what the texts of a CSV file stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

RESERVED = frozenset({"id", "label", "origin", "content", "split", "group", "time", "label_by", "label_at"})
MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None")
MOSTLY = 0.95
_ENOUGH = 1000
_INTEGER = r"^[+-]?\d{1,18}$"
_FLOAT = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:inf|infinity))$"
_TIME = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?)?$"
_COMMA = r"^[+-]?\d+,\d+$"
_BOOL = r"^(?i:true|false)$"
KINDS = {"bool": _BOOL, "int64": _INTEGER, "float64": _FLOAT, "time": _TIME, "comma": _COMMA}
EXPECTED = {
    "bool": "true or false",
    "int64": "a number",
    "float64": "a number",
    "time": "a time such as 2024-05-01T12:00:00",
}


def normal_type(column: str, kind: pa.DataType, where: str = "") -> pa.DataType:
    """The type that a column of Arrow type ``kind`` gets: int64, float64, bool, string or timestamp[us].

    Raises:
        InputError: A nested or another type that a feature cannot have.
    """
    import pyarrow as pa

    of = pa.types
    if of.is_dictionary(kind):
        return normal_type(column, kind.value_type, where)
    if of.is_integer(kind):
        return pa.int64()
    if of.is_floating(kind) or of.is_decimal(kind) or of.is_null(kind):
        return pa.float64()
    if of.is_boolean(kind):
        return pa.bool_()
    if of.is_string(kind) or of.is_large_string(kind) or of.is_string_view(kind):
        return pa.string()
    if of.is_timestamp(kind) or of.is_date(kind):
        return pa.timestamp("us")
    raise InputError(
        f"{where}{': ' if where else ''}column '{column}' is of type {kind}: expected whole numbers, numbers, true/false, text or times",
        hint="turn it into one column for each number, into text, or leave it out",
        column=column,
    )


def is_simple(kind: pa.DataType) -> bool:
    """Whether a column of Arrow type ``kind`` can be a feature."""
    try:
        normal_type("", kind)
    except InputError:
        return False
    return True


def type_name(kind: pa.DataType) -> str:
    """``int64``, ``float64``, ``bool``, ``string`` or ``timestamp[us]``: how a dataset version's schema spells a type."""
    return "float64" if str(kind) == "double" else str(kind)


def normalise(column: str, array: Any, place: str = "") -> pa.Array:
    """One column in its normal type; lists of labels are kept as lists of a normal type.

    Raises:
        InputError: The type is refused, or a value does not fit.
    """
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        array = (
            array.chunk(0) if array.num_chunks == 1 else pa.concat_arrays(array.chunks or [pa.array([], array.type)])
        )
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if is_list(array.type):
        return _normal_list(column, array, place)
    kind = normal_type(column, array.type)
    if array.type == kind:
        return array
    try:
        if pa.types.is_timestamp(array.type):  # finer than microseconds is cut; a zone is turned into UTC
            return array.cast(pa.timestamp("us", tz=array.type.tz), safe=False).cast(kind)
        return array.cast(kind, safe=not pa.types.is_decimal(array.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"column '{column}' of type {array.type} does not fit into {kind}{place}: {str(error).splitlines()[0]}",
            hint="convert the column, or leave it out",
            column=column,
        ) from error


def is_list(kind: pa.DataType) -> bool:
    """Whether values are lists, of any of the list types of Arrow."""
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _normal_list(column: str, array: Any, place: str) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    flat = normalise(column, array.flatten(), place)
    lengths = np.nan_to_num(array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)).astype(np.int64)
    return lists_of(flat, lengths, array.is_null().to_numpy(zero_copy_only=False))


def lists_of(values: pa.Array, lengths: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
    """Lists from their values one after another and the length of each, int64 [N]; null where ``missing``."""
    import pyarrow as pa

    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    offsets = pa.array(ends, type=pa.int32())
    if missing is not None and missing.any():
        offsets = pa.array(ends, type=pa.int32(), mask=np.concatenate([missing, [False]]))
    return pa.ListArray.from_arrays(offsets, values)


class Votes:
    """Finds out what a column of texts holds while its batches go by."""

    def __init__(self) -> None:
        self.total = 0
        self.good = dict.fromkeys(KINDS, 0)
        self._alive = list(KINDS)

    def add(self, texts: pa.Array) -> None:
        """Look at one batch; nulls do not vote."""
        import pyarrow.compute as pc

        present = pc.utf8_trim_whitespace(texts.drop_null())
        self.total += len(present)
        whole = 0
        for kind in tuple(self._alive):
            found = len(present) if kind == "float64" and whole == len(present) else _fitting(kind, present)
            whole = found if kind == "int64" else whole
            self.good[kind] += found
            if self.total >= _ENOUGH and self.good[kind] < self.total / 2:
                self._alive.remove(kind)

    def kind(self) -> str:
        """``bool``, ``int64``, ``float64``, ``time``, ``comma`` (texts like 0,5), ``string``, or ``empty`` when no value was seen.

        A kind that 95% or more of the values fit is the column's; the others are to be quarantined.
        """
        if self.total == 0:
            return "empty"
        for kind in KINDS:
            if self.good[kind] == self.total:
                return kind
        if self.good["float64"] >= MOSTLY * self.total:
            return "int64" if self.good["int64"] == self.good["float64"] else "float64"
        return next((kind for kind in ("bool", "time", "comma") if self.good[kind] >= MOSTLY * self.total), "string")


def parsed(kind: str, texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Texts as values of ``kind``.

    Returns:
        The values, null where a text is null or unfit, and whether each text is unfit, bool [N].
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    none = np.zeros(len(texts), dtype=bool)
    if kind in {"string", "empty"}:
        return (texts if kind == "string" else pa.nulls(len(texts), pa.float64())), none
    trimmed = pc.utf8_trim_whitespace(texts)
    for type_ in [_arrow(kind)] + ([pa.timestamp("us", tz="UTC")] if kind == "time" else []):
        try:
            return trimmed.cast(type_).cast(_arrow(kind)), none
        except pa.ArrowInvalid:
            continue
    if kind == "time":
        values = pa.array([_moment(text) for text in trimmed.to_pylist()], type=pa.timestamp("us"))
    else:
        fit = pc.fill_null(pc.match_substring_regex(trimmed, KINDS[kind]), False)
        bare = pc.replace_substring_regex(trimmed, r"^\+", "") if kind == "int64" else pc.utf8_lower(trimmed)
        values = pc.if_else(fit, bare, pa.scalar(None, pa.string())).cast(_arrow(kind))
    unfit = pc.and_(values.is_null(), texts.is_valid())
    return values, unfit.to_numpy(zero_copy_only=False)


def _arrow(kind: str) -> pa.DataType:
    import pyarrow as pa

    return {"bool": pa.bool_(), "int64": pa.int64(), "float64": pa.float64(), "time": pa.timestamp("us")}[kind]


def arrow_type(kind: str) -> pa.DataType:
    """Arrow type of a kind that ``Votes`` found."""
    import pyarrow as pa

    return pa.string() if kind == "string" else _arrow("float64" if kind == "empty" else kind)


def _fitting(kind: str, texts: pa.Array) -> int:
    """How many of some trimmed texts, none of them null, are of ``kind``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if kind in {"int64", "float64"}:
        try:
            texts.cast(_arrow(kind))
        except pa.ArrowInvalid:
            pass
        else:
            return len(texts)
    found = int(pc.sum(pc.match_substring_regex(texts, KINDS[kind])).as_py() or 0)
    if kind == "time" and found * 2 > len(texts):
        return len(texts) - int(parsed("time", texts)[1].sum())
    return found


def _moment(text: str | None) -> Any:
    from datetime import UTC, datetime

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
