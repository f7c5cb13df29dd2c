"""CSV files, read twice in a stream: once to find out what each column holds, and again for the values."""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kfloop.components.ingest.readers.table.dialect import (
    Bytes,
    find_delimiter,
    first_lines,
    header,
    look_at_bytes,
    open_bytes,
)
from kfloop.components.ingest.readers.table.feed import Feed, Rows, Texts
from kfloop.components.ingest.readers.table.kinds import EXPECTED, MISSING, Votes, arrow_type, parsed
from kfloop.core.artifacts import DIGEST_LENGTH, file_sha256
from kfloop.errors import InputError

BLOCK_SIZE = 4 << 20
SHOWN = 60
LONGEST_FIELD = 20  # lines that a ragged row may span before a lost quotation mark is the likely cause
COMMAS = "is text: its values look like numbers with a comma; write a decimal point for them to be numbers"
LEADING_ZERO = r"^\s*0\d+\s*$"
ZEROS = "are read as whole numbers: leading zeros are lost; if they are codes, put a letter before them"
INDEX_COLUMN = "has no name and is left out (the index of a data frame)"


@dataclass(frozen=True, kw_only=True)
class CsvFile:
    """How to parse a file.

    Attributes:
        path: The file.
        delimiter: One character.
        names: Columns.
        look: What its bytes tell.
    """

    path: Path
    delimiter: str
    names: tuple[str, ...]
    look: Bytes


def open_csv(path: Path, delimiter: str | None, texts: Texts) -> Feed:
    """Find out what a CSV file holds.

    Args:
        path: The file, possibly packed (``.gz``).
        delimiter: ``data.delimiter``.
        texts: Given the columns, says which stay texts.

    Raises:
        InputError: The file is empty, not UTF-8, has no rows, or its header or delimiter is wrong.
    """
    lines = first_lines(path)
    found = find_delimiter(path, lines, delimiter)
    names = header(path, lines, found)
    usable = [name for name in names if name]
    kept = texts(usable)
    file = CsvFile(path=path, delimiter=found, names=names, look=look_at_bytes(path, found, names))
    kinds, rows, ragged, zeros = _find_kinds(file, usable, kept)
    commas = [name for name, kind in kinds.items() if kind == "comma"]
    kinds.update(dict.fromkeys(commas, "string"))
    if not rows:
        first = next(
            (f", line 2 has {reason}" for _, _, bad in _batches(file, names[:1]) for reason in bad.values()), ""
        )
        raise InputError(
            f"'{path}' has no rows{' that fit its header' if ragged else ''}: it has the columns {', '.join(usable)}{first}",
            hint="write as many fields as there are names in the first line"
            if ragged
            else "write rows below the first line",
            columns=usable,
        )
    # Line numbers follow from row numbers unless a field holds a line end, or a line is blank.
    straight = file.look.lines == rows + ragged + 1
    place = _straight_place if straight else LineFinder(file).place

    def read(columns: Sequence[str]) -> Iterator[Rows]:
        for table, numbers, bad in _batches(file, columns):
            yield _typed(table, numbers, bad, kinds, place)

    notes = [f"column '{name}' is empty" for name in usable if kinds[name] == "empty"]
    notes += [f"column '{name}' {COMMAS}" for name in commas]
    notes += [
        f"column '{name}': values such as '{text}' {ZEROS}" for name, text in zeros.items() if kinds[name] == "int64"
    ]
    notes += [f"column 1 {INDEX_COLUMN}"] if "" in names else []
    return Feed(
        kind="csv",
        where=f"'{path}'",
        types={name: arrow_type(kinds[name]) for name in usable},
        n=rows + ragged,
        digest=file_sha256(path)[:DIGEST_LENGTH],
        read=read,
        place=place,
        notes=tuple(notes),
    )


def _find_kinds(
    file: CsvFile, names: Sequence[str], kept: frozenset[str]
) -> tuple[dict[str, str], int, int, dict[str, str]]:
    """Kind of each column, whole rows, ragged ones, and the first value with a leading zero of each column in the first rows."""
    votes = {name: Votes() for name in names if name not in kept}
    zeros: dict[str, str] = {}
    rows = ragged = 0
    for table, _, bad in _batches(file, names):
        if not rows:
            zeros = {name: text for name in votes if (text := _with_zero(table[name])) is not None}
        rows += table.num_rows
        ragged += len(bad)
        for name, vote in votes.items():
            vote.add(table[name].combine_chunks())
    return {name: votes[name].kind() if name in votes else "string" for name in names}, rows, ragged, zeros


def _with_zero(texts: Any) -> str | None:
    """The first whole number that is written with a leading zero, if there is one."""
    import pyarrow.compute as pc

    found = pc.index(pc.match_substring_regex(texts, LEADING_ZERO), True).as_py()
    return None if found < 0 else str(texts[found].as_py())


def _typed(
    table: Any, numbers: np.ndarray, ragged: dict[int, str], kinds: dict[str, str], place: Callable[[int], str]
) -> Rows:
    import pyarrow as pa

    bad = {number: f"{place(number)}: {reason}" for number, reason in ragged.items()}
    arrays = {}
    for name in table.column_names:
        texts = table[name].combine_chunks()
        if name not in kinds:
            arrays[name] = texts
            continue
        arrays[name], unfit = parsed(kinds[name], texts)
        for at in np.flatnonzero(unfit).tolist():
            number = int(numbers[at])
            expected = EXPECTED[kinds[name]]
            bad.setdefault(
                number, f"{place(number)}, column '{name}': '{texts[at].as_py()[:SHOWN]}': expected {expected}"
            )
    return Rows(table=pa.table(arrays), numbers=numbers, bad=bad)


def _batches(file: CsvFile, columns: Sequence[str]) -> Iterator[tuple[Any, np.ndarray, dict[int, str]]]:
    """Columns as texts, the number of each row, and the ragged rows among and after them."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    skipped: list[tuple[int, str]] = []

    runaway: list[str] = []

    def keep(row: Any) -> str:
        said = f" {row.text[:SHOWN]!r}" if row.text else ""
        if row.text and row.text.count("\n") > LONGEST_FIELD:
            runaway.append(f"row {row.number - 1}{said} goes on for {row.text.count(chr(10)) + 1} lines")
        # Row 1 is the header.
        skipped.append((row.number - 2, f"{row.actual_columns} fields instead of {row.expected_columns}{said}"))
        return "skip"

    wanted = list(columns) or list(file.names[:1])
    try:
        reader = pa_csv.open_csv(
            file.path,
            read_options=pa_csv.ReadOptions(
                use_threads=False, block_size=BLOCK_SIZE, column_names=list(file.names), skip_rows_after_names=1
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=file.delimiter, newlines_in_values=file.look.quotes, invalid_row_handler=keep
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(file.names, pa.string()),
                include_columns=wanted,
                strings_can_be_null=True,
                null_values=list(MISSING),
            ),
        )
        good = told = 0
        for batch in reader:
            order = np.arange(good, good + batch.num_rows)
            # The k-th ragged row stands behind (its number - k) good ones.
            before = np.array([number - k for k, (number, _) in enumerate(skipped)], dtype=np.int64)
            numbers = order + np.searchsorted(before, order, side="right")
            good += batch.num_rows
            # The parser reads ahead: ragged rows behind this batch are told with a later one.
            first, last = told, numbers[-1] if len(numbers) else -1
            while told < len(skipped) and skipped[told][0] < last:
                told += 1
            yield pa.Table.from_batches([batch]), numbers, dict(skipped[first:told])
        if runaway:
            raise InputError(
                f"'{file.path}' {runaway[0]}: a quotation mark is not closed",
                hint="close it, or double it inside a field",
            )
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"'{file.path}' cannot be read as CSV: {str(error).splitlines()[0]}",
            hint="look for a quotation mark that is not closed",
        ) from error
    if told < len(skipped):
        empty = pa.table({name: pa.array([], pa.string()) for name in wanted})
        yield empty, np.arange(0), dict(skipped[told:])


def _straight_place(number: int) -> str:
    return f"row {number + 1} (line {number + 2})"


class LineFinder:
    """Lines of rows in a file where the two do not run in step: found by parsing again, only when a row has to be named.

    Args:
        file: The file.
    """

    def __init__(self, file: CsvFile) -> None:
        self.file = file
        self._lines = array("q")
        self._rest: Iterator[int] | None = None

    def place(self, number: int) -> str:
        """Names a row by its number, from 0."""
        if self._rest is None:
            self._rest = self._ends()
        while len(self._lines) <= number:
            line = next(self._rest, None)
            if line is None:
                return f"row {number + 1}"
            self._lines.append(line)
        return f"row {number + 1} (line {self._lines[number]})"

    def _ends(self) -> Iterator[int]:
        with open_bytes(self.file.path) as stream:
            reader = csv.reader(
                io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), delimiter=self.file.delimiter
            )
            ended = 0
            header = True
            for fields in reader:
                started, ended = ended + 1, reader.line_num
                if fields and not header:
                    yield started
                header = header and not fields
