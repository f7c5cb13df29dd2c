"""The request log without a server: real packets through a real socket into real Parquet."""

import json
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from kfloop.core.request_cells import read_rows
from kfloop.serving.collector import Collector
from kfloop.serving.packets import parse
from logged_requests import read_requests


def packet(ids: list[str], *, model: str = "m", version: int = 1, width: int = 4, side: int = 2) -> bytes:
    count = len(ids)
    arrays = [
        np.arange(count * side * side).astype(np.uint8).reshape(count, side, side, 1),
        np.full((count, 3), 1 / 3, np.float32),
        np.full((count, width), 0.5, np.float32),
    ]
    head = {
        "model": model,
        "version": version,
        "ids": ids,
        "ts_ns": time.time_ns(),
        "latency_us": 10,
        "dropped": 0,
        "names": ["image", "probabilities", "embedding"],
        "shapes": [list(array.shape) for array in arrays],
        "dtypes": [str(array.dtype) for array in arrays],
    }
    text = json.dumps(head).encode()
    return struct.pack("<I", len(text)) + text + b"".join(array.tobytes() for array in arrays)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    collector = Collector(tmp_path)
    collector.start()
    yield collector
    collector.stop()


def send(collector: Collector, *packets: bytes) -> None:
    """Send, then ask for a flush on the same link: packets of one link arrive in order."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.settimeout(10)
        link.connect(collector.address)
        for item in packets:
            link.send(item)
        link.send(b"flush")
        assert link.recv(16) == b"done"


def test_a_packet_survives_the_way(tmp_path: Path) -> None:
    head, arrays = parse(packet(["a", "b"]))
    assert head["ids"] == ["a", "b"]
    assert arrays[0].shape == (2, 2, 2, 1)


def test_rows_land_in_parquet_with_their_ids(collector: Collector, tmp_path: Path) -> None:
    send(collector, packet(["a"]), packet(["b#0", "b#1"], version=2))
    log = read_requests(tmp_path, "m")
    assert log.ids.tolist() == ["a", "b#0", "b#1"]
    assert log.versions.tolist() == [1, 2, 2]
    assert log.images.shape == (3, 4)
    assert log.images.dtype == np.uint8
    assert log.embeddings.shape == (3, 4)
    assert collector.written == 3


def test_large_pictures_stand_as_bytes_and_come_back_as_they_were(collector: Collector, tmp_path: Path) -> None:
    send(collector, packet(["a", "b"], side=32), packet(["c"]))
    kinds = [str(pq.read_schema(file).field("image").type) for file in sorted(tmp_path.glob("m/*/*.parquet"))]
    assert sorted(kinds) == ["fixed_size_binary[1024]", "fixed_size_list<element: uint8>[4]"]
    (file,) = (path for path in tmp_path.glob("m/*/*.parquet") if "binary" in str(pq.read_schema(path).field("image")))
    found = read_rows(file)
    assert found["request_id"].to_pylist() == ["a", "b"]
    pixels = found["image"].combine_chunks().flatten().to_numpy().reshape(2, -1)
    np.testing.assert_array_equal(pixels, np.arange(2048).astype(np.uint8).reshape(2, 1024))


def test_golden_requests_are_not_traffic(collector: Collector, tmp_path: Path) -> None:
    send(collector, packet(["kfloop-golden#0"]), packet(["a"]))
    assert read_requests(tmp_path, "m").ids.tolist() == ["a"]


def test_many_packets_at_once_are_all_kept(collector: Collector, tmp_path: Path) -> None:
    send(collector, *[packet([f"r{number}"]) for number in range(500)])
    assert len(read_requests(tmp_path, "m")) == 500
    assert collector.dropped == 0


def test_the_same_files_are_read_again_and_no_later_ones(collector: Collector, tmp_path: Path) -> None:
    send(collector, packet(["a"]))
    first = read_requests(tmp_path, "m")
    send(collector, packet(["b"]))
    assert read_requests(tmp_path, "m", first.files).ids.tolist() == ["a"]
    assert read_requests(tmp_path, "m").ids.tolist() == ["a", "b"]


def test_garbage_and_odd_files_are_named_and_the_rest_is_read(collector: Collector, tmp_path: Path) -> None:
    send(collector, packet(["a"]))
    hour = next((tmp_path / "m").iterdir())
    (hour / "00000-junk.parquet").write_bytes(b"PAR1 nonsense")
    (hour / "zzzz-empty.parquet").write_bytes(b"")
    log = read_requests(tmp_path, "m")
    assert log.ids.tolist() == ["a"]
    assert len(log.problems) == 2
    assert any("00000-junk" in problem for problem in log.problems)


def test_rows_of_another_width_are_not_mixed_in(collector: Collector, tmp_path: Path) -> None:
    send(collector, packet(["a"]))
    send(collector, packet(["b"], width=7))
    log = read_requests(tmp_path, "m")
    assert log.ids.tolist() == ["a"]
    assert "another shape" in log.problems[0]


def test_no_log_at_all_is_empty(tmp_path: Path) -> None:
    log = read_requests(tmp_path / "nowhere", "m")
    assert len(log) == 0
    assert log.problems == ()


def test_what_is_left_is_written_at_the_end(tmp_path: Path) -> None:
    collector = Collector(tmp_path)
    collector.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.connect(collector.address)
        link.send(packet(["last"]))
        deadline = time.monotonic() + 10
        while collector.received == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
    collector.stop()
    assert read_requests(tmp_path, "m").ids.tolist() == ["last"]


def test_a_caller_that_goes_away_and_garbage_do_not_stop_the_log(collector: Collector, tmp_path: Path) -> None:
    for word in (b"flush", b"no packet of ours", b""):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
            link.connect(collector.address)
            if word:
                link.send(word)
    send(collector, packet(["after"]))
    assert read_requests(tmp_path, "m").ids.tolist() == ["after"]
