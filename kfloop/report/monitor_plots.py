"""The plots of monitoring, over the time of the requests: evidence, quality with its band, how late truth comes, volume."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from kfloop.report.figures import BAD, FIRST, GRID, INK, MUTED, SECOND, canvas, svg
from kfloop.report.plots import named_rows
from kfloop.report.values import Interval, count, decimal, moment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASH = (0, (4, 3))
_WIDE, _HALF = 8.6, 4.7
_MARKED = 40  # points of a curve up to which each is marked
_TICKS = 6
_DAY = 86_400.0
_STEPS = (
    *(3600.0 * hours for hours in (0.25, 1, 2, 3, 6, 12)),
    *(_DAY * days for days in (1, 2, 7, 14, 30, 91, 182, 365, 3650)),
)
_HIGHEST = 60.0  # evidence of e^60 says no more than that: what lies below it stays readable


class Point(NamedTuple):
    """A figure at a time.

    Attributes:
        at: Unix time.
        value: The figure.
        low: Lower end of its interval; the value itself where it has none.
        high: Upper end.
    """

    at: float
    value: float
    low: float
    high: float


def evidence(points: Sequence[tuple[float, float]], limit: float | None, declared: float | None) -> str:
    """The evidence over time, the threshold at which drift is declared, and the moment when it was.

    Args:
        points: Unix time and natural logarithm of the evidence.
        limit: Logarithm of the threshold.
        declared: Unix time at which drift was declared.
    """
    with canvas(_WIDE, 2.9) as (figure, (axes,)):
        values = [max(-_HIGHEST, min(value, _HIGHEST)) for _, value in points]
        marker = "o" if len(points) <= _MARKED else None
        axes.plot([at for at, _ in points], values, color=FIRST, marker=marker, markersize=4)
        if limit is not None:
            axes.axhline(limit, color=BAD, linewidth=1.4, linestyle=_DASH)
            _say(axes, f"drift is declared here ({decimal(limit, 2)})", (0, limit), ("axes fraction", "data"), BAD)
            low, high = min(*values, limit, 0), max(*values, limit, 0)
            axes.set_ylim(low - 0.06 * (high - low + 1), high + 0.16 * (high - low + 1))
        else:
            axes.axhline(0, color=GRID, linewidth=1)
        if declared is not None:
            axes.axvline(declared, color=INK, linewidth=1.2, linestyle=(0, (1, 2)))
            _say(axes, "declared", (declared, 1), ("data", "axes fraction"), INK, down=True)
        axes.set_ylabel("log of the evidence")
        _time_axis(axes, [at for at, _ in points])
        said = f"Log e-value over {len(points)} rounds, last {decimal(points[-1][1], 2)}."
        said += "" if limit is None else f" The threshold is {decimal(limit, 2)}."
        said += "" if declared is None else f" Drift was declared at {moment(declared)}."
        return svg(figure, "log-evidence", said)


def quality(
    curves: Mapping[str, Sequence[Point]], title: str, reference: float | None, floors: Mapping[str, float]
) -> str:
    """Estimated and realised quality over time with their bands, the reference, and the fall that matters.

    Args:
        curves: By name, ``estimated`` or ``realised``.
        title: What quality is.
        reference: Of the reference.
        floors: By name, the quality at which a fall begins to matter.
    """
    colours = {"estimated": FIRST, "realised": SECOND}
    with canvas(_WIDE, 3.0) as (figure, (axes,)):
        for name, points in curves.items():
            times, colour = [point.at for point in points], colours.get(name, MUTED)
            axes.fill_between(times, [p.low for p in points], [p.high for p in points], color=colour, alpha=0.18, lw=0)
            marker = "o" if len(points) <= _MARKED else None
            axes.plot(times, [p.value for p in points], color=colour, marker=marker, markersize=3.5, label=name)
        if reference is not None:
            axes.axhline(reference, color=MUTED, linewidth=1.2, label="reference")
        for name, floor in floors.items():
            axes.axhline(
                floor, color=colours.get(name, MUTED), linewidth=1.2, linestyle=_DASH, label=f"{name} matters below"
            )
        axes.set_title(title)
        figure.legend(loc="outside lower left", ncols=5, labelcolor=INK, handlelength=1.6, fontsize="small")
        _time_axis(axes, [point.at for points in curves.values() for point in points])
        said = "; ".join(f"{name} {decimal(points[-1].value)} at last" for name, points in curves.items() if points)
        fall = "" if reference is None else f"; reference {decimal(reference)}"
        return svg(figure, "quality", f"{title} over time: {said}{fall}.")


def known_after(shares: Mapping[str, Interval]) -> str:
    """How many of the requests have a known truth after a while.

    Args:
        shares: By length of the wait, shortest first.
    """
    from matplotlib.ticker import PercentFormatter

    with canvas(_HALF, 2.4) as (figure, (axes,)):
        places = range(len(shares))
        values = [found.value or 0.0 for found in shares.values()]
        axes.bar(places, values, width=0.6, color=FIRST)
        for place, found in zip(places, shares.values(), strict=True):
            if found.low is not None and found.high is not None:
                axes.plot([place, place], [found.low, found.high], color=INK, linewidth=1.2)
        axes.set_xticks(list(places), list(shares))
        axes.set_ylim(0, min(1.0, max(*values, *(found.high or 0.0 for found in shares.values()), 0.05) * 1.1))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(visible=False, axis="x")
        axes.set_title("Requests whose truth is known, by age")
        said = ", ".join(f"after {wait} {found}" for wait, found in shares.items())
        return svg(figure, "known-after", f"Share of requests whose truth is known: {said}.")


def moved_to(shares: Mapping[str, tuple[float, float]]) -> str:
    """Share of the rows in each part that grew, before and now.

    Args:
        shares: By part: in the reference, and in the latest requests.
    """
    from matplotlib.ticker import PercentFormatter

    with canvas(_HALF, 1.1 + 0.45 * len(shares)) as (figure, (axes,)):
        places = range(len(shares))
        for offset, held, colour, name in ((-0.19, 0, MUTED, "before"), (0.19, 1, FIRST, "now")):
            values = [pair[held] for pair in shares.values()]
            axes.barh([place + offset for place in places], values, height=0.34, color=colour, label=name)
        named_rows(axes, list(shares))
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_title("Share of the rows")
        figure.legend(loc="outside lower left", ncols=2, labelcolor=INK, handlelength=1.2, fontsize="small")
        said = ", ".join(f"{name} from {100 * old:.0f} % to {100 * new:.0f} %" for name, (old, new) in shares.items())
        return svg(figure, "moved-to", f"Where requests moved to: {said}.")


def volume(hours: Sequence[tuple[float, float]]) -> str:
    """Requests by the hour.

    Args:
        hours: Unix time of the beginning of each hour, and rows in it.
    """
    with canvas(_HALF, 2.4) as (figure, (axes,)):
        axes.bar([at for at, _ in hours], [n for _, n in hours], width=3600, align="edge", color=FIRST, linewidth=0)
        axes.set_title("Rows an hour")
        axes.margins(x=0.02)
        axes.set_ylim(0, max(n for _, n in hours) * 1.12 or 1.0)
        axes.grid(visible=False, axis="x")
        _time_axis(axes, [hours[0][0], hours[-1][0] + 3600], ticks=3)
        most = max(n for _, n in hours)
        return svg(figure, "volume", f"Rows an hour over {len(hours)} hours with requests, at most {count(most)}.")


def _say(
    axes: Axes, words: str, at: tuple[float, float], by: tuple[str, str], colour: str, *, down: bool = False
) -> None:
    offset = (4, -3) if down else (4, 4)
    axes.annotate(
        words,
        at,
        xycoords=by,
        xytext=offset,
        textcoords="offset points",
        ha="left",
        va="top" if down else "bottom",
        color=colour,
    )


def _time_axis(axes: Axes, times: Sequence[float], ticks: int = _TICKS) -> None:
    """Dates under the axis; times of day, too, where all is within a few days. Written here: matplotlib's own depend on where it runs."""
    first, last = min(times), max(times)
    if last <= first:
        axes.set_xticks([first], [_date(first, clock=True)])
        return
    step = next((step for step in _STEPS if (last - first) / step <= ticks), _STEPS[-1])
    begin = math.ceil(first / step) * step
    places = [begin + step * place for place in range(int((last - begin) // step) + 1)][: 2 * ticks]
    axes.set_xticks(places, [_date(place, clock=step < _DAY) for place in places])


def _date(at: float, *, clock: bool) -> str:
    found = datetime.fromtimestamp(at, UTC)
    return f"{found:%Y-%m-%d}\n{found:%H:%M}" if clock else f"{found:%Y-%m-%d}"
