"""Images of the request log: their shape, which the log does not hold, and their facts."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from kfloop.components.ingest.readers.images.facts import fact_types, picture_facts
from kfloop.core.signature import SIGNATURE
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    import numpy as np
    import pyarrow as pa

    from kfloop.components.ingest.source import Source
    from kfloop.core.sections import DataConfig

FORMAT = "request"
_LEVELS = 3  # folders above the log in which a signature is looked for
_DIMENSIONS = 4
_COLOUR = 3


def near_signature(path: Path) -> tuple[dict[str, Any], Path | None]:
    """The model's signature in the log's folder or one above it, and its file; empty if there is none that can be read."""
    for folder in [path, *path.parents][:_LEVELS]:
        try:
            found = json.loads((folder / SIGNATURE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return found, folder / SIGNATURE
    return {}, None


def shape_of(
    widths: Counter[int], path: Path, config: DataConfig, like: Source | None
) -> tuple[tuple[int, int, int], str]:
    """Height, width and channels of the logged images, and how they were found out, for people.

    In this order: the shape of the base source, the signature near the log, a square with one or three channels.

    Args:
        widths: Number of values of an image, with the rows that have it.
        path: The log.
        config: What the loop file says.
        like: The base source.

    Raises:
        InputError: None of these fits.
    """
    if not widths:
        raise InputError(
            f"no image in '{path}' has a length", hint="expected lists of uint8 values in the column 'image'"
        )
    size = widths.most_common(1)[0][0]
    if like is not None:
        shape = tuple(int(side) for side in like.schema.get("image_shape") or ())
        return _checked(shape, size, path, "the shape of data.source"), ""
    signature, file = near_signature(path)
    shape = _signature_shape(signature)
    if shape:
        return _checked(shape, size, path, f"the signature '{file}'"), f"shape {list(shape)} as '{file}' says"
    for channels in (config.channels,) if config.channels else (1, _COLOUR):
        side = math.isqrt(size // channels)
        if side * side * channels == size and config.image_size in {None, side}:
            shape = (side, side, channels)
            return shape, f"shape {list(shape)} guessed from {size} values per image: the log holds no shape"
    raise InputError(
        f"an image in '{path}' has {size} values, which is no square with {config.channels or '1 or 3'} channels",
        hint=f"put the model's {SIGNATURE} into that folder, or mend data.image_size and data.channels",
        values=size,
    )


def _checked(shape: tuple[int, ...], size: int, path: Path, said_by: str) -> tuple[int, int, int]:
    if len(shape) != _DIMENSIONS - 1 or math.prod(shape) != size:
        raise InputError(
            f"an image in '{path}' has {size} values, but {said_by} is {list(shape)}, which has {math.prod(shape)}",
            hint="take the log of the same model",
        )
    return shape[0], shape[1], shape[2]


def _signature_shape(signature: dict[str, Any]) -> tuple[int, ...]:
    """Height, width, channels of the first input of a signature; empty where it is no image."""
    try:
        shape = [int(side) for side in signature["inputs"][0]["shape"]]
    except (KeyError, IndexError, TypeError, ValueError):
        return ()
    return tuple(shape) if len(shape) == _DIMENSIONS - 1 and min(shape) > 0 else ()


def request_facts(images: np.ndarray) -> dict[str, pa.Array]:
    """Fact columns of served images.

    Args:
        images: uint8 [N, H, W, C] with C of 1 or 3.
    """
    import pyarrow as pa

    mode = "L" if images.shape[3] == 1 else "RGB"
    facts = [picture_facts(image, size=image.size, kind=FORMAT, mode=mode) for image in images]
    return {name: pa.array([fact[name] for fact in facts], kind) for name, kind in fact_types().items()}
