"""Decoding of image files of any kind into one square shape."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.readers.images.facts import picture_facts
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

LARGEST_CHOSEN_SIDE = 32
DEEP = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N", "F"})
GREY = frozenset({"1", "L"})


class UnreadableImageError(InputError):
    """One file cannot be decoded; it is set aside, not fatal by itself."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One decoded file.

    Attributes:
        pixels: uint8 [side, side, channels].
        grey: Whether it has no colour.
        facts: What it was before it was resized.
    """

    pixels: NDArray[np.uint8]
    grey: bool
    facts: dict[str, Any]


def choose_side(paths: Sequence[Path]) -> int:
    """Median of the shorter sides, at most 32 pixels, from headers alone; files without a header do not vote."""
    from PIL import Image

    sides = []
    for path in paths:
        try:
            with Image.open(path) as image:
                sides.append(min(image.size))
        except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError):
            continue  # named when it is decoded
    return max(1, min(LARGEST_CHOSEN_SIDE, round(float(np.median(sides))))) if sides else LARGEST_CHOSEN_SIDE


def all_grey(paths: Sequence[Path]) -> bool:
    """Whether no readable file has colour; stops at the first that has."""
    for path in paths:
        try:
            if not decode(path, 1, 3).grey:
                return False
        except UnreadableImageError:
            continue  # named when it is decoded
    return True


def decode(path: Path, side: int, channels: int) -> Picture:
    """One file as pixels.

    16-bit images are scaled to 8 bits, transparent ones laid on white, turned ones set upright as EXIF says.

    Args:
        path: The file.
        side: Side of the square to which it is resized; the aspect ratio is not kept.
        channels: 1 or 3.

    Raises:
        UnreadableImageError: Missing, truncated, not an image, or far too large.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            file.load()
            kind, mode = file.format or "", file.mode
            image = _eight_bits(ImageOps.exif_transpose(file))
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        IndexError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise UnreadableImageError(_reason(error, path)) from error
    grey = image.mode == "L" or _all_equal(image)
    whole = np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, -1)
    facts = picture_facts(whole, size=path.stat().st_size, kind=kind, mode=mode)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.uint8).reshape(side, side, channels)
    return Picture(pixels=pixels, grey=grey, facts=facts)


def _eight_bits(image: Any) -> Any:
    """Any mode as ``L`` or ``RGB``."""
    from PIL import Image

    if image.mode in GREY:
        return image.convert("L")
    if image.mode in DEEP:
        values = np.asarray(image, dtype=np.float64)
        top = 255.0 if values.max(initial=0.0) <= 255 else 65535.0  # noqa: PLR2004 - 8 and 16 bits
        if image.mode == "F" and values.max(initial=0.0) <= 1.0:
            top = 1.0
        if image.mode.startswith("I;16"):
            top = 65535.0
        return Image.fromarray(np.clip(np.rint(np.nan_to_num(values) * (255.0 / top)), 0, 255).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        clear = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    return image.convert("RGB")


def _all_equal(image: Any) -> bool:
    pixels = np.asarray(image)
    if not (pixels[0] == pixels[0, :, :1]).all():  # most pictures with colour have some in their first line
        return False
    return all(np.array_equal(pixels[..., 0], pixels[..., channel]) for channel in range(1, pixels.shape[2]))


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file is missing"
    if type(error).__name__ == "UnidentifiedImageError":
        return "not an image" if path.stat().st_size else "the file is empty"
    return f"cannot be decoded: {str(error).replace(str(path), path.name)}"
