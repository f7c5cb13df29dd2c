"""What benchmarks/drift.py compares with: each peer says after every check whether it alarms, calibrated to one whole-schedule false-alarm rate.

KS, Hotelling, MMD and Evidently compare the rows of one check with the reference; the threshold on their statistic is the quantile, over simulated schedules without
drift, of its largest value in a schedule. Evidently's statistic is the largest drift score of any column, as its own function for a reference of more than 1000 rows
computes it (normed Wasserstein distance), asked of a process in an environment of its own. ADWIN (river) keeps a window per column; its delta is the largest of a few that keeps the rate.
"""

from __future__ import annotations

import copy
import os
import subprocess
import tempfile
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

FOURIER = 512


def ks(reference: Array) -> Callable[[Array], float]:
    """Largest Kolmogorov-Smirnov distance of any column: Bonferroni over columns."""
    columns = np.sort(reference, axis=0)

    def statistic(rows: Array) -> float:
        largest, steps = 0.0, np.arange(len(rows) + 1) / len(rows)
        for known, found in zip(columns.T, np.sort(rows, axis=0).T, strict=True):
            right = np.searchsorted(known, found, side="right") / len(known)
            left = np.searchsorted(known, found, side="left") / len(known)
            largest = max(largest, float((steps[1:] - left).max()), float((right - steps[:-1]).max()))
        return largest

    return statistic


def hotelling(reference: Array) -> Callable[[Array], float]:
    """Hotelling's T squared."""
    mean, inverse = reference.mean(axis=0), np.linalg.inv(np.cov(reference, rowvar=False))

    def statistic(rows: Array) -> float:
        gap = rows.mean(axis=0) - mean
        return float(gap @ inverse @ gap)

    return statistic


def mmd(reference: Array) -> Callable[[Array], float]:
    """Maximum mean discrepancy with random Fourier features of a Gaussian kernel, median bandwidth."""
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, len(reference), (2, 1000))
    width = np.median(np.linalg.norm(reference[pairs[0]] - reference[pairs[1]], axis=1))
    axes = rng.normal(size=(reference.shape[1], FOURIER // 2)) / width

    def embedded(rows: Array) -> Array:
        angle = rows @ axes
        return np.concatenate([np.cos(angle), np.sin(angle)], axis=1).mean(axis=0)

    known = embedded(reference)
    return lambda rows: float(((embedded(rows) - known) ** 2).sum())


EVIDENTLY = """
import sys
import numpy as np, pandas as pd
from evidently import Report
from evidently.legacy.calculations.stattests.wasserstein_distance_norm import _wasserstein_distance_norm as distance
from evidently.presets import DataDriftPreset

asked, told = sys.stdin.buffer, sys.stdout
sys.stdout = sys.stderr
while kind := asked.read(1):
    n, d = np.frombuffer(asked.read(16), dtype="<i8")
    rows = np.frombuffer(asked.read(8 * n * d), dtype="<f8").reshape(n, d)
    if kind == b"k":
        known = rows
        continue
    if kind == b"p":
        rows, frame = (pd.DataFrame(part, columns=[f"c{i}" for i in range(d)]) for part in (rows, known))
        metrics = Report([DataDriftPreset()]).run(rows, frame).dict()["metrics"]
        found = max(float(metric["value"]) for metric in metrics if "ValueDrift" in metric["metric_name"])
    else:
        found = max(distance(known[:, i], rows[:, i], "num", 0.1)[0] for i in range(d))
    told.write(f"{float(found)!r}\\n")
    told.flush()
"""


class Evidently:
    """Evidently in a process of another Python: the largest drift score of any column.

    Its preset takes a second a check, so that the function behind it is asked; the preset itself must tell the same of the first rows.
    """

    def __init__(self, python: str) -> None:
        """Start the process."""
        env = {"PATH": os.environ["PATH"], "DO_NOT_TRACK": "1", "HOME": tempfile.gettempdir(), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [python, "-c", EVIDENTLY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env
        )
        self._known: Array | None = None
        self._checked = False

    def __call__(self, reference: Array) -> Callable[[Array], float]:
        """The statistic of rows against this reference."""

        def statistic(rows: Array) -> float:
            if self._known is not reference:
                self._tell(b"k", reference)
                self._known = reference
            found = self._ask(b"s", rows)
            if not self._checked:
                preset = self._ask(b"p", rows)
                print(f"  Evidently's preset says {preset:.9f} of the first rows, its function {found:.9f}")
                if abs(preset - found) > 1e-9:  # noqa: PLR2004
                    raise SystemExit("Evidently's preset computes something else than what it is compared by")
                self._checked = True
            return found

        return statistic

    def _tell(self, kind: bytes, rows: Array) -> None:
        into = cast("IO[bytes]", self._process.stdin)
        into.write(kind + np.array(rows.shape, dtype="<i8").tobytes() + rows.astype("<f8").tobytes())
        into.flush()

    def _ask(self, kind: bytes, rows: Array) -> float:
        self._tell(kind, rows)
        return float(cast("IO[bytes]", self._process.stdout).readline())


STATISTICS: dict[str, Callable[[Array], Callable[[Array], float]]] = {"KS": ks, "Hotelling": hotelling, "MMD": mmd}


def add_evidently(python: str) -> None:
    """Take Evidently, installed for this Python, among the peers."""
    STATISTICS["Evidently"] = Evidently(python)


class Windows:
    """One ADWIN per column."""

    def __init__(self, columns: int, delta: float) -> None:
        """Start with empty windows; delta is shared out over the columns."""
        from river.drift import ADWIN

        self.windows = [ADWIN(delta=delta / columns) for _ in range(columns)]

    def check(self, rows: Array) -> bool:
        """Add the rows; whether any window found a change."""
        found = False
        for window, column in zip(self.windows, rows.T.tolist(), strict=True):
            for value in column:
                window.update(value)
                found |= window.drift_detected
        return found

    def copy(self) -> Windows:
        """An independent copy."""
        return copy.deepcopy(self)


def calibrated(
    draw: Callable[[Any, int], Array], *, checks: int, rows: int, reference: int, level: float, runs: int, adwin: bool
) -> dict[str, float]:
    """Thresholds, and for ADWIN a delta, at which a share `level` of schedules without drift alarms.

    Args:
        draw: Rows without drift, from a generator and a count.
        checks: Checks of a schedule.
        rows: Rows of a check.
        reference: Rows of the reference.
        level: Share of schedules that may alarm.
        runs: Schedules to simulate.
        adwin: Whether ADWIN is among the peers.
    """
    largest: dict[str, list[float]] = {name: [] for name in STATISTICS}
    deltas = {0.002: 0, 0.005: 0, 0.01: 0, 0.02: 0, 0.05: 0}
    for seed in range(runs):
        rng = np.random.default_rng([7, seed])
        known, stream = draw(rng, reference), draw(rng, rows * checks).reshape(checks, rows, -1)
        for name, make in STATISTICS.items():
            statistic = make(known)
            largest[name].append(max(statistic(part) for part in stream))
        for delta in deltas if adwin else ():
            windows = Windows(known.shape[1], delta)
            deltas[delta] += any(windows.check(part) for part in stream)
    thresholds = {name: float(np.quantile(values, 1 - level)) for name, values in largest.items()}
    if not adwin:
        return thresholds
    chosen = max((delta for delta, alarms in deltas.items() if alarms <= level * runs), default=min(deltas))
    print(f"  ADWIN's false alarms in {runs} schedules by delta: {deltas}; {chosen} is used")
    return thresholds | {"ADWIN": chosen}
