"""The answers of all people: kept for ever with who and when, and settled by majority.

``corrections.jsonl`` is append-only: every answer of every person stays in it. What the answers amount to is worked out anew by
``decide``, so that a later answer can overturn an earlier one and nobody's work is lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kfloop.core.review.answer import UNSURE, UNUSABLE, Answer, Label, check_classes, read_answers

__all__ = [
    "Answer",
    "Decision",
    "MergeResult",
    "Tally",
    "Undecided",
    "decide",
    "merge_answers",
    "read_answers",
    "settle",
    "tally",
]


@dataclass(frozen=True, kw_only=True)
class MergeResult:
    """What an import did.

    Attributes:
        added: Answers written.
        repeated: Answers that were there before.
        conflicting: Content of the examples on which people disagree, or nobody is sure, after this import.
        unknown: Content of the answers that were left out because no such example is known.
    """

    added: int
    repeated: int
    conflicting: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What people settled about one example.

    Attributes:
        label: The right label (name, names or number); null when the example is unusable.
        unusable: Whether the example is to be set aside.
        by: Who said so, joined by commas.
        at: When the last of them did: ISO 8601, UTC.
    """

    label: Label | None
    unusable: bool
    by: str
    at: str


@dataclass(frozen=True, kw_only=True)
class Undecided:
    """An example on which the answers settle nothing.

    Attributes:
        content: Content hash.
        id: Id of the example in its newest answer.
        reason: ``unsure`` when nobody gave a definite answer, ``tie`` when no answer has more than half of the people.
        answers: The newest answer of each person, by name.
    """

    content: str
    id: str
    reason: str
    answers: dict[str, Label]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What all answers amount to: decisions by content, and what stays open."""

    decisions: dict[str, Decision]
    undecided: list[Undecided]


def merge_answers(
    corrections: Path, answers: Sequence[Answer], labels: Sequence[str], known: Collection[str]
) -> MergeResult:
    """Add answers to ``corrections.jsonl``; a second time adds nothing, and a kill leaves the file as it was or complete.

    Args:
        corrections: The file; made when it is not there.
        answers: New answers.
        labels: Class names; empty for numbers.
        known: Content of the examples that may be answered. Those in the file already are known too.

    Returns:
        What was done.

    Raises:
        InputError: An answer names an unknown class, or a line of the file is no answer.
    """
    for answer in answers:
        check_classes(answer.answer, labels, f"the answer of '{answer.by}' about '{answer.id}'")
    with _locked(corrections):
        old = read_answers(corrections) if corrections.exists() else []
        seen = {answer.key for answer in old}
        allowed = {answer.content for answer in old}.union(known)
        fresh: list[Answer] = []
        unknown: dict[str, None] = {}
        for answer in answers:
            if answer.content not in allowed:
                unknown[answer.content] = None
            elif answer.key not in seen:
                seen.add(answer.key)
                fresh.append(answer)
        left_out = sum(answer.content in unknown for answer in answers)
        if fresh:
            _append(corrections, fresh)
    touched = {answer.content for answer in answers}
    conflicting = [item.content for item in settle([*old, *fresh]).undecided if item.content in touched]
    return MergeResult(
        added=len(fresh),
        repeated=len(answers) - len(fresh) - left_out,
        conflicting=tuple(conflicting),
        unknown=tuple(unknown),
    )


def decide(corrections: Path) -> dict[str, Decision]:
    """What people settled, by content; what they did not settle is not in it (see ``tally``).

    Args:
        corrections: The file; none means that nobody answered yet.

    Raises:
        InputError: A line of the file is no answer.
    """
    return tally(corrections).decisions


def tally(corrections: Path) -> Tally:
    """What all answers in ``corrections.jsonl`` amount to.

    Raises:
        InputError: A line of the file is no answer.
    """
    return settle(read_answers(corrections) if corrections.exists() else [])


def settle(answers: Sequence[Answer]) -> Tally:
    """The newest answer of each person counts; what more than half of those who are not unsure say is decided."""
    by_content: dict[str, dict[str, Answer]] = {}
    for answer in sorted(answers, key=_moment):
        by_content.setdefault(answer.content, {})[answer.by.casefold()] = answer
    decisions: dict[str, Decision] = {}
    undecided: list[Undecided] = []
    for content, people in by_content.items():
        newest = sorted(people.values(), key=_moment)
        definite = [answer for answer in newest if answer.answer != UNSURE]
        winners = max(
            ([other for other in definite if other.answer == answer.answer] for answer in definite),
            key=len,
            default=[],
        )
        if 2 * len(winners) > len(definite):
            unusable = winners[0].answer == UNUSABLE
            decisions[content] = Decision(
                label=None if unusable else winners[0].answer,
                unusable=unusable,
                by=", ".join(sorted(answer.by for answer in winners)),
                at=winners[-1].at,
            )
        else:
            undecided.append(
                Undecided(
                    content=content,
                    id=newest[-1].id,
                    reason="tie" if definite else "unsure",
                    answers={answer.by: answer.answer for answer in newest},
                )
            )
    return Tally(decisions=decisions, undecided=undecided)


def _moment(answer: Answer) -> datetime:
    return datetime.fromisoformat(answer.at)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time; the system frees the lock of a process that dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _append(path: Path, answers: Sequence[Answer]) -> None:
    """Write the old content and the new lines under a temporary name, and rename."""
    old = path.read_bytes() if path.exists() else b""
    if old and not old.endswith(b"\n"):
        old += b"\n"
    new = "".join(json.dumps(answer.as_dict(), ensure_ascii=False) + "\n" for answer in answers)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(old + new.encode())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
