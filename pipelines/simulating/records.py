"""What is kept of each window that was played: one line of JSON, appended and forced to disk."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Window:
    """One window under one policy.

    Attributes:
        index: Its number, from 0.
        first: Its first row in the stream.
        last: The row behind its last.
        start: Time of the first row, ISO 8601.
        end: Time of the last row.
        moment: Moment of the training whose model answered; -1 for the first.
        labelled: Rows of it that have a label.
        hits: Labelled rows that were answered rightly.
        outcome: What the policy concluded at its end: a trigger of the monitor, or ``retrain`` and ``none``.
        reason: Why.
        log10_e: Evidence of drift as a power of ten, at least -3; null where nothing is watched.
        log10_threshold: Where drift is declared.
        trained: Whether a training began at its end.
        promoted: Whether its model answers from the next window on.
        gate: What decided about that.
        watch_cpu_seconds: CPU time of the look at the window, and of the gate.
    """

    index: int
    first: int
    last: int
    start: str
    end: str
    moment: int
    labelled: int
    hits: int
    outcome: str
    reason: str
    log10_e: float | None = None
    log10_threshold: float | None = None
    trained: bool = False
    promoted: bool = False
    gate: str = ""
    watch_cpu_seconds: float = 0.0

    @property
    def next_moment(self) -> int:
        """Training whose model answers the next window."""
        return self.index if self.promoted else self.moment

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class Journal:
    """The windows of one policy, oldest first; what a kill left half written is cut off.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.windows: list[Window] = []
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            path.write_text(whole, encoding="utf-8")
        self.windows = [Window(**json.loads(line)) for line in whole.splitlines()]

    def add(self, window: Window) -> None:
        """Append a window; it is on disk when this returns."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(window.as_dict(), sort_keys=True) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.windows.append(window)
