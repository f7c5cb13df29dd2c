"""Facts about one picture: what a suite of expectations and the search for near duplicates judge it by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

FACTS = ("bytes", "format", "width", "height", "mode", "mean", "std", "sharpness", "constant", "phash")
_NEIGHBOURS = 3  # a Laplacian needs a pixel on each side
_GREY_WEIGHTS = (77, 150, 29)  # ITU-R BT.601 in 256ths: their sum keeps 16 bits


def picture_facts(pixels: np.ndarray, *, size: int, kind: str, mode: str) -> dict[str, Any]:
    """Facts about a picture as it came.

    Args:
        pixels: uint8 [H, W, C] with 1 or 3 channels, before any resizing.
        size: Bytes of the file, or of the array.
        kind: Format of the file, such as ``PNG``.
        mode: Mode of the file, such as ``CMYK``.

    Returns:
        bytes, format, width, height, mode, mean and std of the brightness (0 to 255), sharpness (variance of the Laplacian), constant (no two
        pixels differ), phash.
    """
    from kfloop.core.perceptual import perceptual_hash

    grey = brightness(pixels)
    height, width = grey.shape
    return {
        "bytes": size,
        "format": kind,
        "width": width,
        "height": height,
        "mode": mode,
        "mean": float(grey.mean()),
        "std": float(grey.std()),
        "sharpness": sharpness(grey),
        "constant": bool(grey.min() == grey.max()),
        "phash": perceptual_hash(grey),
    }


def brightness(pixels: np.ndarray) -> np.ndarray:
    """Grey uint8 [H, W] of a picture uint8 [H, W, C]."""
    if pixels.shape[2] == 1:
        return pixels[..., 0]
    red, green, blue = (pixels[..., channel].astype(np.uint16) * weight for channel, weight in enumerate(_GREY_WEIGHTS))
    return ((red + green + blue) >> 8).astype(np.uint8)


def sharpness(grey: np.ndarray) -> float:
    """Variance of the 4-neighbour Laplacian; 0 for a picture without an inside."""
    if min(grey.shape) < _NEIGHBOURS:
        return 0.0
    wide = grey.astype(np.int32)
    inside = wide[1:-1, 1:-1]
    laplacian = wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:] - 4 * inside
    return float(laplacian.var())


def fact_types() -> dict[str, pa.DataType]:
    """Arrow types of the facts."""
    import pyarrow as pa

    return {
        "bytes": pa.int64(),
        "format": pa.string(),
        "width": pa.int64(),
        "height": pa.int64(),
        "mode": pa.string(),
        "mean": pa.float64(),
        "std": pa.float64(),
        "sharpness": pa.float64(),
        "constant": pa.bool_(),
        "phash": pa.string(),
    }
