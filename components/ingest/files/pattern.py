"""Labels and groups from the names of files."""

from __future__ import annotations

import re
from collections import Counter
from string import Formatter
from typing import TYPE_CHECKING

from kfloop.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

SEPARATORS = "_-"
LARGEST_LABELS = 100  # more values than this are no classes that a name tells
FEWEST_GROUPS = 3  # fewer cannot fill three splits
LEAST_EACH = 3  # mean number of files of a value that makes it worth being a class or a group


def parse_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern such as ``{label}_{group}_{take}`` as a regular expression over a stem.

    A field never holds a character of the literal text at its sides, so that a name is read in one way only.

    Raises:
        ConfigError: No ``{label}``, a field twice, two fields side by side, or braces that do not match.
    """
    hint = "write the stem of a file with its parts in braces, such as {label}_{group}_{take}"
    try:
        parts = [(literal, name) for literal, name, _, _ in Formatter().parse(pattern)]
    except ValueError as error:
        raise ConfigError(f"data.pattern '{pattern}': {error}", hint=hint) from error
    names = [field for _, field in parts if field is not None]
    if "label" not in names:
        raise ConfigError(f"data.pattern '{pattern}' has no {{label}}", hint=hint)
    for name in names:
        if not name.isidentifier():
            raise ConfigError(f"data.pattern '{pattern}': '{{{name}}}' is not a name", hint=hint)
        if names.count(name) > 1:
            raise ConfigError(f"data.pattern '{pattern}' has {{{name}}} twice", hint=hint)
    text = ""
    for index, (literal, field) in enumerate(parts):
        text += re.escape(literal)
        if field is None:
            continue
        after = parts[index + 1][0] if index + 1 < len(parts) else ""
        if index + 1 < len(parts) and not after:
            raise ConfigError(f"data.pattern '{pattern}': nothing separates {{{field}}} from what follows", hint=hint)
        closed = re.escape(literal[-1:] + after[:1])
        text += f"(?P<{field}>[^{closed}]+)" if closed else f"(?P<{field}>.+)"
    return re.compile(text)


def match_stem(pattern: re.Pattern[str], stem: str) -> dict[str, str] | None:
    """Values of the fields in a stem, or None when it does not fit."""
    found = pattern.fullmatch(stem)
    return found.groupdict() if found else None


def guess_pattern(stems: Sequence[str]) -> str | None:
    """A pattern that all stems share, when one of their parts has few values, each many times.

    The first such part is taken for the label and the next for the group; numbers at the end only count takes.

    Args:
        stems: Names without folder and suffix.

    Returns:
        The pattern, such as ``{label}_{group}_{take}``; None when no part looks like a label.
    """
    for separator in SEPARATORS:
        rows = [stem.split(separator) for stem in stems]
        width = len(rows[0]) if rows else 0
        if width <= 1 or any(len(row) != width or not all(row) for row in rows):
            continue
        parts = [Counter(row[place] for row in rows) for place in range(width)]
        names = _roles(parts, len(rows))
        if "label" in names:
            return separator.join(f"{{{name}}}" for name in names)
    return None


def _roles(parts: list[Counter[str]], n: int) -> list[str]:
    names: list[str] = []
    for place, counts in enumerate(parts):
        last = place == len(parts) - 1
        telling = 1 < len(counts) <= min(LARGEST_LABELS, n // LEAST_EACH) and min(counts.values()) > 1
        numbers = all(value.isascii() and value.isdigit() for value in counts)
        if telling and "label" not in names:
            names.append("label")
        elif last and numbers:
            names.append("take")
        elif telling and len(counts) >= FEWEST_GROUPS and "group" not in names:
            names.append("group")
        else:
            names.append(f"part{place + 1}")
    return names
