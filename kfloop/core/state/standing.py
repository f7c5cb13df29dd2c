"""What the ledger's rows mean now: the challenger on hold, those that people turned down, and the overrides that last."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kfloop.core.state.ledger import Entry


def pending_hold(history: Sequence[Entry]) -> Entry | None:
    """The hold that waits for a person: the latest one, unless it was rejected or the champion has changed since.

    Args:
        history: All rows of the loop, oldest first.
    """
    for entry in reversed(history):
        if entry.phase == "done":
            return None
        if entry.action == "hold":
            return None if rejection(history, entry) else entry
    return None


def rejection(history: Sequence[Entry], hold: Entry) -> Entry | None:
    """The row by which somebody rejected a hold; null where nobody did."""
    return next(
        (
            entry
            for entry in history
            if entry.action == "reject" and entry.seq > hold.seq and entry.evidence_digest == hold.evidence_digest
        ),
        None,
    )


def active_rollout(history: Sequence[Entry]) -> Entry | None:
    """The row that began the roll-out that is going on; null for none.

    Whatever changes the champion, holds a newer challenger, or turns this one down ends it, also where nobody came to say so in a row.

    Args:
        history: All rows of the loop, oldest first.
    """
    last = next((entry for entry in reversed(history) if entry.action == "rollout" or entry.phase == "done"), None)
    if last is None or last.phase == "done":
        return None
    ended = any(
        entry.action == "hold"
        or (entry.action == "withdraw" and entry.details.get("rollout") == last.seq)
        or (entry.action == "reject" and entry.evidence_digest == last.evidence_digest)
        for entry in history
        if entry.seq > last.seq
    )
    return None if ended else last


def successor(history: Sequence[Entry], hold: Entry) -> Entry | None:
    """The latest hold or change of champion after ``hold`` that is about another decision: it supersedes it."""
    return next(
        (
            entry
            for entry in reversed(history)
            if entry.seq > hold.seq
            and (entry.action == "hold" or entry.phase == "done")
            and entry.evidence_digest != hold.evidence_digest
        ),
        None,
    )


def turned_down(history: Iterable[Entry], digest: str) -> Entry | None:
    """The row by which somebody rejected a package or rolled back from it, or its roll-out failed; null where nobody did since it last became champion.

    Args:
        history: All rows of the loop, oldest first.
        digest: Digest of the package.
    """
    return _down(history).get(digest)


def turned_down_rows(history: Iterable[Entry]) -> tuple[int, ...]:
    """Numbers of the rows that turn a package down now, ascending: what decisions about any of them depend on."""
    return tuple(sorted(entry.seq for entry in _down(history).values()))


def _down(history: Iterable[Entry]) -> dict[str, Entry]:
    """By package the row that turns it down now."""
    found: dict[str, Entry] = {}
    for entry in history:
        if entry.action == "reject" or (entry.action == "withdraw" and entry.details.get("down")):
            found[entry.model_digest] = entry
        if entry.phase == "done":
            if entry.action == "rollback":
                found[entry.previous_digest] = entry
            found.pop(entry.model_digest, None)
    return found


def told_down(entry: Entry) -> str:
    """Who turned a package down, when and why."""
    day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(entry.at))
    if entry.action == "rollback":
        return f"{entry.actor} rolled back from this very model (version {entry.previous_version}) on {day}: {entry.reason}"
    if entry.action == "withdraw":
        return f"the roll-out of this very model (version {entry.version}) was withdrawn on {day}: {entry.reason}"
    return f"{entry.actor} rejected this very model (version {entry.version}) on {day}: {entry.reason}"


@dataclass(frozen=True, kw_only=True)
class Override:
    """A rule whose failure does not block for a while, on somebody's word.

    Attributes:
        rule: Name of the rule, as the report prints it.
        who: Who said so.
        why: Why.
        until: Unix time at which it ends.
        row: Number of the ledger's row.
    """

    rule: str
    who: str
    why: str
    until: float
    row: int

    @property
    def ends(self) -> str:
        """When it ends, in UTC."""
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.until))

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return {
            "rule": self.rule,
            "who": self.who,
            "why": self.why,
            "until": self.until,
            "ends": self.ends,
            "row": self.row,
        }


def active_overrides(history: Iterable[Entry], now: float | None = None) -> list[Override]:
    """The overrides that last, by the last row about each rule, in the order of rules.

    Args:
        history: All rows of the loop, oldest first.
        now: Unix time; the present when null.
    """
    moment = time.time() if now is None else now
    last = {str(entry.details.get("rule")): entry for entry in history if entry.action in {"override", "end_override"}}
    found = [
        Override(rule=rule, who=entry.actor, why=entry.reason, until=float(entry.details["until"]), row=entry.seq)
        for rule, entry in sorted(last.items())
        if entry.action == "override"
    ]
    return [override for override in found if override.until > moment]
