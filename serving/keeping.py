"""Keeping one server in its last good state: what answers wrongly, or not at all, is loaded again, and a server that died is started again."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

from kfloop.core.scoring import EXTERNAL
from kfloop.errors import KfloopError, ServerUnavailable, ServingError
from kfloop.serving.control import Control
from kfloop.serving.endpoint import publish
from kfloop.serving.repository import instances, read_policy, served, set_versions
from kfloop.serving.server import Ports, Server, start_server
from kfloop.serving.watching import Backends

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.workspace import Workspace
    from kfloop.serving.endpoint import Endpoint

HEALTH_SECONDS = 3.0
LONGEST_HEALTH_SECONDS = 30.0
HEALTH_SHARE = 0.05  # of the time at most goes into golden requests: some models take seconds for one
LOAD_SECONDS = 60.0
GOLDEN_TOLERANCE = 1e-3


class Keeper:
    """Keeps one server in the state that ``served.json`` describes.

    Args:
        workspace: The loop's places.
        log_socket: Where the served models send what they answered.
        ports: Where the server listens; a restarted one is found where it was.
    """

    def __init__(self, workspace: Workspace, log_socket: str, ports: Ports) -> None:
        self._workspace = workspace
        self._log_socket = log_socket
        self._ports = ports
        self._log = workspace.kfloop_dir / "triton" / "server.log"
        self._server: Server | None = None
        self._backends: Backends | None = None
        self._next_look = 0.0
        self._failures = 0
        self._well: set[int] = set()  # versions that gave their golden answers when they were asked last
        self._proven: set[int] = set()  # those that ever did

    def start(self) -> Endpoint:
        """Start the server and load what was served last."""
        endpoint = self._launch()
        self._load_default()
        return endpoint

    def _launch(self) -> Endpoint:
        repository = self._workspace.repository
        server = start_server(repository, self._log, ports=self._ports, log_socket=self._log_socket)
        self._server = server
        self._backends = Backends(server.pid, repository / self._workspace.loop)
        self._well = set()
        http, grpc, metrics = (
            int(address.rsplit(":", 1)[1])
            for address in (server.endpoint.http, server.endpoint.grpc, server.endpoint.metrics)
        )
        self._ports = Ports(http=http, grpc=grpc, metrics=metrics)  # a restarted server is found where it was
        return server.endpoint

    def _load_default(self) -> None:
        repository, model = self._workspace.repository, self._workspace.loop
        told = read_policy(repository, model)
        if told is not None:
            default, beside = int(told["default"]), [told["beside"]] if told.get("beside") else []
            held = [*told["versions"], *beside]
            try:
                self._load(default)
            except ServingError as error:
                if held == [default]:
                    raise
                # At its start the server loads all of a model's versions or none: a broken one beside the champion would keep both away.
                sys.stderr.write(f"only version {default} is loaded, not all of {held}: {error.message}\n")
                set_versions(repository, model, [default], default)
                self._load(default)
            self._well = {default}
            self._proven.add(default)
        if self._backends is not None:
            self._backends.remember()

    def look(self) -> None:
        """Bring a dead server, or one whose backend died, back; health endpoints stay green when a backend dies."""
        if self._server is None or self._backends is None or not self._server.alive():
            self._restart()
            return
        if time.monotonic() < self._next_look and not self._backends.ended():
            return
        repository, model, asked = self._workspace.repository, self._workspace.loop, time.monotonic()
        default, held = served(repository, model)
        if default is None:
            return
        lost = self._backends.lost(self._well & set(held), instances(repository, model))
        bad = {version for version in held if version in lost or not self._golden_passes(version)}
        took = time.monotonic() - asked
        self._next_look = time.monotonic() + min(max(HEALTH_SECONDS, took / HEALTH_SHARE), LONGEST_HEALTH_SECONDS)
        if served(repository, model) != (default, held):
            return  # a deployment changed the versions while we asked
        fell, self._well = bad & self._well, set(held) - bad
        self._proven |= self._well
        self._mend(default, bad, fell)
        self._backends.remember()

    def _mend(self, default: int, bad: set[int], fell: set[int]) -> None:
        """Bring versions back; one that is held and never answered rightly is being verified by somebody, who withdraws it."""
        if default in bad and default not in self._proven and self._well:
            # Somebody names a version that cannot answer: the processes keep to the policy before, and a restart would take them away.
            sys.stderr.write(f"version {default} is to answer and gives no right answers; {sorted(self._well)} go on\n")
            self._reload(fell)
            return
        if default in bad:
            self._next_look = 0.0  # see soon whether it helped
            self._failures += 1
            if self._failures > 1:
                self._restart()
                return
            fell = fell | {default}
        else:
            self._failures = 0
        self._reload(fell)

    def stop(self) -> None:
        """Stop the server."""
        if self._backends is not None:
            self._backends.close()
        if self._server is not None:
            self._server.stop()

    def _restart(self) -> None:
        sys.stderr.write("the server ended, or its answers were wrong: it is started again\n")
        self.stop()
        time.sleep(
            min(2.0 ** min(self._failures, 5) * 0.1, 3.0)
        )  # back off: a server that dies at once is not hammered
        self._failures += 1
        try:
            publish(self._workspace, self._launch())  # first: whoever loads or unloads needs the new key
            self._load_default()
        except KfloopError as error:
            sys.stderr.write(f"the server could not be restarted: {error.message}\n")

    def _reload(self, versions: set[int]) -> None:
        """Load versions whose backends died again: the server loads only what changed, so the files' times are moved."""
        for version in versions:
            with contextlib.suppress(OSError):  # its folder is gone: loading it says so
                (self._workspace.repository / self._workspace.loop / str(version) / "model.py").touch()
        for version in sorted(versions):
            try:
                self._load(version)
                self._well.add(version)
            except KfloopError as error:
                sys.stderr.write(f"version {version} could not be loaded again: {error.message}\n")

    def _load(self, version: int) -> None:
        if self._server is None:
            raise ServerUnavailable("the server is not running")
        control = Control(self._server.endpoint, timeout=LOAD_SECONDS)
        try:
            control.load(self._workspace.loop)
        except ServingError as error:  # one that does not load must not keep the one that answers from answering
            if not control.is_ready(self._workspace.loop, version):
                raise
            sys.stderr.write(f"not every version was loaded: {error.message}\n")
        control.wait_ready(self._workspace.loop, version, LOAD_SECONDS)
        result = control.golden(self._workspace.loop, version, self._golden_file(version), tolerance=GOLDEN_TOLERANCE)
        if not result.passed:
            raise ServingError(
                f"version {version} answers wrongly: golden answers differ by {result.max_abs_diff:.3g}",
                hint="bring another version back with: kfloop rollback",
            )

    def _golden_passes(self, version: int) -> bool:
        if self._server is None:
            return False
        control = Control(self._server.endpoint, timeout=10.0)
        golden = self._golden_file(version)
        try:
            if golden.with_name(EXTERNAL).is_file():
                # An endpoint that is away is no reason to start this server anew, and asking it every few seconds would cost its price.
                control.alive(self._workspace.loop, version, golden)
                return True
            return control.golden(self._workspace.loop, version, golden, tolerance=GOLDEN_TOLERANCE).passed
        except KfloopError:
            return False

    def _golden_file(self, version: int) -> Path:
        return self._workspace.repository / self._workspace.loop / str(version) / "golden.npz"
