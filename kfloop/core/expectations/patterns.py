"""Regular expressions of Python in the dialect of polars (Rust), with the same meaning."""

from __future__ import annotations

from kfloop.errors import ConfigError

# Python's classes, Unicode included; Rust's own differ in small ways (\w takes marks, \s misses the separators \x1c to \x1f).
OUTSIDE = {
    "w": r"[\p{L}\p{N}_]",
    "W": r"[^\p{L}\p{N}_]",
    "s": r"[\s\x1c-\x1f]",
    "S": r"[^\s\x1c-\x1f]",
    "Z": r"\z",
}
INSIDE = {"w": r"\p{L}\p{N}_", "W": r"[^\p{L}\p{N}_]", "s": r"\s\x1c-\x1f", "S": r"[^\s\x1c-\x1f]", "b": r"\x08"}


def translate(pattern: str) -> str:
    """``pattern`` for polars.

    Raises:
        ConfigError: It uses what polars has not (lookaround, back references, ...).
    """
    import polars as pl

    lines = "(?m" in pattern  # $ then ends lines, as it does in Rust
    parts, place = [], 0
    while place < len(pattern):
        letter = pattern[place]
        if letter == "\\":
            parts.append(_escape(pattern[place + 1 : place + 2], OUTSIDE))
            place += 2
        elif letter == "[":
            text, place = _bracket(pattern, place)
            parts.append(text)
        else:
            # Python's $ also stands before a line feed that ends the text.
            parts.append(r"(?:\n?\z)" if letter == "$" and not lines else letter)
            place += 1
    translated = "".join(parts)
    try:
        pl.Series([""]).str.contains(translated, strict=True)
    except pl.exceptions.ComputeError as error:
        raise ConfigError(
            f"the polars engine cannot use the regular expression {pattern!r}: {str(error).splitlines()[-1]}",
            hint="write it without lookaround and back references, or set validation.engine: great_expectations",
        ) from error
    return translated


def _escape(letter: str, table: dict[str, str]) -> str:
    if letter in table:
        return table[letter]
    # Python takes any escaped sign as itself; Rust reads \< and \> as borders of words.
    return letter if letter in "<>" else "\\" + letter


def _bracket(pattern: str, start: int) -> tuple[str, int]:
    """The class that begins at ``start``, and the place after it."""
    place = start + 1
    parts = ["["]
    if pattern[place : place + 1] == "^":
        parts.append("^")
        place += 1
    first = True
    while place < len(pattern) and (first or pattern[place] != "]"):
        letter = pattern[place]
        if letter == "\\":
            parts.append(_escape(pattern[place + 1 : place + 2], INSIDE))
            place += 2
        else:
            # Rust nests classes and has set operations: these signs stand for themselves in Python.
            parts.append("\\" + letter if letter in "[]&~" else letter)
            place += 1
        first = False
    return "".join(parts) + "]", place + 1
