"""Requests that Spark reads and sorts: the same rows, the same reports and the same memory as a round that reads them itself."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfloop.components.monitor.log.layout import Layout
from kfloop.components.monitor.log.spark import SparkReader
from kfloop.components.monitor.log.traffic import Reader, Traffic
from kfloop.components.monitor.log.watermark import Watermark
from kfloop.core.request_cells import pack
from kfloop.core.sections import SparkConfig
from kfloop.core.spark import session
from monitored_table import draw, make_bench
from tests.components.test_monitor_traffic import BEGIN, LAYOUT, NOW, SECOND, ids, log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow  # a start of Spark takes seconds
HERE = SparkConfig(master="local[2]", settings={"spark.sql.shuffle.partitions": "3", "spark.driver.memory": "1g"})
PICTURES = Layout(answer="probabilities", answers=2, embedding=3, images=True)


@pytest.fixture(scope="module", autouse=True)
def started() -> Iterator[None]:
    """One session for the module."""
    with session(HERE):
        yield


def both(
    folder: Path, layout: Layout = LAYOUT, mark: Watermark | None = None, now: float = NOW
) -> tuple[Reader, Reader]:
    """Readers after all their chunks, which must be the same in everything that a round is told."""
    told = (folder, "m", 3, layout, now)
    readers = Reader(*told), SparkReader(*told, config=HERE, scratch=folder / "scratch")
    here, there = ([*reader.chunks(mark or Watermark())] for reader in readers)
    assert ids(here) == ids(there)
    if here:
        one, other = joined(here), joined(there)
        assert one.keys() == other.keys()
        for name, cells in one.items():
            assert cells.dtype == other[name].dtype, name
            np.testing.assert_array_equal(cells, other[name], err_msg=name)
    for name in ("watermark", "rows_new", "other_versions"):
        assert getattr(readers[0], name) == getattr(readers[1], name), name
    assert not list((folder / "scratch").glob("*"))
    return readers


def joined(chunks: list[Traffic]) -> dict[str, Any]:
    parts = [
        {field.name: getattr(chunk, field.name) for field in fields(chunk) if field.name != "inputs"} | chunk.inputs
        for chunk in chunks
    ]
    return {
        name: np.concatenate([part[name] for part in parts])
        for name, cells in parts[0].items()
        if isinstance(cells, np.ndarray)
    }


def test_the_same_rows_in_the_same_order_from_round_to_round(tmp_path: Path) -> None:
    for place in range(8):  # more overlap than the other reader needs to hold
        log(tmp_path, range(place, 4000, 8), name=f"{9 - place}")
    log(tmp_path, range(5000, 5040), version=2)
    log(tmp_path, range(3990, 4010), name="repeats")
    log(tmp_path, range(100_000, 100_010))  # a clock that is ahead
    here, there = both(tmp_path)
    assert here.rows_new == 4010
    assert here.problems == there.problems
    log(tmp_path, range(5035, 5100))  # some of them within the overlap
    again, also = both(tmp_path, mark=here.watermark)
    assert again.rows_new == 60
    assert again.problems == also.problems
    nothing, neither = both(tmp_path, mark=again.watermark)
    assert (nothing.rows_new, nothing.problems) == (0, neither.problems)


def test_rows_of_a_canary_with_other_widths_leave_those_of_the_champion_as_they_are(tmp_path: Path) -> None:
    """They stand in files of their own, of the same columns and hours, and Spark sorts both into one."""
    wide = {"output.embedding": [[1.0, 2.0, 3.0]] * 500, "output.prediction": [[0.2, 0.8]] * 500}
    log(tmp_path, range(1000))
    log(tmp_path, range(1000, 1500), version=4, offset=-999.5, name="canary", **wide)
    odd = {"output.embedding": [[1.0, 2.0, 3.0]] * 9}
    log(tmp_path, range(1500, 1509), offset=-1499.3, name="champion-with-another-embedding", **odd)
    readers = both(tmp_path)
    assert (readers[0].rows_new, readers[0].other_versions) == (1009, {"4": 500})
    for reader in readers:
        found = joined([*reader.chunks(Watermark())])
        assert not np.isnan(found["answers"]).any()
        assert np.isnan(found["embedding"]).any(axis=1).sum() == 9


def pictures(folder: Path, first: int, *, packed: bool, embedding: bool = True) -> None:
    rng, n = np.random.default_rng(first), 30
    pixels = rng.integers(0, 256, (n, 300), dtype=np.uint8)
    cells, metadata = pack(pixels) if packed else (pa.array(list(pixels)), {})
    columns = {
        "request_id": pa.array([f"r{first + i:06d}" for i in range(n)]),
        "ts_ns": pa.array([BEGIN + (first + i) * SECOND for i in range(n)]),
        "version": pa.array([3] * n),
        "image": cells,
        "probabilities": pa.array(list(rng.dirichlet([1, 1], n).astype(np.float32))),
        "latency_us": pa.array([1] * n),
        "review": pa.array(rng.random(n) < 0.5),
    }
    if embedding:
        columns["embedding"] = pa.array(list(rng.normal(size=(n, 3)).astype(np.float32)))
    schema = pa.schema(
        [pa.field(name, it.type, metadata=metadata if name == "image" else None) for name, it in columns.items()]
    )
    hour = folder / "m" / "20251009T09"
    hour.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(list(columns.values()), schema=schema), hour / f"{first:06d}.parquet")


def test_pictures_as_bytes_and_as_lists_of_an_older_release(tmp_path: Path) -> None:
    pictures(tmp_path, 0, packed=True)
    pictures(tmp_path, 30, packed=False)
    pictures(tmp_path, 60, packed=True, embedding=False)
    readers = both(tmp_path, PICTURES)
    shown = [reader.latest(10, BEGIN + 100 * SECOND) for reader in readers]
    assert [part is not None and part.images.shape for part in shown] == [(10, 300)] * 2


def test_files_that_cannot_be_used_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    log(tmp_path, range(100))
    broken = log(tmp_path, range(100, 200), name="broken")
    content = bytearray(broken.read_bytes())
    content[4:400] = b"\xff" * 396  # the footer stays whole
    broken.write_bytes(content)
    hour = broken.parent
    (hour / "nothing.parquet").write_bytes(b"")
    pq.write_table(pa.table({"ts_ns": [BEGIN]}), hour / "other.parquet")
    log(tmp_path, range(200, 210), name="holes", latency_us=pa.array([None] * 10, pa.int64()))
    log(tmp_path, range(210, 220), name="nameless", request_id=[None, *[f"r{i}" for i in range(9)]])
    log(tmp_path, range(220, 230), name="numbers", request_id=list(range(10)))
    log(tmp_path, range(230, 240), name="scalars", **{"output.prediction": [0.5] * 10})
    log(tmp_path, range(240, 250), name="words", **{"input.number": [["1", "2"]] * 10})
    here, there = both(tmp_path)
    assert here.rows_new == 100
    for reader in (here, there):
        told = "\n".join(reader.problems)
        assert all(
            name in told for name in ("broken", "nothing", "other", "holes", "nameless", "numbers", "scalars", "words")
        ), told
        assert len(reader.problems) == 8


def test_a_log_without_one_readable_file(tmp_path: Path) -> None:
    both(tmp_path)
    path = log(tmp_path, range(10))
    path.write_bytes(path.read_bytes()[:50])
    here, _ = both(tmp_path)
    assert here.rows_new == 0


def test_whole_rounds_conclude_the_same_and_remember_the_same(tmp_path: Path) -> None:
    reports, memories = [], []
    for engine in ("pyarrow", "spark"):
        bench = make_bench(tmp_path / engine)
        rounds = []
        for seed, start in ((1, 0), (2, 600), (3, 1200)):
            rows = draw(seed, 600)
            rows["number"][:, 0] += 15.0 * (seed - 1)
            bench.log(rows, start)
            rounds.append(bench.monitor(engine=engine, spark=HERE))
        reports.append([{key: value for key, value in told.items() if key != "at"} for told in rounds])
        memory = bench.memory()
        assert memory["quality"].pop("now")
        memories.append(memory)
    assert memories[0] == memories[1]
    assert reports[0] == reports[1]
    assert reports[0][-1]["alarm_row"] is not None
