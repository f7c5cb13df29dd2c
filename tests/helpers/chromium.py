"""A headless Chromium that a test holds by its own debugging pipe: pages are loaded, scripts run in them, and it is closed like a window."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psutil

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
PATIENCE_S = 90.0


class Chromium:
    """One window of one browser with an empty profile folder: what a page stores is there when the page is opened again."""

    def __init__(self, profile: Path) -> None:
        reads, self._write = os.pipe()
        self._read, writes = os.pipe()
        # The browser speaks on its descriptors 3 and 4; numbers from 10 on cannot be in the way of these two.
        ours = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (reads, writes)]
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += ["--remote-debugging-pipe", f"--user-data-dir={profile}"]
        script = f'exec "$0" "$@" 3<&{ours[0]} 4>&{ours[1]}'
        # A session of its own: a browser that hangs is ended with all its helpers.
        self._process = subprocess.Popen(
            ["bash", "-c", script, str(PROGRAM), *options, "about:blank"],
            pass_fds=ours,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for end in (reads, writes, *ours):
            os.close(end)
        self._said = b""
        self._number = 0
        self._tab: dict[str, str] = {}

    def __enter__(self) -> Self:
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._tab = {"sessionId": self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        self._call("Page.enable")
        return self

    def __exit__(self, *_: object) -> None:
        """Close it as a person does, and wait until all of it is gone."""
        helpers = psutil.Process(self._process.pid).children(recursive=True)
        try:
            self._tab = {}
            self._call("Browser.close")
            self._process.wait(PATIENCE_S)
            wait_until(lambda: not any(map(_runs, helpers)))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            os.close(self._read)
            os.close(self._write)

    def open(self, file: Path) -> None:
        """Load a page and wait until it and all it names is there."""
        self._call("Page.navigate", url=file.as_uri())
        self._until(lambda message: message.get("method") == "Page.loadEventFired")

    def resize(self, width: int, height: int) -> None:
        """Give pages a screen of so many CSS pixels."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def run(self, script: str) -> Any:
        """What an expression is worth on the page; a promise is waited for.

        Raises:
            AssertionError: The script threw.
        """
        told = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters} | self._tab
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda heard: heard.get("id") == number)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _until(self, wanted: Any) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE_S
        while True:
            while b"\0" in self._said:
                line, self._said = self._said.split(b"\0", 1)
                message: dict[str, Any] = json.loads(line)
                if wanted(message):
                    return message
            ready, _, _ = select.select([self._read], [], [], max(0.0, until - time.monotonic()))
            heard = os.read(self._read, 1 << 16) if ready else b""
            if not heard:
                raise BrokenPipeError("the browser said nothing more")
            self._said += heard


def wait_until(met: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < until
        time.sleep(0.02)


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
