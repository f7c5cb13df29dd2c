"""What the monitor carries from round to round, and what each round concluded."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from kfloop.core.state.schema import monitors, triggers
from kfloop.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection


class Monitors:
    """Monitor state per loop and champion, saved by compare-and-set."""

    def __init__(self, begin: Callable[..., AbstractContextManager[Connection]]) -> None:
        self._begin = begin

    def load(self, loop: str, champion_digest: str) -> tuple[dict[str, Any] | None, int]:
        """State and its row version; null and 0 when there is none yet."""
        with self._begin() as connection:
            row = connection.execute(
                select(monitors).where(monitors.c.loop == loop, monitors.c.champion_digest == champion_digest)
            ).one_or_none()
        return (None, 0) if row is None else (json.loads(row.payload), row.row_version)

    def save(self, loop: str, champion_digest: str, payload: dict[str, Any], expected: int) -> int:
        """Write state if it is still at row version ``expected``.

        Returns:
            The new row version.

        Raises:
            StateError: Another monitor wrote in between.
        """
        text = json.dumps(payload, sort_keys=True, allow_nan=False)
        conflict = StateError(
            f"another monitoring round of loop '{loop}' wrote its state at the same moment", hint="run it again"
        )
        with self._begin() as connection:
            if expected == 0:
                try:
                    connection.execute(
                        insert(monitors).values(loop=loop, champion_digest=champion_digest, payload=text, row_version=1)
                    )
                except IntegrityError as error:
                    raise conflict from error
                return 1
            done = connection.execute(
                update(monitors)
                .where(
                    monitors.c.loop == loop,
                    monitors.c.champion_digest == champion_digest,
                    monitors.c.row_version == expected,
                )
                .values(payload=text, row_version=expected + 1)
            )
            if done.rowcount != 1:
                raise conflict
        return expected + 1


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """Conclusion of one monitoring round.

    Attributes:
        run_id: The round, and the training round behind it.
        trigger: What it concluded.
        reason: Why, in one sentence.
        champion_digest: The champion that was watched; empty where there was none.
        fingerprint: Digest of champion, cause and labels; empty where nothing called for a retraining.
        evidence_digest: Its report in the store.
        at: When, seconds since 1970.
        cause: Kind of cause that it is for; empty where nothing called for a retraining.
        labels: Labelled rows that were known; null where none are configured or nobody counted.
    """

    run_id: str
    trigger: str
    reason: str
    champion_digest: str
    fingerprint: str
    evidence_digest: str
    at: float
    cause: str = ""
    labels: int | None = None


class Triggers:
    """Conclusions, oldest first."""

    def __init__(self, begin: Callable[..., AbstractContextManager[Connection]]) -> None:
        self._begin = begin

    def add(
        self,
        loop: str,
        *,
        run_id: str,
        trigger: str,
        reason: str,
        champion_digest: str,
        fingerprint: str,
        evidence_digest: str = "",
        at: float | None = None,
        cause: str = "",
        labels: int | None = None,
    ) -> None:
        """Record a conclusion; ``at`` is now when left out."""
        with self._begin() as connection:
            connection.execute(
                insert(triggers).values(
                    loop=loop,
                    run_id=run_id,
                    trigger=trigger,
                    reason=reason,
                    champion_digest=champion_digest,
                    fingerprint=fingerprint,
                    evidence_digest=evidence_digest,
                    at=time.time() if at is None else at,
                    cause=cause,
                    labels=labels,
                )
            )

    def history(self, loop: str, trigger: str | None = None, since: float = 0.0) -> list[Trigger]:
        """Conclusions of a loop since a unix time, of one kind or of all."""
        query = select(triggers).where(triggers.c.loop == loop, triggers.c.at >= since).order_by(triggers.c.id)
        if trigger is not None:
            query = query.where(triggers.c.trigger == trigger)
        with self._begin() as connection:
            rows = connection.execute(query).all()
        return [
            Trigger(
                run_id=row.run_id,
                trigger=row.trigger,
                reason=row.reason,
                champion_digest=row.champion_digest,
                fingerprint=row.fingerprint,
                evidence_digest=row.evidence_digest,
                at=row.at,
                cause=row.cause,
                labels=row.labels,
            )
            for row in rows
        ]

    def last(self, loop: str, trigger: str | None = None) -> Trigger | None:
        """The latest conclusion, of one kind or of all."""
        history = self.history(loop, trigger)
        return history[-1] if history else None
