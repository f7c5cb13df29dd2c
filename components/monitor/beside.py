"""The watches beside drift: quality, with and without labels, and the health of the service."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kfloop.components.monitor.health.promises import Promises, promises
from kfloop.components.monitor.health.watch import HealthWatch
from kfloop.components.monitor.quality.watch import QualityWatch, open_quality
from kfloop.core.ground_truth import truth_file
from kfloop.serving.counting import read_counters

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kfloop.components.monitor.log.traffic import Traffic
    from kfloop.components.monitor.policy.causes import Cause
    from kfloop.core.sections import MonitorConfig
    from kfloop.core.signature import Signature
    from kfloop.core.state.ledger import Entry
    from kfloop.core.workspace import Workspace

HEALTH, QUALITY = "health", "quality"


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Both watches of one champion. Immutable; ``kept`` is all that has to be remembered.

    Attributes:
        quality: What its answers are worth.
        health: Whether its service is well.
        promised: What health is compared with.
    """

    quality: QualityWatch
    health: HealthWatch
    promised: Promises

    def advance(self, chunk: Traffic) -> Beside:
        """Both after more rows, in the order of time."""
        return replace(self, quality=self.quality.advance(chunk), health=self.health.advance(chunk))

    def closed(self, config: MonitorConfig, workspace: Workspace, now: float) -> Beside:
        """Both after what else a round reads: new answers of people, and the server's counters."""
        truth = truth_file(config.feedback, workspace.root)
        return replace(
            self,
            quality=self.quality.realise(truth, workspace.request_log, now),
            health=self.health.counted(read_counters(workspace), now),
        )

    def kept(self) -> dict[str, dict[str, Any] | None]:
        """What the next round has to know, by name."""
        return {QUALITY: self.quality.to_dict(), HEALTH: self.health.to_dict()}

    def causes(self, config: MonitorConfig, now: float) -> tuple[Cause, ...]:
        """What both found."""
        return (*self.quality.causes(config), *self.health.causes(config, now))

    def reported(self, config: MonitorConfig, now: float) -> dict[str, Any]:
        """Their parts of the report."""
        health = self.health.report(
            config, now=now, price_per_1000=self.promised.price_per_1000, blessed_ms_p95=self.promised.ms_p95
        )
        return {QUALITY: self.quality.report(), HEALTH: health}


def open_beside(
    kept: Mapping[str, dict[str, Any] | None],
    config: MonitorConfig,
    *,
    champion: Entry,
    package: Path,
    signature: Signature,
    workspace: Workspace,
) -> Beside:
    """Both watches as the last round left them.

    Args:
        kept: What ``kept`` gave; without a name in it that watch is new.
        config: Section ``monitor``.
        champion: The ledger's row of the champion.
        package: Its package.
        signature: Its signature.
        workspace: Places of the loop.

    Raises:
        StateError: What was kept is damaged, or the reference cannot be read.
    """
    promised = promises(champion, workspace)
    quality = open_quality(
        package, signature, config, model=workspace.loop, version=champion.version, payload=kept.get(QUALITY)
    )
    health = HealthWatch.from_dict(kept.get(HEALTH), requirements=promised.requirements)
    return Beside(quality=quality, health=health, promised=promised)
