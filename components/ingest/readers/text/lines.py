"""Text lines: a label and a text on each line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kfloop.components.ingest.labels.columns import LABEL_NAMES
from kfloop.components.ingest.readers.table.feed import Feed, Rows
from kfloop.components.ingest.readers.text.facts import REPLACEMENT, not_utf8
from kfloop.core.artifacts import DIGEST_LENGTH, file_sha256
from kfloop.errors import ConfigError, InputError

if TYPE_CHECKING:
    from kfloop.core.sections import DataConfig

BLOCK = 4 << 20
SHOWN = 60
LOOK = 2000
TAB = "\t"
BOM = b"\xef\xbb\xbf"
TEXT_NAMES = frozenset({"text", "sentence", "content", "message", "review", "question", "document"})
_FIELD = re.compile(r"\{(\w+)\}")

Fields = tuple[str, ...]
Cut = Callable[[str], Fields | None]


def open_text_lines(path: Path, config: DataConfig, known: Sequence[str] = ()) -> Feed:
    """Find out which side of the delimiter is the label.

    Args:
        path: The file.
        config: Section ``data``: ``delimiter`` and ``pattern``.
        known: Class names of the base source, for freshly labelled texts.

    Raises:
        InputError: The file is empty, or no line has a label.
        ConfigError: The pattern lacks label or text.
    """
    first = next((lines for _, lines in _blocks(path)), [])
    if not any(line.strip() for line in first):
        raise InputError(f"'{path}' is empty", hint="write a label, a TAB and a text on each line")
    names, cut, expected = _cutter(path, config, [line for line in first[:LOOK] if line.strip()], known)
    header = _is_header(cut(first[0]), names)
    blanks, lost, total = [], [], 0
    for start, lines in _blocks(path):
        blanks += [at for at, line in enumerate(lines, start) if not line.strip()]
        lost += [at for at, line in enumerate(lines, start) if REPLACEMENT in line]
        total += len(lines)
    skipped_lines = sorted({*blanks, 0}) if header else blanks
    skipped = np.array([line - k for k, line in enumerate(skipped_lines)], dtype=np.int64)

    def place(number: int) -> str:
        return f"line {number + 1 + int(np.searchsorted(skipped, number, side='right'))}"

    def read(columns: Sequence[str]) -> Iterator[Rows]:
        number = 0
        for start, lines in _blocks(path):
            wanted = [line for at, line in enumerate(lines, start) if line.strip() and not (header and at == 0)]
            yield _rows(wanted, number, {name: names.index(name) for name in columns}, cut, expected, place)
            number += len(wanted)

    import pyarrow as pa

    return Feed(
        kind="text_lines",
        where=f"'{path}'",
        types=dict.fromkeys(names, pa.string()),
        n=total - len(skipped_lines),
        digest=file_sha256(path)[:DIGEST_LENGTH],
        read=read,
        place=place,
        notes=tuple(_notes(first, config, header=header, lost=lost)),
    )


def _notes(first: list[str], config: DataConfig, *, header: bool, lost: list[int]) -> list[str]:
    """What was guessed, and the lines whose bytes could not be read."""
    notes = [f"line 1 is taken as a header: {first[0].strip()!r}"] if header else []
    if config.pattern is None and config.delimiter is None:
        whole = [line for line in first[:LOOK] if line.strip()]
        several = sum(line.count(TAB) > 1 for line in whole)
        if several > len(whole) / 2:
            notes.append(
                f"{several} of the first {len(whole)} lines have more than one TAB: one side is taken as the label and all else as the text; "
                "if there are other fields, set data.pattern, such as '{id}\\t{label}\\t{text}'"
            )
    if lost:
        notes.append(not_utf8(len(lost), "lines", f"line {lost[0] + 1}"))
    return notes


def _blocks(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number of the first line, and whole lines without their ends; what is not UTF-8 becomes U+FFFD."""
    number = 0
    with path.open("rb") as stream:
        pending = stream.read(len(BOM)).removeprefix(BOM)
        while block := stream.read(BLOCK):
            whole, end, pending = (pending + block).rpartition(b"\n")
            if end:
                lines = _lines(whole)
                yield number, lines
                number += len(lines)
    if pending:
        yield number, _lines(pending)


def _lines(block: bytes) -> list[str]:
    return [line.removesuffix("\r") for line in block.decode("utf-8", errors="replace").split("\n")]


def _rows(
    lines: list[str],
    number: int,
    columns: dict[str, int],
    cut: Cut,
    expected: str,
    place: Callable[[int], str],
) -> Rows:
    import pyarrow as pa

    found = [cut(line) for line in lines]
    bad = {
        at: f"{place(at)}: no {expected} in {line[:SHOWN]!r}"
        for at, (line, fields) in enumerate(zip(lines, found, strict=True), number)
        if fields is None
    }
    arrays = {
        name: pa.array([None if fields is None else fields[at] for fields in found], type=pa.string())
        for name, at in columns.items()
    }
    return Rows(table=pa.table(arrays), numbers=np.arange(number, number + len(lines)), bad=bad)


def _cutter(path: Path, config: DataConfig, lines: list[str], known: Sequence[str]) -> tuple[Fields, Cut, str]:
    """Names of the fields, what cuts a line into them, and what a line must have."""
    if config.pattern is not None:
        return _by_pattern(config.pattern.replace("\\t", TAB))
    delimiter = TAB if (config.delimiter or TAB).lower() in {TAB, "tab", "\\t"} else str(config.delimiter)
    name = "TAB" if delimiter == TAB else f"{delimiter!r}"
    pairs = [(line.partition(delimiter), line.rpartition(delimiter)) for line in lines if delimiter in line]
    if not pairs:
        raise InputError(
            f"'{path}' line 1 has no {name} between label and text: {lines[0][:SHOWN]!r}",
            hint="write a label, a TAB and a text on each line, set data.delimiter to what stands between them, or data.pattern to "
            "'{label} {text}'",
        )
    left, right = [first[0].strip() for first, _ in pairs], [last[2].strip() for _, last in pairs]
    if delimiter != TAB:
        last_is_label = False  # the last word of a text is no label; a pattern can say otherwise
    elif known:
        last_is_label = sum(value in known for value in right) > sum(value in known for value in left)
    else:
        last_is_label = _spread(right) < _spread(left)

    def label_first(line: str) -> Fields | None:
        label, found, text = line.partition(delimiter)
        return (label, text.strip()) if found else None

    def label_last(line: str) -> Fields | None:
        text, found, label = line.rpartition(delimiter)
        return (label, text.strip()) if found else None

    return ("label", "text"), label_last if last_is_label else label_first, name


def _spread(values: list[str]) -> float:
    """Number of different values; a side that never changes is no label."""
    distinct = len(set(values))
    return distinct if distinct > 1 else math.inf


def _by_pattern(pattern: str) -> tuple[Fields, Cut, str]:
    names = tuple(_FIELD.findall(pattern))
    if "label" not in names or "text" not in names or len(set(names)) != len(names):
        raise ConfigError(
            f"data.pattern is '{pattern}': expected one {{label}} and one {{text}} for text lines",
            hint="such as '{label}:{fine} {text}'",
        )
    parts = _FIELD.split(pattern)  # literal, name, literal, name, ..., literal
    wanted = "".join(
        re.escape(part) if at % 2 == 0 else f"(?P<{part}>{'.*' if part == 'text' else '.+?'})"
        for at, part in enumerate(parts)
    )
    compiled = re.compile(wanted)

    def cut(line: str) -> Fields | None:
        match = compiled.fullmatch(line)
        return tuple(match[name].strip() for name in names) if match else None

    return names, cut, f"'{pattern}'"


def _is_header(fields: Fields | None, names: Fields) -> bool:
    """Whether a first line names its fields."""
    if fields is None:
        return False
    told = dict(zip(names, (field.strip().lower() for field in fields), strict=True))
    return told["label"] in LABEL_NAMES and told["text"] in TEXT_NAMES
