"""Section ``about``: what people should know of the model."""

from __future__ import annotations

from kfloop.core.sections.base import Section


class AboutConfig(Section):
    """What people should know of the model; stands in its card."""

    intended_use: str | None = None
    """What the model is for, and what it is not for."""
    limits: str | None = None
    """Where it is known to fail."""
    owner: str | None = None
    """Who answers for it."""
