"""Cron as Kubeflow Pipelines reads it: six fields, seconds first. The crontab's five would be taken for something else, or refused late."""

from __future__ import annotations

import re

FIELDS = (
    ("seconds", 0, 59, ()),
    ("minutes", 0, 59, ()),
    ("hours", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("day of the week", 0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
CRONTAB_FIELDS = 5


def checked_cron(cron: str) -> str:
    """``cron`` with single spaces.

    Raises:
        ValueError: It is not six fields that robfig/cron takes; the message says which is wrong, or what five fields should become.
    """
    fields = cron.split()
    if len(fields) == CRONTAB_FIELDS:
        message = f"{cron!r} has five fields, Kubeflow Pipelines wants six, seconds first: '0 {' '.join(fields)}'"
        raise ValueError(message)
    if len(fields) != len(FIELDS):
        message = f"{cron!r} has {len(fields)} field(s), expected six: second minute hour day month weekday, such as '0 0 3 * * 1'"
        raise ValueError(message)
    for field, (name, low, high, words) in zip(fields, FIELDS, strict=True):
        if not all(_allowed(part, low, high, words) for part in field.split(",")):
            message = f"{cron!r}: {name} is {field!r}, expected {low} to {high}, '*', ranges (a-b), steps (*/n) or lists of these"
            raise ValueError(message)
    return " ".join(fields)


def _allowed(part: str, low: int, high: int, words: tuple[str, ...]) -> bool:
    base, slash, step = part.partition("/")
    if slash and not (step.isdecimal() and 0 < int(step) <= high):
        return False
    if base in {"*", "?"}:
        return True
    bounds = [_number(bound, low, words) for bound in base.split("-")]
    if len(bounds) > 2 or not all(bound is not None and low <= bound <= high for bound in bounds):  # noqa: PLR2004 - a range
        return False
    return len(bounds) == 1 or bounds[0] <= bounds[1]  # type: ignore[operator]


def _number(text: str, low: int, words: tuple[str, ...]) -> int | None:
    if text.lower() in words:
        return words.index(text.lower()) + low
    return int(text) if re.fullmatch(r"[0-9]{1,2}", text) else None
