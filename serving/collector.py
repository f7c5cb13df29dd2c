"""The collector: takes log packets from the served model and writes Parquet by model and hour, off the answer's path.

Columns: request_id string, ts_ns int64, model string, version int64, latency_us int64, and the tensors, each row flat: for image classifiers
image (fixed-size list of uint8), probabilities and embedding (lists of float32), for all others ``input.NAME`` and ``output.NAME``. Files
appear by rename and are never changed.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import tempfile
import threading
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import ServerUnavailable
from kfloop.serving.control import GOLDEN_ID
from kfloop.serving.endpoint import require

if TYPE_CHECKING:
    from kfloop.core.workspace import Workspace

PACKET_BYTES = 1 << 20
FLUSH_SECONDS = 1.0
FLUSH_PACKETS = 256
LONGEST_QUEUE = 4096
FLUSH_WORD = b"flush"
TYPES = frozenset({"uint8", "int16", "int32", "int64", "float32", "float64", "bool"})


class Collector:
    """Listens on a socket of its own and writes what arrives.

    Args:
        folder: Root of the request log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # A short path of its own: socket paths are limited to about a hundred characters.
        self._home = tempfile.TemporaryDirectory(prefix="kfloop-log-")
        self.address = str(Path(self._home.name) / "log.sock")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self.address)
        self._listener.listen(16)
        self._stop = threading.Event()
        self._queue: deque[bytes] = deque()
        self._writing = threading.Lock()
        self._files = 0
        self.received = self.written = self.dropped = 0
        self._thread = threading.Thread(target=self._listen, name="kfloop-collector", daemon=True)
        self._writer = threading.Thread(target=self._write_now_and_then, name="kfloop-log-writer", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()
        self._writer.start()

    def stop(self) -> None:
        """Write what is left and close."""
        self._stop.set()
        self._thread.join()
        self._writer.join()
        self.write()
        self._listener.close()
        self._home.cleanup()

    def write(self) -> None:
        """Write everything received so far."""
        with self._writing:
            packets = [self._queue.popleft() for _ in range(len(self._queue))]
            alike: dict[tuple[Any, ...], list[tuple[dict[str, Any], list[np.ndarray]]]] = {}
            for packet in packets:
                try:
                    head, arrays = parse(packet)
                except (ValueError, KeyError, TypeError, struct.error):  # not one of ours: counted, the rest is written
                    self.dropped += 1
                    continue
                if not head["ids"][0].startswith(GOLDEN_ID):
                    # Two versions may differ in the shapes of their rows.
                    shapes = tuple((array.dtype.str, array.shape[1:]) for array in arrays)
                    alike.setdefault((head["model"], tuple(head["names"]), shapes), []).append((head, arrays))
            for (model, *_), rows in alike.items():
                self._write_file(model, rows)

    def _listen(self) -> None:
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        links = {self._listener.fileno(): self._listener}
        while not self._stop.is_set():
            for descriptor, _ in poller.poll(200):
                if descriptor == self._listener.fileno():
                    link, _ = self._listener.accept()
                    links[link.fileno()] = link
                    poller.register(link, select.POLLIN)
                    continue
                if not self._serve(links[descriptor]):
                    poller.unregister(descriptor)
                    links.pop(descriptor).close()
        for link in links.values():
            if link is not self._listener:
                link.close()

    def _serve(self, link: socket.socket) -> bool:
        """Take one packet.

        Returns:
            Whether the link is still open; a caller that went away ends its own link and nothing else.
        """
        try:
            packet = link.recv(PACKET_BYTES)
            if packet == FLUSH_WORD:
                self.write()
                link.send(b"done")
            elif packet:
                self._take(packet)
        except OSError:
            return False
        return bool(packet)

    def _take(self, packet: bytes) -> None:
        self.received += 1
        if len(self._queue) >= LONGEST_QUEUE:  # the disk does not keep up: memory stays bounded, the loss is counted
            self.dropped += 1
            return
        self._queue.append(packet)

    def _write_now_and_then(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            self.write()

    def _write_file(self, model: str, rows: list[tuple[dict[str, Any], list[np.ndarray]]]) -> None:
        import pyarrow.parquet as pq

        table = as_table(rows)
        hour = datetime.now(UTC).strftime("%Y%m%dT%H")
        folder = self._folder / model / hour
        folder.mkdir(parents=True, exist_ok=True)
        self._files += 1
        name = f"{time.time_ns():020d}-{os.getpid()}-{self._files:06d}.parquet"
        staging = folder / f".{name}.tmp"
        pq.write_table(table, staging, compression="zstd")
        staging.replace(folder / name)
        self.written += table.num_rows


def parse(packet: bytes) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Head and tensors of one packet."""
    (length,) = struct.unpack_from("<I", packet)
    head = json.loads(packet[4 : 4 + length])
    arrays, start = [], 4 + length
    for _, shape, name in zip(head["names"], head["shapes"], head["dtypes"], strict=True):
        if name not in TYPES:
            message = f"type {name}"
            raise ValueError(message)
        dtype, count = np.dtype(name), int(np.prod(shape))
        arrays.append(np.frombuffer(packet, dtype, count, start).reshape(shape))
        start += count * dtype.itemsize
    return head, arrays


def as_table(rows: list[tuple[dict[str, Any], list[np.ndarray]]]) -> Any:
    """Rows of one model and of the same shapes as an Arrow table."""
    import pyarrow as pa

    def repeated(key: str) -> list[Any]:
        return [head[key] for head, _ in rows for _ in head["ids"]]

    names = rows[0][0]["names"]
    tensors = [np.concatenate([arrays[place] for _, arrays in rows]) for place in range(len(names))]
    return pa.table(
        {
            "request_id": pa.array([identity for head, _ in rows for identity in head["ids"]], pa.string()),
            "ts_ns": pa.array(repeated("ts_ns"), pa.int64()),
            "model": pa.array(repeated("model"), pa.string()),
            "version": pa.array(repeated("version"), pa.int64()),
            **{name: _lists(name, tensor) for name, tensor in zip(names, tensors, strict=True)},
            "latency_us": pa.array(repeated("latency_us"), pa.int64()),
        }
    )


def _lists(name: str, tensor: np.ndarray) -> Any:
    """A tensor as a column, each row flat; what a model gives are lists of any length, because versions may differ in it."""
    import pyarrow as pa

    flat = tensor.reshape(len(tensor), -1)
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])
    return column if name == "image" or name.startswith("input.") else column.cast(pa.list_(column.type.value_type))


def flush(workspace: Workspace, timeout: float = 10.0) -> None:
    """Ask the running collector to write everything it has; returns when that is on disk.

    Raises:
        ServerUnavailable: No server is running, or its collector does not answer.
    """
    endpoint = require(workspace)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.settimeout(timeout)
        try:
            link.connect(endpoint.log_socket)
            link.send(FLUSH_WORD)
            link.recv(16)
        except OSError as error:
            raise ServerUnavailable(f"the request log's collector does not answer: {error}") from error
