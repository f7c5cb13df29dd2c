"""Section ``deploy``: promotion of a challenger."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from kfloop.core.sections.about import AboutConfig
from kfloop.core.sections.base import Section
from kfloop.core.sections.rollout import RolloutConfig
from kfloop.core.sections.target import TargetConfig


class DeployConfig(Section):
    """Promotion of a challenger."""

    target: TargetConfig = TargetConfig()
    """Where the champion is served."""

    tolerance: Annotated[float, Field(gt=0)] = 1e-3
    """Largest difference between golden and served answers, measured as in section ``package``."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Longest wait for a load, in seconds."""
    rollout: RolloutConfig = RolloutConfig()
    """How the traffic goes over to the challenger."""
    feedback: str | None = None
    """Filled from ``data.feedback``."""
    about: AboutConfig = AboutConfig()
    """Filled from ``about``."""

    @model_validator(mode="after")
    def _split_by_kfloop(self) -> Self:
        if self.target.kind != "embedded" and self.rollout.strategy != "all_at_once":
            message = (
                f"rollout.strategy {self.rollout.strategy!r} needs target embedded: the split is made inside kfloop's own model, and a {self.target.kind} "
                "server has none. Take 'all_at_once' here, and let what stands in front of that server (a mesh, a gateway) split the traffic"
            )
            raise ValueError(message)
        return self
