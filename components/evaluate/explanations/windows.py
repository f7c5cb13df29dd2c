"""Explanations of images, series, sounds and vectors: a window that covers a piece moves over the example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.explanations.attributing import occlusion
from kfloop.components.evaluate.explanations.explaining import Explained, Job, described

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PIECES = 7  # windows side by side on an image
FINE = 64  # pixels of a side up to which windows overlap
STEPS = 12  # windows one after the other in a series or a sound
NUMBERS = 60_000_000  # that go through the model for all explanations; with large inputs fewer rows are explained
FEWEST = 2
DRAWN = 240  # points of a curve in the file


def explain(job: Job, rows: list[int]) -> Explained:
    """Heat by place, for images as arrays, for everything else as numbers beside the values."""
    if job.version.modality == "image":
        return _images(job, rows)
    return {"series": _series, "audio": _sounds, "vector": _vectors}[job.version.modality](job, rows)


def _output(job: Job, row: int, shape: tuple[int, ...], kind: np.dtype[Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """The number that is explained, of copies of the input as Captum has them."""
    of, _ = job.output(row)
    name = job.model.model.signature.answer

    def run(copies: NDArray[Any]) -> NDArray[Any]:
        whole = np.rint(copies) if np.issubdtype(kind, np.integer) else copies
        return of(job.model.model.run((whole.reshape(-1, *shape).astype(kind),))[name])

    return run


def _affordable(rows: list[int], size: int, calls: int) -> list[int]:
    """As many of the rows, the mistakes at their end included, as do not take too long."""
    count = min(len(rows), max(FEWEST, NUMBERS // max(1, size * calls)))
    return (
        [rows[place] for place in np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))] if rows else []
    )


def _images(job: Job, rows: list[int]) -> Explained:
    shape = job.model.test.inputs[0].shape[1:]
    window = [max(2, -(-side // PIECES)) if side > 1 else 1 for side in shape[:2]]
    stride = [max(1, size // 2) if max(shape[:2]) <= FINE else size for size in window]
    calls = int(np.prod([-(-side // step) for side, step in zip(shape[:2], stride, strict=True)]))
    rows = _affordable(rows, int(np.prod(shape)), calls)
    fill = np.broadcast_to(np.rint(np.asarray(job.model.model.encoder.facts["mean"])), shape)
    pictures: list[NDArray[Any]] = []
    heat: list[NDArray[Any]] = []
    examples = []
    for row in rows:
        picture = job.model.test.batch_inputs(np.array([row]))[0][0]
        found = occlusion(
            _output(job, row, shape, picture.dtype), picture, (*window, shape[2]), (*stride, shape[2]), fill
        )
        examples.append(described(job, row) | {"kind": "image", "place": len(pictures)})
        pictures.append(picture)
        heat.append(found.mean(axis=2).astype(np.float32))
    caption = (
        f"A square of {window[0]} x {window[1]} pixels in the mean colour of the training images moves over the picture: where covering it "
        "lowers the output most, the picture is marked as speaking for the answer, where it raises it, as speaking against."
    )
    arrays = {"pictures": np.stack(pictures), "heat": np.stack(heat)} if pictures else {}
    return Explained(told={"kind": "image", "caption": caption, "examples": examples}, arrays=arrays)


def _series(job: Job, rows: list[int]) -> Explained:
    steps, channels = job.model.test.batch_inputs(np.array([0]))[0].shape[1:]
    width = max(1, -(-steps // STEPS))
    stride = max(1, width // 2)
    rows = _affordable(rows, steps * channels, channels * -(-steps // stride))
    encoder = job.model.model.encoder
    fill = np.broadcast_to(np.asarray(encoder.facts["mean"]), (steps, channels))
    examples = []
    for row in rows:
        window = job.model.test.batch_inputs(np.array([row]))[0][0]
        found = occlusion(_output(job, row, window.shape, window.dtype), window, (width, 1), (stride, 1), fill)
        names = getattr(encoder, "channels", [str(place) for place in range(channels)])
        parts = [{"name": str(name), **_curve(window[:, at], found[:, at])} for at, name in enumerate(names)]
        examples.append(described(job, row) | {"kind": "series", "channels": parts})
    moves = job.task.objective == "forecasting"
    caption = (
        f"Pieces of {width} steps are replaced by the channel's mean, one channel at a time: the darker a piece, the more "
        + ("the forecast moves without it." if moves else "the output falls (for) or rises (against) without it.")
    )
    return Explained(told={"kind": "series", "caption": caption, "examples": examples})


def _sounds(job: Job, rows: list[int]) -> Explained:
    length = job.model.test.inputs[0].shape[1]
    width = max(1, -(-length // STEPS))
    stride = max(1, width // 2)
    rows = _affordable(rows, length, -(-length // stride))
    rate = int(job.model.model.encoder.facts["sample_rate"])
    examples = []
    for row in rows:
        wave = job.model.test.batch_inputs(np.array([row]))[0][0]
        found = occlusion(_output(job, row, wave.shape, wave.dtype), wave, (width,), (stride,), np.zeros(length))
        loud = [
            float(np.abs(part.astype(np.float64)).max(initial=0)) for part in np.array_split(wave, min(DRAWN, length))
        ]
        weights = [float(part.mean()) for part in np.array_split(found, len(loud))]
        channel = {"name": "loudness", "values": loud, "weights": weights}
        examples.append(described(job, row) | {"kind": "audio", "channels": [channel], "seconds": length / rate})
    caption = (
        f"Pieces of {width / rate:.2f} seconds are silenced: where that lowers the output most, the sound speaks for the answer, "
        "where it raises it, against."
    )
    return Explained(told={"kind": "audio", "caption": caption, "examples": examples})


def _vectors(job: Job, rows: list[int]) -> Explained:
    size = job.model.test.inputs[0].shape[1]
    width = max(1, -(-size // 64))
    rows = _affordable(rows, size, -(-size // width))
    fill = np.nan_to_num(np.asarray(job.model.model.encoder.facts["mean"]))
    examples = []
    for row in rows:
        vector = job.model.test.batch_inputs(np.array([row]))[0][0]
        found = occlusion(_output(job, row, vector.shape, vector.dtype), vector, (width,), (width,), fill)
        channel = {"name": "values", **_curve(vector, found)}
        examples.append(described(job, row) | {"kind": "vector", "channels": [channel]})
    caption = (
        f"Pieces of {width} numbers are replaced by their means: where that lowers the output most, they speak for the answer, "
        "where it raises it, against."
    )
    return Explained(told={"kind": "vector", "caption": caption, "examples": examples})


def _curve(values: NDArray[Any], weights: NDArray[Any]) -> dict[str, list[float]]:
    """Values and weights, each thinned to the same points."""
    kept = np.unique(np.linspace(0, len(values) - 1, min(DRAWN, len(values))).round().astype(int))
    return {"values": values[kept].astype(float).tolist(), "weights": weights[kept].astype(float).tolist()}
