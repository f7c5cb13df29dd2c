"""``kfloop simulate``: what the monitor would have done on rows of the past, beside simpler policies."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import config_option, json_option
from kfloop.errors import EXIT_DONE, EXIT_FAILED

if TYPE_CHECKING:
    from kfloop.core.config import LoopConfig
    from kfloop.pipelines.simulating.records import Window

JSON_NAME, HTML_NAME = "simulation.json", "simulation.html"


@click.command("simulate")
@config_option
@click.option(
    "--rows",
    type=click.Path(path_type=Path),
    required=True,
    help="The rows: CSV, Parquet or JSON lines, in the order of time.",
)
@click.option("--window", default=336, show_default=True, help="Rows between two looks of a policy.")
@click.option("--every", default=4, show_default=True, help="Windows between two trainings of policy 'every'.")
@click.option("--policies", default="monitor,never,every,always", show_default=True, help="Which are played.")
@click.option(
    "--label-delay", default="1d", show_default=True, metavar="TIME", help="After this a row's label is known."
)
@click.option("--initial", default=0.2, show_default=True, help="Share of the rows that trains the first model.")
@click.option(
    "--memory",
    type=int,
    metavar="ROWS",
    help="Latest labelled rows of a retraining; left out: as many as the first had.",
)
@click.option("--time", "time_column", metavar="COLUMN", help="Column of the time, where data.time does not name it.")
@click.option("--step", metavar="TIME", help="Time between two rows, where no column tells it, such as 30m.")
@click.option("--until", type=int, metavar="N", help="Stop after so many windows; a later run goes on from there.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the results; left out: simulation/ beside the loop file.",
)
@json_option
def simulate_command(
    path: Path,
    *,
    rows: Path,
    window: int,
    every: int,
    policies: str,
    label_delay: str,
    initial: float,
    memory: int | None,
    time_column: str | None,
    step: str | None,
    until: int | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Replay rows of the past through the loop: when would the monitor have retrained, at what cost, with what accuracy?

    The first rows train a first model; it answers the rest window by window, and the policies decide at the end of each window whether to
    train anew: 'monitor' as kfloop's own monitor and gate decide, 'never', 'every' so many windows, 'always'. Nothing of the loop is changed.
    After Ctrl-C the same command goes on from there.

    \b
    Example:
      kfloop simulate --rows history.csv --time at
      kfloop simulate --rows elec2.csv --step 30m --window 336 --memory 2688 --label-delay 1d
      kfloop simulate --rows history.parquet --policies monitor,never --json | jq .policies
    """
    from kfloop.core.config import load_config
    from kfloop.pipelines.simulating.outcomes import headline, summarise
    from kfloop.pipelines.simulating.replaying import Replay
    from kfloop.pipelines.simulating.settings import Settings, seconds
    from kfloop.pipelines.simulating.stream import read_stream
    from kfloop.report.simulation import render_simulation

    settings = Settings(
        window=window,
        every=every,
        policies=tuple(name.strip() for name in policies.split(",") if name.strip()),
        label_delay=seconds(label_delay, "--label-delay"),
        initial=initial,
        memory=memory,
        step=None if step is None else seconds(step, "--step"),
        until=until,
    )
    config = _with_time(load_config(path), time_column, stepped=step is not None)
    stream = read_stream(rows, config.data, settings.step)
    for note in stream.notes:
        say(f"note: {note}")
    folder = out or path.resolve().parent / "simulation"
    replay = Replay(config, settings, stream, path.resolve().parent, folder)
    printer = ReplayPrinter()
    try:
        played = replay.play(printer)
    except KeyboardInterrupt:
        printer.end()
        say(f"interrupted; windows that were played are kept in {folder}, the same command goes on from there")
        return EXIT_FAILED
    printer.end()
    summary = summarise(played, stream, settings, config)
    staging = folder / f".{JSON_NAME}"
    staging.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    staging.replace(folder / JSON_NAME)
    page = render_simulation(summary, folder / HTML_NAME, made=time.time())
    say(headline(summary))
    say(f"report: {page}")
    if as_json:
        print_json(summary)
    return EXIT_DONE


def _with_time(config: LoopConfig, column: str | None, *, stepped: bool) -> LoopConfig:
    """The loop, with the column of the time as the command line names it; none where rows are evenly apart."""
    if column is None and not stepped:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"time": column})})


class ReplayPrinter:
    """One live line in a terminal; in a log one line for each policy that ends and each model that is replaced."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._began = time.monotonic()
        self._open = False

    def __call__(self, policy: str, window: int, n: int, windows: list[Window]) -> None:
        """Tell that a window was played."""
        last = windows[-1]
        line = f"  {policy:<8} window {window + 1} of {n}, {_so_far(windows)}, {time.monotonic() - self._began:.0f} s"
        if window + 1 == n or (last.trained and policy == "monitor"):
            self.end()
            told = f": {_event(last)}" if last.trained and policy == "monitor" else ""
            say(f"{line}{told}")
        elif self._live:
            width = shutil.get_terminal_size().columns - 1
            click.echo(f"\r\x1b[K{line[:width]}", nl=False, err=True)
            self._open = True

    def end(self) -> None:
        """Wipe the live line."""
        if self._open:
            click.echo("\r\x1b[K", nl=False, err=True)
        self._open = False


def _so_far(windows: list[Window]) -> str:
    labelled = sum(one.labelled for one in windows)
    accuracy = f"accuracy {sum(one.hits for one in windows) / labelled:.3f}" if labelled else "no labels yet"
    return f"{accuracy}, {sum(one.trained for one in windows)} retrainings"


def _event(window: Any) -> str:
    return f"{window.reason}; {'promoted' if window.promoted else 'rejected'}: {window.gate}"
