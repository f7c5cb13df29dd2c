"""A hash of what a picture looks like, and the search for all pairs of such hashes that are near.

The hash is the signs of the 16 x 16 lowest frequencies of the picture, squeezed to 32 x 32 (256 bits, the constant term always 0).
Saving a photo again as JPEG, resizing it or shifting it by a pixel turns few of them; two different photos differ in about 128.

Sources: C. Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010 (signs of DCT terms); M. Norouzi, A. Punjani,
D. J. Fleet, "Fast exact search in Hamming space with multi-index hashing", 2014 (the search).
"""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

SIDE = 32  # pixels that the picture is squeezed to
TERMS = 16  # frequencies kept in each direction
BITS = TERMS * TERMS
DIGITS = BITS // 4  # length of the hash in hex digits
FLAT = 1e-6  # a term below this is rounding, not signal
BANDS = 16  # parts of 16 bits that a hash is looked up by
MOST_SLIPS = 2  # 137 look-ups a band; beyond, comparing everything is faster
MOST_PARTNERS = 16
CELLS = 4_000_000  # candidates or words held at a time


def perceptual_hash(grey: NDArray[np.uint8]) -> str:
    """Hash of what a picture looks like.

    Args:
        grey: Brightness, uint8 [H, W]; any size from 1 x 1.

    Returns:
        64 hex digits; all zeros for a picture of one brightness.

    Raises:
        InputError: ``grey`` is not uint8 [H, W], or has no pixel.
    """
    from PIL import Image

    if grey.ndim != 2 or grey.size == 0 or grey.dtype != np.uint8:  # noqa: PLR2004
        raise InputError(
            f"a perceptual hash needs uint8 pixels [H, W] of at least 1 x 1, got {grey.dtype} {list(grey.shape)}",
            hint="turn the picture to grey, 8 bits a pixel, first",
        )
    small = np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    cosines = _cosines()
    terms = cosines @ small @ cosines.T
    terms[0, 0] = 0.0
    return np.packbits(terms > FLAT).tobytes().hex()


@cache
def _cosines() -> NDArray[np.float64]:
    """Lowest terms of the orthonormal DCT-II, [TERMS, SIDE]."""
    angle = np.pi / SIDE * np.arange(TERMS)[:, None] * (np.arange(SIDE)[None, :] + 0.5)
    return np.cos(angle) * np.sqrt(2 / SIDE)


def hamming(first: str, second: str) -> int:
    """Number of bits in which two hashes of the same length differ.

    Raises:
        InputError: The lengths differ, or one is not hexadecimal.
    """
    if len(first) != len(second):
        raise InputError(f"hashes of {len(first)} and {len(second)} hex digits cannot be compared")
    try:
        return (int(first or "0", 16) ^ int(second or "0", 16)).bit_count()
    except ValueError as error:
        raise InputError(f"'{first}' or '{second}' is not a hash: expected hex digits") from error


def near_pairs(hashes: Sequence[str], distance: int, *, most: int = MOST_PARTNERS) -> tuple[Ints, Ints]:
    """All pairs of hashes that differ in at most ``distance`` bits.

    Equal hashes are linked to the first of them, and only that one is compared on: ``n`` equal hashes give ``n - 1`` pairs. A hash has at
    most ``most`` partners behind it, the nearest ones, so that the answer grows with the number of hashes, never with its square.

    Args:
        hashes: Hashes by :func:`perceptual_hash`.
        distance: Largest number of differing bits, 0 to 256.
        most: Largest number of later partners of one hash.

    Returns:
        Pairs of positions, int64 [P, 2], first < second, in order; and their distances, int64 [P].

    Raises:
        InputError: A hash is not one of ours.
    """
    if len(hashes) == 0:
        return np.empty((0, 2), np.int64), np.empty(0, np.int64)
    codes, first, inverse = np.unique(_pack(hashes), axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # unique hashes in the order in which they come
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    home = first[inverse.ravel()]
    again = np.flatnonzero(home != np.arange(len(hashes)))
    left, right, gaps = _search(np.ascontiguousarray(codes[order]), distance, most)
    places = first[order]
    pairs = np.concatenate(
        [np.column_stack([home[again], again]), np.column_stack([places[left], places[right]])]
    ).astype(np.int64)
    distances = np.concatenate([np.zeros(len(again), np.int64), gaps])
    arranged = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[arranged], distances[arranged]


def _pack(hashes: Sequence[str]) -> NDArray[np.uint16]:
    """Hex digits as numbers of 16 bits, [N, BANDS]."""
    wrong = next((row for row, text in enumerate(hashes) if len(text) != DIGITS), None)
    try:
        if wrong is None:
            return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint16).reshape(len(hashes), BANDS)
    except ValueError:
        wrong = next(row for row, text in enumerate(hashes) if set(text.lower()) - set("0123456789abcdef"))
    raise InputError(
        f"row {wrong}, column 'phash': '{hashes[wrong or 0]}' is not a perceptual hash; expected {DIGITS} hex digits",
        hint="ingest again: the hash is made there",
    )


def _search(codes: NDArray[np.uint16], distance: int, most: int) -> tuple[Ints, Ints, Ints]:
    """Near pairs among distinct codes [U, BANDS]: two that differ in at most d bits agree in one band but for d // BANDS bits."""
    n = len(codes)
    words = codes.view(np.uint64)
    found = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))
    blocks = _all_candidates(n)
    slips = distance // BANDS
    if slips <= MOST_SLIPS and n > BANDS and sum(int(run[2].sum()) for run in _runs(codes, slips)) < n * n / 4:
        blocks = _band_candidates(_runs(codes, slips))
    for left, right in blocks:
        gaps = np.bitwise_count(words[left] ^ words[right]).sum(axis=1, dtype=np.int64)
        near = gaps <= distance
        if near.any():
            found = _merge(found, (left[near], right[near], gaps[near]), n, most)
    return found


def _runs(codes: NDArray[np.uint16], slips: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """For each band and each way to turn at most ``slips`` bits of it: the rows by key, where each row's partners begin, and their number."""
    bits = [1 << bit for bit in range(16)]
    masks = [sum(chosen) for size in range(slips + 1) for chosen in combinations(bits, size)]
    for band in range(BANDS):
        keys = codes[:, band]
        order = np.argsort(keys, kind="stable")
        starts = np.zeros(2**16 + 1, np.int64)
        np.cumsum(np.bincount(keys, minlength=2**16), out=starts[1:])
        for mask in masks:
            wanted = (keys ^ np.uint16(mask)).astype(np.int64)
            begin = starts[wanted]
            yield order, begin, starts[wanted + 1] - begin


def _band_candidates(runs: Iterator[tuple[Ints, Ints, Ints]]) -> Iterator[tuple[Ints, Ints]]:
    for order, begin, counts in runs:
        rows = np.flatnonzero(counts)
        edges = np.cumsum(counts[rows])
        start = 0
        while start < len(rows):
            base = edges[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(edges, base + CELLS, side="right")))
            part = rows[start:stop]
            sizes = counts[part]
            left = np.repeat(part, sizes)
            within = np.arange(len(left)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            right = order[np.repeat(begin[part], sizes) + within]
            ordered = left < right
            yield left[ordered], right[ordered]
            start = stop


def _all_candidates(n: int) -> Iterator[tuple[Ints, Ints]]:
    height = max(1, CELLS // max(n, 1))
    for start in range(0, n, height):
        left, right = np.meshgrid(np.arange(start, min(start + height, n)), np.arange(start + 1, n), indexing="ij")
        ordered = left < right
        yield left[ordered], right[ordered]


def _merge(found: tuple[Ints, Ints, Ints], more: tuple[Ints, Ints, Ints], n: int, most: int) -> tuple[Ints, Ints, Ints]:
    """Both sets of pairs, each pair once, with at most ``most`` nearest partners a row."""
    left, right, gaps = (np.concatenate([old, new]) for old, new in zip(found, more, strict=True))
    _, kept = np.unique(left * n + right, return_index=True)
    left, right, gaps = left[kept], right[kept], gaps[kept]
    arranged = np.lexsort((right, gaps, left))
    left, right, gaps = left[arranged], right[arranged], gaps[arranged]
    place = np.arange(len(left)) - np.searchsorted(left, left)
    near = place < most
    return left[near], right[near], gaps[near]
