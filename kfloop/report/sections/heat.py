"""Pictures with what speaks for an answer and against it laid over them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.report.pictures import png_uri

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LARGEST = 50_000_000  # bytes of a file that is read
SIDE = 112  # pixels: smaller pictures are enlarged to at least this
_FOR, _AGAINST = (31, 102, 193), (180, 35, 24)  # the page's blue and red
_STRONGEST = 0.8  # how much of the picture the strongest colour hides


def read_arrays(folder: Path | None) -> dict[str, NDArray[Any]]:
    """``pictures`` uint8 [n, H, W, C] and ``heat`` [n, H, W] that the evaluation left; empty where there are none."""
    import numpy as np

    path = None if folder is None else folder / "explanations.npz"
    if path is None or not path.is_file() or path.stat().st_size > LARGEST:
        return {}
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in ("pictures", "heat") if name in stored.files}


def pictures_of(arrays: Mapping[str, NDArray[Any]], place: Any, about: str) -> list[tuple[str, str]]:
    """The picture, and the same with its heat, as ``data:`` URIs with words for those who cannot see them; empty without it."""
    pictures, heat = arrays.get("pictures"), arrays.get("heat")
    if pictures is None or heat is None or not isinstance(place, int) or not 0 <= place < min(len(pictures), len(heat)):
        return []
    picture = pictures[place]
    scale = max(1, -(-SIDE // max(picture.shape[:2])))
    large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    over = overlay(picture, heat[place]).repeat(scale, axis=0).repeat(scale, axis=1)
    return [(png_uri(large, 2 * SIDE), about), (png_uri(over, 2 * SIDE), f"{about}, with what mattered")]


def overlay(picture: NDArray[np.uint8], heat: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """The picture in grey with its heat in colour: blue for the answer, red against it.

    Args:
        picture: uint8 [H, W, C].
        heat: Weight of each pixel, [H, W].

    Returns:
        uint8 [H, W, 3].
    """
    import numpy as np

    grey = picture[:, :, :3].mean(axis=2, keepdims=True).repeat(3, axis=2)
    weight = np.nan_to_num(heat.astype(np.float64))
    largest = float(np.abs(weight).max(initial=0.0)) or 1.0
    share = (_STRONGEST * np.abs(weight) / largest)[:, :, None]
    colour = np.where((weight > 0)[:, :, None], np.array(_FOR), np.array(_AGAINST))
    return np.rint((1 - share) * grey + share * colour).astype(np.uint8)
