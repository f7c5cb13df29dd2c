"""What a replay is asked to do."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from kfloop.errors import ConfigError, nearest

MONITOR, NEVER, EVERY, ALWAYS = "monitor", "never", "every", "always"
POLICIES = (MONITOR, NEVER, EVERY, ALWAYS)
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the rows are replayed.

    Attributes:
        window: Rows answered between two looks of a policy.
        every: Windows between two trainings of the policy ``every``.
        policies: Which policies are played.
        label_delay: Seconds after which the label of a row is known.
        initial: Share of the rows, the first ones, that the first model is trained on.
        memory: Labelled rows that a retraining learns from at most, the latest; null means as many as the first model had, which has all of its period.
        step: Seconds between two rows where no column tells the time; null means that ``data.time`` does.
        until: Windows that are played at most; null means all.
    """

    window: int = 336
    every: int = 4
    policies: tuple[str, ...] = field(default=POLICIES)
    label_delay: float = 86400.0
    initial: float = 0.2
    memory: int | None = None
    step: float | None = None
    until: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be played.

        Raises:
            ConfigError: A number is out of its range, or a policy is unknown or named twice.
        """
        smallest = {"window": self.window, "every": self.every, "memory": self.memory, "until": self.until}
        for name, value in smallest.items():
            if value is not None and value < 1:
                raise ConfigError(f"--{name} is {value}, expected at least 1")
        if not 0 < self.initial < 1:
            raise ConfigError(f"--initial is {self.initial:g}, expected a share between 0 and 1")
        for name in self.policies:
            if name not in POLICIES:
                raise ConfigError(f"--policies: no policy is called '{name}'", hint=nearest(name, POLICIES))
        if not self.policies or len(set(self.policies)) < len(self.policies):
            raise ConfigError(
                f"--policies is '{','.join(self.policies)}', expected each policy once",
                hint=f"known: {', '.join(POLICIES)}",
            )

    def identity(self) -> dict[str, object]:
        """What decides about every single window: not how many are played, and of which policies."""
        return {
            "window": self.window,
            "every": self.every,
            "label_delay": self.label_delay,
            "initial": self.initial,
            "memory": self.memory,
            "step": self.step,
        }


def seconds(text: str, option: str) -> float:
    """A time such as ``30m``, ``12h``, ``1d`` or ``90`` (seconds), in seconds.

    Args:
        text: What the user wrote.
        option: Name of the option, for the message.

    Raises:
        ConfigError: It is no such time.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw]?)\s*", text)
    if found is None:
        raise ConfigError(f"{option} is '{text}', expected a time such as 30m, 12h or 1d", hint="units: s, m, h, d, w")
    return float(found[1]) * UNITS[found[2] or "s"]
