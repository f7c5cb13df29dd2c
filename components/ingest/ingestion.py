"""The ingest step: from a source to a dataset version."""

from __future__ import annotations

import hashlib
import heapq
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop import __version__
from kfloop.components.ingest.decoding import UnreadableImageError, choose_side, decode
from kfloop.components.ingest.sources import digit_arrays, inspect, listings
from kfloop.core.artifacts import write_report
from kfloop.core.versions import Rows, write_version
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.components.ingest.sources import Item, SourceInfo
    from kfloop.core.sections import DataConfig
    from kfloop.core.workspace import Workspace

NAMED = 5  # files named in an error
LISTED = 100  # files listed in the report
LOPSIDED = 10.0  # largest class over smallest class that is worth a warning


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What ingest did.

    Attributes:
        digest: Name of the dataset version.
        name: Name of the dataset.
        labels: Class names.
        image_shape: Height, width, channels.
        n_rows: Rows written.
        splits: Rows of each split.
        per_class: Rows of each class in each split.
        fresh_rows: Rows that came from the folder of fresh labels.
        n_quarantined: Files set aside.
        quarantined: The first 100 of them: id, origin, reason.
        warnings: What a person should know.
        source_digest: Digest of the source's files, as ``inspect`` gives it.
    """

    digest: str
    name: str
    labels: list[str]
    image_shape: list[int]
    n_rows: int
    splits: dict[str, int]
    per_class: dict[str, dict[str, int]]
    fresh_rows: int
    n_quarantined: int
    quarantined: list[dict[str, str]]
    warnings: list[str]
    source_digest: str


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    """Pixels uint8 [N, side, side, C] of ``items``, and the files that could not be read."""

    images: NDArray[np.uint8]
    items: list[Item]
    quarantined: list[dict[str, str]]
    all_grey: bool


def run(config: DataConfig, *, out: Path, workspace: Workspace) -> IngestReport:
    """Read the source and write a dataset version.

    Args:
        config: Section ``data``.
        out: Empty folder.
        workspace: Places of the loop.

    Raises:
        InputError: The source cannot be used; see ``sources.inspect``, also too many unreadable files, and a class without rows in a
            split.
    """
    info = inspect(config)
    base, fresh = listings(config)
    with tempfile.TemporaryFile(dir=out) as base_file, tempfile.TemporaryFile(dir=out) as fresh_file:
        if base is None:
            rows, side, channels = _digits(config)
            quarantined: list[dict[str, str]] = []
        else:
            chosen = _limited(base.items, config.limit)
            side = config.image_size or choose_side(chosen)
            decoded = _decode_all(chosen, side, config.channels, base_file)
            channels = config.channels or (1 if decoded.all_grey else 3)
            rows, quarantined = _rows(decoded, info.labels, channels), decoded.quarantined
        extra = _decode_all(fresh.items, side, channels, fresh_file)
        quarantined = quarantined + extra.quarantined
        _refuse_too_many(quarantined, len(rows.ids) + len(extra.items) + len(quarantined), config.max_quarantined_share)
        rows = _joined(rows, _rows(extra, info.labels, channels))
        card = write_version(
            out,
            name=workspace.loop,
            rows=rows,
            labels=info.labels,
            validation=config.split.validation,
            test=config.split.test,
            sources=_sources(config, info),
            quarantined=quarantined,
            lineage={"git_revision": _git_revision(workspace.root), "kfloop_version": __version__},
        )
    skipped = ([] if base is None else list(base.skipped)) + list(fresh.skipped)
    report = IngestReport(
        digest=card["digest"],
        name=workspace.loop,
        labels=list(info.labels),
        image_shape=card["image_shape"],
        n_rows=card["n_rows"],
        splits=card["splits"],
        per_class=card["per_class"],
        fresh_rows=card["origins"].get("fresh", 0),
        n_quarantined=len(quarantined),
        quarantined=quarantined[:LISTED],
        warnings=_warnings(rows, info.labels, quarantined, skipped),
        source_digest=info.digest,
    )
    write_report(out, report)
    return report


def after_publish(path: Path, workspace: Workspace) -> None:
    """Track the published version with DVC; called by the engine once ``path`` is in the store."""
    from kfloop.core.tracking import track

    track(path, workspace)


def _digits(config: DataConfig) -> tuple[Rows, int, int]:
    images, labels = digit_arrays()
    ids = [f"digits/{row:04d}" for row in range(len(labels))]
    keep = list(range(len(ids))) if config.limit is None else sorted(_smallest(ids, config.limit))
    side, channels = config.image_size or images.shape[1], config.channels or 1
    images = images[keep]
    if side != images.shape[1]:
        images = np.stack([_resized(image, side) for image in images])
    images = np.repeat(images, channels, axis=3)
    rows = Rows(ids=[ids[row] for row in keep], images=images, labels=labels[keep], origin=["base"] * len(keep))
    return rows, side, channels


def _resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.fromarray(image[..., 0]).resize((side, side), Image.Resampling.BILINEAR))[..., np.newaxis]


def _limited(items: Sequence[Item], limit: int | None) -> list[Item]:
    return (
        list(items) if limit is None else [items[row] for row in sorted(_smallest([item.id for item in items], limit))]
    )


def _smallest(ids: Sequence[str], limit: int) -> list[int]:
    """Rows with the smallest hashes of their ids: adding files elsewhere moves few of them."""
    return heapq.nsmallest(limit, range(len(ids)), key=lambda row: hashlib.blake2b(ids[row].encode()).digest())


def _decode_all(items: Sequence[Item], side: int, channels: int | None, file: Any) -> _Decoded:
    """Decode into a file-backed array, so that memory does not grow with the dataset."""
    depth = channels or 3
    shape = (len(items), side, side, depth)
    images = np.memmap(file, dtype=np.uint8, mode="w+", shape=shape) if items else np.empty(shape, dtype=np.uint8)
    kept: list[Item] = []
    quarantined: list[dict[str, str]] = []
    all_grey = True
    for item in items:
        try:
            images[len(kept)], grey = decode(item.path, side, depth)
        except UnreadableImageError as error:
            quarantined.append({"id": item.id, "origin": item.origin, "label": item.label, "reason": error.message})
            continue
        all_grey = all_grey and grey
        kept.append(item)
    return _Decoded(images=images[: len(kept)], items=kept, quarantined=quarantined, all_grey=all_grey)


def _rows(decoded: _Decoded, labels: Sequence[str], channels: int) -> Rows:
    index = {name: number for number, name in enumerate(labels)}
    return Rows(
        ids=[item.id for item in decoded.items],
        images=decoded.images[..., :channels],
        labels=np.array([index[item.label] for item in decoded.items], dtype=np.int64),
        origin=[item.origin for item in decoded.items],
    )


def _joined(first: Rows, second: Rows) -> Rows:
    if not len(second.ids):
        return first
    return Rows(
        ids=[*first.ids, *second.ids],
        images=np.concatenate([first.images, second.images]),
        labels=np.concatenate([first.labels, second.labels]),
        origin=[*first.origin, *second.origin],
    )


def _refuse_too_many(quarantined: list[dict[str, str]], total: int, allowed: float) -> None:
    if total and len(quarantined) / total > allowed:
        named = "; ".join(f"'{line['id']}': {line['reason']}" for line in quarantined[:NAMED])
        more = f"; and {len(quarantined) - NAMED} more" if len(quarantined) > NAMED else ""
        raise InputError(
            f"{len(quarantined)} of {total} images cannot be read ({len(quarantined) / total:.0%}, allowed {allowed:.0%}): "
            f"{named}{more}",
            hint="mend or remove these files, or raise data.max_quarantined_share",
            quarantined=[line["id"] for line in quarantined[:LISTED]],
        )


def _warnings(
    rows: Rows, labels: Sequence[str], quarantined: list[dict[str, str]], skipped: list[tuple[str, str]]
) -> list[str]:
    found = [f"'{line['id']}' was set aside: {line['reason']}" for line in quarantined[:NAMED]]
    if len(quarantined) > NAMED:
        found.append(f"{len(quarantined) - NAMED} more images were set aside, see quarantine.jsonl")
    if skipped:
        found.append(f"{len(skipped)} files were not used, such as '{skipped[0][0]}': {skipped[0][1]}")
    counts = Counter(rows.labels.tolist())
    most, least = max(counts, key=lambda key: counts[key]), min(counts, key=lambda key: counts[key])
    if counts[most] > LOPSIDED * counts[least]:
        found.append(f"class '{labels[most]}' has {counts[most]} images, class '{labels[least]}' only {counts[least]}")
    return found + _duplicates(rows)


def _duplicates(rows: Rows) -> list[str]:
    """Rows with equal pixels; they share a split, so they do not leak, but they count twice."""
    seen: dict[bytes, int] = {}
    same: list[tuple[str, str]] = []
    conflicts: list[tuple[str, str]] = []
    for row, image in enumerate(rows.images):
        first = seen.setdefault(hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest(), row)
        if first != row:
            (same if rows.labels[first] == rows.labels[row] else conflicts).append((rows.ids[first], rows.ids[row]))
    found = []
    if same:
        found.append(f"{len(same)} images repeat the pixels of another, such as '{same[0][1]}' and '{same[0][0]}'")
    if conflicts:
        one, other = conflicts[0]
        found.append(f"{len(conflicts)} images have equal pixels but another label, such as '{other}' and '{one}'")
    return found


def _sources(config: DataConfig, info: SourceInfo) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"kind": info.kind, "uri": config.source, "digest": info.digest, "n": info.n - info.n_fresh}
    ]
    if config.fresh is not None and info.n_fresh:
        found.append({"kind": "fresh_labels", "uri": config.fresh, "digest": info.digest, "n": info.n_fresh})
    return found


def _git_revision(root: Path) -> str | None:
    """Commit of the loop's folder; null outside git."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
