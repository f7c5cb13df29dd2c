"""``python -m kfloop.serving install-runtime``, ``follow`` beside a Triton of a group, and, for kfloop itself, ``supervise``."""

from __future__ import annotations

import sys
from pathlib import Path

from kfloop.core.workspace import Workspace
from kfloop.errors import KfloopError, NoEmbeddedServer
from kfloop.serving.following import follow
from kfloop.serving.options import ServeOptions
from kfloop.serving.runtime import install, require_platform
from kfloop.serving.supervisor import serve

USAGE = "usage: python -m kfloop.serving install-runtime | follow REPOSITORY URL READY_FILE"
FOLLOWS = 4  # words


def main(arguments: list[str]) -> int:
    """Carry out one word of the command line."""
    try:
        if arguments == ["install-runtime"]:
            try:
                require_platform()
            except NoEmbeddedServer as error:  # no failure: the loop runs up to evaluate on such a machine, and says so
                sys.stdout.write(f"{error.message}; the loop runs up to evaluate on this machine\n")
                return 0
            sys.stdout.write(f"embedded Triton: {install().root}\n")
            return 0
        if len(arguments) == FOLLOWS and arguments[0] == "follow":
            follow(arguments[1], arguments[2], Path(arguments[3]))
            return 0
        if arguments and arguments[0] == "supervise":
            http_port, grpc_port = (int(port) or None for port in arguments[2:4])
            options = ServeOptions.from_json(arguments[4]) if arguments[4:] else None
            serve(Workspace.from_json(arguments[1]), http_port=http_port, grpc_port=grpc_port, options=options)
            return 0
    except KfloopError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"  -> {error.hint}\n" if error.hint else ""))
        return error.exit_code
    sys.stderr.write(USAGE + "\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
