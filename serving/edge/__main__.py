"""``python -m kfloop.serving.edge SPEC``: the process of the edge, which ends with its owner."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from kfloop.core.sections import EdgeConfig
from kfloop.serving.edge.contract import Contracts
from kfloop.serving.edge.process import write_state
from kfloop.serving.edge.server import Gate, Listener

TELL_SECONDS = 0.5


async def run(spec: dict[str, Any]) -> None:
    """Listen until the owner ends or a signal comes."""
    config = EdgeConfig.model_validate(spec["config"])
    answers: dict[str, int] = dict(spec["answers"])

    def count(status: int) -> None:
        answers[str(status)] = answers.get(str(status), 0) + 1

    gate = Gate(spec["triton"], Contracts(Path(spec["repository"]), spec["model"], config.missing), config, count)
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, done.set)
    loop.add_reader(os.pidfd_open(spec["owner"]), done.set)  # readable when the owner is gone, also by kill -9
    server = await loop.create_server(Listener(gate, config), spec["host"], spec["port"], backlog=config.connections)
    host, port = server.sockets[0].getsockname()[:2]
    state = Path(spec["state"])
    told: dict[str, int] | None = None
    try:
        while not done.is_set():
            if told != answers:
                told = dict(answers)
                write_state(state, {"address": f"{host}:{port}", "pid": os.getpid(), "answers": told})
            try:
                await asyncio.wait_for(done.wait(), TELL_SECONDS)
            except TimeoutError:
                continue
    finally:
        write_state(state, {"address": f"{host}:{port}", "pid": os.getpid(), "answers": answers})
        server.close()
        await gate.close()


if __name__ == "__main__":
    try:
        asyncio.run(run(json.loads(sys.argv[1])))
    except OSError as error:  # the port is in use, say
        sys.stderr.write(f"{error.strerror or error}\n")
        sys.exit(1)
