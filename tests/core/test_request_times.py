"""When requests were made, whatever else lies in the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfloop.core.request_times import DAY_NS, request_times, within


def test_of_a_request_that_was_logged_twice_the_first_counts_and_the_clock_has_no_say(tmp_path: Path) -> None:
    for hour, (names, times) in {"20251009T09": (["a", "b"], [0, DAY_NS]), "20251012T09": (["a"], [9])}.items():
        (tmp_path / hour).mkdir()
        pq.write_table(
            pa.table({"request_id": names, "ts_ns": pa.array(times, pa.int64())}), tmp_path / hour / "x.parquet"
        )
    found = request_times(tmp_path, {"a", "b", "never"})
    assert found == {"a": 0, "b": DAY_NS}
    assert within(found, None) == found
    assert within(found, 0.5) == {"b": DAY_NS}
    assert within({}, 1.0) == {}


@pytest.mark.parametrize(
    "columns",
    [
        {"request_id": ["odd", "a"], "ts_ns": pa.array([None, 7], pa.int64())},
        {"request_id": ["odd"], "ts_ns": ["now"]},
        {"request_id": ["odd"], "ts_ns": [0.5]},
        {"request_id": ["odd"]},
        {"ts_ns": [7]},
    ],
)
def test_a_file_without_times_is_left_out_as_the_monitor_leaves_it_out(tmp_path: Path, columns: dict[str, Any]) -> None:
    """Labelled rows of such a file ended the monitoring round that counted them, and the ingest of the next training."""
    hour = tmp_path / "20251009T09"
    hour.mkdir()
    pq.write_table(pa.table({"request_id": ["b"], "ts_ns": pa.array([DAY_NS], pa.int64())}), hour / "good.parquet")
    pq.write_table(pa.table(columns), hour / "odd.parquet")
    (hour / "torn.parquet").write_bytes(b"PAR1")
    found = request_times(tmp_path, {"a", "b", "odd"})
    assert within(found, 1.0) == {"b": DAY_NS}
