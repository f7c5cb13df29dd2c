"""A real PostgreSQL for tests: a server of its own in a temporary folder, that never runs as root and ends with the tests."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

NOBODY = 65534
PASSWORD = "pass/word&of@tests"
QUOTED = "pass%2Fword%26of%40tests"


def binaries() -> Path | None:
    """Folder of ``initdb`` and ``postgres``: of PATH, or where Debian puts them."""
    found = shutil.which("postgres")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").is_file() and (place / "postgres").is_file()), None)


class Postgres:
    """One running server.

    Args:
        folder: Its folder, which whoever runs it may enter.
        bin_: Folder of its programs.
    """

    def __init__(self, folder: Path, bin_: Path) -> None:
        self._folder, self._bin, self._names = folder, bin_, itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to run as root.
        self._as = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        secret = folder / "password"
        secret.write_text(PASSWORD)
        for place in (folder / "data", folder / "run"):
            place.mkdir(mode=0o700)
        if self._as:
            for place in (secret, folder / "data", folder / "run"):
                os.chown(place, NOBODY, NOBODY)
        made = [bin_ / "initdb", "-D", folder / "data", "-U", "kfloop", "-A", "scram-sha-256", "--pwfile", secret]
        self._run([*made, "-N", "-E", "UTF8", "--locale=C", "--no-instructions"])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    def _run(self, command: list[object]) -> None:
        done = subprocess.run(
            [str(part) for part in command], cwd=self._folder, capture_output=True, check=False, timeout=120, **self._as
        )
        assert done.returncode == 0, done.stderr.decode()

    def url(self, database: str = "postgres", password: str = QUOTED) -> str:
        return f"postgresql://kfloop:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [self._bin / "postgres", "-D", self._folder / "data", "-p", self.port, "-k", self._folder / "run"]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", "-F"]
        with (self._folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in command], cwd=self._folder, stdout=log, stderr=log, **self._as
            )
        until = time.monotonic() + 60
        while True:
            try:
                self.sql("select 1")
            except OperationalError:
                assert self._process.poll() is None, (self._folder / "log.txt").read_text()[-2000:]
                assert time.monotonic() < until
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it; SIGINT drops every connection and shuts down, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def sql(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement outside any transaction."""
        url = self.url(database).replace("postgresql:", "postgresql+psycopg:")
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                found = connection.execute(text(statement))
                return [tuple(row) for row in found] if found.returns_rows else []
        finally:
            engine.dispose()

    def database(self) -> str:
        """URL of a new, empty database."""
        name = f"test_{next(self._names)}"
        self.sql(f"create database {name}")
        return self.url(name)


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A running server; the test is skipped where PostgreSQL is not installed."""
    place = binaries()
    if place is None:
        pytest.skip("no PostgreSQL here (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg", reason='no psycopg here (pip install "kfloop[postgres]")')
    # Not pytest's folder: only its owner may enter that one, and the server runs as somebody else.
    folder = Path(tempfile.mkdtemp(prefix="kfloop-pg-"))
    folder.chmod(0o711)
    server = None
    try:
        server = Postgres(folder, place)
        server.start()
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
