"""Answers of the file of ground truth, joined with the requests that they are about; each is counted once."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.monitor.quality.lookup import Row, find_rows
from kfloop.core.quality.answers import Answer, Place, of_model, read_new
from kfloop.core.quality.expected import CLASSES, LABELS, NUMBERS, whole
from kfloop.core.quality.realised import Labels

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.components.monitor.quality.watch import QualityWatch
    from kfloop.core.quality.gauge import Gauge

MOST_WAITING = 2000
WAIT_SECONDS = 30 * 86400.0
EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """An answer whose request is not in the log yet.

    Attributes:
        request_id: Its request.
        label: As `kfloop.core.quality.answers.spelled` gives it; several are a list.
        at: When it was known, seconds since 1970.
        since: Since when it waits.
    """

    request_id: str
    label: Any
    at: float
    since: float


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What became of answers.

    Attributes:
        place: Up to where the file was read.
        hour: Newest hour of the log that was looked into for the waiting ones.
        waiting: At most 2000, for at most 30 days.
        gave_up: Answers whose request never came.
        changed: Answers that contradict an earlier one to the same request; the earlier counts.
        broken: Lines that are no answer.
        foreign: Labels that are no class of the model, or no number where one is needed.
        examples: Some of them.
        blank: Answers to requests whose own answer is not finite, or whose embedding is missing where it is needed.
        others: By version, answers to requests that other versions answered: how many, and the sum of their quality in millionths.
        problems: What was wrong with the file when it was last read.
    """

    place: Place = field(default_factory=Place)
    hour: str = ""
    waiting: tuple[Waiting, ...] = ()
    gave_up: int = 0
    changed: int = 0
    broken: int = 0
    foreign: int = 0
    examples: tuple[str, ...] = ()
    blank: int = 0
    others: dict[str, tuple[int, int]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, payload: dict[str, Any]) -> Joined:
        """Read what `to_dict` wrote."""
        waiting = tuple(Waiting(**{**one, "label": _frozen(one["label"])}) for one in payload["waiting"])
        return cls(
            **{
                **payload,
                "place": Place(**payload["place"]),
                "waiting": waiting,
                "examples": tuple(payload["examples"]),
                "others": {name: tuple(pair) for name, pair in payload["others"].items()},
                "problems": tuple(payload["problems"]),
            }
        )

    def sentences(self) -> list[str]:
        """What people should know of the answers."""
        named = ", ".join(map(repr, self.examples))
        told = (
            (self.broken, "lines of the ground truth are no answers"),
            (self.foreign, f"answers are no class of the model or no number ({named}); they are left out"),
            (self.changed, "answers contradict an earlier one to the same request; the earlier counts here"),
            (
                self.blank,
                "answers are about requests whose own answer (or embedding, which numbers need) is not finite or not in the log",
            ),
            (len(self.waiting), "answers wait for their request to reach the log"),
            (self.gave_up, "answers are about requests that never reached the log"),
        )
        return [*self.problems, *(f"{count} {text}" for count, text in told if count)]


def join(
    before: Joined, watch: QualityWatch, gauge: Gauge, truth_file: Path, folder: Path, now: float
) -> tuple[Joined, Labels]:
    """Join new and waiting answers with the log.

    Args:
        before: What became of earlier ones.
        watch: The watch they are for; requests that it has not counted yet are as if they were not logged.
        gauge: Its reference.
        truth_file: The file.
        folder: The model's folder of the request log.
        now: Clock of the round.
    """
    reading = read_new(truth_file, before.place)
    new = [_waiting(answer, now) for answer in reading.answers]
    joined = replace(
        before,
        place=reading.place,
        changed=before.changed + reading.changed,
        broken=before.broken + reading.broken,
        problems=reading.problems,
    )
    held = {one.request_id for one in before.waiting}
    asked = [*before.waiting, *(one for one in new if one.request_id not in held)]
    if not asked:
        return joined, _labels([])
    rows = _found(before, new, watch, gauge, folder)
    found, hour = rows
    counted = {name: row for name, row in found.items() if row.ts_ns <= watch.newest_ns}
    kept = [(one, counted[one.request_id]) for one in asked if one.request_id in counted]
    waiting = [one for one in asked if one.request_id not in counted]
    patient = [one for one in waiting if now - one.since <= WAIT_SECONDS][-MOST_WAITING:]
    joined = replace(
        joined,
        hour=hour if len(counted) == len(found) else before.hour,
        waiting=tuple(patient),
        gave_up=joined.gave_up + len(waiting) - len(patient),
    )
    return _judged(joined, watch, gauge, kept)


def _found(
    before: Joined, new: list[Waiting], watch: QualityWatch, gauge: Gauge, folder: Path
) -> tuple[dict[str, Row], str]:
    """New answers may be about any hour; those that wait were looked for in all hours but the latest."""
    needs = gauge.objective == NUMBERS
    rows, hour = find_rows(
        folder,
        {one.request_id for one in [*before.waiting, *new]},
        answer=watch.answer,
        embedding=needs,
        since="" if new else before.hour,
    )
    return rows, hour


def _judged(
    joined: Joined, watch: QualityWatch, gauge: Gauge, kept: list[tuple[Waiting, Row]]
) -> tuple[Joined, Labels]:
    """Hold answers against what the model said: those of its own version as labels, those of others counted beside them."""
    foreign, blank, examples = joined.foreign, joined.blank, list(joined.examples)
    judged: list[tuple[Waiting, Row, Any]] = []
    for one, row in kept:
        truth = _truth(one.label, gauge)
        if truth is None:
            foreign += 1
            examples = list(dict.fromkeys([*examples, str(one.label)[:40]]))[:EXAMPLES]
        elif _fits(row, gauge):
            judged.append((one, row, truth))
        else:
            blank += 1
    told = replace(joined, foreign=foreign, blank=blank, examples=tuple(examples))
    if not judged:
        return told, _labels([])
    answers = np.stack([row.answer for _, row, _ in judged])
    found = whole(gauge.expected.realised(answers, np.array([truth for _, _, truth in judged])))
    own = np.array([row.version == watch.version for _, row, _ in judged])
    others = dict(joined.others)
    for (_, row, _), quality, mine in zip(judged, found.tolist(), own.tolist(), strict=True):
        if not mine:
            n, total = others.get(str(row.version), (0, 0))
            others[str(row.version)] = (n + 1, total + quality)
    told = replace(told, others=others)
    if not own.any():
        return told, _labels([])
    vectors = [row.embedding for (_, row, _), mine in zip(judged, own, strict=True) if mine]
    embedding = np.stack(vectors) if gauge.objective == NUMBERS else np.zeros((int(own.sum()), 0))
    expected = gauge.expected.millionths(answers[own], embedding)
    flagged = np.array([row.review for _, row, _ in judged])[own]
    strata = gauge.strata(expected, flagged)
    mine = [(one, row) for (one, row, _), counts in zip(judged, own, strict=True) if counts]
    at_ns = [int(one.at * 1e9) for one, _ in mine]
    waits = [(at - row.ts_ns) / 1e9 for at, (_, row) in zip(at_ns, mine, strict=True)]
    delays = [wait if wait >= 0 else math.nan for wait in waits]
    times = [row.ts_ns for _, row in mine]
    return told, _labels(
        list(zip(strata.tolist(), expected.tolist(), found[own].tolist(), times, at_ns, delays, strict=True))
    )


def _fits(row: Row, gauge: Gauge) -> bool:
    """Whether an answer has the model's length and is finite; numbers need their embedding as well."""
    width = 1 if gauge.objective == NUMBERS else len(gauge.labels)
    vector = row.embedding.shape == gauge.expected.origin.shape and bool(np.isfinite(row.embedding).all())
    return (
        row.answer.shape == (width,) and bool(np.isfinite(row.answer).all()) and (vector or gauge.objective != NUMBERS)
    )


def _truth(label: Any, gauge: Gauge) -> float | list[float] | None:
    """The truth as `Expected.realised` takes it, of one row; None for what is no class or no number."""
    known: Any = of_model(label, gauge.objective, gauge.labels)
    if known is None:
        return None
    if gauge.objective == CLASSES:
        return float(gauge.labels.index(known))
    return [float(name in known) for name in gauge.labels] if gauge.objective == LABELS else float(known)


def _labels(records: list[tuple[Any, ...]]) -> Labels:
    strata, expected, found, ts_ns, at_ns = (np.array([row[i] for row in records], np.int64) for i in range(5))
    delays = np.array([row[5] for row in records], float)
    return Labels(strata=strata, expected=expected, found=found, ts_ns=ts_ns, at_ns=at_ns, delays=delays)


def _waiting(answer: Answer, now: float) -> Waiting:
    """An answer that does not say when it was known, or says that it will be, is known now."""
    at = now if answer.at is None else min(answer.at, now)
    return Waiting(request_id=answer.request_id, label=answer.label, at=at, since=now)


def _frozen(label: Any) -> Any:
    return tuple(label) if isinstance(label, list) else label
