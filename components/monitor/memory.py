"""What the monitor remembers about one champion between rounds: watermark and evidence of every watch, saved together or not at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kfloop.components.monitor.drift.evidence import Evidence
from kfloop.components.monitor.log.watermark import Watermark
from kfloop.errors import StateError

FORMAT = 2
_HINT = "Restore the state from a backup; without one, remove the row of this champion from table 'monitors': then its log is read from the beginning."


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The monitor's memory of one champion.

    Attributes:
        watermark: How far the log was read.
        drift: Evidence of drift.
        other_versions: Rows of other versions that were read so far.
        others: What other watches remember, by name, as plain JSON.
        told: What people should know of this memory, one sentence each.
    """

    watermark: Watermark = field(default_factory=Watermark)
    drift: Evidence = field(default_factory=Evidence)
    other_versions: dict[str, int] = field(default_factory=dict)
    others: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    told: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "format": FORMAT,
            **self.watermark.to_dict(),
            "drift": self.drift.to_dict(),
            "other_versions": self.other_versions,
            **self.others,
        }

    @classmethod
    def from_dict(cls, payload: Any) -> Memory:
        """Read what `to_dict` wrote; None is a new memory.

        What kfloop wrote before it bet on single columns (format 1) is a new memory as well: the log is read from its beginning, so that nothing that it still
        holds is lost.

        Raises:
            StateError: It has another format, or is damaged.
        """
        if payload is None:
            return cls()
        found = payload.get("format") if isinstance(payload, dict) else type(payload).__name__
        if found == 1:
            return cls(
                told=("an older kfloop watched this champion before: its log was read again from the beginning",)
            )
        if found != FORMAT:
            message = f"the monitor state has format {found!r}, expected {FORMAT}"
            raise StateError(message, hint="It was written by another version of kfloop; use that one.")
        try:
            read = cls(
                watermark=Watermark.from_dict(payload),
                drift=Evidence.from_dict(payload["drift"]),
                other_versions={str(name): int(count) for name, count in payload["other_versions"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StateError(f"the monitor state is damaged: {error!r}", hint=_HINT) from error
        known = set(read.to_dict())
        return cls(
            watermark=read.watermark,
            drift=read.drift,
            other_versions=read.other_versions,
            others={name: value for name, value in payload.items() if name not in known},
        )
