"""Follow a repository: every Triton of a group serves the champion that one of them was told of.

kfloop proves a version on one server and writes there which set answers to a loop's name. The others have the same repository and nobody who tells
them: ``python -m kfloop.serving follow`` runs beside each, looks every few seconds, loads what the name points to and lets go of what was removed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.core.sections import TargetConfig
from kfloop.errors import KfloopError, ServingError
from kfloop.serving.places import Place
from kfloop.serving.publishing import points_to
from kfloop.serving.remote import RemoteControl
from kfloop.serving.repository import CONFIG

if TYPE_CHECKING:
    from kfloop.serving.control import ModelControl

KEY_VARIABLE = "KFLOOP_TRITON_KEY"
LOOK_SECONDS = 10.0
LOAD_SECONDS = 600.0  # TensorRT builds its engines while it loads


def look(place: Place, control: ModelControl, held: set[str]) -> list[str]:
    """Let the server serve what the repository says, once.

    Args:
        place: The repository that the server reads.
        control: The server.
        held: Models that the server was seen to serve at looks before, brought up to date. Its own index names no model that has left the repository.

    Returns:
        What was done, one sentence each; empty where nothing had changed.

    Raises:
        ServingError: The repository cannot be read, or a model does not load; every other loop was seen to first.
        ServerUnavailable: The server does not answer.
    """
    there = set(place.names())
    serves = {(one["name"], str(one.get("version"))) for one in control.index() if one.get("state") == "READY"}
    done: list[str] = []
    failed: list[ServingError] = []
    for loop in sorted(name for name in there if "." not in name):
        told = points_to(place.read(f"{loop}/{CONFIG}") or "")
        if told is None or {(loop, told[1]), (told[0], told[1])} <= serves:
            continue
        try:
            control.load(told[0])
            control.load(loop)
        except ServingError as error:
            failed.append(error)
        else:
            done.append(f"'{loop}' answers with version {told[1]}")
    held |= {name for name, _ in serves}
    # The shortest names first: an ensemble goes before its steps.
    for name in sorted(held - there, key=len):
        control.unload(name)
        held.remove(name)
        done.append(f"'{name}' is gone from the repository and was unloaded")
    if failed:
        raise failed[0]
    return done


def follow(repository: str, url: str, ready: Path) -> None:
    """Look again and again, until SIGTERM or SIGINT.

    Args:
        repository: Folder or fsspec URL of the repository.
        url: HTTP address of the server; its key stands in the variable ``KFLOOP_TRITON_KEY``, where it has one.
        ready: File that is touched after each look that came to a good end, for probes; an old one is removed at the start.
    """
    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    ready.unlink(missing_ok=True)
    place = Place(repository)
    target = TargetConfig(
        kind="triton", url=url, repository=repository, key_env=KEY_VARIABLE if os.environ.get(KEY_VARIABLE) else None
    )
    said, held = "", set[str]()
    while not stop.is_set():
        try:
            # A connection of its own for each look: the server may have been started anew since.
            for sentence in look(place, RemoteControl(target, LOAD_SECONDS), held):
                _say(sentence)
            ready.touch()
            said = ""
        except KfloopError as error:
            if error.message != said:
                _say(f"error: {error.message}")
            said = error.message
        stop.wait(LOOK_SECONDS)


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()
