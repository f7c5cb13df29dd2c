"""JSON lines: one object a line, parsed a block of lines at a time."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfloop.components.ingest.readers.table.dialect import first_lines, look_at_bytes, open_bytes
from kfloop.components.ingest.readers.table.feed import Feed, Rows
from kfloop.components.ingest.readers.table.kinds import EXPECTED, KINDS, MOSTLY, is_list, normalise, parsed
from kfloop.core.artifacts import DIGEST_LENGTH, file_sha256
from kfloop.errors import InputError

BLOCK = 4 << 20
BOM = b"\xef\xbb\xbf"
SHOWN = 60
_TIME = re.compile(KINDS["time"])
_PYTHON = {bool: "bool", int: "int64", float: "float64", list: "list", dict: "object", type(None): "null"}


def open_json_lines(path: Path) -> Feed:
    """Find out what a file of JSON lines holds.

    Args:
        path: The file, possibly packed (``.gz``).

    Raises:
        InputError: The file is empty, not UTF-8, or none of its lines is a JSON object.
    """
    first_lines(path)
    look_at_bytes(path)
    seen, n, blanks, start = Seen(), 0, [], 0
    for block in _blocks(path):
        lines = block.split(b"\n")[:-1]
        blanks += [start + at for at, line in enumerate(lines) if not line.strip()]
        start += len(lines)
        seen.block(block, [line for line in lines if line.strip()])
    n = start - len(blanks)
    types = seen.types()
    if not types:
        raise InputError(
            f"'{path}' line 1 is no JSON object with keys: {first_lines(path)[0][:SHOWN]!r}",
            hint='write one object a line, such as {"text": "fine", "label": "good"}',
        )
    skipped = np.array([line - k for k, line in enumerate(blanks)], dtype=np.int64)

    def place(number: int) -> str:
        return f"line {number + 1 + int(np.searchsorted(skipped, number, side='right'))}"

    def read(columns: Sequence[str]) -> Iterator[Rows]:
        number = 0
        for block in _blocks(path):
            lines = [line for line in block.split(b"\n") if line.strip()]
            yield _rows(block, lines, number, {name: types[name] for name in columns}, place)
            number += len(lines)

    return Feed(
        kind="json_lines",
        where=f"'{path}'",
        types=types,
        n=n,
        digest=file_sha256(path)[:DIGEST_LENGTH],
        read=read,
        place=place,
        notes=tuple(f"column '{name}' is empty" for name in types if seen.is_empty(name)),
    )


def _blocks(path: Path) -> Iterator[bytes]:
    """Whole lines, about 4 MiB at a time, each with its end."""
    with open_bytes(path) as stream:
        pending = stream.read(len(BOM)).removeprefix(BOM)
        while block := stream.read(BLOCK):
            whole, end, pending = (pending + block).rpartition(b"\n")
            if end:
                yield whole + end
    if pending.strip():
        yield pending + b"\n"


class Seen:
    """How many values of each JSON type each key has had."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        self.lists: dict[str, Any] = {}

    def block(self, block: bytes, lines: list[bytes]) -> None:
        """Look at one block: as a whole, or line by line where it does not parse."""
        import pyarrow as pa

        try:
            table = _parse(block, None)
            if table.num_rows != len(lines):
                raise pa.ArrowInvalid("objects and lines differ in number")
        except pa.ArrowException:
            for line in lines:
                for name, value in (_object(line)[0] or {}).items():
                    self._add(name, _kind(value), 1, pa.list_(pa.string()))
            return
        for name in table.column_names:
            column = table[name]
            self._add(name, _arrow_kind(column.type), len(column) - column.null_count, column.type)

    def _add(self, name: str, kind: str, count: int, type_: Any) -> None:
        import pyarrow as pa

        kinds = self.counts.setdefault(name, {})
        if kind != "null" and count:
            kinds[kind] = kinds.get(kind, 0) + count
            if kind == "list" and not pa.types.is_null(type_.value_type):
                known = self.lists.setdefault(name, type_)
                self.lists[name] = known if known == type_ else pa.list_(pa.string())

    def is_empty(self, name: str) -> bool:
        """Whether a key never has a value."""
        return not self.counts[name]

    def types(self) -> dict[str, Any]:
        """Arrow type of each key.

        A key whose values are numbers but for 5% or less is a column of numbers; one with texts and more numbers is a column of texts. A
        nested type stands as such, for the column may be left out.
        """
        import pyarrow as pa

        found: dict[str, Any] = {}
        for name, kinds in self.counts.items():
            total = sum(kinds.values())
            if not total or kinds.get("int64", 0) + kinds.get("float64", 0) >= MOSTLY * total:
                found[name] = pa.int64() if total and "float64" not in kinds else pa.float64()
            elif "list" in kinds or "object" in kinds:
                found[name] = pa.struct([]) if "object" in kinds else self.lists.get(name, pa.list_(pa.string()))
            elif len(kinds) == 1 and next(iter(kinds)) in {"bool", "time"}:
                found[name] = pa.bool_() if "bool" in kinds else pa.timestamp("us")
            else:
                found[name] = pa.string()
        return found


def _parse(block: bytes, types: dict[str, Any] | None) -> Any:
    import pyarrow as pa
    import pyarrow.json as pa_json

    options = {} if types is None else {"explicit_schema": pa.schema(list(types.items()))}
    return pa_json.read_json(
        io.BytesIO(block),
        read_options=pa_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
        parse_options=pa_json.ParseOptions(unexpected_field_behavior="infer" if types is None else "ignore", **options),
    )


def _arrow_kind(kind: Any) -> str:
    import pyarrow as pa

    of = pa.types
    if of.is_null(kind):
        return "null"
    if is_list(kind):
        return "list"
    if of.is_struct(kind):
        return "object"
    if of.is_boolean(kind):
        return "bool"
    if of.is_timestamp(kind) or of.is_date(kind):
        return "time"
    return "int64" if of.is_integer(kind) else "float64" if of.is_floating(kind) else "string"


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "time" if _TIME.match(value) else "string"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 63:
        return "float64"
    return _PYTHON[type(value)]


def _object(line: bytes) -> tuple[dict[str, Any] | None, str]:
    """One line as an object, or what is wrong with it."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:  # its own text counts lines from this one
        return None, f"no JSON: {error.msg}: column {error.colno}"
    except ValueError as error:
        return None, f"no JSON: {error}"
    if not isinstance(value, dict):
        return None, f"{line[:SHOWN].decode()!r}: expected one JSON object"
    return value, ""


def _rows(block: bytes, lines: list[bytes], number: int, types: dict[str, Any], place: Any) -> Rows:
    import pyarrow as pa

    numbers = np.arange(number, number + len(lines))
    if types:
        try:
            table = _parse(block, types)
        except pa.ArrowException:
            table = None
        if table is not None and table.num_rows == len(lines):
            return Rows(table=pa.table({name: normalise(name, table[name]) for name in types}), numbers=numbers)
    values: dict[str, list[Any]] = {name: [] for name in types}
    bad: dict[int, str] = {}
    for at, line in enumerate(lines, start=number):
        found, wrong = _object(line)
        if found is None:
            bad[at] = f"{place(at)}: {wrong}"
        for name, kind in types.items():
            value, expected = _fitted((found or {}).get(name), kind)
            values[name].append(value)
            if expected:
                shown = str((found or {})[name])[:SHOWN]
                bad.setdefault(at, f"{place(at)}, column '{name}': '{shown}': expected {expected}")
    arrays = {name: normalise(name, pa.array(values[name], type=kind)) for name, kind in types.items()}
    return Rows(table=pa.table(arrays or {"": pa.nulls(len(lines))}), numbers=numbers, bad=bad)


def _fitted(value: Any, kind: Any) -> tuple[Any, str]:
    """A JSON value as one of the column's type, and what was expected where it is not."""
    import pyarrow as pa

    of = pa.types
    number = isinstance(value, int | float) and not isinstance(value, bool)
    found: Any = None
    if value is None:
        expected = ""
    elif is_list(kind):
        found = [_fitted(item, kind.value_type)[0] for item in value] if isinstance(value, list) else None
        expected = "a list"
    elif of.is_string(kind):
        found, expected = value if isinstance(value, str) else json.dumps(value), ""
    elif of.is_boolean(kind):
        found, expected = value if isinstance(value, bool) else None, "true or false"
    elif of.is_timestamp(kind):
        found = parsed("time", pa.array([str(value)], pa.string()))[0][0].as_py()
        expected = EXPECTED["time"]
    else:
        whole = of.is_integer(kind) and isinstance(value, int)
        found, expected = (value if whole else float(value)) if number else None, "a number"
    return found, expected if found is None else ""
