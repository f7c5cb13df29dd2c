"""``kfloop collect``: the request log of a server that is not kfloop's own, as a process beside it."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

from kfloop.errors import ConfigError
from kfloop.serving.options import open_collector
from kfloop.serving.owning import sole_owner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kfloop.core.sections import LogConfig
    from kfloop.core.workspace import Workspace
    from kfloop.serving.collector import Collector

TELL_SECONDS = 60.0
LONGEST_ADDRESS = 107  # bytes, by the kernel


def collect(
    workspace: Workspace, log: LogConfig, *, folder: Path, address: Path, ready: Callable[[], None]
) -> Collector:
    """Collect until SIGTERM or SIGINT; then everything that was received is on disk.

    Args:
        workspace: The loop's places.
        log: What is kept.
        folder: Root of the log.
        address: Socket to listen on.
        ready: Called once it listens.

    Returns:
        The collector, which has ended, with its counts.

    Raises:
        ConfigError: Something else stands where the socket should be, or its path is too long.
        ServingError: Another process collects into this folder or at this socket.
    """
    if len(str(address).encode()) > LONGEST_ADDRESS:
        raise ConfigError(
            f"'{address}' is too long for a socket: {len(str(address).encode())} bytes, at most {LONGEST_ADDRESS}",
            hint="name a shorter one with --socket",
        )
    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    with ExitStack() as owned:
        for place in dict.fromkeys((folder.resolve(), address.parent.resolve())):
            owned.enter_context(sole_owner(place))
        if address.exists() and not address.is_socket():
            raise ConfigError(f"'{address}' is no socket", hint="name another path with --socket")
        collector = open_collector(workspace, log, folder=folder, address=address)
        collector.start()
        try:
            ready()
            said = ""
            while not stop.wait(TELL_SECONDS):
                now = sentence(collector)
                if now != said:
                    sys.stderr.write(f"{now}\n")
                    sys.stderr.flush()
                said = now
        finally:
            collector.stop()
    return collector


def sentence(collector: Collector) -> str:
    """What this collector did so far."""
    lost = f", {collector.dropped} dropped" if collector.dropped else ""
    return f"{collector.written} rows written{lost}"
