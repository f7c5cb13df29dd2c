"""One lease per loop, with heartbeat and takeover: two runs of one loop never overlap."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from kfloop.core.artifacts import sha256_text
from kfloop.core.state.schema import leases
from kfloop.errors import KfloopError, LeaseHeldError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType

    from sqlalchemy import Connection, Row

STALE_SECONDS = 30.0
BEAT_SECONDS = 5.0
BRIEF = "rollout-"  # such a holder promotes or withdraws a challenger, which takes seconds and starts by itself
BRIEF_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lease: run, host, pid, unix times of acquisition and last heartbeat, and ``began`` of the process (null in a lease of old)."""

    run_id: str
    host: str
    pid: int
    acquired: float
    heartbeat: float
    born: float | None = None

    def is_us(self, run_id: str) -> bool:
        """Whether it is this process, or the run it is a step of; on another host the same pid is another process."""
        here = self.host == this_host() and self.pid == os.getpid()
        return here or (bool(run_id) and self.run_id == run_id)


class Leases:
    """Leases of all loops in one database."""

    def __init__(self, begin: Callable[..., AbstractContextManager[Connection]]) -> None:
        self._begin = begin

    def holder(self, loop: str) -> Holder | None:
        """The live holder; a dead one (gone process on this host, silent for long elsewhere) counts as none."""
        with self._begin() as connection:
            row = connection.execute(select(leases).where(leases.c.loop == loop)).one_or_none()
            now = _now(connection)
        if row is None:
            return None
        holder = _holder(row)
        return holder if _alive(holder, now) else None

    def acquire(self, loop: str, run_id: str) -> Lease:
        """Take the lease, also over from a dead holder; one that is held for the end of a roll-out is waited for.

        Raises:
            LeaseHeldError: A live run holds it.
        """
        deadline = time.monotonic() + BRIEF_SECONDS
        while True:
            try:
                return self._take(loop, run_id)
            except LeaseHeldError as held:
                if not str(held.data.get("run_id")).startswith(BRIEF) or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _take(self, loop: str, run_id: str) -> Lease:
        token = uuid.uuid4().hex
        with self._begin(lock=loop) as connection:
            now = _now(connection)
            row = connection.execute(select(leases).where(leases.c.loop == loop)).one_or_none()
            if row is not None:
                holder = _holder(row)
                if _alive(holder, now):
                    raise LeaseHeldError(
                        f"run '{holder.run_id}' of loop '{loop}' is at work (pid {holder.pid} on {holder.host}, "
                        f"for {now - holder.acquired:.0f} s)",
                        hint="wait for it to end, or end it and run the command again",
                        run_id=holder.run_id,
                        pid=holder.pid,
                    )
                connection.execute(delete(leases).where(leases.c.loop == loop, leases.c.token == row.token))
            connection.execute(
                insert(leases).values(
                    loop=loop,
                    token=token,
                    run_id=run_id,
                    host=this_host(),
                    pid=os.getpid(),
                    acquired=now,
                    heartbeat=now,
                    born=began(os.getpid()),
                )
            )
        return Lease(self._begin, loop, token)


class Lease:
    """A held lease of ``loop``; a context manager that beats in the background and releases at the end."""

    def __init__(self, begin: Callable[..., AbstractContextManager[Connection]], loop: str, token: str) -> None:
        self._begin = begin
        self._mine = (leases.c.loop == loop) & (leases.c.token == token)
        self.loop = loop
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="kfloop-lease", daemon=True)

    def __enter__(self) -> Self:
        """Start the heartbeat."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the heartbeat and release."""
        self._stop.set()
        self._thread.join()
        with self._begin() as connection:
            connection.execute(delete(leases).where(self._mine))

    def check(self, connection: Connection | None = None) -> None:
        """Make sure the lease is still ours, right before a change that matters, or within its transaction.

        Raises:
            StateError: It was taken over.
        """
        with contextlib.nullcontext(connection) if connection is not None else self._begin() as within:
            held = within.execute(select(leases.c.token).where(self._mine)).one_or_none()
        if held is None:
            raise StateError(f"another run took over loop '{self.loop}'; nothing was changed by this one")

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            # A full disk, a locked database: the run itself says so when it matters, and the next beat may get through.
            with contextlib.suppress(KfloopError, SQLAlchemyError), self._begin() as connection:
                connection.execute(update(leases).where(self._mine).values(heartbeat=_now(connection)))


@lru_cache(maxsize=1)
def this_host() -> str:
    """Name of the machine on which a pid means something: two containers, or a pod that came back, may have one host name."""
    parts = []
    with contextlib.suppress(OSError):  # Linux only; elsewhere there are no namespaces of processes
        parts = [
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    return socket.gethostname() + (f":{sha256_text(''.join(parts))[:8]}" if parts else "")


def _now(connection: Connection) -> float:
    """Unix time in seconds by one clock for all: the server's; a file is used on one machine."""
    if connection.dialect.name == "postgresql":
        return float(connection.execute(text("select extract(epoch from clock_timestamp())")).scalar_one())
    return time.time()


def _holder(row: Row[Any]) -> Holder:
    return Holder(
        run_id=row.run_id, host=row.host, pid=row.pid, acquired=row.acquired, heartbeat=row.heartbeat, born=row.born
    )


def _alive(holder: Holder, now: float) -> bool:
    if holder.host != this_host():
        return now - holder.heartbeat < STALE_SECONDS
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        pass
    else:
        if _is_zombie(holder.pid):
            return False
    there = began(holder.pid)
    return holder.born is None or there is None or holder.born == there  # else another one got the pid of a dead one


def began(pid: int) -> float | None:
    """When a process of this host began; null where that is not told.

    On Linux in clock ticks since the machine started (proc_pid_stat(5), field 22), which no change of the clock moves, as it would move
    a time of day; a machine that was started anew is another host. Elsewhere in unix seconds, as the system noted it.
    """
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return float(text.rpartition(")")[2].split()[19])  # the name before it may hold anything
    if Path("/proc/self/stat").exists():
        return None
    import psutil

    with contextlib.suppress(psutil.Error):
        return float(psutil.Process(pid).create_time())
    return None


def _is_zombie(pid: int) -> bool:
    """A killed process whose parent has not collected it yet still has a pid."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
