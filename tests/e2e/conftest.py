"""Runs the real command line in a folder of its own, and makes sure that nothing of it stays behind."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SMALL_LOOP = """\
name: small
data: {limit: 700, fresh: incoming}
train: {epochs: 8}
evaluate: {bootstrap: 300}
bless: {requests: 40}
"""


class Shell:
    """The ``kfloop`` command in one folder."""

    small = SMALL_LOOP

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "kfloop", *arguments]

    def run(self, *arguments: str, timeout: float = 400, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            **options,
        )

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=dict(os.environ),
            **options,
        )

    def json(self, *arguments: str, timeout: float = 400) -> dict[str, Any]:
        done = self.run(*arguments, "--json", timeout=timeout)
        return dict(json.loads(done.stdout))

    def tree(self) -> dict[str, bytes]:
        """Everything in the folder, with its content."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes() if path.is_file() else b""
            for path in sorted(self.folder.rglob("*"))
        }

    def write(self, text: str, name: str = "loop.yaml") -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    folder = tmp_path / "work"
    folder.mkdir()
    shell = Shell(folder)
    yield shell
    if (folder / ".kfloop" / "serve.json").exists():
        shell.run("serve", "--stop")


@pytest.fixture(scope="session")
def one_shell() -> type[Shell]:
    """For fixtures that need a shell of their own."""
    return Shell


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A loop with a champion, behind a running server."""
    shell = Shell(tmp_path_factory.mktemp("served"))
    shell.write(SMALL_LOOP)
    assert shell.run("serve", "--detach").returncode == 0
    try:
        first = shell.run("run")
        assert first.returncode == 0, first.stderr
        yield shell
    finally:
        shell.run("serve", "--stop")
