"""The log as the monitor reads it: in the order of time, each row once, in flat memory, whatever is wrong with files and clocks."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfloop.components.monitor.log.layout import Layout
from kfloop.components.monitor.log.traffic import CHUNK_ROWS, Reader, Traffic
from kfloop.components.monitor.log.watermark import MOST_RECENT, OVERLAP_NS, Watermark
from kfloop.serving.compaction import merge_hour

if TYPE_CHECKING:
    from pathlib import Path

BEGIN = 1_760_000_400_000_000_000
NOW = BEGIN / 1e9 + 86_400
SECOND = 1_000_000_000
LAYOUT = Layout(answer="prediction", answers=1, embedding=2, tensors=(("number", 2),), columns=())


def log(
    folder: Path,
    ids: range,
    *,
    step: float = 1.0,
    offset: float = 0.0,
    name: str = "",
    version: int = 3,
    **columns: Any,
) -> Path:
    """One file with a row a second (or `step`), whose ids tell their place."""
    n = len(ids)
    hour = folder / "m" / columns.pop("hour", "20251009T09")
    hour.mkdir(parents=True, exist_ok=True)
    rows = {
        "request_id": [f"r{i:06d}" for i in ids],
        "ts_ns": [BEGIN + int((offset + i * step) * SECOND) for i in ids],
        "version": [version] * n,
        "input.number": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(2 * n, dtype=np.float32)), 2),
        "output.prediction": [[float(i)] for i in ids],
        "output.embedding": [[float(i), 0.5] for i in ids],
        "latency_us": [900] * n,
    }
    path = hour / f"{name or f'{BEGIN + ids[0]:020d}-1-{ids[0]:06d}'}.parquet"
    pq.write_table(pa.table(rows | columns), path)
    return path


def reader(folder: Path, now: float = NOW) -> Reader:
    return Reader(folder, "m", 3, LAYOUT, now)


def read(folder: Path, mark: Watermark | None = None, now: float = NOW) -> tuple[list[Traffic], Reader]:
    this = reader(folder, now)
    return list(this.chunks(mark or Watermark())), this


def ids(chunks: list[Traffic]) -> list[int]:
    return [int(name[1:]) for chunk in chunks for name in chunk.ids.tolist()]


def test_no_log_and_an_empty_log_have_no_rows(tmp_path: Path) -> None:
    chunks, this = read(tmp_path)
    assert (chunks, this.problems, this.watermark) == ([], (), Watermark())
    assert this.latest(10, 0) is None


def test_rows_come_in_the_order_of_time_whatever_file_they_are_in(tmp_path: Path) -> None:
    log(tmp_path, range(1, 400, 2), name="b")
    log(tmp_path, range(0, 400, 2), name="c")
    log(tmp_path, range(400, 450), name="a")
    chunks, this = read(tmp_path)
    assert ids(chunks) == list(range(450))
    assert this.rows_new == 450
    first = chunks[0]
    assert first.answers[7, 0] == 7.0
    assert first.embedding[7].tolist() == [7.0, 0.5]
    assert set(first.inputs) == {"number 1", "number 2"}
    assert first.latency_us[7] == 900
    assert first.take(np.array([2, 5])).ids.tolist() == ["r000002", "r000005"]


def test_large_files_are_read_in_chunks(tmp_path: Path) -> None:
    log(tmp_path, range(3 * CHUNK_ROWS + 7), step=0.01)
    chunks, _ = read(tmp_path)
    assert ids(chunks) == list(range(3 * CHUNK_ROWS + 7))
    assert max(map(len, chunks)) <= CHUNK_ROWS


@pytest.mark.parametrize("cuts", [[0, 1, 130, 600], [0, 300, 600], [0, 600]])
def test_rounds_count_each_row_once(tmp_path: Path, cuts: list[int]) -> None:
    mark, seen = Watermark(), []
    for start, stop in pairwise(cuts):
        log(tmp_path, range(start, stop), step=0.5)
        chunks, this = read(tmp_path, mark)
        mark = Watermark.from_dict(json.loads(json.dumps(this.watermark.to_dict())))
        seen += ids(chunks)
        assert this.problems == ()
        assert read(tmp_path, mark)[0] == []
    assert seen == list(range(600))


def test_files_that_were_read_are_not_opened_again(tmp_path: Path) -> None:
    """Their footers are: a file whose rows are all old may be damaged behind them, and nobody notices."""
    old = log(tmp_path, range(580))
    log(tmp_path, range(580, 600))
    _, this = read(tmp_path)
    content = old.read_bytes()
    old.write_bytes(b"PAR1" + bytes(2000) + content[2004:])
    log(tmp_path, range(1000, 1010))
    chunks, again = read(tmp_path, this.watermark)
    assert ids(chunks) == list(range(1000, 1010))
    assert again.problems == ()
    assert any("000000.parquet" in line for line in read(tmp_path)[1].problems)


def test_late_rows_within_the_overlap_count_and_later_ones_are_told(tmp_path: Path) -> None:
    log(tmp_path, range(100, 200))
    _, this = read(tmp_path)
    log(tmp_path, range(1), offset=195.5, name="late")
    chunks, again = read(tmp_path, this.watermark)
    assert (ids(chunks), again.problems) == ([0], ())
    log(tmp_path, range(20), offset=100.2, name="later")
    chunks, again = read(tmp_path, again.watermark)
    assert chunks == []
    assert len(again.problems) == 1
    assert "20 rows came with a time more than 10 s before" in again.problems[0]
    assert "clock was set back" in again.problems[0]
    assert read(tmp_path, again.watermark)[1].problems == ()  # told once


def test_a_clock_ahead_does_not_blind_the_watch(tmp_path: Path) -> None:
    log(tmp_path, range(100))
    log(tmp_path, range(100, 103), offset=50 * 365 * 86_400.0, name="future")
    chunks, this = read(tmp_path)
    assert ids(chunks) == list(range(100))
    assert any("3 rows carry a time that is yet to come" in line for line in this.problems)
    log(tmp_path, range(200, 260))
    chunks, this = read(tmp_path, this.watermark)
    assert ids(chunks) == list(range(200, 260))
    assert ids(read(tmp_path, this.watermark, now=NOW + 51 * 365 * 86_400.0)[0]) == [100, 101, 102]


def test_a_clock_ahead_by_an_hour_waits_an_hour(tmp_path: Path) -> None:
    log(tmp_path, range(100), offset=3600.0)
    now = BEGIN / 1e9 + 100
    chunks, this = read(tmp_path, now=now)
    assert chunks == []
    chunks, _ = read(tmp_path, this.watermark, now=now + 3600)
    assert ids(chunks) == list(range(100))


def test_repetitions_count_once_within_a_round_and_between_rounds(tmp_path: Path) -> None:
    log(tmp_path, range(100))
    log(tmp_path, range(90, 100), name="again")
    chunks, this = read(tmp_path)
    assert ids(chunks) == list(range(100))
    assert this.problems == ("10 rows repeat a request id; each request counts once",)
    log(tmp_path, range(95, 100), name="once more")
    chunks, this = read(tmp_path, this.watermark)
    assert chunks == []
    assert any("rows repeat a request id" in line for line in this.problems)
    assert not any("set back" in line for line in this.problems)


def test_other_versions_are_counted_once_and_left_out(tmp_path: Path) -> None:
    log(tmp_path, range(50))
    log(tmp_path, range(50, 80), version=2, name="other", **{"output.embedding": [[0.0] * 9] * 30})
    chunks, this = read(tmp_path)
    assert (ids(chunks), this.other_versions) == (list(range(50)), {"2": 30})
    assert read(tmp_path, this.watermark)[1].other_versions == {}


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda content: content[:200], "broken"),
        (lambda _: b"", "broken"),
        (lambda _: b"PAR1PAR1", "broken"),
        (lambda content: b"PAR1" + bytes(1500) + content[1504:], "broken"),
    ],
)
def test_a_broken_file_is_named_and_never_stops_the_round(tmp_path: Path, spoil: Any, told: str) -> None:
    log(tmp_path, range(50))
    broken = log(tmp_path, range(50, 400), name="broken")
    broken.write_bytes(spoil(broken.read_bytes()))
    log(tmp_path, range(400, 450), name="z")
    chunks, this = read(tmp_path)
    found = ids(chunks)
    assert set(range(50)) | set(range(400, 450)) <= set(found)
    assert len(found) < 450
    assert any(told in line for line in this.problems)
    assert read(tmp_path, this.watermark)[0] == []


@pytest.mark.parametrize(
    "column",
    [
        {"ts_ns": [None] * 20},
        {"ts_ns": ["now"] * 20},
        {"version": [None, *[3] * 19]},
        {"latency_us": ["slow"] * 20},
        {"ts_ns": pa.array(range(20), pa.timestamp("us"))},
        {"output.prediction": [0.5] * 20},
        {"output.prediction": [["high"]] * 20},
        {"output.prediction": [{"high": 0.5}] * 20},
        {"output.prediction": [None] * 20},
        {"output.embedding": ["0.5 0.5"] * 20},
        {"output.embedding": [[[0.5], [0.5]]] * 20},
        {"input.number": [1.0] * 20},
        {"input.number": [["1", "2"]] * 20},
    ],
)
def test_columns_of_another_type_make_a_broken_file(tmp_path: Path, column: dict[str, Any]) -> None:
    log(tmp_path, range(50))
    log(tmp_path, range(50, 70), name="odd", **column)
    chunks, this = read(tmp_path)
    assert ids(chunks) == list(range(50))
    assert any("odd.parquet" in line for line in this.problems)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([None, "a", *[f"x{i}" for i in range(8)]], "found string with 1 missing"),
        (list(range(10)), "found int64 with 0 missing"),
        ([None] * 10, "missing"),
    ],
)
def test_rows_that_nobody_can_name_are_not_counted(tmp_path: Path, names: list[Any], told: str) -> None:
    """Without an id a row met again is a new one; two rows of one moment, one of them nameless, ended every round."""
    log(tmp_path, range(10))
    log(tmp_path, range(10, 20), name="nameless", request_id=names, ts_ns=[BEGIN + 9 * SECOND] * 10)
    mark = Watermark()
    for rows in (10, 0, 0):
        chunks, this = read(tmp_path, mark)
        assert len(ids(chunks)) == rows
        (problem,) = this.problems
        assert "nameless.parquet" in problem
        assert told in problem
        mark = Watermark.from_dict(json.loads(json.dumps(this.watermark.to_dict())))


def test_rows_of_another_length_have_no_numbers(tmp_path: Path) -> None:
    log(
        tmp_path,
        range(20),
        **{"output.prediction": [[1.0, 2.0]] * 20, "output.embedding": [[1.0]] * 10 + [[1.0, 2.0]] * 10},
    )
    (chunk,), this = read(tmp_path)
    assert np.isnan(chunk.answers).all()
    assert np.isnan(chunk.embedding).all()
    assert (this.rows_new, this.problems) == (20, ())


def test_a_log_without_inputs_and_embedding_has_none(tmp_path: Path) -> None:
    path = log(tmp_path, range(20))
    pq.write_table(pq.read_table(path).drop_columns(["input.number", "output.embedding"]), path)
    (chunk,), _ = read(tmp_path)
    assert (chunk.inputs, chunk.embedded, chunk.embedding.shape) == ({}, False, (20, 2))


def test_merged_hours_are_the_same_rows(tmp_path: Path) -> None:
    for start in range(0, 300, 50):
        log(tmp_path, range(start, start + 50))
    _, this = read(tmp_path)
    merge_hour(tmp_path / "m" / "20251009T09")
    assert ids(read(tmp_path)[0]) == list(range(300))
    chunks, again = read(tmp_path, this.watermark)
    assert (chunks, again.problems) == ([], ())


def test_the_latest_rows_do_not_depend_on_rounds(tmp_path: Path) -> None:
    log(tmp_path, range(500))
    log(tmp_path, range(500, 520), version=2, name="other")
    this = reader(tmp_path)
    latest = this.latest(30, BEGIN + 1000 * SECOND)
    assert latest is not None
    assert ids([latest]) == list(range(470, 500))
    until = this.latest(30, BEGIN + 99 * SECOND)
    assert until is not None
    assert ids([until]) == list(range(70, 100))


def test_the_watermark_is_small_at_any_rate() -> None:
    mark = Watermark()
    dense = {f"r{i}": 10**18 + i for i in range(3 * MOST_RECENT)}
    moved = mark.moved(10**18 + 3 * MOST_RECENT - 1, dense, {})
    assert len(moved.recent) == MOST_RECENT
    assert moved.since_ns == 10**18 + 2 * MOST_RECENT - 1
    assert mark.moved(10**18, {"a": 10**18}, {}).since_ns == 10**18 - OVERLAP_NS
