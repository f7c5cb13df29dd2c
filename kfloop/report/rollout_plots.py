"""The plots of a roll-out: what its looks found, over the requests that both answered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kfloop.report.figures import BAD, FIRST, INK, SECOND, canvas, svg
from kfloop.report.values import decimal

_DASH = (0, (4, 3))
STYLES = {"errors": (FIRST, "-"), "latency": (SECOND, "-"), "disagreement": (FIRST, ":"), "quality": (SECOND, ":")}
_MARKED = 30  # looks up to which each is marked
_HIGHEST = 12.0  # powers of ten: more tells nobody more, and would flatten everything below
_SPELLED = 4  # powers of ten up to which a number is written out

Points = Sequence[tuple[float, float]]


def evidence(title: str, lines: Mapping[str, Points], needed: float, name: str) -> str:
    """Evidence of each question over the requests, on a logarithmic axis, and how much is needed.

    Args:
        title: What the evidence is for.
        lines: By question, its points (requests, evidence).
        needed: Evidence at which it is shown.
        name: Unique name of the plot.
    """
    from matplotlib.ticker import MaxNLocator

    limit = math.log10(needed)
    with canvas(4.7, 2.9) as (figure, (axes,)):
        top = limit
        for question, points in lines.items():
            logs = [min(math.log10(max(value, 1e-12)), _HIGHEST) for _, value in points]
            top = max([top, *logs])
            colour, style = STYLES.get(question, (INK, "-"))
            axes.plot(
                [at for at, _ in points],
                logs,
                color=colour,
                linestyle=style,
                marker="o" if len(points) <= _MARKED else None,
                markersize=3.5,
                label=question,
            )
        axes.axhline(limit, color=BAD, linewidth=1.4, linestyle=_DASH)
        axes.annotate(
            f"shown from {decimal(needed, 0)} on",
            (1, limit),
            xycoords=("axes fraction", "data"),
            xytext=(-2, -4),
            textcoords="offset points",
            ha="right",
            va="top",
            color=BAD,
        )
        axes.set_ylim(-0.08 * (top + 0.5), 1.14 * (top + 0.1))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.yaxis.set_major_formatter(lambda value, _: f"{10**value:,.0f}" if value < _SPELLED else f"1e{value:.0f}")
        axes.locator_params(axis="x", nbins=5)
        axes.set_title(title)
        axes.set_xlabel("requests that both answered")
        figure.legend(loc="outside lower left", ncols=4, handlelength=1.2, labelcolor=INK)
        last = "; ".join(f"{question} {points[-1][1]:.3g}" for question, points in lines.items())
        return svg(
            figure,
            name,
            f"{title}, over {len(next(iter(lines.values())))} looks; {needed:.3g} is needed. Last: {last}.",
        )
