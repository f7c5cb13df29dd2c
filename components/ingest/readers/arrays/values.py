"""Rows of arrays as columns: pixels where they are pictures, otherwise vectors; with the facts of each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.readers.arrays.blocks import PIXEL, Block, value_range
from kfloop.components.ingest.readers.images.facts import FACTS as PICTURE_FACTS
from kfloop.components.ingest.readers.images.facts import brightness, fact_types, picture_facts
from kfloop.components.ingest.source import FILES_PER_BATCH, ROWS_PER_BATCH
from kfloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from kfloop.core.sections import DataConfig

VECTOR_FACTS = ("missing", "minimum", "maximum", "mean", "std")
LARGEST_CHOSEN_SIDE = 32
SMALLEST_SIDE = 4
_GREY, _COLOUR = 1, 3


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """How an array of pictures becomes the column ``image``.

    Attributes:
        channels_first: Whether rows are [C, H, W].
        scale: Factor to 0..255.
        shape: Shape of an image in the dataset version: height, width, channels.
    """

    channels_first: bool
    scale: float
    shape: tuple[int, int, int]

    def columns(self, values: np.ndarray) -> dict[str, pa.Array]:
        """Column ``image`` and its facts, computed before any resizing."""
        import pyarrow as pa

        pixels = _pixels(values, self)
        size = math.prod(pixels.shape[1:])
        mode = "L" if pixels.shape[3] == _GREY else "RGB"
        facts = [picture_facts(picture, size=size, kind="array", mode=mode) for picture in pixels]
        flat = np.ascontiguousarray(_resized(pixels, self.shape)).reshape(-1)
        found = {"image": pa.FixedSizeListArray.from_arrays(pa.array(flat), math.prod(self.shape))}
        return found | {name: pa.array([fact[name] for fact in facts], kind) for name, kind in fact_types().items()}

    @property
    def inputs(self) -> tuple[str, ...]:
        """The input column."""
        return ("image",)

    @property
    def facts(self) -> tuple[str, ...]:
        """The fact columns."""
        return PICTURE_FACTS

    @property
    def modality(self) -> str:
        """What a row is."""
        return "image"

    @property
    def schema(self) -> dict[str, Any]:
        """For ``Source.schema``."""
        return {"image_shape": list(self.shape)}

    @property
    def most(self) -> int:
        """Rows of a batch."""
        return FILES_PER_BATCH


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """How an array becomes the column ``vector``.

    Attributes:
        shape: Shape of a row.
    """

    shape: tuple[int, ...]
    inputs = ("vector",)
    facts = VECTOR_FACTS
    modality = "vector"
    most = ROWS_PER_BATCH

    def columns(self, values: np.ndarray) -> dict[str, pa.Array]:
        """Column ``vector`` and its facts; a fact that cannot be computed is null."""
        import pyarrow as pa

        with np.errstate(over="ignore"):
            flat = np.ascontiguousarray(values.reshape(len(values), -1), dtype=np.float32)
        found = {"vector": pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])}
        return found | {name: pa.array(fact, from_pandas=True) for name, fact in vector_facts(flat).items()}

    def too_large(self, values: np.ndarray) -> dict[int, str]:
        """Rows with a finite number that float32 does not hold, by their place, and the number."""
        if values.dtype.kind != "f" or values.dtype.itemsize <= 4:  # noqa: PLR2004 - bytes of a float32
            return {}
        flat = values.reshape(len(values), -1)
        over = np.isfinite(flat) & (np.abs(flat) > np.finfo(np.float32).max)
        rows = np.flatnonzero(over.any(axis=1)).tolist()
        return {row: f"{flat[row][over[row]][0]:g} does not fit into float32" for row in rows}

    @property
    def schema(self) -> dict[str, Any]:
        """For ``Source.schema``."""
        return {"vector_shape": list(self.shape)}


def vector_facts(vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Share of NaN, minimum, maximum, mean and standard deviation of each row of float32 [N, D], over what is no NaN; NaN where there is none, or it is not finite."""
    values = vectors.astype(np.float64)
    gone = np.isnan(values)
    there = values.shape[1] - gone.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = np.where(gone, 0.0, values).sum(axis=1) / there
        spread = np.where(gone, 0.0, values - mean[:, np.newaxis])
        std = np.sqrt((spread**2).sum(axis=1) / there)
    low = np.where(gone, np.inf, values).min(axis=1)
    high = np.where(gone, -np.inf, values).max(axis=1)
    return {
        "missing": gone.mean(axis=1),
        "minimum": np.where(there > 0, low, np.nan),
        "maximum": np.where(there > 0, high, np.nan),
        "mean": np.where(np.isfinite(mean), mean, np.nan),
        "std": np.where(np.isfinite(std), std, np.nan),
    }


def choose(
    block: Block, config: DataConfig, like_schema: dict[str, Any] | None
) -> tuple[Pictures | Vectors, list[str]]:
    """Whether the rows are pictures or vectors, and notes.

    Args:
        block: The array.
        config: Section ``data``.
        like_schema: Schema of the base source, for freshly labelled rows: theirs must be the same.

    Raises:
        InputError: The values are no numbers, or no pictures though the modality says so, or their shape is another than the base source's.
    """
    if block.dtype.kind not in "biuf":
        raise InputError(
            f"array '{block.name}' {list(block.shape)} is of type {block.dtype}: expected numbers",
            hint="convert it: array.astype('float32')",
        )
    shape = block.shape[1:] or (1,)
    found: Pictures | Vectors = Vectors(shape=shape)
    notes: list[str] = []
    if config.modality in {"auto", "image"}:
        pictures = _pictures(block, config, notes)
        if pictures is None and config.modality == "image":
            raise InputError(
                f"data.modality is 'image', but array '{block.name}' {list(block.shape)} of {block.dtype} holds no pictures",
                hint="expected [N, H, W] or [N, H, W, C] with 1 or 3 channels, H and W of 4 or more, and whole numbers from 0 to 255 or "
                "numbers from 0 to 1",
            )
        if pictures is not None and (like_schema is None or "image_shape" in like_schema):
            found = pictures
    if like_schema is not None and found.schema != like_schema:
        raise InputError(
            f"array '{block.name}' {list(block.shape)} gives {found.schema}, but data.source has {like_schema}",
            hint="write freshly labelled rows in the shape of the source",
        )
    return found, notes


def _pictures(block: Block, config: DataConfig, notes: list[str]) -> Pictures | None:
    sides = block.shape[1:]
    if len(sides) not in {2, 3}:
        return None
    first = len(sides) == 3 and sides[2] not in {_GREY, _COLOUR} and sides[0] in {_GREY, _COLOUR}  # noqa: PLR2004
    height, width = sides[1:] if first else sides[:2]
    channels = 1 if len(sides) == 2 else sides[0] if first else sides[2]  # noqa: PLR2004
    if channels not in {_GREY, _COLOUR} or min(height, width) < SMALLEST_SIDE:
        return None
    scale = _scale(block)
    if scale is None:
        return None
    if first:
        notes.append(f"array '{block.name}' {list(block.shape)} is taken as pictures with the channels first")
    most = config.image_size or LARGEST_CHOSEN_SIDE
    if max(height, width) > most:
        notes.append(f"pictures of {height} x {width} pixels are resized to {most} x {most} (data.image_size)")
        height = width = most
    return Pictures(channels_first=first, scale=scale, shape=(height, width, config.channels or channels))


def _scale(block: Block) -> float | None:
    """Factor that takes the values to 0..255, if they are pixels."""
    if block.dtype == np.uint8:
        return 1.0
    if block.dtype.kind == "b":
        return float(PIXEL)
    found = value_range(block)
    if found is None or found.low < 0 or found.high > PIXEL:
        return None
    if found.whole and (block.dtype.kind in "iu" or found.high > 1):
        return 1.0
    return float(PIXEL) if found.high <= 1 and block.dtype.kind == "f" else None


def _pixels(values: np.ndarray, kind: Pictures) -> np.ndarray:
    """uint8 [N, H, W, C]."""
    if values.ndim == 3:  # noqa: PLR2004 - [N, H, W]
        values = values[..., np.newaxis]
    elif kind.channels_first:
        values = values.transpose(0, 2, 3, 1)
    return values if values.dtype == np.uint8 else np.rint(values * kind.scale).astype(np.uint8)


def _resized(pixels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Pictures in the shape and with the channels wanted, as files are resized and turned grey."""
    from PIL import Image

    height, width, channels = shape
    if pixels.shape[3] != channels:
        if channels == _GREY:
            pixels = np.stack([brightness(picture) for picture in pixels])[..., np.newaxis]
        else:
            pixels = np.repeat(pixels, channels, axis=3)
    if pixels.shape[1:3] == (height, width):
        return pixels
    small = [
        Image.fromarray(picture.squeeze(-1) if channels == _GREY else picture).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        for picture in pixels
    ]
    return np.stack([np.asarray(picture, dtype=np.uint8).reshape(shape) for picture in small])
