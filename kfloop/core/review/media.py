"""Examples as something a person can look at or listen to, inside one file that loads nothing.

Everything here ends as plain text or as a ``data:`` URI: PNG for pictures, WAV for sounds, SVG for curves and graphs.
"""

from __future__ import annotations

import base64
import io
import math
import wave
from collections.abc import Mapping
from typing import Any

import numpy as np

SMALLEST_SIDE = 96  # pixels: an 8 by 8 digit is a speck without it
LONGEST_SIDE = 512  # pixels: keeps a sheet of 200 photos below about 50 MB
MOST_SECONDS = 20.0  # of a sound: 16 kHz of it are 0.85 MB of text
MOST_POINTS = 600  # of a curve: as many as a plot has pixels across
MOST_CHANNELS = 8  # of a series, drawn in one plot
MOST_DRAWN = 60  # nodes of a graph that is drawn whole
WIDTH, HEIGHT, PAD = 560, 200, 10
COLORS = ("#2f6fd0", "#c2571a", "#2e8b57", "#8a4fbf", "#b3902b", "#c23b6b", "#3a9aa8", "#6b7280")
MARK = "#c23b6b"


def png_uri(image: np.ndarray) -> str:
    """A picture as a PNG ``data:`` URI, its pixels repeated until the shorter side has at least 96, the longer at most 512.

    Args:
        image: Pixels, uint8 [H, W, C] with C of 1, 3 or 4; other channel counts show the first one.
    """
    from PIL import Image

    height, width, channels = image.shape
    picture = Image.fromarray(np.ascontiguousarray(image if channels in (3, 4) else image[:, :, 0]))
    times = max(1, min(math.ceil(SMALLEST_SIDE / min(height, width)), LONGEST_SIDE // max(height, width)))
    if times > 1:
        picture = picture.resize((width * times, height * times), Image.Resampling.NEAREST)
    elif max(height, width) > LONGEST_SIDE:
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return _uri("image/png", buffer.getvalue())


def wav_uri(samples: np.ndarray, sample_rate: int) -> str:
    """The first seconds of a sound as a WAV ``data:`` URI.

    Args:
        samples: Mono, int16 [N].
        sample_rate: Samples per second.
    """
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(sample_rate)
        stream.writeframes(samples[: int(MOST_SECONDS * sample_rate)].astype("<i2").tobytes())
    return _uri("audio/wav", buffer.getvalue())


def envelope(samples: np.ndarray) -> np.ndarray:
    """Largest loudness of each piece of a sound, as many pieces as a plot has pixels, in [0, 1].

    Args:
        samples: int16 [N].
    """
    loud = np.abs(samples.astype(np.float64)) / -float(np.iinfo(np.int16).min)
    if len(loud) <= MOST_POINTS:
        return loud
    return np.maximum.reduceat(loud, np.linspace(0, len(loud) - 1, MOST_POINTS, endpoint=False).astype(np.int64))


def curves_svg(curves: Mapping[str, np.ndarray], *, mark: int | None = None) -> str:
    """A line plot over the position, one line for each curve, as an SVG ``data:`` URI.

    Each curve has its own scale, which its legend tells: channels of a series rarely share a unit.

    Args:
        curves: Values by name, float [N] of equal length; NaN leaves a gap.
        mark: Position of a vertical line: the row that is asked about.
    """
    values = [np.asarray(value, dtype=np.float64) for value in list(curves.values())[:MOST_CHANNELS]]
    across = (WIDTH - 2 * PAD) / max(max((len(value) for value in values), default=1) - 1, 1)
    parts = []
    if mark is not None:
        x = PAD + mark * across
        parts.append(f'<path d="M{x:.1f} 0V{HEIGHT}" stroke="{MARK}" stroke-width="2" stroke-dasharray="4 3"/>')
    for value, color in zip(values, COLORS, strict=False):
        parts.append(f'<path d="{_path(value, across)}" fill="none" stroke="{color}" stroke-width="1.8"/>')
    return _svg("".join(parts), WIDTH, HEIGHT)


def curve_legend(curves: Mapping[str, np.ndarray]) -> list[dict[str, str]]:
    """Name, color and range of each curve that ``curves_svg`` draws."""
    legend = []
    for index, (name, value) in enumerate(list(curves.items())[:MOST_CHANNELS]):
        finite = np.asarray(value, dtype=np.float64)
        finite = finite[np.isfinite(finite)]
        scale = f"{finite.min():.4g} to {finite.max():.4g}" if finite.size else "no value"
        legend.append({"name": name, "color": COLORS[index], "range": scale})
    return legend


def graph_svg(n_nodes: int, edges: np.ndarray) -> str | None:
    """A graph with its nodes on a circle as an SVG ``data:`` URI; null when it has too many nodes to be looked at.

    Args:
        n_nodes: Number of nodes.
        edges: Source and target of each edge, int64 [M, 2]; those that point nowhere are not drawn.
    """
    if not 0 < n_nodes <= MOST_DRAWN:
        return None
    side = 2 * HEIGHT
    angle = 2 * np.pi * np.arange(n_nodes) / n_nodes
    x = side / 2 + (side / 2 - 2 * PAD) * np.cos(angle)
    y = side / 2 + (side / 2 - 2 * PAD) * np.sin(angle)
    inside = edges[((edges >= 0) & (edges < n_nodes)).all(axis=1)] if len(edges) else edges
    lines = "".join(f"M{x[a]:.0f} {y[a]:.0f}L{x[b]:.0f} {y[b]:.0f}" for a, b in inside)
    dots = "".join(f'<circle cx="{p:.0f}" cy="{q:.0f}" r="6" fill="{COLORS[0]}"/>' for p, q in zip(x, y, strict=True))
    return _svg(f'<path d="{lines}" fill="none" stroke="#8b95a1" stroke-width="1.5"/>{dots}', side, side)


def graph_facts(n_nodes: int, edges: np.ndarray) -> dict[str, Any]:
    """Sizes and degrees of a graph, for a small table.

    Args:
        n_nodes: Number of nodes.
        edges: int64 [M, 2].
    """
    inside = edges[((edges >= 0) & (edges < n_nodes)).all(axis=1)] if len(edges) else edges
    degree = np.bincount(inside.ravel(), minlength=n_nodes) if n_nodes else np.zeros(0, np.int64)
    return {
        "nodes": n_nodes,
        "edges": len(edges),
        "mean degree": round(float(degree.mean()), 2) if n_nodes else None,
        "largest degree": int(degree.max()) if n_nodes else None,
        "isolated nodes": int((degree == 0).sum()),
    }


def plain_row(row: Mapping[str, Any]) -> dict[str, str | float | bool | None]:
    """The values of a row as JSON types; times become text, NaN becomes null."""
    return {name: _plain_value(value) for name, value in row.items()}


def sentence(row: Mapping[str, Any]) -> str:
    """A row as lines of ``name: value``, for places that show text only."""
    return "\n".join(f"{name}: {'(missing)' if value is None else value}" for name, value in row.items())


def _plain_value(value: Any) -> str | float | bool | None:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _path(value: np.ndarray, across: float) -> str:
    """SVG path of one curve, thinned to what a plot can show."""
    finite = value[np.isfinite(value)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    spread = high - low if high > low else 1.0
    step = max(1, math.ceil(len(value) / MOST_POINTS))
    pen, path = "M", []
    for position in range(0, len(value), step):
        if not math.isfinite(value[position]):
            pen = "M"
            continue
        y = HEIGHT - PAD - (float(value[position]) - low) / spread * (HEIGHT - 2 * PAD)
        path.append(f"{pen}{PAD + position * across:.1f} {y:.1f}")
        pen = "L"
    return "".join(path)


def _svg(body: str, width: int, height: int) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    return _uri("image/svg+xml", f"{head}{body}</svg>".encode())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64," + base64.b64encode(data).decode("ascii")
