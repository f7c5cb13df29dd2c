"""Matplotlib figures as inline SVG that follows the page: its colours by light or dark mode, its font, no outside resource.

A figure is drawn in stand-in colours, one for each role, which then become CSS variables; the page decides what they look like. The
result is the same text for the same numbers: no date, ids salted by the figure's name, no global matplotlib state left behind.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Pure black is left out: matplotlib does not write it, taking it for the default of SVG.
INK, MUTED, GRID, FIRST, SECOND, THIRD, BAD = (f"#{level:02x}{level:02x}{level:02x}" for level in range(1, 8))
ROLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    FIRST: "--first",
    SECOND: "--second",
    THIRD: "--third",
    BAD: "--bad",
}
SERIES = (FIRST, SECOND, THIRD)
OF_MODEL = {"challenger": FIRST, "baseline": SECOND, "champion": THIRD}  # the same in every plot
TEXT_SIZE = 9.5  # points; shown at natural size this is about 13 CSS pixels

_SETTINGS: Any = {  # matplotlib types its names one by one
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": TEXT_SIZE,
    "text.parse_math": False,  # a class named "$x$" is a name, not a formula
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.titlesize": TEXT_SIZE,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


LEAST_PX = 560  # CSS pixels below which a wide figure is not shrunk


@contextmanager
def canvas(width: float, height: float, *, columns: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure in the report's style with ``columns`` axes side by side.

    Args:
        width: In inches of 72 points, about 96 CSS pixels each.
        height: Likewise.
        columns: How many axes.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, [figure.add_subplot(1, columns, place) for place in range(1, columns + 1)]


def svg(figure: Figure, name: str, alt: str) -> str:
    """The figure as an ``<svg>`` element for an HTML page; every text in it is escaped.

    Args:
        figure: Drawn within ``canvas``.
        name: Unique in the page: it keeps the ids of two figures apart.
        alt: What the figure says, for those who cannot see it.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        # The browser has the glyphs that matplotlib's own font lacks: only text is written, not outlines.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure.patch.set_alpha(0)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawn = buffer.getvalue()
    width, height = figure.get_size_inches() * 72
    body = _inline(drawn[drawn.index("<svg") :])
    # On a small screen a wide figure is scrolled: shrunk to fit, its words could not be read.
    least = f"; --least: {LEAST_PX}px" if width * 96 / 72 > LEAST_PX else ""
    head = (
        f'<svg class="plot" role="img" aria-label="{html.escape(alt)}" viewBox="0 0 {width:g} {height:g}"'
        f' style="max-width: {width * 96 / 72:g}px{least}">'
    )
    return head + body


def _inline(drawn: str) -> str:
    """The inside of matplotlib's SVG, made fit to stand in a page beside others."""
    body = drawn[drawn.index(">") + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # it would style the whole page
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # "axes_1" would stand in the page once for each figure
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r"font: ([0-9.]+)px [^;\"]+", r"font: \1px var(--font)", body)
    for stand_in, variable in ROLES.items():
        body = body.replace(stand_in, f"var({variable})")
    return re.sub(r"\n\s*", "\n", body).strip()
