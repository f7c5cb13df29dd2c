"""The plot of a replay: accuracy, evidence and retrainings over the time of the rows, one below the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kfloop.report.figures import BAD, FIRST, INK, MUTED, SECOND, THIRD, canvas, svg
from kfloop.report.values import decimal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {"monitor": (FIRST, "-"), "always": (SECOND, "-"), "every": (SECOND, (0, (1.2, 1.6))), "never": (THIRD, "-")}
_WIDTH = 10.6
_DASH = (0, (4, 3))
_PANELS = (3.1, 1.7)  # inches: accuracy, evidence
_ABOVE = 5  # powers of ten above the threshold that are drawn
_LINE = 0.24  # inches for one policy's retrainings

Times = Sequence[datetime]


@dataclass(frozen=True, kw_only=True)
class Course:
    """A replay over time.

    Attributes:
        times: End of each window.
        accuracy: By policy, its accuracy at each of them (None without labels).
        smoothed: Windows that each accuracy is the mean of.
        trained: By policy, when it trained.
        promoted: When a model of the monitor's took over.
        evidence: When the monitor looked, and its evidence as a power of ten.
        threshold: Evidence at which drift is declared, likewise; None where nothing was watched.
    """

    times: Times
    accuracy: Mapping[str, Sequence[float | None]]
    smoothed: int
    trained: Mapping[str, Times]
    promoted: Times
    evidence: Sequence[tuple[datetime, float]]
    threshold: float | None


def course(shown: Course) -> str:
    """The plot.

    Args:
        shown: What is drawn.
    """
    watched = shown.threshold is not None and len(shown.evidence) > 0
    heights = [_PANELS[0], *([_PANELS[1]] if watched else []), 0.35 + _LINE * len(shown.trained)]
    with canvas(_WIDTH, sum(heights) + 0.9) as (figure, _):
        figure.clear()
        places = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
        for place, at in enumerate(shown.promoted):
            for axes in places[:-1]:
                label = "monitor's model takes over" if place == 0 and axes is places[0] else None
                axes.axvline(at, color=FIRST, linewidth=0.9, alpha=0.4, label=label)
        _accuracy(places[0], shown)
        if watched and shown.threshold is not None:
            _evidence(places[1], shown, shown.threshold)
        _trained(places[-1], shown.trained)
        _dates(places[-1])
        figure.legend(loc="outside lower left", ncols=6, handlelength=1.8, labelcolor=INK)
        return svg(figure, "simulated", _said(shown))


def _accuracy(axes: Axes, shown: Course) -> None:
    for policy, values in shown.accuracy.items():
        colour, style = STYLES.get(policy, (INK, "-"))
        points = [(at, value) for at, value in zip(shown.times, values, strict=True) if value is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, linestyle=style, linewidth=1.5, label=policy)
    axes.set_title("Accuracy" if shown.smoothed == 1 else f"Accuracy, mean of {shown.smoothed} windows")


def _evidence(axes: Axes, shown: Course, threshold: float) -> None:
    """Evidence begins anew with each champion; how far above the threshold it is tells nobody more."""
    highest = threshold + _ABOVE
    axes.axhline(threshold, color=BAD, linewidth=1.4, linestyle=_DASH, label="drift is declared")
    times, values = zip(*shown.evidence, strict=True)
    axes.plot(times, [min(value, highest) for value in values], color=FIRST, linewidth=1.4)
    axes.set_ylim(top=1.1 * highest)
    axes.locator_params(axis="y", nbins=5, integer=True)
    axes.yaxis.set_major_formatter(lambda value, _: f"1e{value:.0f}")
    axes.set_title("The monitor's evidence of drift (cut where it is far above)")


def _trained(axes: Axes, trained: Mapping[str, Any]) -> None:  # matplotlib takes times, its types do not
    for place, (policy, moments) in enumerate(trained.items()):
        colour, _ = STYLES.get(policy, (INK, "-"))
        axes.plot(
            moments,
            [place] * len(moments),
            color=colour,
            marker="|",
            markersize=9,
            markeredgewidth=1.6,
            linestyle="none",
        )
    axes.set_yticks(range(len(trained)), list(trained), color=INK)
    axes.set_ylim(len(trained) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_title("Retrainings")


def _dates(axes: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.xaxis.get_offset_text().set_color(MUTED)


def _said(shown: Course) -> str:
    ends = [
        f"{policy} from {decimal(known[0])} to {decimal(known[-1])}"
        for policy, values in shown.accuracy.items()
        if (known := [value for value in values if value is not None])
    ]
    counts = [f"{policy} {len(moments)}" for policy, moments in shown.trained.items()]
    return f"Accuracy over {len(shown.times)} windows: {', '.join(ends)}. Retrainings: {', '.join(counts)}."
