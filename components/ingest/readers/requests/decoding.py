"""Logged tensors back to the columns of the source, as far as the log allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.readers.arrays.values import vector_facts
from kfloop.components.ingest.readers.requests.pictures import request_facts
from kfloop.components.ingest.readers.text.facts import text_facts
from kfloop.core.encoding.bare.columns import DAY
from kfloop.core.encoding.bare.tokens import PADDING, RESERVED
from kfloop.core.encoding.table import ANOTHER

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

UNKNOWN_WORD = "?"
LOST = {  # what the log does not hold, by modality
    "table": f"numbers come back with 7 digits, times to about 20 seconds, and a category that the model did not know as '{ANOTHER}'",
    "text": f"texts come back as the model read them: in small letters, words that it did not know as '{UNKNOWN_WORD}', and cut at its length",
    "audio": "sounds come back cut at the model's length, and without silence at their end",
}
DECODED = ("image", "table", "vector", "text", "audio")


def decode(
    encoder: Any, tensors: Mapping[str, NDArray[Any]], types: Mapping[str, pa.DataType], schema: Mapping[str, Any]
) -> dict[str, pa.Array]:
    """Inputs and facts of rows.

    Args:
        encoder: Encoder of the version that answered.
        tensors: Its input tensors, each [n, ...].
        types: Arrow type of each input and fact column of the source.
        schema: Facts about the source, such as ``image_shape``.

    Returns:
        A column of the source's type for each of ``types``; what cannot be known is null.

    Raises:
        ValueError: The values do not fit into the source's types.
    """
    import pyarrow as pa

    found: dict[str, Any] = _OF[encoder.modality](encoder, tensors, schema, types)
    n = len(next(iter(tensors.values())))
    return {
        name: found[name].cast(kind, safe=False) if name in found else pa.nulls(n, kind) for name, kind in types.items()
    }


def _images(encoder: Any, tensors: Mapping[str, Any], schema: Mapping[str, Any], types: Any) -> dict[str, Any]:
    import pyarrow as pa

    del encoder, types
    shape = [int(side) for side in schema["image_shape"]]
    pixels = tensors["image"].astype(np.uint8).reshape(-1, *shape)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), int(np.prod(shape)))
    return {"image": flat, **request_facts(pixels)}


def _vectors(encoder: Any, tensors: Mapping[str, Any], schema: Mapping[str, Any], types: Any) -> dict[str, Any]:
    import pyarrow as pa

    del schema, types
    values = np.ascontiguousarray(tensors["vector"].reshape(-1, encoder.size), dtype=np.float32)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), encoder.size)
    facts = {name: pa.array(fact, from_pandas=True) for name, fact in vector_facts(values).items()}
    return {"vector": flat, **facts}


def _texts(encoder: Any, tensors: Mapping[str, Any], schema: Mapping[str, Any], types: Any) -> dict[str, Any]:
    import pyarrow as pa

    del schema, types
    texts = [
        " ".join(
            encoder.words[token - RESERVED] if token >= RESERVED else UNKNOWN_WORD for token in row if token != PADDING
        )
        for row in tensors["tokens"].tolist()
    ]
    column = pa.array(texts, pa.string())
    return {"text": column, **text_facts(column)}


def _sounds(encoder: Any, tensors: Mapping[str, Any], schema: Mapping[str, Any], types: Any) -> dict[str, Any]:
    import pyarrow as pa

    del schema, types
    sounds = [row[: (np.flatnonzero(row)[-1] + 1) if row.any() else 1] for row in tensors["audio"].astype(np.int16)]
    power = [float(np.mean(np.square(row / 32768.0))) for row in sounds]
    return {
        "audio": pa.array([row.tolist() for row in sounds], pa.list_(pa.int16())),
        "seconds": pa.array([len(row) / encoder.sample_rate for row in sounds]),
        "rate": pa.array([encoder.sample_rate] * len(sounds)),
        "channels": pa.array([1] * len(sounds)),
        "rms_db": pa.array([10 * np.log10(max(value, 1e-12)) for value in power]),
    }


def _columns(encoder: Any, tensors: Mapping[str, Any], schema: Mapping[str, Any], types: Any) -> dict[str, Any]:
    """The columns of a table: of a time its place on circles is passed over, since its days say it all."""
    import pyarrow as pa

    del schema
    numbers, codes, found = iter(_slots(tensors, "number")), iter(_slots(tensors, "category")), {}
    for column in encoder.columns:
        name = column["name"]
        if column["kind"] == "category":
            names = pa.array([None, ANOTHER, *column["names"]], pa.string())
            found[name] = names.take(pa.array(next(codes)))
            continue
        values = _shortest(next(numbers))
        for _ in range(2 * len(column.get("periods", []))):
            next(numbers)
        kind = types.get(name)
        if kind is not None:
            found[name] = _number(values, column, kind)
    return found


def _slots(tensors: Mapping[str, Any], name: str) -> NDArray[Any]:
    return tensors[name].T if name in tensors else np.empty((0, 0))


def _shortest(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The shortest decimal that float32 reads as the same number: .1 was .1 before it was logged."""
    return np.asarray(values, dtype=np.float32).astype(str).astype(np.float64)


def _number(values: NDArray[np.float64], column: Mapping[str, Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    gone = ~np.isfinite(values)
    safe = np.where(gone, 0.0, values)
    if column["kind"] == "flag":
        return pa.array(safe > 0.5, mask=gone)  # noqa: PLR2004 - between false and true
    if column["kind"] == "time":
        micros = np.rint((safe * DAY + column["offset"]) * 1e6).astype(np.int64)
        return pa.array(micros, pa.int64(), mask=gone).cast(pa.timestamp("us"))
    told = safe + column["offset"]
    return pa.array(np.rint(told) if pa.types.is_integer(kind) else told, mask=gone)


_OF = {"image": _images, "table": _columns, "vector": _vectors, "text": _texts, "audio": _sounds}
