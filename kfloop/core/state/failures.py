"""What a database driver says when it fails, in kfloop's words: what may be tried again, what must be mended, and no secret of the URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import OperationalError

from kfloop.core.addresses import hidden, redacted
from kfloop.errors import KfloopError, StateError, TransientError

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError

SQLITE = "sqlite"
FULL = ("disk is full", "disk I/O", "No space left")
FULL_STATES = ("53100",)
# https://www.postgresql.org/docs/current/errcodes-appendix.html: connection, rollback (serialization, deadlock), resources, operator; a lock that
# was not free in time, a server that only reads for now (a failover), a transaction that was silent for too long.
PASSING_CLASSES = ("08", "40", "53", "57")
PASSING_STATES = ("55P03", "25006", "25P03")
# libpq gives no code for a connection that it never had, so the text must do.
REFUSED = ("authentication failed", "does not exist", "no pg_hba.conf entry", "is not permitted")
AWAY = (
    "Connection refused",
    "starting up",
    "shutting down",
    "server closed the connection",
    "No such file or directory",
    "Connection reset",
)


def is_away(error: OperationalError) -> bool:
    """Whether a server could not be reached, as while it restarts; a file that cannot be opened is not away."""
    return error.orig is not None and _state(error) != SQLITE and any(word in str(error.orig) for word in AWAY)


def told(error: DBAPIError, url: str) -> KfloopError:
    """The error to raise for one of the driver.

    Args:
        error: What SQLAlchemy raised.
        url: URL of state, as the loop file has it.
    """
    reason, shown = hidden(str(error.orig).strip(), url), redacted(url)
    code = _state(error)
    if any(word in reason for word in FULL) or code in FULL_STATES:
        return StateError(
            f"no space left for state '{shown}': {reason}", hint="free some space, then run the same command again"
        )
    if code == SQLITE:
        if isinstance(error, OperationalError):
            return TransientError(
                f"state '{shown}' cannot be used now: {reason}", hint="is another program holding it? try again"
            )
        return StateError(
            f"state '{shown}' is corrupt: {reason}",
            hint="put the file aside and restore a backup; nothing was changed",
        )
    if code is None and any(word in reason for word in REFUSED):
        return StateError(f"state '{shown}' refuses us: {reason}", hint="check user, password and database of the URL")
    if code is None or code[:2] in PASSING_CLASSES or code in PASSING_STATES or error.connection_invalidated:
        return TransientError(
            f"state '{shown}' cannot be used now: {reason}",
            hint="try again when the server answers; what was not committed is as it was",
        )
    return StateError(
        f"state '{shown}' refused: {reason}",
        hint="does the user of the URL own the database, or may it create tables there? nothing was changed",
        sqlstate=code,
    )


def _state(error: DBAPIError) -> str | None:
    """PostgreSQL's code; null where the driver has none (there was no connection yet), ``SQLITE`` for that driver."""
    return getattr(error.orig, "sqlstate", SQLITE)
