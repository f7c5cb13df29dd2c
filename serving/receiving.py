"""The receiving end of the request log: a socket that the served models send packets to, and the queue where these wait to be written.

Memory is bounded: when the disk does not keep up, what finds the queue full is counted as lost.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import socket
import struct
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.errors import ServerUnavailable
from kfloop.serving.endpoint import require
from kfloop.serving.packets import parse_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfloop.core.sections import LogConfig
    from kfloop.core.workspace import Workspace

PACKET_BYTES = 1 << 20
LONGEST_QUEUE = 16_384  # packets
MOST_WAITING = 64_000_000  # bytes
FLUSH_WORD = b"flush"
LAST_SECONDS = 2.0  # at the end, for packets that are on their way
SENDERS_WAIT_SECONDS = 0.25  # rows wait in the served model for a tenth of a second at most
SETTINGS = "settings.json"  # beside the socket: what the served models may send
SECRET_BYTES = 32


class Receiver:
    """Listens on a socket of its own.

    Args:
        config: What the served models may send.
        secret: Key of the digests, in hex; a fresh one when empty.
        address: Socket to listen on, in a folder that is this receiver's alone (``owning.py``); one in a private folder when null.
        flush: Writes what waits; called when a caller asks for it.
        lose: Called with a name of the counts and how many more there are: rows that found the queue full, or what is no packet.
    """

    def __init__(
        self,
        config: LogConfig,
        *,
        secret: str,
        address: Path | None,
        flush: Callable[[], None],
        lose: Callable[[str, int], None],
    ) -> None:
        self._flush, self._lose = flush, lose
        # A short path of its own: socket paths are limited to about a hundred characters.
        self._home = None if address else tempfile.TemporaryDirectory(prefix="kfloop-log-")
        place = address or Path(self._home.name if self._home else "") / "log.sock"
        self.address = str(place)
        # Before anybody can connect; it stays when the socket goes, so that a sender which is earlier the next time knows what is private.
        _write_private(
            place.with_name(SETTINGS),
            json.dumps(
                config.model_dump(mode="json", include={"sample", "inputs", "hash", "drop"})
                | {"secret": secret or secrets.token_hex(SECRET_BYTES)}
            ),
        )
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        place.unlink(missing_ok=True)  # of an owner that was killed
        self._listener.bind(self.address)
        self._listener.listen(16)
        self._stop = threading.Event()
        self._queue: deque[bytes] = deque()
        self._waiting, self._counting = 0, threading.Lock()
        self._buffer = memoryview(bytearray(PACKET_BYTES))
        self.received = 0
        self._thread = threading.Thread(target=self._listen, name="kfloop-collector", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Take what is on its way, and listen no more."""
        self._stop.set()
        self._thread.join()

    def close(self) -> None:
        """Remove the private folder, if there is one."""
        if self._home:
            self._home.cleanup()

    def take(self) -> list[bytes]:
        """The packets that wait; whatever happens to them, they wait no more."""
        packets = [self._queue.popleft() for _ in range(len(self._queue))]
        with self._counting:
            self._waiting -= sum(map(len, packets))
        return packets

    def _listen(self) -> None:
        """Take packets until the end; then those that were sent before it, for a while at most."""
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        links = {self._listener.fileno(): self._listener}
        while not self._stop.is_set():
            self._take_all(poller, links, 200)
        deadline = time.monotonic() + LAST_SECONDS
        while time.monotonic() < deadline and self._take_all(poller, links, 0):
            continue
        Path(self.address).unlink(missing_ok=True)
        for link in links.values():
            link.close()

    def _take_all(self, poller: select.poll, links: dict[int, socket.socket], wait_ms: int) -> bool:
        """A packet of each link that has one, and new links; whether there was anything."""
        found = poller.poll(wait_ms)
        for descriptor, _ in found:
            if descriptor == self._listener.fileno():
                link, _ = self._listener.accept()
                links[link.fileno()] = link
                poller.register(link, select.POLLIN)
            elif not self._serve(links[descriptor]):
                poller.unregister(descriptor)
                links.pop(descriptor).close()
        return bool(found)

    def _serve(self, link: socket.socket) -> bool:
        """Take one packet.

        Returns:
            Whether the link is still open; a caller that went away ends its own link and nothing else.
        """
        try:
            # Into one buffer: a fresh one of this length for every packet costs more than the packet.
            packet = bytes(self._buffer[: link.recv_into(self._buffer)])
            if packet == FLUSH_WORD:
                self._flush()
                link.send(b"done")
            elif packet:
                self._keep(packet)
        except OSError:
            return False
        return bool(packet)

    def _keep(self, packet: bytes) -> None:
        """Queue a packet, or count what is lost with it."""
        self.received += 1
        if len(self._queue) < LONGEST_QUEUE and self._waiting + len(packet) <= MOST_WAITING:
            with self._counting:
                self._waiting += len(packet)
            self._queue.append(packet)
            return
        try:
            self._lose("dropped", len(parse_head(packet)[0]["ids"]))
        except (ValueError, TypeError, struct.error):
            self._lose("garbage", 1)


def log_secret(path: Path) -> str:
    """The key of the digests, in hex; made once, readable by its owner only.

    Args:
        path: File of the key.
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_private(path, secrets.token_hex(SECRET_BYTES))
    return path.read_text(encoding="utf-8").strip()


def _write_private(path: Path, text: str) -> None:
    """Write a file by rename, mode 0600 from its first moment."""
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    staging.unlink(missing_ok=True)
    with os.fdopen(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
    staging.replace(path)


def flush(workspace: Workspace, timeout: float = 10.0) -> None:
    """Ask the running collector to write everything it has; returns when that is on disk.

    Raises:
        ServerUnavailable: No server is running, or its collector does not answer.
    """
    endpoint = require(workspace)
    time.sleep(SENDERS_WAIT_SECONDS)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.settimeout(timeout)
        try:
            link.connect(endpoint.log_socket)
            link.send(FLUSH_WORD)
            link.recv(16)
        except OSError as error:
            raise ServerUnavailable(f"the request log's collector does not answer: {error}") from error
