"""A wire to an HTTP server that gives way after so many downloads: it is cut, or nothing more comes through."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import threading
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

GET = re.compile(rb"GET (\S+/files/md5/../[0-9a-f]{30}) HTTP/1")


class Wire:
    """Between a client and a server, byte for byte.

    Args:
        server: Address of the server.
        downloads: GET requests for files in a DVC remote (not for its lists of folders) that are let through; all when null.
        stall: Keep the connection of the next one open in silence, instead of cutting it.
    """

    def __init__(self, server: str, *, downloads: int | None = None, stall: bool = False) -> None:
        place = urlsplit(server)
        self._server = (str(place.hostname), int(place.port or 80))
        self.downloads, self.stall = downloads, stall
        self.asked: list[str] = []
        self.gave_way = threading.Event()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://{}:{}".format(*self._listener.getsockname())
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):  # wakes the one who waits for connections
            socket.create_connection(self._listener.getsockname()).close()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._closing.is_set():
                client.close()
                return
            thread = threading.Thread(target=self._carry, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _carry(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._server) as server:
            while not self._closing.is_set():
                ready, _, _ = select.select([client, server], [], [], 0.1)
                for one, other in ((client, server), (server, client)):
                    if one not in ready:
                        continue
                    content = one.recv(1 << 16)
                    if not content:
                        return
                    if one is client and not self._lets(content):
                        if self.stall:
                            self._closing.wait()
                        return
                    other.sendall(content)

    def _lets(self, content: bytes) -> bool:
        """Whether a request may pass; a client sends one at a time, and its head in one piece."""
        found = GET.match(content)
        if found is None:
            return True
        with self._lock:
            if self.downloads is not None and len(self.asked) >= self.downloads:
                self.gave_way.set()
                return False
            self.asked.append(unquote(urlsplit(found[1].decode()).path))
            return True


@contextlib.contextmanager
def bad_wire(server: str, *, downloads: int | None = None, stall: bool = False) -> Iterator[Wire]:
    wire = Wire(server, downloads=downloads, stall=stall)
    try:
        yield wire
    finally:
        wire.close()
