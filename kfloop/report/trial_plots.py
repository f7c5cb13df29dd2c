"""The plots of what was tried with the models: corrupted rows, their cost, and what their answers rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from kfloop.report.figures import BAD, FIRST, INK, MUTED, OF_MODEL, canvas, svg
from kfloop.report.plots import named_rows
from kfloop.report.values import Interval, decimal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW = 0.27  # inches for one row of a plot with names on its left
_WIDTH = 4.7
_FAR = 10.0  # times as much: from here on a scale of powers of ten
_ASIDE = 0.05  # by how much models stand beside each other at one severity


def robustness(name: str, title: str, severities: Sequence[float], curves: Mapping[str, Sequence[Interval]]) -> str:
    """The main figure over the severity of a corruption, by model, with intervals.

    Args:
        name: Unique name of the plot.
        title: The corruption.
        severities: 0 is the rows as they are.
        curves: By model, in the order of ``severities``.
    """
    with canvas(_WIDTH, 2.4) as (figure, (axes,)):
        for place, (model, found) in enumerate(curves.items()):
            colour = OF_MODEL.get(model, MUTED)
            known = [(at, one) for at, one in zip(severities, found, strict=True) if one.value is not None]
            at = [point + _ASIDE * (place - (len(curves) - 1) / 2) for point, _ in known]
            axes.plot(at, [one.value or 0.0 for _, one in known], color=colour, marker="o", markersize=4.5, label=model)
            for x, (_, one) in zip(at, known, strict=True):
                if one.low is not None and one.high is not None:
                    axes.plot([x, x], [one.low, one.high], color=colour, linewidth=1.2, alpha=0.7)
        axes.set_xticks(list(severities), ["as it is" if not point else f"{point:g}" for point in severities])
        axes.set_title(title)
        axes.set_xlabel("severity")
        axes.locator_params(axis="y", nbins=5)
        figure.legend(loc="outside upper left", ncols=3, handlelength=1, labelcolor=INK)
        ends = [f"{model} from {found[0]} to {found[-1]}" for model, found in curves.items() if found]
        return svg(figure, name, f"{title}: {', '.join(ends)}.")


def cost_and_quality(name: str, figure_name: str, cost_name: str, points: Mapping[str, tuple[float, Interval]]) -> str:
    """The main figure with its interval over what the model costs, one point for each model.

    Args:
        name: Unique name of the plot.
        figure_name: The main figure, in words.
        cost_name: What is on the horizontal axis, with its unit.
        points: Cost and figure by model.
    """
    with canvas(_WIDTH, 2.8) as (figure, (axes,)):
        for model, (cost, found) in points.items():
            if found.value is None:
                continue
            colour = OF_MODEL.get(model, MUTED)
            if found.low is not None and found.high is not None:
                axes.plot([cost, cost], [found.low, found.high], color=colour, linewidth=2.2, solid_capstyle="butt")
            axes.plot([cost], [found.value], marker="o", markersize=7, color=colour, linestyle="none", label=model)
        costs = [cost for cost, _ in points.values()]
        if min(costs) > 0 and max(costs) / min(costs) >= _FAR:
            axes.set_xscale("log")
            axes.margins(x=0.3)
            # Plain numbers: the report's text knows no formulas, and minor ones would stand on each other.
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_formatter(lambda _value, _place: "")
        else:
            axes.set_xlim(0, max(costs) * 1.35 or 1)
        axes.margins(y=0.15)
        axes.set(xlabel=cost_name, title=figure_name)
        # Not beside the points: they may lie on each other.
        figure.legend(loc="outside upper left", ncols=3, handlelength=1, labelcolor=INK)
        axes.locator_params(axis="y", nbins=5)
        said = ", ".join(f"{model} {decimal(cost)} and {found}" for model, (cost, found) in points.items())
        return svg(figure, name, f"{cost_name} and {figure_name}: {said}.")


def importance(name: str, title: str, estimates: Mapping[str, Interval]) -> str:
    """Bars with intervals, one for each column of a table.

    Args:
        name: Unique name of the plot.
        title: What the bars say.
        estimates: By column, in the order shown.
    """
    with canvas(_WIDTH * 1.35, 0.75 + _ROW * len(estimates)) as (figure, (axes,)):
        for place, found in enumerate(estimates.values()):
            if found.value is None:
                continue
            axes.barh(place, found.value, height=0.62, color=FIRST, alpha=0.55)
            if found.low is not None and found.high is not None:
                axes.plot([found.low, found.high], [place, place], color=INK, linewidth=1.4, solid_capstyle="butt")
        axes.axvline(0, color=MUTED, linewidth=1)
        named_rows(axes, list(estimates))
        axes.set_xlabel(title)
        said = ", ".join(f"{row} {found}" for row, found in list(estimates.items())[:12])
        return svg(figure, name, f"{title}: {said}.")


def signed(name: str, title: str, weights: Mapping[str, float]) -> str:
    """What pushed one answer up (to the right) and down.

    Args:
        name: Unique name of the plot.
        title: What the weights are.
        weights: By part, in the order shown.
    """
    with canvas(_WIDTH, 0.75 + _ROW * len(weights)) as (figure, (axes,)):
        colours = [FIRST if value >= 0 else BAD for value in weights.values()]
        axes.barh(range(len(weights)), list(weights.values()), height=0.62, color=colours, alpha=0.75)
        axes.axvline(0, color=MUTED, linewidth=1)
        named_rows(axes, list(weights))
        axes.set_xlabel(title)
        axes.locator_params(axis="x", nbins=4)
        said = ", ".join(f"{part} {value:.2g}" for part, value in list(weights.items())[:12])
        return svg(figure, name, f"{title}: {said}.")


def shaded(
    name: str,
    channels: Sequence[tuple[str, Sequence[float | None], Sequence[float]]],
    *,
    filled: bool,
    seconds: float | None = None,
) -> str:
    """Curves whose pieces are shaded by their weight: blue for the answer, red against it, all channels on one scale.

    Args:
        name: Unique name of the plot.
        channels: Name, values (None for a gap) and weights of each.
        filled: Whether the values are loudness, drawn as an area.
        seconds: How long that takes, where it is known; else steps are counted.
    """
    largest = max((abs(weight) for _, _, weights in channels for weight in weights), default=0.0) or 1.0
    with canvas(_WIDTH, 0.35 + 1.05 * len(channels), columns=1) as (figure, (first,)):
        first.remove()
        for place, (channel, values, weights) in enumerate(channels, start=1):
            axes = figure.add_subplot(len(channels), 1, place)
            steps = list(range(len(values)))
            drawn = [float("nan") if value is None else value for value in values]
            if filled:
                axes.fill_between(steps, drawn, [-value for value in drawn], color=INK, linewidth=0)
                axes.set_yticks([])
            else:
                axes.plot(steps, drawn, color=INK, linewidth=1.2)
                axes.locator_params(axis="y", nbins=3)
            _pieces(axes, weights, largest)
            if seconds is not None:
                axes.xaxis.set_major_formatter(partial(_as_seconds, seconds / max(1, len(values))))
            axes.set_xlim(-0.5, len(values) - 0.5)
            axes.set_title(channel)
            axes.grid(visible=False)
            axes.locator_params(axis="x", nbins=6, integer=True)
        return svg(
            figure, name, f"{', '.join(channel for channel, _, _ in channels)} with the pieces that mattered shaded."
        )


def _as_seconds(each: float, at: float, _: int | None = None) -> str:
    return f"{at * each:.1f} s"


def _pieces(axes: Axes, weights: Sequence[float], largest: float) -> None:
    """Shade runs of like weight."""
    start = 0
    for place in range(1, len(weights) + 1):
        if place < len(weights) and abs(weights[place] - weights[start]) < 0.02 * largest:
            continue
        share = abs(weights[start]) / largest
        if share > 0.02:  # noqa: PLR2004  # fainter is not seen
            colour = FIRST if weights[start] > 0 else BAD
            axes.axvspan(start - 0.5, place - 0.5, color=colour, alpha=0.55 * share, linewidth=0, zorder=0)
        start = place
