"""How long the request log is kept, and what was lost or deleted of it: counted in ``counts.json`` in the log's folder."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from kfloop.core.request_files import model_files, replaced
from kfloop.serving.compaction import delete_parts

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.sections import LogConfig

COUNTS = "counts.json"
MOST_SENDERS = 256  # processes of served models; most of them ended long ago
DAY_NS = 86_400_000_000_000


@dataclass(kw_only=True)
class Counts:
    """Totals of one log, since it began.

    Attributes:
        written: Rows written.
        dropped: Rows lost because somebody did not keep up: the collector, or the disk.
        full: Of these, rows lost because the log had its largest size and the monitor had not read what is in it.
        garbage: Packets that were none.
        deleted_files: Files deleted because of their age or the log's size.
        deleted_rows: Rows in them.
        deleted_bytes: Their size.
        merged_files: Files of finished hours whose rows are in a larger one by now.
        damaged_files: Files of finished hours that cannot be read, as of the last look; they stay.
        published_files: Files that were published where all servers of the loop publish theirs.
        failed_uploads: Times that this went wrong; it is tried again.
    """

    written: int = 0
    dropped: int = 0
    full: int = 0
    garbage: int = 0
    deleted_files: int = 0
    deleted_rows: int = 0
    deleted_bytes: int = 0
    merged_files: int = 0
    damaged_files: int = 0
    published_files: int = 0
    failed_uploads: int = 0


def read_counts(folder: Path) -> Counts:
    """The totals of a log; zeros where there are none, or where the file is damaged."""
    try:
        raw = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
        return Counts(**{name: int(raw[name]) for name in asdict(Counts()) if name in raw})
    except (OSError, ValueError, TypeError):
        return Counts()


def read_lost(folder: Path) -> dict[str, int]:
    """By sender, how many rows it said it dropped: a collector that begins anew must not count them again."""
    try:
        raw = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
        return {str(sender): int(lost) for sender, lost in raw.get("senders", {}).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_counts(folder: Path, counts: Counts, lost: dict[str, int]) -> None:
    """Write the totals, and those of the latest senders that lost anything; one line, by rename."""
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / f".{COUNTS}.tmp"
    senders = dict([pair for pair in lost.items() if pair[1]][-MOST_SENDERS:])
    staging.write_text(json.dumps(asdict(counts) | {"senders": senders}) + "\n", encoding="utf-8")
    staging.replace(folder / COUNTS)


def log_files(folder: Path) -> list[Path]:
    """Every finished file of the log, oldest first: a file's name begins with the time at which it was written."""
    found = (path for model in folder.glob("[!.]*") if model.is_dir() for path in model_files(model))
    return sorted(found, key=lambda path: (path.name, path))


def tidy(folder: Path, config: LogConfig, counts: Counts, read_until_ns: int | None) -> int:
    """Delete what is too old or too much, oldest first, and count it.

    Args:
        folder: Root of the log.
        config: ``max_bytes`` and ``days``.
        counts: Totals, which are changed.
        read_until_ns: Time of the newest row that the monitor has counted; null where nobody knows of a monitor.

    Returns:
        Size of what is left, in bytes.
    """
    if read_until_ns != 0:  # nothing was read: as where it is not published yet
        _tidy_rollouts(folder, config.days)
    files = {path: size for path in log_files(folder) if (size := _size(path)) is not None}
    # Parts of merged files lie there for a while longer; they go with those.
    beside = {path: sum(_size(part) or 0 for part in replaced(path)) for path in files}
    total, oldest = sum(files.values()) + sum(beside.values()), time.time_ns() - int(config.days * DAY_NS)
    for path, size in files.items():
        written = written_ns(path)
        if total <= config.max_bytes and written >= oldest:
            break
        if read_until_ns is not None and written > read_until_ns:
            break  # all later ones are unread, too
        rows = _rows(path)
        try:
            delete_parts(path)
            path.unlink()
        except FileNotFoundError:
            total -= size + beside[path]
            continue
        except OSError:  # somebody else's file: it is left, and so is its size
            continue
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # only when it is empty
        total -= size + beside[path]
        counts.deleted_files += 1
        counts.deleted_rows += rows
        counts.deleted_bytes += size
    return total


def _tidy_rollouts(folder: Path, days: float) -> None:
    """Delete evidence of roll-outs (``evidence.py``) that is too old; none lasts that long."""
    oldest = time.time_ns() - int(days * DAY_NS)
    for path in folder.glob("[!.]*/rollout/[!.]*/[!.]*.parquet"):
        with contextlib.suppress(OSError):
            if written_ns(path) < oldest:
                path.unlink()
                path.parent.rmdir()  # only when it is empty


def written_ns(path: Path) -> int:
    """When a file was written; files that others put there have no time in their name."""
    head = path.name.partition("-")[0]
    return int(head) if head.isdigit() else path.stat().st_mtime_ns


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _rows(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, ValueError, pa.ArrowException):
        return 0
