"""Runs and their steps: every step reports its start and its end, from whatever process it runs in."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError

from kfloop.core.state.schema import runs, steps
from kfloop.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

RUNNING = "running"


@dataclass(frozen=True, kw_only=True)
class StepEvent:
    """One event of a step: ``started``, ``succeeded`` or ``failed``, with a JSON payload."""

    number: int
    step: str
    event: str
    at: float
    payload: dict[str, Any]


class Runs:
    """Run records by id."""

    def __init__(self, begin: Callable[..., AbstractContextManager[Connection]]) -> None:
        self._begin = begin

    def start(self, run_id: str, loop: str, pipeline: str, fingerprint: str, record: dict[str, Any]) -> None:
        """Record that a run began.

        Raises:
            StateError: There is a run of that id, be it of another loop.
        """
        row = {
            "run_id": run_id,
            "loop": loop,
            "pipeline": pipeline,
            "status": RUNNING,
            "fingerprint": fingerprint,
            "started": time.time(),
            "record": json.dumps(record),
        }
        try:
            with self._begin() as connection:
                connection.execute(insert(runs).values(**row))
        except IntegrityError as error:  # loops that share a server share the ids of their runs
            raise StateError(
                f"there is a run '{run_id}' already, of this loop or of another one that shares this state",
                hint="start it again under another id",
            ) from error

    def add_ended(self, run_id: str, loop: str, pipeline: str, status: str, record: dict[str, Any]) -> None:
        """Record a run that is over, in one step: no moment at which it reads as running. Nothing happens where it has a record."""
        row: dict[str, Any] = {
            "run_id": run_id,
            "loop": loop,
            "pipeline": pipeline,
            "status": status,
            "fingerprint": "",
        }
        row |= {"started": record["started"], "finished": time.time(), "record": json.dumps(record)}
        with contextlib.suppress(IntegrityError), self._begin() as connection:
            connection.execute(insert(runs).values(**row))

    def finish(self, run_id: str, status: str, record: dict[str, Any]) -> None:
        """Record how a run ended."""
        with self._begin() as connection:
            connection.execute(
                update(runs)
                .where(runs.c.run_id == run_id)
                .values(status=status, finished=time.time(), record=json.dumps(record))
            )

    def get(self, run_id: str) -> dict[str, Any] | None:
        """The record of a run."""
        with self._begin() as connection:
            text = connection.execute(select(runs.c.record).where(runs.c.run_id == run_id)).scalar()
        return None if text is None else dict(json.loads(text))

    def last(self, loop: str, count: int = 1, fingerprint: str | None = None) -> list[dict[str, Any]]:
        """The latest records of a loop, newest first, of one fingerprint or of all."""
        query = select(runs.c.record).where(runs.c.loop == loop).order_by(runs.c.started.desc()).limit(count)
        if fingerprint is not None:
            query = query.where(runs.c.fingerprint == fingerprint)
        with self._begin() as connection:
            return [dict(json.loads(text)) for (text,) in connection.execute(query)]

    def beginning(self, loop: str, prefix: str) -> list[str]:
        """Ids of a loop's runs that begin with ``prefix``."""
        query = select(runs.c.run_id).where(runs.c.loop == loop, runs.c.run_id.startswith(prefix, autoescape=True))
        with self._begin() as connection:
            return [run_id for (run_id,) in connection.execute(query.order_by(runs.c.run_id))]

    def active(self, loop: str) -> list[str]:
        """Ids of the runs that began and did not end (a killed run stays here until ``abandon``)."""
        with self._begin() as connection:
            found = connection.execute(select(runs.c.run_id).where(runs.c.loop == loop, runs.c.status == RUNNING))
            return [run_id for (run_id,) in found]

    def without_record(self, loop: str, step: str, *, after: float, until: float) -> list[str]:
        """Ids of the runs on a cluster that began ``step`` and did not end, in the order of ids: no engine watches them, their last step writes their record.

        Args:
            loop: Name of the loop.
            step: The step.
            after: Unix time; a run that has told nothing since was killed before its last step.
            until: Unix time; what was told later was told by a clock that was set back.
        """
        spoken = select(steps.c.run_id).where(steps.c.at > after, steps.c.at <= until)
        query = select(steps.c.run_id, steps.c.payload).where(
            steps.c.step == step,
            steps.c.event == "started",
            steps.c.run_id.not_in(select(runs.c.run_id)),
            steps.c.run_id.in_(spoken),
        )
        with self._begin() as connection:
            rows = connection.execute(query).all()
        return sorted({run_id for run_id, text in rows if json.loads(text).get("loop") == loop})

    def abandon(self, loop: str) -> list[str]:
        """Mark runs that never ended as ``killed``; the caller holds the lease, so none of them is alive."""
        killed = self.active(loop)
        for run_id in killed:
            record = (self.get(run_id) or {}) | {"status": "killed", "exit_code": 1}
            self.finish(run_id, "killed", record)
        return killed

    def step(self, run_id: str, step: str, event: str, payload: dict[str, Any]) -> None:
        """Append a step event."""
        with self._begin(lock=f"run {run_id}") as connection:
            number = connection.execute(select(func.max(steps.c.number)).where(steps.c.run_id == run_id)).scalar() or 0
            connection.execute(
                insert(steps).values(
                    run_id=run_id,
                    number=number + 1,
                    step=step,
                    event=event,
                    at=time.time(),
                    payload=json.dumps(payload),
                )
            )

    def events(self, run_id: str, after: int = 0) -> list[StepEvent]:
        """Events of a run with a number above ``after``."""
        query = select(steps).where(steps.c.run_id == run_id, steps.c.number > after).order_by(steps.c.number)
        with self._begin() as connection:
            rows = connection.execute(query).all()
        return [
            StepEvent(number=row.number, step=row.step, event=row.event, at=row.at, payload=json.loads(row.payload))
            for row in rows
        ]
