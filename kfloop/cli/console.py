"""What a person sees while steps run: one line a step, with its time, on stderr."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from kfloop.core.records import outcome_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfloop.core.records import StepRecord

MARKS = {
    "succeeded": ("ok", "green"),
    "failed": ("FAILED", "red"),
    "cached": ("cached", "cyan"),
    "skipped": ("skipped", "bright_black"),
    "not_run": ("not run", "bright_black"),
}


class StepPrinter:
    """Prints each step once when it starts and once when it ends.

    In a terminal the start line is replaced by the end line; in a log only the ends are printed.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._done: set[str] = set()
        self._open = False
        self._live = sys.stderr.isatty()

    def __call__(self, steps: Sequence[StepRecord]) -> None:
        """Print what changed."""
        if self._quiet:
            return
        for step in steps:
            if step.name not in self._done and step.status in MARKS and step.started:
                self._done.add(step.name)
                self._print(step)
        if self._ended(steps):
            self._print_rest(steps)
        running = next((step for step in steps if step.status == "running"), None)
        if self._live and running is not None:
            since = time.strftime("%H:%M:%S", time.localtime(running.started))
            told = running.progress or f"since {since}"
            click.echo(f"\r\x1b[K  ...      {running.name:<15} {told}"[: self._width()], nl=False, err=True)
            self._open = True

    @staticmethod
    def _width() -> int:
        """Room for one line: a longer one would wrap, and could not be wiped away."""
        return shutil.get_terminal_size().columns + len("\r\x1b[K") - 1

    def _print(self, step: StepRecord) -> None:
        text, color = MARKS[step.status]
        seconds = f"{step.seconds:6.1f} s" if step.seconds else " " * 8
        outcome = f"  {outcome_words(step.outcome)}" if step.outcome else ""
        start = "\r\x1b[K" if self._open else ""
        self._open = False
        line = f"{start}  {click.style(f'{text:<8}', fg=color)} {step.name:<15} {seconds}{outcome}"
        click.echo(line.rstrip(), err=True)

    def _print_rest(self, steps: Sequence[StepRecord]) -> None:
        """The steps that did not run, in one line for each reason."""
        for status in ("skipped", "not_run"):
            names = [step.name for step in steps if step.status == status and step.name not in self._done]
            self._done.update(names)
            if names:
                text, color = MARKS[status]
                click.echo(f"  {click.style(f'{text:<8}', fg=color)} {', '.join(names)}", err=True)

    @staticmethod
    def _ended(steps: Sequence[StepRecord]) -> bool:
        """Whether nothing more will come: no step is running, and at least one began."""
        final = [step for step in steps if step.name == "notify"]
        return bool(final) and final[0].status in {"succeeded", "failed", "not_run"} and any(s.started for s in steps)


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    click.echo(json.dumps(value, indent=1, sort_keys=True, default=str))


def say(text: str) -> None:
    """A line for people, on stderr, so that stdout stays one JSON object under ``--json``."""
    click.echo(text, err=True)
