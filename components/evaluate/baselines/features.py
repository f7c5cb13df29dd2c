"""Features of rows for simple models: numbers that take no learning beyond counting, by modality."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Floats = NDArray[np.float32]
    Described = Callable[[pa.Table], Any]

TERMS = 50_000  # words and pairs of words
CATEGORIES = 30  # of a column, the most frequent ones; the others count as one
FRAME, STEP, BANDS = 512, 256, 32  # samples of a frame of sound, between two frames, and bands of frequency
POINTS = 60  # of a labelled window, evenly spread


def features(version: DatasetVersion, train: pa.Table, test: pa.Table) -> Described:
    """Features of rows, [N, D] float32 (sparse for texts); what has to be counted is counted in the training rows.

    Args:
        version: Dataset version that the rows are of; not for series, whose examples are windows.
        train: Training rows.
        test: Test rows; they say only whether a column of numbers has gaps, and whether it holds words.

    Returns:
        What describes rows with the version's input columns.
    """
    if version.modality == "text":
        column = version.inputs[0]
        words = text_features([text or "" for text in train[column].to_pylist()])
        return lambda table: words([text or "" for text in table[column].to_pylist()])
    if version.modality == "table":
        columns = [_column(name, train, test) for name in version.inputs]

        def joined(table: pa.Table) -> Floats:
            return np.concatenate([column(table) for column in columns], axis=1)

        return _scaled(joined, train)
    found = _ROWS[version.modality]
    if version.modality == "image":
        return lambda table: found(version, table)
    return _scaled(lambda table: found(version, table), train)


def tree_features(version: DatasetVersion, train: pa.Table, test: pa.Table) -> tuple[Described, list[bool]]:
    """Columns of a table as trees like them: one number for each, codes for categories, and which are such codes."""
    columns: list[Callable[[pa.Table], NDArray[np.float64]]] = []
    categorical = []
    for name in version.inputs:
        words = _values(train[name]) is None
        if not words:
            _numbers(name, test)
        columns.append(_codes(name, train) if words else partial(_numbers, name))
        categorical.append(words)
    return lambda table: np.stack([column(table) for column in columns], axis=1), categorical


def window_features(train: NDArray[Any]) -> Callable[[NDArray[Any]], Floats]:
    """Features of windows [N, context, C]: their course at up to 60 points, and what it amounts to by channel."""
    return _scaled(_course, train)


def text_features(train: list[str]) -> Callable[[list[str]], Any]:
    """Words and pairs of words; characters where no training text has a word of two letters (signs, emoji); nothing where all are empty."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    options: dict[str, Any] = {"ngram_range": (1, 2), "sublinear_tf": True, "max_features": TERMS}
    words = TfidfVectorizer(**options)
    if not any(map(words.build_analyzer(), train)):
        if not any(text.strip() for text in train):
            return lambda texts: np.zeros((len(texts), 1), np.float32)
        words = TfidfVectorizer(analyzer="char", **options)
    words.fit(train)
    transform: Callable[[list[str]], Any] = words.transform
    return transform


def _course(windows: NDArray[Any]) -> Floats:
    values = np.nan_to_num(windows.astype(np.float32))
    kept = np.linspace(0, values.shape[1] - 1, min(POINTS, values.shape[1])).round().astype(int)
    steps = np.diff(values, axis=1) if values.shape[1] > 1 else np.zeros_like(values)
    told = [values.mean(1), values.std(1), values.min(1), values.max(1), steps.std(1)]
    return np.concatenate([values[:, kept].reshape(len(values), -1), *told], axis=1)


def _images(version: DatasetVersion, table: pa.Table) -> Floats:
    flat = table["image"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat.reshape(table.num_rows, int(np.prod(version.image_shape))) / 255, dtype=np.float32)


def _vectors(version: DatasetVersion, table: pa.Table) -> Floats:
    flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    size = int(np.prod(version.schema["vector_shape"])) if "vector_shape" in version.schema else -1
    return np.nan_to_num(np.asarray(flat, dtype=np.float32)).reshape(table.num_rows, size)


def _sounds(version: DatasetVersion, table: pa.Table) -> Floats:
    """Mean and spread of the loudness of 32 bands of frequency, and the length."""
    window = np.hanning(FRAME).astype(np.float32)
    edges = np.unique(np.geomspace(2, FRAME // 2 + 1, BANDS + 1).round().astype(int))
    rows = []
    for sound in table["audio"].combine_chunks():
        wave = sound.values.to_numpy(zero_copy_only=False).astype(np.float32) / 32768
        padded = np.pad(wave, (0, max(0, FRAME - len(wave))))
        frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::STEP]
        power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
        loud = np.log(np.add.reduceat(power, edges[:-1], axis=1) + 1e-6)
        rows.append(np.concatenate([loud.mean(0), loud.std(0), [len(wave) / float(version.schema["sample_rate"])]]))
    return np.asarray(rows, dtype=np.float32)


def _graphs(version: DatasetVersion, table: pa.Table) -> Floats:
    """Nodes, edges, degrees, and mean and spread of the features of the nodes."""
    width = max(1, int(version.schema["node_features"]))
    rows = []
    for flat, pairs in zip(table["nodes"].combine_chunks(), table["edges"].combine_chunks(), strict=True):
        nodes = flat.values.to_numpy(zero_copy_only=False).reshape(-1, width)
        ends = pairs.values.to_numpy(zero_copy_only=False)
        degrees = np.bincount(ends, minlength=max(1, len(nodes))) if len(ends) else np.zeros(max(1, len(nodes)))
        sizes = [len(nodes), len(ends) / 2, degrees.mean(), degrees.std(), degrees.max()]
        own = [nodes.mean(0), nodes.std(0)] if len(nodes) else [np.zeros(width)] * 2
        rows.append(np.concatenate([sizes, *own]))
    return np.nan_to_num(np.asarray(rows, dtype=np.float32))


_ROWS: dict[str, Callable[[DatasetVersion, pa.Table], Floats]] = {
    "image": _images,
    "vector": _vectors,
    "nodes": _vectors,
    "audio": _sounds,
    "graphs": _graphs,
}


def _column(name: str, train: pa.Table, test: pa.Table) -> Callable[[pa.Table], Floats]:
    """One column of a table: a number with its median for gaps and whether there was one, or a place for each frequent category."""
    values = _values(train[name])
    if values is not None:
        middle = float(np.nanmedian(values)) if np.isfinite(values).any() else 0.0
        gaps = not (np.isfinite(values).all() and np.isfinite(_numbers(name, test)).all())

        def numbers(table: pa.Table) -> Floats:
            found = _numbers(name, table)
            missing = ~np.isfinite(found)
            filled = np.where(missing, middle, found)[:, None]
            return np.concatenate([filled, missing[:, None]], axis=1) if gaps else filled

        return numbers
    names, counts = np.unique(_words(train[name]), return_counts=True)
    frequent = names[np.argsort(-counts, kind="stable")[:CATEGORIES]]
    return lambda table: (_words(table[name])[:, None] == frequent).astype(np.float32)


def _words(column: pa.ChunkedArray) -> NDArray[np.str_]:
    return np.array([str(item) for item in column.to_pylist()], dtype=str)


def _values(column: pa.ChunkedArray) -> NDArray[np.float64] | None:
    """A column as numbers, NaN for gaps; None for one that holds words."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_dictionary(column.type):
        return None
    if pa.types.is_timestamp(column.type):
        column = pc.cast(column, pa.int64())
    return np.asarray(pc.cast(column, pa.float64()).to_numpy(), dtype=np.float64)


def _numbers(name: str, test: pa.Table) -> NDArray[np.float64]:
    """A column of the test rows that holds numbers in the training rows."""
    values = _values(test[name])
    if values is None:
        raise StateError(
            f"column '{name}' holds numbers in the train split and words in the test split",
            hint="the dataset version is damaged: bring it back from a backup, or ingest again",
        )
    return values


def _codes(name: str, train: pa.Table) -> Callable[[pa.Table], NDArray[np.float64]]:
    """Codes of the categories of the training rows by frequency; NaN for unknown, missing and rare ones."""
    known = np.array([str(item) for item in train[name].to_pylist() if item is not None], dtype=str)
    names, counts = np.unique(known, return_counts=True)
    code = {word: float(place) for place, word in enumerate(names[np.argsort(-counts, kind="stable")[:250]])}
    return lambda table: np.array([code.get(str(item), np.nan) for item in table[name].to_pylist()])


def _scaled(describe: Callable[[Any], NDArray[Any]], train: Any) -> Callable[[Any], Floats]:
    """The same in standard deviations of the training rows."""
    known = describe(train)
    mean, std = known.mean(axis=0, dtype=np.float64), known.std(axis=0, dtype=np.float64)
    std = np.where(std > 0, std, 1.0)
    return lambda rows: np.asarray((describe(rows) - mean) / std, dtype=np.float32)
