"""Ties a step's process to its run: no step outlives the run that started it, also when that is killed with -9.

The kernel offers to signal a process when its direct parent dies, but KFP puts a shell between the engine and a step. So each
step holds a pidfd of the engine and ends its own process group when the engine is gone.
"""

from __future__ import annotations

import os
import select
import signal
import threading

RUN_PID_VARIABLE = "KFLOOP_RUN_PID"


def bind_to_run() -> None:
    """Watch the process named by ``KFLOOP_RUN_PID`` from a daemon thread; without the variable do nothing."""
    pid = os.environ.get(RUN_PID_VARIABLE)
    if pid and int(pid) != os.getpid():
        _bind(int(pid))


def bind_to_parent() -> None:
    """Watch the process that started this one: torchrun, which puts each of its processes into a session of its own."""
    _bind(os.getppid())


def _bind(pid: int) -> None:
    if not hasattr(os, "pidfd_open"):
        threading.Thread(target=_poll, args=(pid,), name="kfloop-lifetime", daemon=True).start()
        return
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        _end()
        return
    threading.Thread(target=_watch, args=(descriptor,), name="kfloop-lifetime", daemon=True).start()


def _watch(descriptor: int) -> None:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    poller.poll()
    _end()


def _poll(pid: int) -> None:
    """Where there is no pidfd (macOS): look twice a second."""
    waiting = threading.Event()
    while not waiting.wait(0.5):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            _end()


def _end() -> None:
    """End this process at once, with what it started in its own session if it leads one."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(signal.SIGKILL + 128)
