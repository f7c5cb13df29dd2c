"""Watching the processes that answer: one for each instance of each version, started by the server, which never starts a dead one again."""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    import psutil

STUB = "triton_python"


class Backends:
    """The python backends of one model below one process, by version.

    Args:
        pid: Process the server runs below.
        model: Folder of the model in the repository.
    """

    def __init__(self, pid: int, model: Path) -> None:
        self._pid = pid
        self._model = str(model)
        self._descriptors: list[int] = []

    def remember(self) -> None:
        """Watch those that run now."""
        self.close()
        for pids in self._running().values():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    self._descriptors.append(os.pidfd_open(pid))

    def ended(self) -> bool:
        """Whether one that was remembered has ended, for whatever reason; cheap."""
        poller = select.poll()
        for descriptor in self._descriptors:
            poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(0))

    def lost(self, versions: Collection[int], instances: int) -> set[int]:
        """Those of ``versions`` that have fewer processes than ``instances``."""
        running = self._running()
        return {version for version in versions if len(running.get(version, [])) < instances}

    def close(self) -> None:
        """Watch nothing any more."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    def _running(self) -> dict[int, list[int]]:
        """Process ids by version."""
        import psutil

        found: dict[int, list[int]] = {}
        try:
            below = psutil.Process(self._pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return found
        for process in below:
            with contextlib.suppress(psutil.Error):
                if process.name().startswith(STUB) and process.status() != psutil.STATUS_ZOMBIE:
                    version = self._version(process)
                    if version is not None:
                        found.setdefault(version, []).append(process.pid)
        return found

    def _version(self, process: psutil.Process) -> int | None:
        """The version whose folder is on the command line."""
        for word in process.cmdline():
            if word.startswith(f"{self._model}{os.sep}") and (number := Path(word).parent.name).isdigit():
                return int(number)
        return None
