"""Pictures that are the same but for saving again as JPEG, scaling or a shift of one pixel.

Candidates come from two sides: the perceptual hash of the originals, for photos, and neighbours among the picture's brightness in at most 8 x 8 fields,
shifted by one pixel each way. Each candidate is then verified on the version's pixels: after the best shift, the difference must be what JPEG
at quality 50 may leave, term by term of the 8 x 8 cosine transform, small beside what the pictures show, and no larger than that of either
picture from itself moved by a quarter of its side: of pictures that look alike wherever one looks, only (nearly) equal ones are taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kfloop.components.check_labels.duplicates.pixels import compare, luma, moved
from kfloop.core.perceptual import near_pairs

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float32]
    Pairs = tuple[Ints, Ints, NDArray[np.float64]]

HASH_DISTANCE = 40
PHOTO = 64  # pixels; a hash says little about an original whose shorter side is no longer
SMALLEST = 3  # pixels; below there is nothing between the rims
SHIFTED_UP_TO = 64  # pixels; a shift of one matters less in larger pictures, whose fields are 8 pixels and more
LARGEST = 256  # pixels compared in each direction
FIELDS = 8
DIRECTIONS = 12  # principal directions of the fields that neighbours are searched in
NEIGHBOURS = 8
LEAST_RADIUS = 0.5
SHOWN = 0.5  # of the standard deviation of a picture's fields: a larger difference would not pass
APPROXIMATE = 0.5  # a neighbour may be missed for others that are at most half as far again
RADIUS = 14.0  # largest root mean square difference of fields, in steps of brightness of 255
BATCH_VALUES = 4_000_000
HALF_OF_SHIFTS = [(0, 0), (0, 1), (1, -1), (1, 0), (1, 1)]  # the others are these seen from the other picture
STEP_ERROR = 0.3  # root mean square of a rounding error uniform in half a step each way is .29
CLIPPED_ERROR = 0.6  # what clipping to 0..255 may make of it in pictures of high contrast
SMALL = 0.02  # share of the picture's energy up to which the error may be as large as that
DIFFERENT = 0.2  # share of the picture's energy from which it is another picture
DIFFERENT_PHOTO = 0.4  # the same where the hashes agree
FAINT = 0.25  # steps, root mean square: pictures that show less are all alike after JPEG,
DIFFERENT_FAINT = 0.05  # so that less may differ
BLOCK_ERROR = 0.45  # in the worst block of 8 x 8 pixels
TINT = 1.5  # largest difference of a channel's mean, of 255
CLIPPED_TINT = 5.0  # what clipping may make of it


class Pictures:
    """Pictures in an Arrow column, read a few at a time.

    Args:
        column: fixed_size_list<uint8>[H*W*C], chunked.
        shape: Height, width, channels.
    """

    def __init__(self, column: pa.ChunkedArray, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, *shape) for chunk in chunks]
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])

    def take(self, rows: Ints) -> NDArray[np.uint8]:
        """Pictures [len(rows), H, W, C]."""
        out = np.empty((len(rows), *self.shape), dtype=np.uint8)
        where = np.searchsorted(self._starts, rows, side="right") - 1
        for part in np.unique(where):
            inside = where == part
            out[inside] = self._parts[part][rows[inside] - self._starts[part]]
        return out


def near_pictures(pictures: Pictures, rows: Ints, facts: pa.Table, near_distance: int | None) -> Pairs:
    """Near duplicates among ``rows``.

    Args:
        pictures: All pictures of the version.
        rows: Rows to compare, of different content.
        facts: Columns ``phash``, ``width``, ``height`` of all rows, where the version has them.
        near_distance: Largest distance of hashes; null: 40.

    Returns:
        Positions in ``rows`` (left < right) and a distance: root mean square of the difference in steps of JPEG at quality 50.
    """
    hashes = _Hashes(facts, rows)
    hashed = hashes.candidates(HASH_DISTANCE if near_distance is None else near_distance)
    keys = np.unique(np.concatenate([hashed, _field_candidates(pictures, rows)]), axis=0)
    alike = np.isin(keys[:, 0] * len(rows) + keys[:, 1], hashed[:, 0] * len(rows) + hashed[:, 1])
    kept, distance = _verified(pictures, rows, keys, alike)
    return keys[kept, 0], keys[kept, 1], distance


class _Hashes:
    """Perceptual hashes of the rows to compare, where they are photos that have one."""

    def __init__(self, facts: pa.Table, rows: Ints) -> None:
        self.texts: list[str | None] = [None] * len(rows)
        if {"phash", "width", "height"} <= set(facts.column_names):
            part = facts.take(rows)
            width, height = (part[side].to_numpy().astype(np.float64) for side in ("width", "height"))
            photo = np.minimum(width, height) > PHOTO
            self.texts = [text if known else None for text, known in zip(part["phash"].to_pylist(), photo, strict=True)]

    def candidates(self, limit: int) -> Ints:
        """Pairs of photos whose hashes differ in at most ``limit`` bits, [P, 2]."""
        known = [(place, text) for place, text in enumerate(self.texts) if text]
        pairs, _ = near_pairs([text for _, text in known], limit)
        return np.array([place for place, _ in known], dtype=np.int64)[pairs]


def _batches(n: int, values: int) -> Iterator[slice]:
    size = max(1, BATCH_VALUES // max(values, 1))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _boxes(size: int, fields: int) -> Floats:
    """Matrix that means ``size`` pixels into ``fields`` equal parts, [fields, size]."""
    edges = np.linspace(0, size, fields + 1)
    low, high = np.maximum(edges[:-1, None], np.arange(size)), np.minimum(edges[1:, None], np.arange(size) + 1)
    return (np.maximum(high - low, 0) * fields / size).astype(np.float32)


def _field_candidates(pictures: Pictures, rows: Ints) -> Ints:
    """Pairs whose fields are near, after a shift by at most one pixel."""
    from scipy.spatial import cKDTree

    height, width, _ = pictures.shape
    shifts = HALF_OF_SHIFTS if min(height, width) >= SMALLEST and max(height, width) <= SHIFTED_UP_TO else [(0, 0)]
    rim = 0 if len(shifts) == 1 else 1
    tall, wide = (
        _boxes(height - 2 * rim, min(FIELDS, height - 2 * rim)),
        _boxes(width - 2 * rim, min(FIELDS, width - 2 * rim)),
    )
    fields = np.empty((len(shifts), len(rows), len(tall) * len(wide)), dtype=np.float32)
    for part in _batches(len(rows), int(np.prod(pictures.shape))):
        grey = luma(pictures.take(rows[part]))
        for place, (y, x) in enumerate(shifts):
            inner = grey[:, rim + y : height - rim + y, rim + x : width - rim + x]
            fields[place, part] = (tall @ inner @ wide.T).reshape(len(inner), -1)
    centre = fields[0].mean(axis=0)
    sample = fields[0][:: max(1, len(rows) // 5000)] - centre
    directions = np.linalg.svd(sample, full_matrices=False)[2][:DIRECTIONS]
    places = [(field - centre) @ directions.T for field in fields]
    tree = cKDTree(places[0])
    # A difference is small beside what the picture shows; rows of like contrast are searched together, each with its bound.
    reach = np.minimum(RADIUS, LEAST_RADIUS + SHOWN * fields[0].std(axis=1)) * np.sqrt(fields.shape[2])
    found = [np.empty((0, 2), np.int64)]
    for level in np.unique(levels := np.ceil(np.log2(reach))):
        inside = np.flatnonzero(levels == level)
        for field, place in zip(fields, places, strict=True):
            k, bound = min(NEIGHBOURS + 1, len(rows)), reach[inside].max()
            _, near = tree.query(place[inside], k=k, eps=APPROXIMATE, distance_upper_bound=bound)
            left, right = np.repeat(inside, near.shape[1]), near.ravel()
            valid = (right < len(rows)) & (right != left)
            pairs = np.column_stack([left[valid], right[valid]])
            if min(height, width) > 2 * FIELDS:  # of fewer pixels, fields are not much calmer than the pixels
                pairs = pairs[_within(field, fields[0], pairs, reach)]
            found.append(np.sort(pairs, axis=1))
    return np.unique(np.concatenate(found), axis=0).astype(np.int64)


def _within(field: Floats, other: Floats, pairs: Ints, reach: Floats) -> NDArray[np.bool_]:
    """Which pairs differ by no more than the wider of their bounds in all fields: the search saw the main directions only."""
    near = np.empty(len(pairs), dtype=np.bool_)
    for part in _batches(len(pairs), field.shape[1]):
        left, right = pairs[part].T
        gap = ((field[left] - other[right]) ** 2).sum(axis=1)
        near[part] = gap <= np.maximum(reach[left], reach[right]) ** 2
    return near


def _verified(
    pictures: Pictures, rows: Ints, pairs: Ints, alike: NDArray[np.bool_]
) -> tuple[Ints, NDArray[np.float64]]:
    """Which pairs show the same picture, and the error between them."""
    kept, errors = [np.empty(0, np.int64)], [np.empty(0)]
    for part in _batches(len(pairs), 24 * min(int(np.prod(pictures.shape)), LARGEST * LARGEST)):
        first, second = (_reduced(pictures.take(rows[pairs[part, side]])) for side in (0, 1))
        seen = compare(first, second)
        clipped = np.maximum(0, 1 - seen.share / SMALL)
        allowed = (CLIPPED_ERROR - STEP_ERROR) * clipped
        largest = np.where(seen.energy < FAINT**2, DIFFERENT_FAINT, DIFFERENT)
        same = (seen.error <= STEP_ERROR + allowed) & (seen.worst <= BLOCK_ERROR + allowed)
        same &= (seen.share <= largest) & (seen.tint <= TINT + (CLIPPED_TINT - TINT) * clipped)
        same |= alike[part] & (seen.share <= DIFFERENT_PHOTO) & (seen.tint <= 2 * CLIPPED_TINT)
        passed = np.flatnonzero(same)
        same[passed] = seen.square[passed] <= np.minimum(moved(first[passed]), moved(second[passed]))
        kept.append(np.flatnonzero(same) + part.start)
        errors.append(seen.error[same].astype(np.float64))
    return np.concatenate(kept), np.concatenate(errors)


def _reduced(pictures: NDArray[np.uint8]) -> Floats:
    """Pictures of at most LARGEST pixels a side, by means over squares."""
    n, height, width, channels = pictures.shape
    factor = -(-max(height, width) // LARGEST)
    if factor == 1:
        return pictures.astype(np.float32)
    tall, wide = max(height // factor, 1), max(width // factor, 1)
    tall_by, wide_by = height // tall, width // wide
    inner = pictures[:, : tall * tall_by, : wide * wide_by]
    return np.asarray(inner.reshape(n, tall, tall_by, wide, wide_by, channels).mean(axis=(2, 4), dtype=np.float32))
