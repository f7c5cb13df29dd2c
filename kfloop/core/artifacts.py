"""Reports and digests of artifact folders: canonical JSON in, content digests out."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

REPORT = "report.json"
DIGEST_LENGTH = 32  # 128 bits of sha256: no accidental collision, and paths a person can still handle


def plain(value: Any) -> Any:
    """``value`` as strict JSON types: NaN and infinities become null, numpy scalars become numbers, paths text."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    elif hasattr(value, "tolist"):  # numpy arrays and scalars, without importing numpy here
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [plain(item) for item in items]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def canonical_json(value: Any) -> str:
    """One spelling of ``value``: sorted keys, no spaces, no NaN."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def sha256_text(text: str) -> str:
    """Digest of a text, shortened to the length used for all digests."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def file_sha256(path: Path) -> str:
    """Full sha256 of a file, read in chunks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """Content digest of a folder: relative paths and bytes, nothing else (no times, no owner, no order)."""
    lines = [
        f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return sha256_text("".join(lines))


def write_report(out: Path, report: Any) -> Path:
    """Write ``report`` (a dataclass or a dict) as ``report.json`` into ``out``."""
    path = out / REPORT
    text = json.dumps(plain(report), indent=1, sort_keys=True, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def read_report(folder: Path) -> dict[str, Any]:
    """The report of an artifact folder.

    Raises:
        FileNotFoundError: The folder has no report.
        ValueError: The report is not JSON.
        TypeError: The report is JSON but not an object.
    """
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    if not isinstance(report, dict):
        message = f"{folder / REPORT} holds {type(report).__name__}, expected one JSON object"
        raise TypeError(message)
    return report


def report_if_any(folder: Path) -> dict[str, Any]:
    """The report of a folder; empty where it is missing or cannot be read."""
    try:
        return read_report(folder)
    except (OSError, ValueError, TypeError):
        return {}
