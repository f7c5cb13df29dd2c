"""When requests of a log were made: what a window is cut from, by the monitor that counts them and by ingest that takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kfloop.core.request_files import model_files

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from pathlib import Path

DAY_NS = 86_400_000_000_000


def request_times(log: Path, wanted: Container[str]) -> dict[str, int]:
    """Time of each request that is wanted and logged, nanoseconds since 1970; of one that was logged twice the first.

    Args:
        log: Request log of one model, ``<hour>/*.parquet``.
        wanted: Request ids.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    times: dict[str, int] = {}
    for path in model_files(log):
        try:
            table = pq.read_table(path, columns=["request_id", "ts_ns"])
        except (OSError, KeyError, pa.ArrowException):  # the monitor names files that cannot be read
            continue
        if table["ts_ns"].null_count or not pa.types.is_integer(table["ts_ns"].type):  # and those without times
            continue
        for name, at in zip(table["request_id"].to_pylist(), table["ts_ns"].to_pylist(), strict=True):
            if name in wanted:
                times.setdefault(name, at)
    return times


def within(times: Mapping[str, int], days: float | None) -> dict[str, int]:
    """The requests of the last days before the latest one; null takes all.

    The clock has no say in it: the same log and answers give the same rows whenever one looks.
    """
    if days is None or not times:
        return dict(times)
    start = max(times.values()) - round(days * DAY_NS)
    return {name: at for name, at in times.items() if at >= start}
