"""Batches in parts on several cores: the same answers, whatever the rows cost, and an error of any part is the batch's."""

from __future__ import annotations

import importlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MODEL_FILES = Path(__file__).parents[2] / "kfloop" / "serving" / "model"


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Four cores, whatever this machine has."""
    monkeypatch.syspath_prepend(str(MODEL_FILES))
    module = importlib.import_module("cores")
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(module, "time", Clock())
    return module.Cores(1)


class Clock:
    """Time as the work of this thread spends it, whatever else the machine does."""

    now = 0.0

    def perf_counter(self) -> float:
        return Clock.now


class Work:
    """Sums and products of rows, which take their time; remembers who was asked for how many rows."""

    def __init__(self, row_seconds: float, bad: float = np.nan) -> None:
        self.row_seconds, self.bad = row_seconds, bad
        self.calls: list[tuple[int, int]] = []
        self.caller = threading.get_ident()

    def __call__(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        self.calls.append((threading.get_ident(), len(arrays[0])))
        if threading.get_ident() == self.caller:
            Clock.now += self.row_seconds * len(arrays[0])
        if (arrays[0] == self.bad).any():
            message = "bad row"
            raise ValueError(message)
        return [arrays[0].sum(axis=1), arrays[0] * arrays[1]]


def rows(count: int) -> list[np.ndarray]:
    return [np.arange(count * 3, dtype=np.float32).reshape(count, 3), np.full((count, 3), 2, np.float32)]


def right(found: list[np.ndarray], asked: list[np.ndarray]) -> bool:
    return np.array_equal(found[0], asked[0].sum(axis=1)) and np.array_equal(found[1], 2 * asked[0])


def test_rows_that_take_long_are_divided_once_that_is_known(cores: Any) -> None:
    work = Work(0.002)
    assert right(cores.run(work, rows(7)), rows(7))
    assert [count for _, count in work.calls] == [7]
    for _ in range(2):
        work.calls.clear()
        assert right(cores.run(work, rows(7)), rows(7))
        assert sorted(count for _, count in work.calls) == [1, 2, 2, 2]
        assert len({thread for thread, _ in work.calls}) > 1
    work.calls.clear()
    assert right(cores.run(work, rows(1)), rows(1))
    assert work.calls == [(threading.get_ident(), 1)]


def test_rows_that_cost_nothing_stay_together(cores: Any) -> None:
    work = Work(0.0)
    for _ in range(20):
        assert right(cores.run(work, rows(3)), rows(3))
    assert {count for _, count in work.calls} == {3}


@pytest.mark.parametrize("bad", [0.0, 20.0])  # of the first part, of the last
def test_an_error_of_any_part_ends_the_batch_and_nothing_else(cores: Any, bad: float) -> None:
    work = Work(0.002)
    cores.run(work, rows(7))
    work.bad = bad
    with pytest.raises(ValueError, match="bad row"):
        cores.run(work, rows(7))
    work.bad = np.nan
    assert right(cores.run(work, rows(7)), rows(7))
