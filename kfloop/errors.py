"""Errors of kfloop: terminal or transient, each with an exit code, data and a next step.

Only a ``TransientError`` may be retried. A message quotes the offending value and says what was expected; ``hint`` says
what to do next. ``data`` holds the same facts as values, for ``--json`` and for the run record.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REJECTED = 3
EXIT_WAITING = 4


class KfloopError(Exception):
    """Base of all errors that kfloop raises on purpose.

    Args:
        message: One sentence that quotes the value and says what was expected.
        hint: What the reader can do next; empty when the message says it all.
        **data: The facts behind the message, JSON-serialisable.
    """

    exit_code: ClassVar[int] = EXIT_FAILED
    code: ClassVar[str] = "error"
    transient: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep hint and data across process borders."""
        return (_rebuild, (type(self), self.message, self.hint, self.data))

    def as_dict(self) -> dict[str, Any]:
        """The error as one JSON object."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.exit_code,
            "transient": self.transient,
            "data": self.data,
        }


def _rebuild(kind: type[KfloopError], message: str, hint: str, data: dict[str, Any]) -> KfloopError:
    return kind(message, hint=hint, **data)


class TerminalError(KfloopError):
    """Repeating the same thing gives the same failure."""

    code = "terminal"


class TransientError(KfloopError):
    """Repeating the same thing later may work."""

    code = "transient"
    transient = True


class ConfigError(TerminalError):
    """The loop file or a command line is wrong."""

    exit_code = EXIT_USAGE
    code = "config"


class InputError(TerminalError):
    """The data given by the user cannot be used as it is."""

    exit_code = EXIT_USAGE
    code = "input"


class StateError(TerminalError):
    """State, store or registry are inconsistent, corrupt, or moved under our feet."""

    code = "state"


class LeaseHeldError(TransientError):
    """Another run of the same loop is alive."""

    code = "lease_held"


class ServingError(TerminalError):
    """The server refused, failed or answered wrongly."""

    code = "serving"


class ServerUnavailable(TransientError):
    """No answer from a server that should be there."""

    code = "server_unavailable"


class NoEmbeddedServer(TerminalError):
    """The embedded Triton cannot run on this machine, or is not installed."""

    code = "no_embedded_server"


def nearest(word: str, choices: Iterable[str]) -> str:
    """A ``did you mean`` sentence for ``word``, or the list of choices when none is near."""
    options = sorted(choices)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(options)}"
