"""How far the rounds of a champion's watch have read its log."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

OVERLAP_NS = 10_000_000_000
"""A request may reach the log after a later one; rows this much older than the newest one are still looked for."""
MOST_RECENT = 20_000
"""Ids that are remembered at most: at more than 2000 rows a second the overlap is shorter."""


@dataclass(frozen=True, kw_only=True)
class Watermark:
    """Where the next round goes on.

    Attributes:
        newest_ns: Time of the newest row that was counted, of any version; 0 before the first.
        since_ns: Rows up to this time are looked for no more.
        recent: Id and time of the counted rows after it.
        totals: Rows in the folders of the latest hours at the end of the last round.
    """

    newest_ns: int = 0
    since_ns: int = 0
    recent: tuple[tuple[str, int], ...] = ()
    totals: dict[str, int] = field(default_factory=dict)

    @cached_property
    def names(self) -> frozenset[str]:
        """The recent ids."""
        return frozenset(name for name, _ in self.recent)

    def moved(self, newest: int, recent: dict[str, int], totals: dict[str, int]) -> Watermark:
        """The watermark after a round.

        Args:
            newest: Time of the newest row counted so far.
            recent: Ids and times of rows near it.
            totals: Rows in the folders of the latest hours.
        """
        if not newest:
            return self
        since = max(self.since_ns, newest - OVERLAP_NS)
        kept = sorted((pair for pair in recent.items() if pair[1] > since), key=lambda pair: (pair[1], pair[0]))
        if len(kept) > MOST_RECENT:
            since = kept[-MOST_RECENT - 1][1]
            kept = [pair for pair in kept if pair[1] > since]
        return Watermark(newest_ns=newest, since_ns=since, recent=tuple(kept), totals=totals)

    def missed(self, totals: dict[str, int], seen: int) -> int:
        """Rows that came since the last round and were too old to be looked for.

        Args:
            totals: Rows in the folders of the latest hours now.
            seen: Rows that this round saw for the first time.
        """
        if not self.newest_ns:
            return 0
        known = min(self.totals, default="")
        came = sum(count - self.totals.get(hour, 0) for hour, count in totals.items() if hour >= known)
        return max(0, came - seen)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "newest_ns": self.newest_ns,
            "since_ns": self.since_ns,
            "recent": [list(pair) for pair in self.recent],
            "totals": self.totals,
        }

    @classmethod
    def from_dict(cls, payload: dict[str, Any]) -> Watermark:
        """Read what `to_dict` wrote; other keys are ignored.

        Raises:
            KeyError: A key is missing.
            TypeError: A value is of another kind.
            ValueError: A value makes no sense.
        """
        return cls(
            newest_ns=int(payload["newest_ns"]),
            since_ns=int(payload["since_ns"]),
            recent=tuple((str(name), int(at)) for name, at in payload["recent"]),
            totals={str(hour): int(count) for hour, count in payload["totals"].items()},
        )
