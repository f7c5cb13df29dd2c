"""Names of classes: how a label as it stands in a source is called, and the order of the classes."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names; whole numbers in the order of their value, others by alphabet."""
    distinct = set(names)
    numeric = all(is_whole(name) for name in distinct)
    return tuple(sorted(distinct, key=lambda name: (int(name) if numeric else 0, name)))


def is_whole(name: str) -> bool:
    """Whether a name is a whole number."""
    return name.isascii() and name.removeprefix("-").isdigit()


def composed(name: str) -> str:
    """A name in Unicode normal form C: the accented letters of file systems and programs are spelt in two ways that look the same."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def lookalikes(names: Sequence[str]) -> list[str]:
    """Sentences on classes whose names differ in case only, or stand for the same whole number."""
    found: list[str] = []
    seen: dict[str | int, str] = {}
    for name in names:
        key = int(name) if is_whole(name) else name.casefold()
        if key in seen:
            how = "are the same number" if isinstance(key, int) else "differ in upper and lower case only"
            found.append(f"classes '{seen[key]}' and '{name}' {how}, but are kept apart")
        seen.setdefault(key, name)
    return found


def is_joined(name: str, names: Sequence[str]) -> bool:
    """Whether a class name is made of others, with ``|`` or ``;`` between them."""
    parts = [part.strip() for part in name.replace(";", "|").split("|")]
    return len(parts) > 1 and set(parts) <= set(names)


def number_of(value: Any) -> float | None:
    """A label as a number; null for texts that are none, true and false, and NaN."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(found) else found


def class_names(values: Iterable[Any], known: Sequence[str] | None) -> dict[Any, str]:
    """Class name of each label: 1.0 is class 1 where all labels are whole numbers, and true is true however it is spelt."""
    distinct = list(values)
    numbers = [number_of(value) for value in distinct]
    whole = all(number is not None and number.is_integer() for number in numbers)
    truths = all(str(value).lower() in {"true", "false"} for value in distinct)
    named: dict[Any, str] = {}
    for value, number in zip(distinct, numbers, strict=True):
        text = composed(str(value))
        name = text.lower() if truths else text
        if whole and number is not None and not is_whole(text):
            name = str(int(number))
        if known is not None and name not in known:
            other = [text, text.lower()] + ([str(int(number))] if number is not None and number.is_integer() else [])
            name = next((option for option in other if option in known), name)
        named[value] = name
    return named
