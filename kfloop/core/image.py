"""The container image that every component runs in on a cluster.

One image holds the whole package, so that a step needs no pip at run time. The ``unreleased`` marker may be compiled and
run locally (the local engine uses no image) but never submitted.
"""

from __future__ import annotations

from kfloop import __version__

IMAGE = f"ghcr.io/kfloop/kfloop:{__version__}-unreleased"
