"""How one start of the server differs from another: what section ``serve`` of the loop file says, and whether there is an edge."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kfloop.core.sections import ServeConfig
from kfloop.errors import ConfigError, KfloopError, nearest
from kfloop.serving.collector import Collector
from kfloop.serving.receiving import log_secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kfloop.core.sections import LogConfig
    from kfloop.core.workspace import Workspace

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class EdgePlace:
    """Where the validating port is.

    Attributes:
        host: Address that it listens on.
        port: Its port; 0 for a free one.
    """

    host: str = LOOPBACK
    port: int = 0


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What a supervisor is told beside its loop.

    Attributes:
        serve: Section ``serve`` of the loop file.
        edge: Where the validating port is; null without one.
    """

    serve: ServeConfig = field(default_factory=ServeConfig)
    edge: EdgePlace | None = None

    def to_json(self) -> str:
        """As one argument of a command line."""
        edge = None if self.edge is None else {"host": self.edge.host, "port": self.edge.port}
        return json.dumps({"serve": self.serve.model_dump(mode="json"), "edge": edge})

    @classmethod
    def from_json(cls, text: str) -> ServeOptions:
        """The options that ``to_json`` wrote."""
        raw = json.loads(text)
        return cls(
            serve=ServeConfig.model_validate(raw["serve"]),
            edge=None if raw["edge"] is None else EdgePlace(**raw["edge"]),
        )


def check_columns(workspace: Workspace, serve: ServeConfig) -> None:
    """Hold the private columns of ``serve.log`` against the served version, if there is one.

    Raises:
        ConfigError: It has no such column.
    """
    from kfloop.core.scoring import ENCODER
    from kfloop.core.signature import read_signature
    from kfloop.serving.repository import served

    wanted = (*serve.log.hash, *serve.log.drop)
    default, _ = served(workspace.repository, workspace.loop)
    if not wanted or default is None:
        return
    folder = workspace.repository / workspace.loop / str(default)
    encoder = json.loads((folder / ENCODER).read_text(encoding="utf-8"))
    ports = {port.name for port in read_signature(folder).inputs}
    whole = {"text"} if "text" in {encoder["modality"], encoder.get("of")} else set()
    # As serving/model/masking.py finds them: a row in bytes has members alone.
    known = {column["name"] for column in encoder.get("columns", [])} | whole | (ports - {"row"})
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"serve.log names column '{name}', but version {default} of model '{workspace.loop}' has no such column",
                hint=nearest(name, known),
                column=name,
            )


def monitor_reader(workspace: Workspace) -> Callable[[], int | None]:
    """What tells the collector how far the monitor has read.

    Returns:
        A function that gives the time of the newest row that was counted for the champion, in nanoseconds; null where the champion was
        never monitored, and 0, as if nothing was read, while the state cannot be asked.
    """

    def read_until() -> int | None:
        from sqlalchemy.exc import SQLAlchemyError

        from kfloop.core.state.database import exists, open_state

        if not workspace.state or not exists(workspace.state):
            return None
        try:
            state = open_state(workspace.state)
            champion = state.ledger.champion(workspace.loop)
            if champion is None:
                return None
            payload, _ = state.monitors.load(workspace.loop, champion.model_digest)
        except (KfloopError, SQLAlchemyError, OSError):
            return 0
        return None if payload is None else int(payload.get("newest_ns") or 0) or None

    return read_until


def open_collector(
    workspace: Workspace, log: LogConfig, *, folder: Path | None = None, address: Path | None = None
) -> Collector:
    """A collector for a loop, not yet started; its key lies in ``.kfloop/log.key``.

    Args:
        workspace: The loop's places.
        log: What is kept.
        folder: Where; the loop's folder for it when left out. Where the loop names a place for all servers, it is published there.
        address: Its socket; one of its own when left out.
    """
    secret = log_secret(workspace.kfloop_dir / "log.key") if log.hash else ""
    place, read_until = folder or workspace.collected, monitor_reader(workspace)
    publisher = None
    if workspace.requests:
        from kfloop.serving.log_publisher import Publisher
        from kfloop.serving.shared_log import SharedLog

        shared = SharedLog(workspace.requests, workspace.loop)
        publisher = Publisher(place, shared, days=log.days, read_until=read_until)
    return Collector(place, log, secret=secret, address=address, read_until=read_until, publisher=publisher)
