"""What is shown of a logged request: its tensors, turned back by the encoder that made them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.encoding.bare.columns import DAY, FIRST, MISSING
from kfloop.core.encoding.bare.tokens import PADDING, RESERVED
from kfloop.core.review import media

if TYPE_CHECKING:
    from collections.abc import Iterator

UNKNOWN_WORD = "?"


def request_value(signature: Any, encoder: Any, row: dict[str, Any]) -> dict[str, Any] | None:
    """What is shown of one request; null for tensors that nobody can read (a pretrained model's pieces)."""
    tensors = {port.name: np.array(_cell(row, port.name), dtype=port.dtype) for port in signature.inputs}
    note = f"asked at {np.datetime64(int(row['ts_ns']), 'ns').astype('datetime64[s]')} UTC"
    if encoder.modality == "image":
        return {
            "kind": "image",
            "uri": media.png_uri(tensors["image"].reshape(signature.inputs[0].shape)),
            "note": note,
        }
    if encoder.modality == "audio":
        wave, rate = tensors["audio"], encoder.sample_rate
        plot = media.curves_svg({"loudness": media.envelope(wave)})
        return {"kind": "audio", "uri": media.wav_uri(wave, rate), "plot": plot, "note": note}
    if encoder.modality == "text":
        words = " ".join(_words(encoder, tensors["tokens"]))
        return {
            "kind": "text",
            "text": words,
            "note": f"{note}; as the model saw it, '{UNKNOWN_WORD}' is a word it does not know",
        }
    if encoder.modality == "table":
        return {"kind": "row", "row": _columns(encoder, tensors), "note": f"{note}; as the model saw it"}
    if encoder.modality in {"vector", "series"}:
        found = next(iter(tensors.values())).astype(np.float64).reshape(signature.inputs[0].shape)
        names = encoder.channels if encoder.modality == "series" else ["value"]
        curves = dict(zip(names, found.reshape(len(found), -1).T, strict=True))
        legend = media.curve_legend(curves)
        return {"kind": "plot", "uri": media.curves_svg(curves), "legend": legend, "row": {}, "note": note}
    return None


def is_logged(row: dict[str, Any], signature: Any) -> bool:
    """Whether the inputs of a row are in the log, which may be kept without them."""
    return all(port.name in row or f"input.{port.name}" in row for port in signature.inputs)


def _cell(row: dict[str, Any], name: str) -> Any:
    return row[name] if name in row else row[f"input.{name}"]


def _words(encoder: Any, tokens: Any) -> Iterator[str]:
    for token in tokens.tolist():
        if token != PADDING:
            yield encoder.words[token - RESERVED] if token >= RESERVED else UNKNOWN_WORD


def _columns(encoder: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row: numbers as they came, categories by name."""
    numbers, codes = iter(tensors.get("number", [])), iter(tensors.get("category", []))
    found: dict[str, Any] = {}
    for column in encoder.columns:
        if column["kind"] == "category":
            code = int(next(codes))
            known = column["names"][code - FIRST] if code >= FIRST else "(another)"
            found[column["name"]] = None if code == MISSING else known
            continue
        value = float(next(numbers))
        for _ in range(2 * len(column.get("periods", []))):
            next(numbers)
        found[column["name"]] = _number(value, column)
    return media.plain_row(found)


def _number(value: float, column: dict[str, Any]) -> Any:
    if not np.isfinite(value):
        return None
    if column["kind"] == "time":
        return str(np.datetime64(round(value * DAY + column["offset"]), "s"))
    return bool(value) if column["kind"] == "flag" else value + column["offset"]
