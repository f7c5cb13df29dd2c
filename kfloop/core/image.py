"""The container images that steps run in on a cluster, as ``images.lock`` names them.

One image holds the whole package, so that a step needs no pip at run time. An image that is not released yet may be compiled and
run locally (the local engine uses no image) but never submitted.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from kfloop.errors import ConfigError

LOCK = Path(__file__).with_name("images.lock")  # also infra/images.lock in the checkout
NAMES = ("cpu", "gpu", "triton")
PINNED = re.compile(r"[\w./-]+(:\d+)?[\w./-]*@sha256:[0-9a-f]{64}")
UNRELEASED = re.compile(r"[\w./:-]+:[\w.-]+-unreleased")


def locked_images(lock: Path = LOCK) -> dict[str, str]:
    """Images by name (``cpu``, ``gpu``, ``triton``), each by digest or with the tag ``VERSION-unreleased``.

    Args:
        lock: The lock file.

    Raises:
        ConfigError: The file is missing or is not a lock, or an image is neither pinned nor marked.
    """
    hint = "kfloop's release writes this file: bring it back from git, or install kfloop again"
    try:
        images = yaml.safe_load(lock.read_text(encoding="utf-8"))["kfloop"]
        found = {name: str(images[name]) for name in NAMES}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(
            f"'{lock}' does not name the images {', '.join(NAMES)} below 'kfloop:' ({type(error).__name__}: {error})",
            hint=hint,
        ) from error
    for name, image in found.items():
        if not (PINNED.fullmatch(image) or UNRELEASED.fullmatch(image)):
            raise ConfigError(
                f"'{lock}': {name} is '{image}', expected registry/name@sha256:... or a tag that ends in -unreleased",
                hint=hint,
            )
    return found


def is_released(image: str) -> bool:
    """Whether an image is named by its digest, so that it can be submitted."""
    return PINNED.fullmatch(image) is not None


IMAGE = locked_images()["cpu"]
