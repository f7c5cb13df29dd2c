"""How long calls take beside each other."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FEWEST_CALLS, MOST_CALLS = 3, 100


def medians_ms(calls: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median time of each call in milliseconds on one thread, in turn for at most about ``seconds``, after one of each that is not counted.

    In turn, so that a busy moment of the machine hits all alike.
    """
    from threadpoolctl import threadpool_limits

    spent: dict[str, list[float]] = {name: [] for name in calls}
    with threadpool_limits(1):
        for call in calls.values():
            call()
        began = time.perf_counter()
        for turn in range(MOST_CALLS):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                spent[name].append(time.perf_counter() - start)
            if turn + 1 >= FEWEST_CALLS and time.perf_counter() - began > seconds:
                break
    return {name: 1000 * statistics.median(item) for name, item in spent.items()}
