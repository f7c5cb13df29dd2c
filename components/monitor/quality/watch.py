"""The watch over quality: what is expected of the champion's answers, and what turned out to be true of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.monitor.quality.joining import Joined, join
from kfloop.components.monitor.quality.telling import Told, quality_causes, quality_report
from kfloop.core.quality.estimated import Estimated
from kfloop.core.quality.expected import LABELS, OBJECTIVES
from kfloop.core.quality.gauge import Gauge, open_gauge
from kfloop.core.quality.hours import Hours
from kfloop.core.quality.realised import Realised
from kfloop.errors import StateError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.components.monitor.log.traffic import Traffic
    from kfloop.components.monitor.policy.causes import Cause
    from kfloop.core.sections import MonitorConfig
    from kfloop.core.signature import Signature

    Array = NDArray[np.float64]

FORMAT = 1
TRUTH = "target"
FEWEST_ROWS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class QualityWatch:
    """What is known of the quality of one champion. Immutable; `to_dict` is all that has to be kept.

    Attributes:
        gauge: Its reference; None where the reference cannot be used, which `problem` says.
        model: Its name.
        version: Its version.
        answer: Name of the output that is its answer.
        estimated: Without labels.
        realised: With labels.
        hours: Requests by the hour.
        joined: What became of the answers in the file of ground truth.
        newest_ns: Time of the newest request.
        unusable: Rows whose answer is not finite, of another length, or no probability.
        now: When truth was last asked for, seconds since 1970.
    """

    gauge: Gauge | None
    model: str
    version: int
    answer: str
    problem: str = ""
    estimated: Estimated = field(default_factory=Estimated)
    realised: Realised = field(default_factory=Realised)
    hours: Hours = field(default_factory=Hours)
    joined: Joined = field(default_factory=Joined)
    newest_ns: int = 0
    unusable: int = 0
    now: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; their size does not depend on the number of rows or labels."""
        return {
            "format": FORMAT,
            "estimated": self.estimated.to_dict(),
            "realised": self.realised.to_dict(),
            "hours": self.hours.to_dict(),
            "joined": self.joined.to_dict(),
            "newest_ns": self.newest_ns,
            "unusable": self.unusable,
            "now": self.now,
        }

    def from_dict(self, payload: dict[str, Any] | None) -> QualityWatch:
        """This watch with the memory that `to_dict` wrote; None is a new one.

        Raises:
            StateError: The payload has another format, or is damaged.
        """
        if payload is None:
            return self
        if payload.get("format") != FORMAT:
            message = f"the state of the quality watch has format {payload.get('format')!r}, expected {FORMAT}"
            raise StateError(message, hint="It was written by another version of kfloop; use that one.")
        try:
            return replace(
                self,
                estimated=Estimated.from_dict(payload["estimated"]),
                realised=Realised.from_dict(payload["realised"]),
                hours=Hours.from_dict(payload["hours"]),
                joined=Joined.from_dict(payload["joined"]),
                newest_ns=int(payload["newest_ns"]),
                unusable=int(payload["unusable"]),
                now=float(payload["now"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            message = f"the state of the quality watch cannot be read: {error!r}"
            raise StateError(message, hint="Restore the state database from a backup.") from error

    def advance(self, chunk: Traffic) -> QualityWatch:
        """The watch after more rows, in the order of time; it does not matter in how many parts they come."""
        if self.gauge is None or not len(chunk):
            return self
        usable = usable_rows(self.gauge.objective, chunk.answers, chunk.embedding)
        ts_ns = chunk.ts_ns[usable]
        newest = max(self.newest_ns, int(chunk.ts_ns.max()))
        watch = replace(self, newest_ns=newest, unusable=self.unusable + int((~usable).sum()))
        if not usable.any():
            return watch
        table = self.gauge.columns(chunk.answers[usable], chunk.embedding[usable])
        strata = self.gauge.strata(table[:, 1], None if chunk.review is None else chunk.review[usable])
        return replace(
            watch,
            estimated=self.estimated.advance(self.gauge, table, ts_ns),
            hours=self.hours.add_rows(table, strata, ts_ns),
        )

    def realise(self, truth_file: Path, log_folder: Path, now: float) -> QualityWatch:
        """The watch after the answers that the file of ground truth has gained.

        Args:
            truth_file: See `kfloop.core.ground_truth.truth_file`; it may not exist.
            log_folder: Root of the request log.
            now: The clock of the round, seconds since 1970.
        """
        watch = replace(self, now=now)
        if self.gauge is None:
            return watch
        joined, labels = join(self.joined, self, self.gauge, truth_file, log_folder / self.model, now)
        return replace(
            watch,
            joined=joined,
            hours=self.hours.add_truths(labels.ts_ns, labels.delays),
            realised=self.realised.advance(self.gauge, self.hours, labels),
        )

    def causes(self, config: MonitorConfig) -> tuple[Cause, ...]:
        """The causes `estimated` and `realised`, with what the evidence says of each."""
        return quality_causes(self._told(), config)

    def report(self) -> dict[str, Any]:
        """Figures for people, as plain values: keys `estimated` and `realised`."""
        return quality_report(self._told())

    def _told(self) -> Told:
        return Told(
            gauge=self.gauge,
            problem=self.problem,
            estimated=self.estimated,
            realised=self.realised,
            hours=self.hours,
            joined=self.joined,
            newest_ns=self.newest_ns,
            unusable=self.unusable,
            now=self.now,
        )


def open_quality(
    package: Path,
    signature: Signature,
    config: MonitorConfig,
    *,
    model: str,
    version: int,
    payload: dict[str, Any] | None = None,
) -> QualityWatch:
    """The watch over one champion.

    Args:
        package: The champion's package; packages made before truth was kept in the reference work, too: there nothing is calibrated.
        signature: Its signature.
        config: Section `monitor`.
        model: Its name in the request log.
        version: Its version.
        payload: What an earlier round kept; None for a new watch.

    Raises:
        StateError: The reference is unreadable, or the payload is.
    """
    gauge, problem = _gauge(package, signature, config)
    watch = QualityWatch(gauge=gauge, model=model, version=version, answer=signature.answer, problem=problem)
    return watch.from_dict(payload)


def usable_rows(objective: str, answers: Array, embedding: Array) -> NDArray[np.bool_]:
    """Rows whose answer can be judged: finite, and probabilities within [0, 1]; numbers need their embedding, too."""
    if objective not in OBJECTIVES[:2]:
        return np.asarray(np.isfinite(answers).all(axis=1) & np.isfinite(embedding).all(axis=1))
    return np.asarray((np.isfinite(answers) & (answers >= 0) & (answers <= 1 + 1e-6)).all(axis=1))


def _gauge(package: Path, signature: Signature, config: MonitorConfig) -> tuple[Gauge | None, str]:
    objective = signature.objective
    if objective not in OBJECTIVES or not signature.batched:
        return None, f"the quality of a champion that learned {objective} is not estimated"
    try:
        with np.load(package / "reference.npz") as arrays:
            answers, embedding = (arrays[name].astype(float) for name in (signature.answer, "embedding"))
            truth = arrays[TRUTH].astype(float) if TRUTH in arrays.files else None
    except (OSError, KeyError, ValueError) as error:
        message = f"the champion's reference 'reference.npz' cannot be read: {error}"
        raise StateError(message, hint="The package was changed after it was published; restore the store.") from error
    answers, embedding = answers.reshape(len(answers), -1), embedding.reshape(len(embedding), -1)
    if truth is not None and len(truth) != len(answers):
        truth = None
    usable = usable_rows(objective, answers, embedding)
    if int(usable.sum()) < FEWEST_ROWS:
        return None, f"the reference has {int(usable.sum())} usable rows, at least {FEWEST_ROWS} are needed"
    if truth is not None and objective != LABELS:
        truth = truth.reshape(len(truth))
    gauge = open_gauge(
        objective,
        answers=answers[usable],
        embedding=embedding[usable],
        truth=None if truth is None else truth[usable],
        labels=signature.labels,
        estimated_drop=config.estimated_drop,
        realised_drop=config.realised_drop,
        false_alarms_per_year=config.false_alarms_per_year,
    )
    if gauge is None:
        text = "the package does not hold the truth of its reference, and numbers come without a confidence: package the model anew"
        return None, text
    return gauge, ""
