"""What a promotion leaves in the repository of somebody else's Triton."""

from __future__ import annotations

from pathlib import Path

import packages
from kfloop.components.deploy.targets.elsewhere import made_for
from kfloop.core.sections import TargetConfig
from kfloop.serving.places import Place
from kfloop.serving.publishing import pointing, put_version, set_name
from kfloop.serving.repository import CONFIG


def publish(place: Place, store: Path, loop: str, version: int, digest: str) -> None:
    """A version, and the loop's name that points to it."""
    package = packages.make_package(store, digest, float(version))
    target = TargetConfig(kind="triton", url="http://127.0.0.1:1", repository=place.url, backend="python")
    put_version(place, package, digest, set_name(loop, version), made_for(target, loop, version))
    point(place, loop, version)


def point(place: Place, loop: str, version: int) -> None:
    """Let the loop's name point to a version that is there."""
    text = pointing(place.read(f"{set_name(loop, version)}/{CONFIG}") or "", loop, version)
    place.write(f"{loop}/{version}/.keep", b"")
    place.write(f"{loop}/{CONFIG}", text.encode())
