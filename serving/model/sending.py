"""The way to the collector's socket: packets leave at once or are dropped and counted; an answer never waits for the log."""

import json
import os
import socket
import struct

LOG_SOCKET = "KFLOOP_LOG_SOCKET"
PACKET_BYTES = 120_000


class Sender:
    """Sends packets; of one thread at a time. ``address`` is null where nobody wants them."""

    def __init__(self):
        self.address = os.environ.get(LOG_SOCKET)
        self.dropped = 0
        self._socket = None

    def send(self, head, arrays, rows):
        """One packet of ``rows`` rows, with the bytes of contiguous arrays; what was dropped before is told in its head."""
        text = json.dumps(head | {"dropped": self.dropped}).encode()
        try:
            self._connected().sendmsg([struct.pack("<I", len(text)), text, *arrays])
        except BlockingIOError:  # the collector is behind: the answer matters more
            self.dropped += rows
        except OSError:  # nobody listens, or a row is too long for a packet; the next request tries to connect again
            self._close()
            self.dropped += rows

    def reach(self):
        """Whether somebody listens, or did when the last packet went out."""
        try:
            self._connected()
        except OSError:
            self._close()
            return False
        return True

    def _close(self):
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _connected(self):
        # Sequenced packets and not datagrams: those are limited to ten packets in flight on an ordinary kernel.
        if self._socket is None:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            link.setblocking(False)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * PACKET_BYTES)
            self._socket = link
            link.connect(self.address)
        return self._socket
