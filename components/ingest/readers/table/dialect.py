"""What a CSV file is, before it is parsed: its bytes, its delimiter, its header."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from kfloop.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pathlib import Path

DELIMITERS = (",", ";", "\t", "|")
OTHERS = ("^", "~", ":", "\x01", " ")
NAMES = {"\t": "TAB", " ": "space", "\x01": "control-A"}
BLOCK = 8 << 20
LOOK = 1 << 16
MOST = 8 << 20
LINES = 60
LOOK_FOR_UTF16 = 4  # every other byte of Latin letters in UTF-16 is zero, from the start
MOST_OF = 0.5
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """What one look at every byte of a file tells.

    Attributes:
        lines: Lines, a last one without an end included.
        quotes: Whether there is a quotation mark, so that a field may hold a line end.
    """

    lines: int
    quotes: bool


def open_bytes(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked where its name ends in ``.gz``."""
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def look_at_bytes(path: Path, delimiter: str | None = None, names: tuple[str, ...] = ()) -> Bytes:
    """Check that a file is UTF-8, and count its lines.

    Args:
        path: The file.
        delimiter: That of a CSV file, to name the column of a bad byte.
        names: Columns of a CSV file.

    Raises:
        InputError: A byte is not UTF-8 (line, column and byte are named), or a packed file is cut short.
    """
    lines, quotes, last, pending = 0, False, b"\n", b""
    try:
        with open_bytes(path) as stream:
            while block := stream.read(BLOCK):
                # Whole lines are decoded, so that a bad byte can be shown with the line it stands in.
                whole, end, rest = (pending + block).rpartition(b"\n")
                _decode(whole, lines, path, delimiter, names)
                lines += (whole + end).count(b"\n")
                quotes = quotes or b'"' in block
                last, pending = block[-1:], rest
    except (EOFError, zlib.error, OSError) as error:
        raise InputError(f"'{path}' cannot be unpacked: {error}", hint="pack or copy the file again") from error
    _decode(pending, lines, path, delimiter, names)
    return Bytes(lines=lines + (last != b"\n"), quotes=quotes)


def _decode(block: bytes, lines: int, path: Path, delimiter: str | None, names: tuple[str, ...]) -> None:
    try:
        block.decode("utf-8")
    except UnicodeDecodeError as error:
        line = lines + block[: error.start].count(b"\n") + 1
        before = block[: error.start].rpartition(b"\n")[2].decode("latin-1")
        column = ""
        if delimiter is not None and names:
            at = max(0, len(next(csv.reader([before], delimiter=delimiter), [])) - 1)
            column = f", column '{names[at]}'" if line > 1 and at < len(names) else ""
        around = block[max(0, error.start - 10) : error.start + 10].replace(b"\n", b" ").decode("latin-1")
        raise InputError(
            f"'{path}' line {line}{column}: byte 0x{block[error.start]:02x} is not UTF-8 (near {around!r})",
            hint="save the file again as UTF-8; if it is Latin-1: iconv -f latin1 -t utf-8 OLD > NEW",
            line=line,
        ) from error


def first_lines(path: Path) -> list[str]:
    """Up to 60 lines from the start of a file, without its byte order mark; a last line that may be cut is left out.

    Raises:
        InputError: The file is empty, UTF-16, or cannot be unpacked.
    """
    try:
        with open_bytes(path) as stream:
            start = stream.read(LOOK)
            # A header of many columns may be longer than that.
            while start.count(b"\n") < LINES and len(start) < MOST and (more := stream.read(LOOK)):
                start += more
            ended = not stream.read(1)
    except (EOFError, zlib.error, OSError) as error:
        raise InputError(f"'{path}' cannot be read: {error}", hint="pack or copy the file again") from error
    if not start.strip(b"\r\n\t \xef\xbb\xbf"):
        raise InputError(f"'{path}' is empty", hint="write a line with the names of the columns, and rows below it")
    if b"\0" in start[LOOK_FOR_UTF16:] and b"\0" not in start[:LOOK_FOR_UTF16]:
        line = start[: start.index(b"\0")].count(b"\n") + 1
        raise InputError(
            f"'{path}' line {line}: a zero byte stands in the text", hint="take it away: tr -d '\\000' < OLD > NEW"
        )
    if start[:2] in {b"\xff\xfe", b"\xfe\xff"} or b"\0" in start:
        raise InputError(
            f"'{path}' is not UTF-8 text: byte 0x{start[0]:02x} at its start",
            hint="save the file again as UTF-8; if it is UTF-16: iconv -f utf-16 -t utf-8 OLD > NEW",
        )
    if b"\n" not in start and b"\r" in start.rstrip(b"\r"):
        raise InputError(
            f"'{path}' ends its lines with CR alone", hint="turn the ends into LF: tr '\\r' '\\n' < OLD > NEW"
        )
    text = start.removeprefix(_BOM).decode("utf-8", errors="replace")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if len(lines) > 1 and (not lines[-1] or not ended):
        lines.pop()
    return lines[:LINES]


def find_delimiter(path: Path, lines: list[str], wanted: str | None) -> str:
    """The delimiter of a CSV file.

    Args:
        path: The file.
        lines: Its ``first_lines``.
        wanted: ``data.delimiter``.

    Raises:
        InputError: Lines fall into one column each by it, but into several by another.
        ConfigError: The delimiter wanted is not one character.
    """
    if wanted is not None:
        wanted = "\t" if wanted.lower() in {"tab", "\\t"} else wanted
        if len(wanted) != 1:
            raise ConfigError(f"data.delimiter is {wanted!r}: expected one character", hint="such as ',' or ';' or TAB")
    best = max(DELIMITERS, key=lambda delimiter: _fits(lines, delimiter))
    splits = _fits(lines, best) > (0.0, 0)
    if wanted is not None:
        if splits and best != wanted and _columns(lines[:1], wanted) == [1]:
            raise _wrong(path, lines, wanted, best)
        return wanted
    if splits:
        return best
    below = max(DELIMITERS, key=lambda delimiter: _fits(lines[1:], delimiter))
    if _fits(lines[1:], below) > (MOST_OF, 0):
        if _columns(lines[:1], below) != [1]:
            return below  # the rows have more or fewer fields than the header: they are named when they are read
        raise InputError(
            f"'{path}' line 1 is one column, {lines[0][:80]!r}, but the lines below it have {_fits(lines[1:], below)[1]} by {_name(below)}",
            hint="the first line must hold the names of the columns: take away what stands above it",
        )
    other = max(OTHERS, key=lambda delimiter: _fits(lines, delimiter))
    if other != " " and _fits(lines, other) > (MOST_OF, 0):
        raise _wrong(path, lines, None, other)
    return ","


def header(path: Path, lines: list[str], delimiter: str) -> tuple[str, ...]:
    """Names of the columns, stripped.

    Raises:
        InputError: The first line is blank, two columns share a name, or one has none.
    """
    first = next(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter), [])
    names = tuple(name.strip() for name in first)
    shown = ", ".join(names)
    if not any(names):
        raise InputError(f"'{path}' line 1 is blank: expected the names of the columns", hint="take it away")
    for at, name in enumerate(names):
        if not name and at:
            raise InputError(
                f"'{path}' line 1: column {at + 1} has no name: the columns are {shown}", hint="give it a name"
            )
        if names.index(name) != at:
            raise InputError(
                f"'{path}' line 1: columns {names.index(name) + 1} and {at + 1} are both called '{name}': it has {shown}",
                hint="give each column a name of its own",
                columns=list(names),
            )
    return names


def _columns(lines: list[str], delimiter: str) -> list[int]:
    try:
        return [len(fields) for fields in csv.reader(lines, delimiter=delimiter) if fields]
    except csv.Error:
        return []


def _fits(lines: list[str], delimiter: str) -> tuple[float, int]:
    """Share of lines with as many fields as the header, and that number; nothing when a line is one field."""
    counts = _columns(lines, delimiter)
    if not counts or counts[0] == 1:
        return 0.0, 0
    share = Counter(counts)[counts[0]] / len(counts)
    return (share, counts[0]) if share >= MOST_OF else (0.0, 0)


def _wrong(path: Path, lines: list[str], wanted: str | None, right: str) -> InputError:
    told = f"data.delimiter {_name(wanted)}" if wanted is not None else "any of " + " ".join(map(_name, DELIMITERS))
    count = _columns(lines[:1], right)[0]
    return InputError(
        f"'{path}' line 1 is one column by {told}: {lines[0][:80]!r}",
        hint=f"{_name(right)} gives {count} columns: set data.delimiter: {right!r}",
        delimiter=right,
    )


def _name(delimiter: str) -> str:
    return NAMES.get(delimiter, f"'{delimiter}'")
