"""Where a package comes from: the commit of the project's folder, and the versions of what made it."""

from __future__ import annotations

import subprocess
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

MADE_WITH = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
SECONDS = 20.0  # a folder on a slow network drive must not hold the loop up


def git_revision(folder: Path) -> dict[str, Any] | None:
    """Commit that a folder stands at, and whether tracked files in it differ from that; null outside git or without git.

    Returns:
        ``commit`` (40 hex digits, null before the first one) and ``dirty``.
    """
    status = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    if status is None:
        return None
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    return {"commit": commit or None, "dirty": bool(status)}


def made_with() -> dict[str, str]:
    """Version of each library that a package depends on, those that are installed."""
    found = {}
    for name in MADE_WITH:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; null where it fails."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if not done.returncode or arguments[0] == "rev-parse" else None
