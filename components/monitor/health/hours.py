"""Hours of traffic: what is counted of each, and how many of them are kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from kfloop.components.monitor.health.latency import merged

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

HOUR_NS = 3_600_000_000_000
HOUR_SECONDS = 3600.0
DAY_HOURS = 24
WEEK_HOURS = 168

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Hour:
    """One hour of traffic.

    Attributes:
        rows: Requests.
        latency: Answers by size of their time (``latency.bins``).
        expected: Judged and unexpected values by place of the expectation.
        counters: What the server counted in it.
    """

    rows: int = 0
    latency: dict[int, int] = field(default_factory=dict)
    expected: dict[int, tuple[int, int]] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: Hour) -> Hour:
        """Both together."""
        places = self.expected.keys() | other.expected.keys()
        none = (0, 0)
        expected = {
            place: (
                self.expected.get(place, none)[0] + other.expected.get(place, none)[0],
                self.expected.get(place, none)[1] + other.expected.get(place, none)[1],
            )
            for place in places
        }
        return Hour(
            rows=self.rows + other.rows,
            latency=merged((self.latency, other.latency)),
            expected=expected,
            counters={
                name: self.counters.get(name, 0) + other.counters.get(name, 0)
                for name in self.counters.keys() | other.counters.keys()
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, payload: Mapping[str, Any]) -> Hour:
        """What ``to_dict`` wrote; JSON has turned the keys into texts."""
        return cls(
            rows=payload["rows"],
            latency={int(name): count for name, count in payload["latency"].items()},
            expected={int(place): (pair[0], pair[1]) for place, pair in payload["expected"].items()},
            counters=dict(payload["counters"]),
        )


def counts(sizes: NDArray[np.int64]) -> dict[int, int]:
    """How often each bin is there; what has none (-1) is left out."""
    names, found = np.unique(sizes[sizes >= 0], return_counts=True)
    return dict(zip(names.tolist(), found.tolist(), strict=True))


def newest(hours: Iterable[int], most: int) -> set[int]:
    """The newest hours of those that have anything.

    Not all since the newest one: a single request from the year 2100 must not push out today.
    """
    return set(sorted(hours)[-most:])


def kept(hours: Mapping[int, Value], most: int) -> dict[int, Value]:
    """What is known of the newest hours, oldest first."""
    return {hour: hours[hour] for hour in sorted(newest(hours, most))}


def iso(hour: int) -> str:
    """When an hour begins, ISO 8601."""
    return datetime.fromtimestamp(hour * HOUR_SECONDS, tz=UTC).isoformat(timespec="seconds")
