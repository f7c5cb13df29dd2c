"""Section ``bless``: the trial on a private Triton."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kfloop.core.sections.base import Positive, Section


class BlessConfig(Section):
    """Trial of the packaged model on a private Triton."""

    tolerance: Annotated[float, Field(gt=0)] = 1e-3
    """Largest difference between golden and served answers, measured as in section ``package``."""
    requests: Positive = 200
    """Timed requests."""
    concurrency: Positive = 4
    """Clients that send at the same time."""
    protocol: Literal["both", "http", "grpc"] = "both"
    """Protocol that is timed; ``both``: one after the other, each with all ``requests``."""
    latency_ms_p95: Annotated[float, Field(gt=0)] | None = None
    """Longest 95th percentile of an answer's time that passes, in milliseconds, over each timed protocol; null: any."""
    memory_mb: Annotated[float, Field(gt=0)] | None = None
    """Most memory of server and backend that passes, in MiB; null: any."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Longest wait for the server or the model, in seconds."""
