"""The champion's reference: what its package answered on held-out rows, with their inputs and times where the package has them."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import ConfigError, StateError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MOST_UNITS = 10_000
"""More reference rows cost time in every block and hardly tell more."""
SEASONS = {"hour": 24, "weekday": 7, "hour_of_week": 168}


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Held-out rows, one entry each.

    Attributes:
        embedding: [n, D].
        answers: [n, K].
        tensors: Input tensors by name, each [n, size]; empty in packages that lack them.
        times: Seconds since 1970, [n]; None where the dataset has no times.
    """

    embedding: NDArray[np.float64]
    answers: NDArray[np.float64]
    tensors: dict[str, NDArray[Any]]
    times: NDArray[np.float64] | None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.answers)

    def take(self, rows: Any) -> Reference:
        """Some rows."""
        return replace(
            self,
            embedding=self.embedding[rows],
            answers=self.answers[rows],
            tensors={name: cells[rows] for name, cells in self.tensors.items()},
            times=None if self.times is None else self.times[rows],
        )

    def in_order(self) -> Reference:
        """The rows by time, as they stand where there are no times."""
        return self if self.times is None else self.take(np.argsort(self.times, kind="stable"))

    def bounded(self, unit: int) -> Reference:
        """At most `MOST_UNITS` units of neighbouring rows, evenly spread."""
        count = len(self) // unit
        if count <= MOST_UNITS:
            return self
        chosen = np.linspace(0, count - 1, MOST_UNITS).astype(np.intp)
        return self.take((chosen[:, None] * unit + np.arange(unit)).ravel())


def read_reference(package: Path, answer: str) -> Reference:
    """Read the reference of a package.

    Args:
        package: Folder of the package.
        answer: Name of the output that is the model's answer.

    Raises:
        StateError: It is missing or damaged.
    """
    path = package / "reference.npz"
    try:
        with path.open("rb") as stream, np.load(stream) as arrays:
            answers = arrays[answer].astype(float)
            embedding = (
                arrays["embedding"].astype(float) if "embedding" in arrays.files else np.zeros((len(answers), 0))
            )
            tensors = {name: arrays[name] for name in arrays.files if name.startswith("input.")}
            times = arrays["time"].astype(float) if "time" in arrays.files else None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        message = f"the champion's reference '{path.name}' cannot be read: {error}"
        raise StateError(message, hint="The package was changed after it was published; restore the store.") from error
    n = len(answers)
    return Reference(
        embedding=embedding.reshape(n, -1),
        answers=answers.reshape(n, -1),
        tensors={name.removeprefix("input."): cells.reshape(n, -1) for name, cells in tensors.items()},
        times=times,
    )


def seasons_of(seconds: Any, season: str | None) -> NDArray[np.int64] | None:
    """The season of each moment, in UTC: hour of the day, day of the week (0 is Monday), or hour of the week; None without seasons.

    Args:
        seconds: Seconds since 1970, [n]; None where times are not known.
        season: A key of `SEASONS`, or None.

    Raises:
        ConfigError: Seasons are asked for, but times are not known.
    """
    if season is None:
        return None
    if seconds is None:
        raise ConfigError(
            f"monitor.season is '{season}', but the champion's reference has no times",
            hint="name the column of times in data.time, so that the next champion's reference has them; until then set monitor.season to null",
        )
    hours = np.floor(np.asarray(seconds, dtype=float) / 3600).astype(np.int64)
    hour, weekday = hours % 24, (hours // 24 + 3) % 7  # 1970-01-01 was a Thursday
    return np.asarray({"hour": hour, "weekday": weekday, "hour_of_week": weekday * 24 + hour}[season])
