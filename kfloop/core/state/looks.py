"""Looks at the holdout: which challenger was judged on which test rows, so that a worn-out test set is noticed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from kfloop.core.state.schema import looks

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection


@dataclass(frozen=True, kw_only=True)
class Look:
    """One challenger judged on one set of test rows.

    Attributes:
        number: Order of the looks of all loops.
        challenger_digest: Package of the challenger.
        test_digest: Digest of the ids of the test rows.
        sketch: Their bottom-128 sketch, see ``core.holdout``.
        evidence_digest: The first decision made on them; empty while they were evaluated only.
        at: Unix time.
    """

    number: int
    challenger_digest: str
    test_digest: str
    sketch: tuple[str, ...]
    evidence_digest: str
    at: float


class Looks:
    """Looks by loop; a repeated decision on the same challenger and rows is one look."""

    def __init__(self, begin: Callable[..., AbstractContextManager[Connection]]) -> None:
        self._begin = begin

    def add(
        self, loop: str, *, challenger_digest: str, test_digest: str, sketch: tuple[str, ...], evidence_digest: str
    ) -> None:
        """Record a look, unless it is known; one that no decision had yet gets this one."""
        row = {
            "loop": loop,
            "challenger_digest": challenger_digest,
            "test_digest": test_digest,
            "sketch": json.dumps(list(sketch)),
            "evidence_digest": evidence_digest,
            "at": time.time(),
        }
        known = (
            select(looks.c.number, looks.c.evidence_digest)
            .where(looks.c.loop == loop, looks.c.challenger_digest == challenger_digest)
            .where(looks.c.test_digest == test_digest)
        )
        try:
            with self._begin() as connection:
                found = connection.execute(known).first()
                if found is None:
                    connection.execute(insert(looks).values(**row))
                elif evidence_digest and not found.evidence_digest:
                    decided = update(looks).where(looks.c.number == found.number)
                    connection.execute(decided.values(evidence_digest=evidence_digest))
        except IntegrityError:  # another process recorded the same look at the same moment
            return

    def before(self, loop: str, challenger_digest: str, test_digest: str) -> list[Look]:
        """Looks of other challengers, oldest first, up to the first look of this one at these rows; all of them where it had none yet.

        Args:
            loop: The loop.
            challenger_digest: Package of the challenger.
            test_digest: The test rows; that it was judged on others before does not make these fresh.
        """
        with self._begin() as connection:
            rows = connection.execute(select(looks).where(looks.c.loop == loop).order_by(looks.c.number)).all()
        found: list[Look] = []
        for row in rows:
            if row.challenger_digest == challenger_digest:
                if row.test_digest == test_digest:
                    break
                continue
            found.append(
                Look(
                    number=row.number,
                    challenger_digest=row.challenger_digest,
                    test_digest=row.test_digest,
                    sketch=tuple(json.loads(row.sketch)),
                    evidence_digest=row.evidence_digest,
                    at=row.at,
                )
            )
        return found
