"""Section ``serve``: what the running server logs, and what its validating port takes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kfloop.core.sections.base import Positive, Section, Share


class LogConfig(Section):
    """What is kept of the requests that were answered."""

    sample: Share = 1.0
    """Share of the requests that are logged, chosen by a hash of the request's id: a request that is sent again is treated alike."""
    inputs: Literal["full", "embedding", "none"] = "full"
    """``embedding``: the inputs are left out, the embedding stays; ``none``: both are left out, the answers stay."""
    hash: tuple[str, ...] = ()
    """Columns (``text`` of texts) that are written as missing, with a keyed digest of the value in ``hash.COLUMN``.
    The embedding is still made of them, but where a text or a whole tensor is private: leave it out with ``inputs: none``."""
    drop: tuple[str, ...] = ()
    """Columns (``text`` of texts) that are written as missing."""
    max_bytes: Positive = 10_000_000_000
    """Largest size of the log in bytes: the oldest files are deleted, but none that the monitor has yet to read; then new rows are dropped."""
    days: Annotated[float, Field(gt=0)] = 30.0
    """Age in days from which files are deleted, when the monitor has read them."""

    @model_validator(mode="after")
    def _one_or_the_other(self) -> LogConfig:
        both = sorted(set(self.hash) & set(self.drop))
        if both:
            message = f"column {both[0]!r} is in hash and in drop: choose one"
            raise ValueError(message)
        return self


class EdgeConfig(Section):
    """The validating port for callers that are not trusted (``kfloop serve --edge``)."""

    max_body_bytes: Positive = 16_000_000
    """Largest body of a request, in bytes."""
    connections: Positive = 128
    """Most connections at a time."""
    seconds: Annotated[float, Field(gt=0)] = 10.0
    """Longest time for a caller to send a request, in seconds."""
    missing: Literal["auto", "allow", "refuse"] = "auto"
    """NaN in inputs: ``auto`` allows it in tables and vectors, where it stands for a missing number. Infinite numbers are always refused."""


class ServeConfig(Section):
    """The running server: what it logs, and what its validating port takes."""

    log: LogConfig = LogConfig()
    edge: EdgeConfig = EdgeConfig()
