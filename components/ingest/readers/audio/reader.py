"""A folder of wav and flac files."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.files.columns import choose_labels, choose_task, row_label, row_types, times
from kfloop.components.ingest.files.listing import files_digest, has_files, list_files
from kfloop.components.ingest.limits import smallest
from kfloop.components.ingest.readers.audio.decoding import FACTS, decode, header_rate
from kfloop.components.ingest.source import FILES_PER_BATCH, Batch, Source
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from kfloop.components.ingest.files.items import FileItem, FileListing
    from kfloop.core.sections import DataConfig

KIND = "audio_folder"
SUFFIXES = frozenset({".wav", ".flac"})
WHOLE = frozenset({"bytes", "rate", "channels"})  # facts that are whole numbers
HIGHEST_CHOSEN_RATE = 16_000
SAMPLES_PER_BATCH = 32 * 2**20  # 64 MiB of int16


def recognise(path: Path, config: DataConfig) -> bool:
    """Whether ``path`` is a folder with wav or flac files."""
    return config.modality in {"auto", "audio"} and has_files(path, SUFFIXES)


def open_source(path: Path, config: DataConfig, like: Source | None = None) -> Source:
    """Open a folder of wav and flac files; headers are read, and bytes for the digest, but no samples.

    Args:
        path: The folder: class subfolders, ``metadata.csv``, names with a pattern, or split folders of class folders.
        config: What the loop file says; ``sample_rate`` and ``max_seconds`` say what is kept of each file.
        like: The source whose labels and sample rate the files must have.

    Raises:
        InputError: No audio files, no labels, one class only, or a class that ``like`` does not have.
        ConfigError: ``data.pattern`` cannot be read.
    """
    listing = list_files(path, config, SUFFIXES, what="audio file")
    task = choose_task(listing, config, like)
    labels = choose_labels(listing.items, task, str(path), like)
    items = [listing.items[place] for place in smallest([item.id for item in listing.items], config.limit)]
    rates = Counter(rate for item in items if (rate := header_rate(item.path)) is not None)
    rate = int(like.schema["sample_rate"]) if like else _choose_rate(path, config, rates, len(items))

    aside = [{"id": name, "reason": reason} for name, reason in listing.unlabelled]

    def batches() -> Iterator[Batch]:
        return _batches(items, aside, task, labels, rate, config.max_seconds)

    return Source(
        kind=KIND,
        modality="audio",
        task=task,
        uri=str(path),
        labels=labels,
        n=len(listing.items) + len(listing.unlabelled),
        digest=files_digest(listing.items),
        schema={"sample_rate": rate},
        inputs=("audio",),
        facts=FACTS,
        batches=batches,
        suggestions=listing.suggestions,
        notes=(*listing.notes, *_notes(listing, rates, rate)),
    )


def _choose_rate(path: Path, config: DataConfig, rates: Counter[int], n: int) -> int:
    """The told rate, or the most common one (of equally common ones the lower), at most 16000."""
    if config.sample_rate is not None:
        return config.sample_rate
    if not rates:
        raise InputError(
            f"none of the {n} audio files in '{path}' has a header that can be read",
            hint="are they wav or flac files?",
            source=str(path),
        )
    common = min(rates, key=lambda rate: (-rates[rate], rate))
    return min(common, HIGHEST_CHOSEN_RATE)


def _notes(listing: FileListing, rates: Counter[int], rate: int) -> list[str]:
    told = []
    foreign = listing.foreign
    if foreign:
        told.append(f"{len(foreign)} files are no audio by their suffix and were not used, such as '{foreign[0]}'")
    changed = sum(count for source, count in rates.items() if source != rate)
    if changed:
        found = ", ".join(f"{source} Hz ({count})" for source, count in sorted(rates.items()))
        told.append(
            f"{changed} of {sum(rates.values())} audio files are resampled to {rate} Hz: the files have {found}"
        )
    return told


def _batches(
    items: Sequence[FileItem],
    unlabelled: Sequence[dict[str, str]],
    task: str,
    labels: Sequence[str],
    rate: int,
    max_seconds: float,
) -> Iterator[Batch]:
    import pyarrow as pa

    index = {name: place for place, name in enumerate(labels)}
    moments = times(items) or [None] * len(items)
    rows = zip(items, moments, strict=True)
    aside = list(unlabelled)
    facts = {name: pa.int64() if name in WHOLE else pa.float64() for name in FACTS}
    typed = {"id": pa.string()} | facts | row_types(items, moments, task)
    while chunk := list(islice(rows, FILES_PER_BATCH)):
        columns: dict[str, list[Any]] = {name: [] for name in typed}
        pieces: list[Any] = []
        held = 0
        for item, moment in chunk:
            try:
                label, audio = row_label(item, task, index), decode(item.path, rate, max_seconds)
            except InputError as error:
                aside.append({"id": item.id, "reason": error.message})
                continue
            row = {"id": item.id, "label": label, "group": item.group, "time": moment, "split": item.split}
            for name, column in columns.items():
                column.append(audio.facts[name] if name in audio.facts else row[name])
            pieces.append(audio.samples)
            held += len(audio.samples)
            if held >= SAMPLES_PER_BATCH:
                yield Batch(table=_table(columns, typed, pieces), quarantined=aside)
                columns, pieces, held, aside = {name: [] for name in typed}, [], 0, []
        yield Batch(table=_table(columns, typed, pieces), quarantined=aside)
        aside = []
    if aside:
        yield Batch(table=_table({name: [] for name in typed}, typed, []), quarantined=aside)


def _table(columns: dict[str, list[Any]], types: dict[str, pa.DataType], pieces: list[Any]) -> pa.Table:
    import pyarrow as pa

    ends = np.cumsum([0, *(len(piece) for piece in pieces)], dtype=np.int32)
    samples = np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int16)
    arrays = {name: pa.array(values, type=types[name]) for name, values in columns.items()}
    arrays["audio"] = pa.ListArray.from_arrays(pa.array(ends), pa.array(samples))
    order = ["id", "audio", *(name for name in arrays if name not in {"id", "audio"})]
    return pa.table({name: arrays[name] for name in order})
