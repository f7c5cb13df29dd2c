"""Small drawings of one example each, as inline SVG of a few hundred bytes: a curve, a sound, a graph; and sounds to listen to."""

from __future__ import annotations

import base64
import html
import io
import math
import wave
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

WIDTH, HEIGHT = 176.0, 48.0
LONGEST_SECONDS = 2.0
HIGHEST_RATE = 8000  # samples per second of what is played: intelligible, and 43 kB for two seconds
MOST_POINTS = 88
MOST_NODES = 80
_SIDE = 96.0
_NOISE = 64  # of 32768: below this a sound is silence, and its noise is not blown up


def _svg(body: str, alt: str, width: float = WIDTH, height: float = HEIGHT) -> str:
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return f'<svg class="small" role="img" aria-label="{html.escape(alt)}" {size}>{body}</svg>'


def curve(values: NDArray[Any], alt: str) -> str:
    """The values as a line from left to right; gaps where they are not finite; long ones are averaged."""
    import numpy as np

    points = _shortened(np.asarray(values, dtype=np.float64))
    finite = points[np.isfinite(points)]
    if not len(finite):
        return ""
    low, high = float(finite.min()), float(finite.max())
    span = (high - low) or 1.0
    step = WIDTH / max(1, len(points) - 1)
    path, pen = "", "M"
    for place, value in enumerate(points):
        if not math.isfinite(value):
            pen = "M"
            continue
        path += f"{pen}{place * step:.1f} {HEIGHT - 3 - (value - low) / span * (HEIGHT - 6):.1f}"
        pen = "L"
    return _svg(f'<path d="{path}" fill="none" stroke="var(--first)" stroke-width="1.3"/>', alt)


def _shortened(values: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    if len(values) <= MOST_POINTS:
        return values
    edges = np.linspace(0, len(values), MOST_POINTS + 1).astype(int)
    parts = [part[np.isfinite(part)] for part in np.split(values, edges[1:-1])]
    return np.array([part.mean() if len(part) else np.nan for part in parts])


def waveform(samples: NDArray[Any], alt: str) -> str:
    """The loudest sample of each stretch of a sound, mirrored, as tall as the drawing: a quiet sound has a shape too.

    Args:
        samples: int16 [N].
        alt: What it is.
    """
    import numpy as np

    if not len(samples):
        return ""
    edges = np.linspace(0, len(samples), min(MOST_POINTS, len(samples)) + 1).astype(int)
    peaks = np.maximum.reduceat(np.abs(samples.astype(np.int32)), edges[:-1])
    peaks = peaks / max(int(peaks.max()), _NOISE)
    step, middle = WIDTH / len(peaks), HEIGHT / 2
    path = "".join(
        f"M{(place + 0.5) * step:.1f} {middle - max(0.6, peak * (middle - 1)):.1f}V{middle + max(0.6, peak * (middle - 1)):.1f}"
        for place, peak in enumerate(peaks)
    )
    return _svg(f'<path d="{path}" stroke="var(--first)" stroke-width="{step * 0.62:.2f}"/>', alt)


def wav_uri(samples: NDArray[Any], rate: int) -> str:
    """The first seconds of a sound as a WAV ``data:`` URI, at most at 8 kHz.

    Args:
        samples: int16 [N].
        rate: Samples per second.
    """
    import numpy as np

    cut = samples[: int(rate * LONGEST_SECONDS)]
    stretch = -(-rate // HIGHEST_RATE)
    if stretch > 1:  # the mean over each stretch is a low-pass good enough to listen to
        cut = cut[: len(cut) // stretch * stretch].reshape(-1, stretch).mean(axis=1).astype(np.int16)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(max(1, round(rate / stretch)))
        sound.writeframes(cut.astype("<i2").tobytes())
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def graph(nodes: int, edges: NDArray[Any], alt: str, weights: Sequence[float] = ()) -> str:
    """A small graph, its nodes on a circle in their order.

    Args:
        nodes: Number of nodes.
        edges: Pairs of nodes, int64 [M, 2]; those that point outside are left out.
        alt: What it is.
        weights: Of each node, if any: blue for those above 0, red for those below, the stronger the darker.
    """
    if not 0 < nodes <= MOST_NODES:
        return ""
    radius, middle = _SIDE / 2 - 6, _SIDE / 2
    turn = [2 * math.pi * place / nodes for place in range(nodes)]
    at = [(middle + radius * math.sin(angle), middle - radius * math.cos(angle)) for angle in turn]
    kept = [(int(a), int(b)) for a, b in edges.tolist() if 0 <= a < nodes and 0 <= b < nodes]
    lines = "".join(f"M{at[a][0]:.1f} {at[a][1]:.1f}L{at[b][0]:.1f} {at[b][1]:.1f}" for a, b in dict.fromkeys(kept))
    size = 3.2 if nodes <= MOST_NODES // 3 else 2.0
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}"/>' for x, y in at)
    if len(weights) == nodes:
        largest = max(map(abs, weights)) or 1.0
        dots = "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size + 1}" fill="var(--card)" stroke="var(--muted)" stroke-width="0.7"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size + 1}" fill="var({"--first" if weight > 0 else "--bad"})" '
            f'fill-opacity="{abs(weight) / largest:.2f}"/>'
            for (x, y), weight in zip(at, weights, strict=True)
        )
    drawn = f'<path d="{lines}" stroke="var(--muted)" stroke-width="0.9" fill="none"/><g fill="var(--first)">{dots}</g>'
    return _svg(drawn, alt, _SIDE, _SIDE)
