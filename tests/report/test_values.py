"""Spelling of numbers, and access to JSON of the wrong shape."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kfloop.report import values


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        (0.91234, "0.912"),
        (0, "0"),
        (0.0, "0"),
        (12345, "12,345"),
        (3.1e-7, "3.1e-07"),
        (-0.5, "-0.500"),
        (None, values.MISSING),
        (math.nan, values.MISSING),
        (True, values.MISSING),
        ("3", values.MISSING),
        (10**400, values.MISSING),
    ],
)
def test_decimal(value: Any, spelled: str) -> None:
    assert values.decimal(value) == spelled


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        (0.061, "0.06 s"),
        (37.4, "37 s"),
        (59.7, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3599.8, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_duration(value: float, spelled: str) -> None:
    assert values.duration(value) == spelled


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        ({"value": 0.9, "low": 0.8, "high": 0.95}, "0.900 (0.800 to 0.950)"),
        ({"value": 0.9, "low": None}, "0.900"),
        (0.9, "0.900"),
        ({"value": None, "low": 0.1, "high": 0.2}, values.MISSING),
        ({}, values.MISSING),
        ("x", values.MISSING),
    ],
)
def test_estimate(value: Any, spelled: str) -> None:
    assert values.estimate(value) == spelled


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        (0, "1970-01-01 00:00:00 UTC"),
        ("2026-11-21T05:00:00+01:00", "2026-11-21 04:00:00 UTC"),
        ("yesterday", "yesterday"),
        (None, values.MISSING),
        (1e30, "1e+30"),
    ],
)
def test_moment(value: Any, spelled: str) -> None:
    assert values.moment(value) == spelled


def test_text_is_bounded_and_printable() -> None:
    assert values.text("a\x00b\nc\u202e") == "a b c"
    assert len(values.text("x" * 10_000)) == 600
    family, word = (
        "\U0001f469\u200d\U0001f467",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0645",
    )  # joined emojis, a Persian word
    assert values.text(f"{family} {word}") == f"{family} {word}"
