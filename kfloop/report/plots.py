"""The plots of a report: each takes plain numbers and gives an inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kfloop.report.figures import BAD, FIRST, INK, MUTED, OF_MODEL, SECOND, SERIES, THIRD, canvas, svg
from kfloop.report.values import Interval, decimal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW = 0.27  # inches for one row of a plot with names on its left
_WIDTH = 4.7  # inches: two such plots stand side by side in the page at their natural size
_NAME_LENGTH = 28
_MARKED = 40  # points of a curve up to which each is marked


class Judged(NamedTuple):
    """A row of a forest plot.

    Attributes:
        name: What was judged.
        found: The figure with its interval.
        threshold: What was asked for.
        state: ``pass``, ``fail`` or ``not evaluated``.
    """

    name: str
    found: Interval
    threshold: float
    state: str


def _name(value: str) -> str:
    return value if len(value) <= _NAME_LENGTH else value[: _NAME_LENGTH - 3] + "..."


def named_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names on the left, the first on top, without a frame."""
    axes.set_yticks(range(len(names)), [_name(name) for name in names], color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def class_counts(labels: Sequence[str], splits: Mapping[str, Sequence[float]]) -> str:
    """Rows of each class, stacked by split.

    Args:
        labels: Names of the classes.
        splits: Counts by split, each in the order of ``labels``.
    """
    with canvas(_WIDTH, 0.75 + _ROW * len(labels)) as (figure, (axes,)):
        left = [0.0] * len(labels)
        for colour, (split, counts) in zip(SERIES, splits.items(), strict=False):
            axes.barh(range(len(labels)), counts, left=left, height=0.68, color=colour, label=split)
            left = [start + size for start, size in zip(left, counts, strict=True)]
        named_rows(axes, labels)
        axes.set_xlabel("rows")
        figure.legend(loc="outside upper left", ncols=3, handlelength=1, labelcolor=INK)
        largest = max(range(len(left)), key=left.__getitem__)
        alt = f"Rows per class by split, {len(labels)} classes; the largest is {labels[largest]} with {left[largest]:,.0f}."
        return svg(figure, "class-counts", alt)


def history(
    epochs: Sequence[float], panels: Mapping[str, Mapping[str, Sequence[float | None]]], best: float | None
) -> str:
    """Training curves, one panel for each figure.

    Args:
        epochs: Numbers of the epochs.
        panels: By figure, such as ``loss``: its curves, such as ``train`` and ``validation``, by epoch; None where there is no value.
        best: The epoch whose weights were kept.
    """
    from matplotlib.ticker import MaxNLocator

    width = min(4.4 * len(panels), 8.9)
    with canvas(width, 2.7, columns=len(panels)) as (figure, places):
        for axes, (title, curves) in zip(places, panels.items(), strict=True):
            # The first curve of two is that of the training rows: what counts is the other one.
            colours = (SECOND, FIRST, THIRD) if len(curves) > 1 else (FIRST,)
            for colour, (label, values) in zip(colours, curves.items(), strict=False):
                _curve(axes, epochs, values, label, colour)
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if best is not None:
                axes.axvline(best, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), label="epoch kept")
            if axes.get_legend_handles_labels()[0]:
                axes.legend(labelcolor=INK)
        ends = []
        for title, curves in panels.items():
            label, values = list(curves.items())[-1]
            last = [value for value in values if value is not None]
            if last:
                ends.append(f"{label} {title} ends at {decimal(last[-1])}")
        return svg(figure, "history", f"Training curves over {len(epochs)} epochs; {', '.join(ends)}.")


def _curve(axes: Axes, epochs: Sequence[float], values: Sequence[float | None], label: str, colour: str) -> None:
    points = [(epoch, value) for epoch, value in zip(epochs, values, strict=False) if value is not None]
    if points:
        size = 3.5 if len(points) <= _MARKED else 0
        axes.plot(*zip(*points, strict=True), color=colour, label=label, marker="o", markersize=size)


def intervals(name: str, title: str, estimates: Mapping[str, Interval]) -> str:
    """One metric of several models: a dot for the value, a line for its interval.

    Args:
        name: Unique name of the plot.
        title: The metric.
        estimates: By model, in the order shown.
    """
    with canvas(_WIDTH, 0.72 + _ROW * len(estimates)) as (figure, (axes,)):
        for place, (model, found) in enumerate(estimates.items()):
            _dot(axes, place, found, OF_MODEL.get(model, FIRST))
        named_rows(axes, list(estimates))
        axes.locator_params(axis="x", nbins=5)
        axes.margins(x=0.08)
        axes.set_title(title)
        said = ", ".join(f"{model} {found}" for model, found in estimates.items())
        return svg(figure, name, f"{title}: {said}.")


def differences(name: str, title: str, estimates: Mapping[str, Interval]) -> str:
    """Differences with their intervals around a line at zero, one row each.

    Args:
        name: Unique name of the plot.
        title: What is compared, and the unit.
        estimates: By row.
    """
    with canvas(_WIDTH, 0.72 + _ROW * len(estimates)) as (figure, (axes,)):
        axes.axvline(0, color=MUTED, linewidth=1)
        for place, found in enumerate(estimates.values()):
            _dot(axes, place, found, FIRST)
        named_rows(axes, list(estimates))
        axes.margins(x=0.08)
        axes.set_title(title)
        said = ", ".join(f"{row} {found}" for row, found in list(estimates.items())[:12])
        return svg(figure, name, f"{title}: {said}.")


def forest(name: str, title: str, lines: Sequence[Judged], *, percent: bool = False) -> str:
    """Judged figures with their intervals, one row each: what was found, what was asked for, and whether it was met.

    Args:
        name: Unique name of the plot.
        title: What is judged.
        lines: One for each row.
        percent: Whether the figures are shares, to be read in percent.
    """
    from matplotlib.ticker import PercentFormatter

    colours = {"pass": FIRST, "fail": BAD}
    with canvas(_WIDTH, 0.95 + _ROW * len(lines)) as (figure, (axes,)):
        axes.axvline(0, color=MUTED, linewidth=1)
        for place, line in enumerate(lines):
            _dot(axes, place, line.found, colours.get(line.state, MUTED))
            axes.plot(
                [line.threshold], [place], marker="|", markersize=15, markeredgewidth=2, color=INK, linestyle="none"
            )
        named_rows(axes, [line.name for line in lines])
        axes.locator_params(axis="x", nbins=5)
        axes.margins(x=0.08)
        if percent:
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_title(title)
        axes.set_xlabel("bar: what the rule asks for; blue passes, red fails", fontsize="small")
        said = "; ".join(
            f"{line.name} {line.found}, asked {decimal(line.threshold)}: {line.state}" for line in lines[:12]
        )
        return svg(figure, name, f"{title}: {said}.")


def _dot(axes: Axes, place: int, found: Interval, colour: str) -> None:
    if found.value is None:
        return
    if found.low is not None and found.high is not None:
        axes.plot([found.low, found.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
    axes.plot([found.value], [place], marker="o", markersize=6.5, color=colour, linestyle="none")


def calibration(bins: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Observed accuracy over stated confidence, by model; on the diagonal both agree.

    Args:
        bins: For each model its points (mean confidence, accuracy).
    """
    with canvas(4.4, 3.6) as (figure, (axes,)):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        for model, points in bins.items():
            axes.plot(
                *zip(*points, strict=True), color=OF_MODEL.get(model, FIRST), marker="o", markersize=4.5, label=model
            )
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
        axes.legend(labelcolor=INK, loc="upper left")
        alt = "Calibration: accuracy over confidence, for " + ", ".join(
            f"{name} ({len(p)} bins)" for name, p in bins.items()
        )
        return svg(figure, "calibration", alt + ".")


def effects(shifts: Mapping[str, float]) -> str:
    """How far each watched quantity moved, in standard deviations of the reference.

    Args:
        shifts: By name, in the order shown.
    """
    with canvas(_WIDTH, 0.75 + _ROW * len(shifts)) as (figure, (axes,)):
        axes.barh(range(len(shifts)), list(shifts.values()), height=0.62, color=FIRST)
        axes.axvline(0, color=MUTED, linewidth=1)
        named_rows(axes, list(shifts))
        axes.set_xlabel("shift in standard deviations")
        said = ", ".join(f"{name} {value:.2f}" for name, value in list(shifts.items())[:12])
        return svg(figure, "effects", f"Shift in standard deviations: {said}.")
