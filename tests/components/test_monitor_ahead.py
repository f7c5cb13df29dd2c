"""Reading ahead changes neither what is read nor what goes wrong."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from kfloop.components.monitor.log.ahead import ahead

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_items_come_in_order_and_are_made_in_another_thread() -> None:
    makers = set()

    def items() -> Iterator[int]:
        for number in range(50):
            makers.add(threading.get_ident())
            yield number

    assert list(ahead(items())) == list(range(50))
    assert threading.get_ident() not in makers
    assert list(ahead(iter(()))) == []


def test_at_most_one_item_is_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number

    for number in ahead(items()):
        assert len(made) <= number + 2


def test_what_goes_wrong_there_is_raised_here_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)


def test_one_who_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    reading = ahead(iter(range(1000)))
    assert [next(reading), next(reading)] == [0, 1]
    reading.close()
    assert threading.active_count() == before
