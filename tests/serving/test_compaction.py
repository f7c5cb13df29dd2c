"""Finished hours become one file: no row lost, none double, at any moment and after a kill at any point."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfloop.components.ingest.readers.requests.log import listing
from kfloop.components.monitor.log.layout import Layout
from kfloop.components.monitor.log.traffic import Reader
from kfloop.components.monitor.log.watermark import Watermark
from kfloop.core.request_cells import pack, read_rows
from kfloop.core.request_files import MERGED, hour_files, model_files
from kfloop.core.sections import LogConfig
from kfloop.serving import compaction
from kfloop.serving.collector import Collector
from kfloop.serving.compaction import is_over, merge_hour
from kfloop.serving.requests import logged_ids
from kfloop.serving.retention import Counts, log_files, tidy

HOUR = "20260101T05"
STARTS_NS = 1_767_243_600_000_000_000  # of that hour
DAY_NS = 86_400_000_000_000


def part(folder: Path, number: int, *, rows: int = 3, width: int = 4, version: int = 1, start: int = STARTS_NS) -> Path:
    """A file as the collector writes it."""
    at = start + number * 1_000_000_000
    ids = [f"{version}-{number}#{row}" for row in range(rows)]
    embedding = [np.full(width, number + row, np.float32) for row in range(rows)]
    pixels, said = pack(np.arange(rows * 6, dtype=np.uint8).reshape(rows, 6))
    table = pa.table(
        {
            "request_id": pa.array(ids, pa.string()),
            "ts_ns": pa.array([at + row for row in range(rows)], pa.int64()),
            "version": pa.array([version] * rows, pa.int64()),
            "image": pixels,
            "probabilities": pa.array([np.full(3, 1 / 3, np.float32)] * rows, pa.list_(pa.float32())),
            "embedding": pa.array(embedding, pa.list_(pa.float32())),
            "hash.town": pa.array([f"{number:032x}"] * rows, pa.string()),
            "latency_us": pa.array([5] * rows, pa.int64()),
        }
    )
    place = table.schema.get_field_index("image")
    table = table.cast(table.schema.set(place, table.schema.field("image").with_metadata(said)))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{at:020d}-77-{number:06d}.parquet"
    pq.write_table(table, path, compression="zstd")
    return path


def rows_of(folder: Path) -> Counter[str]:
    """What every reader that goes by ``model_files`` finds in an hour."""
    found: Counter[str] = Counter()
    for path in hour_files(folder):
        try:
            found.update(pq.ParquetFile(path).read(columns=["request_id"])["request_id"].to_pylist())
        except FileNotFoundError:
            continue
        except (OSError, pa.ArrowException):
            found["damaged"] += 1
    return found


@pytest.fixture
def hour(tmp_path: Path) -> Path:
    """Two versions with embeddings of different lengths take turns; one file is damaged, one is not the collector's."""
    folder = tmp_path / "m" / HOUR
    for number in range(12):
        part(folder, number, version=1 + number % 2, width=4 + 3 * (number % 2))
    part(folder, 20).write_bytes(b"PAR1 nonsense")
    part(folder, 21).rename(folder / "mine.parquet")
    return folder


def test_many_files_become_one_of_each_shape_and_say_the_same(hour: Path, tmp_path: Path) -> None:
    before = {row["request_id"]: row for path in hour.glob("*-77-00000*.parquet") for row in read(path)}
    expected, ids = rows_of(hour), logged_ids(tmp_path, "m")
    done = merge_hour(hour)
    assert (done.parts, done.damaged, done.waits) == (12, 1, True)
    names = [path.name for path in hour_files(hour)]
    assert len(names) == 4
    assert sum(name.endswith(MERGED) for name in names) == 2
    assert "mine.parquet" in names
    assert rows_of(hour) == expected
    assert logged_ids(tmp_path, "m") == ids
    assert list(listing(tmp_path / "m")) == model_files(tmp_path / "m") == hour_files(hour)
    after = {row["request_id"]: row for path in hour.glob(f"*{MERGED}") for row in read(path)}
    assert {name: after[name] for name in before} == before
    merged = pq.read_schema(next(hour.glob(f"*{MERGED}")))
    assert merged == pq.read_schema(next(hour.glob("*-77-000000.parquet")))
    assert merged.field("image").metadata == {b"dtype": b"uint8"}
    assert read_rows(next(hour.glob(f"*{MERGED}")))["image"][1].as_py() == [6, 7, 8, 9, 10, 11]
    again = merge_hour(hour)
    assert (again.parts, again.damaged) == (0, 1)
    assert len(list(hour.glob("*.parquet"))) == 16  # the parts are kept for those who listed them


def read(path: Path) -> list[dict[str, Any]]:
    return list(pq.ParquetFile(path).read().to_pylist())


def test_each_row_is_there_once_at_every_stage(hour: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, stages = rows_of(hour), Counter[str]()

    def look(stage: str) -> None:
        stages[stage] += 1
        assert rows_of(hour) == expected

    merge_hour(hour, at=look)
    monkeypatch.setattr(compaction, "KEEP_SECONDS", 0.0)
    done = merge_hour(hour, at=look)
    assert dict(stages) == {"written": 2, "named": 2, "merged": 2, "deleted": 12}
    assert not done.waits
    assert sorted(path.suffix for path in hour.iterdir()) == [".parquet"] * 4  # and nothing hidden is left


@pytest.mark.parametrize(("stage", "number"), [("written", 2), ("named", 1), ("merged", 1), ("deleted", 5)])
def test_a_kill_at_any_point_neither_loses_nor_doubles_a_row(hour: Path, stage: str, number: int) -> None:
    expected = rows_of(hour)
    code = f"""
import os, sys
from pathlib import Path
from kfloop.serving import compaction
seen = []
def at(stage):
    seen.append(stage)
    if seen.count({stage!r}) == {number}:
        os._exit(9)
compaction.merge_hour(Path(sys.argv[1]), at=at)
compaction.KEEP_SECONDS = 0.0
compaction.merge_hour(Path(sys.argv[1]), at=at)
"""
    done = subprocess.run([sys.executable, "-c", code, str(hour)], check=False, timeout=120)
    assert done.returncode == 9
    assert rows_of(hour) == expected
    merge_hour(hour)
    assert rows_of(hour) == expected
    assert len(hour_files(hour)) == 4


def test_readers_at_the_same_time_see_every_row_once(tmp_path: Path) -> None:
    folders = [tmp_path / "m" / f"202601{day:02d}T05" for day in range(1, 9)]
    for day, folder in enumerate(folders):
        for number in range(15):
            part(folder, number, start=STARTS_NS + day * DAY_NS)
    expected, ended = [rows_of(folder) for folder in folders], threading.Event()
    wrong: list[Any] = []

    def keep_reading() -> None:
        while not ended.is_set():
            found = [rows_of(folder) for folder in folders]
            wrong.extend(found if found != expected else [])

    readers = [threading.Thread(target=keep_reading) for _ in range(2)]
    for reader in readers:
        reader.start()
    for folder in folders:
        merge_hour(folder)
    ended.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert all(len(hour_files(folder)) == 1 for folder in folders)


def test_it_can_be_broken_off_and_large_hours_become_several_files(hour: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = rows_of(hour)
    asked: list[int] = []
    done = merge_hour(hour, stopped=lambda: bool(asked.append(1) or len(asked) > 5))
    assert (done.parts, done.waits) == (0, True)
    assert not list(hour.glob(".*"))
    size = min(path.stat().st_size for path in hour.glob("*-77-*"))
    monkeypatch.setattr(compaction, "MERGED_BYTES", 3 * max(size, 3000))
    monkeypatch.setattr(compaction, "BUFFER_BYTES", 100)
    merge_hour(hour)
    assert len(list(hour.glob(f"*{MERGED}"))) > 2
    assert rows_of(hour) == expected


def test_only_hours_that_are_over_and_settled() -> None:
    ends = STARTS_NS / 1e9 + 3600
    assert is_over(HOUR, ends + 601)
    assert not is_over(HOUR, ends + 599)
    assert not is_over("rollout", ends + 601)


def monitored(folder: Path) -> tuple[dict[str, tuple[int, list[float]]], dict[str, int], int]:
    """What a round of the monitor reads: time and embedding by request id, rows of other versions, and the number of problems."""
    reader = Reader(folder, "m", 1, Layout(answer="probabilities", answers=3, embedding=4), time.time() + 60)
    rows = {}
    for chunk in reader.chunks(Watermark()):
        cells = zip(chunk.ts_ns.tolist(), chunk.embedding.tolist(), strict=True)
        rows |= dict(zip(chunk.ids.tolist(), cells, strict=True))
    return rows, reader.other_versions, len(reader.problems)


def test_the_collector_merges_and_tells_and_the_monitor_counts_the_same(hour: Path, tmp_path: Path) -> None:
    """Watermark and dedup go by the rows' times and ids: they do not notice."""
    now = part(tmp_path / "m" / time.strftime("%Y%m%dT%H", time.gmtime()), 1, start=time.time_ns())
    before = monitored(tmp_path)
    collector = Collector(tmp_path)
    collector.start()
    for _ in range(2):
        collector.merge()
        assert (collector.counts.merged_files, collector.counts.damaged_files) == (12, 1)
    collector.stop()
    assert monitored(tmp_path) == before
    assert len(before[0]) > 0
    assert now in log_files(tmp_path)
    assert not list(now.parent.glob(f"*{MERGED}"))


def test_a_merged_file_is_deleted_with_its_parts_and_no_row_comes_back(hour: Path, tmp_path: Path) -> None:
    merge_hour(hour)
    for path in [hour / "mine.parquet", *hour.glob("*-77-000020.parquet")]:
        path.unlink()
    counts = Counts()
    read_until = STARTS_NS + 10_500_000_000  # between the newest rows of the two merged files
    left = tidy(tmp_path, LogConfig(days=1), counts, read_until)
    (rest,) = hour_files(hour)
    assert (counts.deleted_files, counts.deleted_rows) == (1, 18)
    assert rows_of(hour) == Counter(f"2-{number}#{row}" for number in range(1, 12, 2) for row in range(3))
    assert left == sum(path.stat().st_size for path in hour.glob("*.parquet"))
    assert rest.name.endswith(MERGED)
    assert tidy(tmp_path, LogConfig(days=1), counts, None) == 0
    assert (counts.deleted_files, counts.deleted_rows) == (2, 36)
    assert not hour.exists()
