"""Progress of a long step: what is done, how fast, how long it will take; told to whoever watches the run.

One small file in the run's folder, replaced as a whole, not state: it is worth nothing once the step has ended.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.core.workspace import run_id

if TYPE_CHECKING:
    from kfloop.core.workspace import Workspace

PROGRESS = "progress.json"
EVERY_SECONDS = 0.5
BAR = 20


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a step is.

    Attributes:
        step: Name of the step.
        done: Units done.
        total: Units there are; an estimate where the step may end early.
        rate: Examples per second; 0 where unknown.
        seconds_left: Estimate; null where unknown.
        text: Where it is, such as ``epoch 3 of 12``.
    """

    step: str
    done: int
    total: int
    rate: float = 0.0
    seconds_left: float | None = None
    text: str = ""


class ProgressTeller:
    """Tells progress at most twice a second: to the run's folder inside a run, to the terminal outside.

    Args:
        workspace: The loop's places.
        step: Name of the step.
    """

    def __init__(self, workspace: Workspace, step: str) -> None:
        run = run_id()
        self.step = step
        self._path = workspace.kfloop_dir / "runs" / run / PROGRESS if run else None
        self._live = self._path is None and sys.stderr.isatty()
        self._last = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time to tell again; cheap enough to ask after every training step."""
        return time.monotonic() - self._last >= EVERY_SECONDS

    def tell(
        self, done: int, total: int, *, rate: float = 0.0, seconds_left: float | None = None, text: str = ""
    ) -> None:
        """Say how far the step is; losing a message harms nothing."""
        self._last = time.monotonic()
        progress = Progress(step=self.step, done=done, total=total, rate=rate, seconds_left=seconds_left, text=text)
        if self._live:
            sys.stderr.write(f"\r\x1b[K{render(progress)}")
            sys.stderr.flush()
        if self._path is None:
            return
        staging = self._path.with_name(f".{PROGRESS}.tmp")
        with contextlib.suppress(OSError):
            staging.write_text(json.dumps(asdict(progress)), encoding="utf-8")
            staging.replace(self._path)

    def close(self) -> None:
        """Wipe the line off the terminal, and the file away."""
        if self._live and self._last:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)


def read_progress(folder: Path) -> Progress | None:
    """The progress told last in a run's folder; null where there is none."""
    try:
        return Progress(**json.loads((folder / PROGRESS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # not there, or of another kfloop
        return None


def render(progress: Progress) -> str:
    """One line: a bar, where, how fast, how long."""
    share = min(1.0, progress.done / progress.total) if progress.total else 0.0
    full = round(share * BAR)
    parts = [f"[{'#' * full}{'.' * (BAR - full)}] {share:4.0%}"]
    if progress.text:
        parts.append(progress.text)
    if progress.rate:
        parts.append(f"{progress.rate:,.0f} samples/s")
    if progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """``0:42``, ``12:05`` or ``1:02:30``."""
    whole = max(0, round(seconds))
    minutes, hours = whole // 60 % 60, whole // 3600
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
