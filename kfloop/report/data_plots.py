"""The plots of data and labels: shares by name, distributions, and a time series with its splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kfloop.report.figures import FIRST, INK, MUTED, SERIES, canvas, svg
from kfloop.report.values import Interval, compact, percent

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROW = 0.27  # inches for one row of a plot with names on its left
_WIDTH = 4.7  # inches: two such plots stand side by side in the page
_NAME_LENGTH = 28
_COARSE = 0.06  # shares above need no decimals on the axis
_BINS, _FEWEST_BINS = 30, 8
_POINTS = 700  # of a line: more than the page has pixels for are averaged


def shares(name: str, title: str, estimates: Mapping[str, Interval]) -> str:
    """A share of each class or group as a bar, with its interval as a line.

    Args:
        name: Unique name of the plot.
        title: What is shown.
        estimates: By row; each has a value from 0 to 1.
    """
    from matplotlib.ticker import PercentFormatter

    with canvas(_WIDTH, 0.75 + _ROW * len(estimates)) as (figure, (axes,)):
        places = range(len(estimates))
        axes.barh(places, [found.value or 0.0 for found in estimates.values()], height=0.62, color=FIRST)
        for place, found in zip(places, estimates.values(), strict=True):
            if found.low is not None and found.high is not None:
                axes.plot([max(0.0, found.low), min(1.0, found.high)], [place, place], color=INK, linewidth=1.1)
        names = [row if len(row) <= _NAME_LENGTH else row[: _NAME_LENGTH - 3] + "..." for row in estimates]
        axes.set_yticks(list(places), names, color=INK)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(
            PercentFormatter(xmax=1, decimals=0 if axes.get_xlim()[1] > _COARSE else 1, symbol=" %")
        )
        axes.set_title(title)
        said = ", ".join(f"{row} {percent(found.value)}" for row, found in list(estimates.items())[:12])
        return svg(figure, name, f"{title}: {said}.")


def distribution(name: str, title: str, values: Mapping[str, NDArray[Any]]) -> str:
    """Shares of the values of some sets in common bins; empty if there is nothing to draw.

    Args:
        name: Unique name of the plot.
        title: What is shown.
        values: By set, each float [N].
    """
    import numpy as np

    finite = {key: found[np.isfinite(found)] for key, found in values.items()}
    finite = {key: found for key, found in finite.items() if len(found)}
    if not finite:
        return ""
    low, high = (
        min(float(found.min()) for found in finite.values()),
        max(float(found.max()) for found in finite.values()),
    )
    if not 0 < high - low < np.inf:  # all the same, or too far apart for a float
        return ""
    fewest = min(len(found) for found in finite.values())
    edges = np.linspace(low, high, min(_BINS, max(_FEWEST_BINS, round(2 * fewest ** (1 / 2)))) + 1)
    with canvas(_WIDTH, 2.4) as (figure, (axes,)):
        for colour, (key, found) in zip(SERIES, finite.items(), strict=False):
            heights = np.histogram(found, edges)[0] / len(found)
            axes.stairs(heights, edges, color=colour, linewidth=1.6, label=key, baseline=None)
        axes.set_title(title)
        axes.set_ylabel("share of rows")
        axes.locator_params(axis="both", nbins=6)
        if len(finite) > 1:
            axes.legend(labelcolor=INK, handlelength=1)
        said = "; ".join(
            f"{key} from {compact(found.min())} to {compact(found.max())}" for key, found in finite.items()
        )
        return svg(figure, name, f"{title}: {said}.")


def series(channels: Mapping[str, NDArray[Any]], starts: Mapping[str, int], times: Sequence[str]) -> str:
    """The channels of a time series under each other, with a line where each split begins.

    Args:
        channels: By name, each float [N], in time order; not empty.
        starts: Row at which each split begins.
        times: Time of each row in words; may be empty.
    """
    import numpy as np

    length = max(len(found) for found in channels.values())
    with canvas(8.9, 0.5 + 1.15 * len(channels), columns=1) as (figure, (first,)):
        first.remove()
        grid = figure.subplots(len(channels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, values) in zip(grid, channels.items(), strict=True):
            step = max(1, -(-len(values) // _POINTS))
            used = values[: len(values) // step * step].reshape(-1, step)
            axes.plot(np.arange(len(used)) * step, used.mean(axis=1), color=FIRST, linewidth=1.1)
            axes.set_title(name[:60])
            axes.locator_params(axis="y", nbins=4)
            for start in starts.values():
                if start:
                    axes.axvline(start, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        top = grid[0]
        low, high = top.get_ylim()
        top.set_ylim(low, high + 0.28 * (high - low))  # room for the names of the splits
        for split, start in starts.items():
            top.annotate(
                split,
                (start, 1),
                xycoords=("data", "axes fraction"),
                xytext=(4, -9),
                textcoords="offset points",
                color=MUTED,
            )
        ticks = [round(part * (length - 1)) for part in (0, 0.25, 0.5, 0.75, 1)] if length > 1 else [0]
        shown = [times[place] if place < len(times) else str(place) for place in ticks]
        grid[-1].set_xticks(ticks, shown)
        return svg(figure, "series", f"{len(channels)} channels over {length:,} steps: {', '.join(channels)}.")
