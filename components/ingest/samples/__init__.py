"""Samples: data that installed packages carry, written out as the plain files of any other source.

``data.source: sample:NAME`` works where nothing can be downloaded. A sample is made once, under the user's cache folder, and the ordinary
readers read it from there.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.components.ingest.samples.making import (
    breast_cancer,
    carbon_dioxide,
    diabetes,
    digits_graph,
    docstrings,
    sounds,
)
from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "sample:"
# Each writes a file or a folder below the folder it is given, and returns its path.
SAMPLES: dict[str, Callable[[Path], Path]] = {
    "breast_cancer": breast_cancer,
    "co2": carbon_dioxide,
    "diabetes": diabetes,
    "digits_graph": digits_graph,
    "docstrings": docstrings,
    "sounds": sounds,
}


def is_sample(source: str) -> bool:
    """Whether a source names a sample."""
    return source.startswith(PREFIX)


def sample_path(source: str) -> Path:
    """The file or folder of a sample, made if it is not there yet; two processes at once do no harm.

    Args:
        source: Such as ``sample:co2``.

    Raises:
        InputError: There is no such sample, or the package that carries it is not installed.
    """
    name = source.removeprefix(PREFIX)
    if name not in SAMPLES:
        raise InputError(
            f"data.source '{source}': no sample is called '{name}'",
            hint=f"{nearest(name, SAMPLES)}; samples: {', '.join(SAMPLES)}",
        )
    place = _cache() / f"{name}-{_code()}"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=place.parent))
        try:
            SAMPLES[name](staging)
            staging.rename(place)
        except OSError:
            if not place.is_dir():  # else another process was faster
                raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return next(path for path in sorted(place.iterdir()) if not path.name.startswith("."))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kfloop" / "samples"


def _code() -> str:
    """Changes with the code that makes the samples and the packages that carry them: an old one is never taken for a new one."""
    versions = sorted(f"{found.name}=={found.version}" for found in importlib.metadata.distributions())
    code = (Path(__file__).parent / "making.py").read_text(encoding="utf-8")
    return hashlib.sha256("\n".join([code, sys.version, *versions]).encode()).hexdigest()[:8]
