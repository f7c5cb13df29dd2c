"""How far two pictures differ, measured by what saving as JPEG may change.

The difference after the best shift by at most one pixel is taken term by term of the 8 x 8 cosine transform, in the steps that JPEG at quality 50 rounds
these terms to: a picture saved again is nowhere further off than half a step, but for clipping.

Source of the table of steps: ITU-T Recommendation T.81, 1992, table K.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

BLOCK = 8
SHIFTS = [(y, x) for y in (0, -1, 1) for x in (0, -1, 1)]
MOVE = 0.25  # of a side: how far a picture is moved to see whether it says where it was taken
MOVE_DIRECTIONS = 8  # over half a circle; the other half is these seen from the other end
STEPS = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=np.float32,
)


def luma(pictures: NDArray[np.uint8] | Floats) -> Floats:
    """Brightness [N, H, W] in 0..255."""
    values = pictures.astype(np.float32)
    if values.shape[-1] == 3:  # noqa: PLR2004  (red, green, blue)
        return np.asarray(values @ np.array([0.299, 0.587, 0.114], dtype=np.float32))
    return np.asarray(values.mean(axis=-1))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far pairs of pictures differ after the best shift by at most one pixel; each [N].

    Attributes:
        error: Root mean square of the difference in steps of JPEG at quality 50, on the better of the two pictures' grids.
        worst: The same in the worst block of 8 x 8 pixels.
        energy: Mean square of the pictures about their mean, in steps.
        share: Mean square of the difference beside that energy.
        square: Mean square of the difference in brightness, 0..255 squared.
        tint: Largest difference of a channel's mean, 0..255.
    """

    error: Floats
    worst: Floats
    energy: Floats
    share: Floats
    square: Floats
    tint: Floats


def compare(first: Floats, second: Floats) -> Difference:
    """Compare pairs of pictures.

    Args:
        first: [N, H, W, C] in 0..255.
        second: The same shape.
    """
    left, right = luma(first), luma(second)
    n, height, width = left.shape
    gaps = np.full((len(SHIFTS), n), np.inf, dtype=np.float32)
    for place, shift in enumerate(SHIFTS):
        here, there = _overlap(shift, height, width)
        if here[0].start < here[0].stop and here[1].start < here[1].stop:
            gaps[place] = ((left[:, *here] - right[:, *there]) ** 2).mean(axis=(1, 2))
    best = gaps.argmin(axis=0)
    found = {name: np.empty(n, dtype=np.float32) for name in ("error", "worst", "energy", "share", "tint")}
    for place in np.unique(best):
        chosen = np.flatnonzero(best == place)
        here, there = _overlap(SHIFTS[place], height, width)
        u, v = left[chosen][:, *here], right[chosen][:, *there]
        colours = first[chosen][:, *here].mean(axis=(1, 2)) - second[chosen][:, *there].mean(axis=(1, 2))
        middle = ((u.mean(axis=(1, 2)) + v.mean(axis=(1, 2))) / 2)[:, None, None]
        energy = (_terms(u - middle, here)[0] + _terms(v - middle, there)[0]) / 2
        grids = [_terms(u - v, here), _terms(u - v, there)]
        gap, worst = np.minimum(grids[0][0], grids[1][0]), np.minimum(grids[0][1], grids[1][1])
        found["tint"][chosen] = np.abs(colours).max(axis=1)
        found["error"][chosen], found["worst"][chosen] = np.sqrt(gap), np.sqrt(worst)
        found["energy"][chosen] = energy
        found["share"][chosen] = np.where(gap > 0, gap / np.maximum(energy, 1e-9), 0)
    return Difference(**found, square=gaps.min(axis=0))


def moved(pictures: Floats) -> Floats:
    """How little pictures change when they are moved: mean square difference of brightness after a quarter of a side, in the worst direction.

    A stretch of sky, a ramp or a straight edge looks the same a little further on, so that another piece of it may be as near as a copy is
    (the aperture problem). The measure is the one of H. Moravec, "Towards automatic visual obstacle avoidance", IJCAI 1977.

    Args:
        pictures: [N, H, W, C] in 0..255.

    Returns:
        [N]; 0 for pictures that are too small to be moved.
    """
    grey = luma(pictures)
    height, width = grey.shape[1:]
    least = np.full(len(grey), np.inf, dtype=np.float32)
    for turn in np.pi / MOVE_DIRECTIONS * np.arange(MOVE_DIRECTIONS):
        step = round(float(np.sin(turn)) * height * MOVE), round(float(np.cos(turn)) * width * MOVE)
        here, there = _overlap(step, height, width)
        least = np.minimum(least, ((grey[:, *here] - grey[:, *there]) ** 2).mean(axis=(1, 2)))
    return np.asarray(least)


def _overlap(shift: tuple[int, int], height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where the first and the second picture overlap when the first is moved."""
    y, x = shift
    here = (slice(max(y, 0), height + min(y, 0)), slice(max(x, 0), width + min(x, 0)))
    there = (slice(max(-y, 0), height + min(-y, 0)), slice(max(-x, 0), width + min(-x, 0)))
    return here, there


def _terms(values: Floats, place: tuple[slice, slice]) -> tuple[Floats, Floats]:
    """Mean square of the cosine terms, in steps, on the grid of a picture in which ``values`` lie at ``place``: over all, and in the worst block."""
    rows, columns = values.shape[1:]
    top, left = place[0].start, place[1].start
    bottom, right = -(top + rows) % BLOCK, -(left + columns) % BLOCK
    padded = np.pad(values, [(0, 0), (top, bottom), (left, right)])
    n, height, width = padded.shape
    blocks = padded.reshape(n, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(0, 1, 3, 2, 4)
    angle = np.pi / BLOCK * np.arange(BLOCK)[:, None] * (np.arange(BLOCK)[None, :] + 0.5)
    cosines = (np.cos(angle) * np.sqrt(2 / BLOCK)).astype(np.float32)
    cosines[0] /= np.sqrt(2)
    squares = ((cosines @ blocks @ cosines.T / STEPS) ** 2).sum(axis=(3, 4))
    whole = squares.sum(axis=(1, 2)) / (rows * columns)
    return np.asarray(whole), np.asarray(squares.max(axis=(1, 2)) / min(BLOCK * BLOCK, rows * columns))
