"""Somebody else's Triton, told through its model control API and a repository that it reads.

Every version is a set of models of its own (``LOOP.v3`` and its steps), written once and never changed. Clients ask ``LOOP``, an ensemble whose one step is
the set of the champion: a change of champion is a new ``config.pbtxt`` of ``LOOP`` and one load, and its only version has the champion's number, so every
answer tells which one it came from. The champion before stays loaded, which makes a rollback as fast. ``.kfloop/target.json`` says what was done last.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from kfloop.components.deploy.targets.elsewhere import digests_of, made_for, package_of, refuse_rollout
from kfloop.components.deploy.targets.embedded import policy_now
from kfloop.components.deploy.targets.protocol import Verification, differs
from kfloop.errors import KfloopError, ServingError, StateError
from kfloop.serving.places import Place
from kfloop.serving.publishing import packaged, pointing, put_version, remove_set, set_name, sets_in
from kfloop.serving.remote import RemoteControl
from kfloop.serving.repository import CONFIG, add_version, check_side_by_side, set_versions

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.sections import DeployConfig
    from kfloop.core.workspace import Workspace
    from kfloop.serving.control import GoldenResult

RECORD = "target.json"
LOOK_SECONDS = 5.0


class ExternalTriton:
    """A Triton with explicit model control that kfloop does not own.

    Args:
        workspace: Places of the loop.
        config: The target, tolerance and patience.
    """

    def __init__(self, workspace: Workspace, config: DeployConfig) -> None:
        self._workspace, self._config, self._target = workspace, config, config.target
        self._model = workspace.loop
        self._place = Place(str(config.target.repository))

    def told(self) -> dict[str, Any] | None:
        """What it was told last, unless the server says that it does not have it: one that was started anew is told again."""
        local = policy_now(self._workspace)
        try:
            record = json.loads((self._workspace.kfloop_dir / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if local is None or record != self._record(local):
            return None
        # Where nobody answers, there is nobody to tell.
        return None if self.ready(int(local["default"])) is False else local

    def verify(self, version: int, package: Path) -> Verification:
        """Write the version's set, load it under its own name, and compare its golden answers.

        Raises:
            ServingError: The repository cannot be written, or the version does not load or answers wrongly.
            ServerUnavailable: The server does not answer.
            StateError: A model of another owner has its name, or the loop's.
        """
        workspace = self._workspace
        add_version(workspace.repository, self._model, version, package)
        held = list((policy_now(workspace) or {"versions": []})["versions"])
        check_side_by_side(workspace.repository, self._model, {*held, version})
        self._pointed()
        control = RemoteControl(self._target, self._config.timeout_seconds)
        control.server_version()  # nothing is written for a server that does not answer
        name = set_name(self._model, version)
        put_version(self._place, package, package.name, name, made_for(self._target, self._model, version))
        try:
            found = self._prove(control, name, version, package)
        except BaseException:
            if version not in held:
                with contextlib.suppress(KfloopError):  # what is left is overwritten or removed by the next version
                    self._drop(control, version)
            raise
        return Verification(
            version=version,
            where=f"server at {self._target.url}",
            n=found.n,
            max_abs_diff=found.max_abs_diff,
            tolerance=found.tolerance,
        )

    def serve(self, told: dict[str, Any]) -> None:
        """Let the champion answer to the loop's name, hold the champion before, and unload and remove every other version.

        Raises:
            ServingError: The server refused, or the champion answers wrongly under the loop's name; then who answered before answers.
            ServerUnavailable: The server does not answer; the next command tells it again.
            StateError: A roll-out goes on, or a package is gone.
        """
        refuse_rollout(self._target, told)
        control, default = RemoteControl(self._target, self._config.timeout_seconds), int(told["default"])
        for version in (default, *(other for other in told["versions"] if other != default)):
            digest, package = package_of(self._workspace, version)
            name = set_name(self._model, version)
            put_version(self._place, package, digest, name, made_for(self._target, self._model, version))
            control.load(name)
            control.wait_ready(name, version, self._config.timeout_seconds)
            if version == default:
                self._point(control, version, package)
        for version in set(sets_in(self._place, self._model)) - set(told["versions"]):
            self._drop(control, version)
        set_versions(self._workspace.repository, self._model, told["versions"], default)
        Place(str(self._workspace.kfloop_dir)).write(RECORD, json.dumps(self._record(told)).encode())

    def holds(self, version: int) -> bool:
        """Whether the server says that the version's set is ready."""
        versions = (self.told() or {"versions": []})["versions"]
        control = RemoteControl(self._target, LOOK_SECONDS)
        return version in versions and control.serves(set_name(self._model, version), version) is True

    def ready(self, version: int) -> bool | None:
        """Whether the server says that the loop's name answers with the version."""
        return RemoteControl(self._target, LOOK_SECONDS).serves(self._model, version)

    def switch(self, version: int, package: Path) -> bool:
        """Point the loop's name to the version's set, which is loaded."""
        control = RemoteControl(self._target, self._config.timeout_seconds)
        name = set_name(self._model, version)
        try:
            if not control.golden_of(name, version, package, self._config.tolerance).passed:
                return False
            self._point(control, version, package)
        except KfloopError:
            return False  # the ordinary way says what is wrong
        return True

    def _pointed(self) -> str | None:
        """The configuration of the loop's name in the repository; null where there is none yet.

        Raises:
            StateError: It is a model that kfloop did not write, or that of another loop with the same name.
        """
        found = self._place.read(f"{self._model}/{CONFIG}")
        if found is not None and not packaged(found):
            raise StateError(
                f"'{self._place.url}' holds a model called '{self._model}' that kfloop did not write",
                hint="it is never overwritten: give the loop another name, or a repository of its own",
            )
        if found is not None and packaged(found) not in digests_of(self._workspace):
            raise StateError(
                f"'{self._place.url}' serves package {packaged(found)[:12]} as '{self._model}', which this loop never had: another loop has the same name",
                hint=f"give one of them another name or repository; if its ledger was lost, remove '{self._model}' from the repository",
            )
        return found

    def _point(self, control: RemoteControl, version: int, package: Path) -> None:
        """Let the loop's name answer with a version; on failure it answers as before."""
        before, name = self._pointed(), set_name(self._model, version)
        text = pointing(self._place.read(f"{name}/{CONFIG}") or "", self._model, version)
        try:
            if text != before:
                self._place.write(f"{self._model}/{version}/.keep", b"")
                self._place.write(f"{self._model}/{CONFIG}", text.encode())
            self._prove(control, self._model, version, package)
        except BaseException:
            with contextlib.suppress(KfloopError):
                if before is None:
                    control.unload(self._model)
                    self._place.remove(self._model)
                elif before != text:
                    self._place.write(f"{self._model}/{CONFIG}", before.encode())
                    control.load(self._model)
            raise

    def _prove(self, control: RemoteControl, name: str, version: int, package: Path) -> GoldenResult:
        """Load a model, wait until it is ready, and compare its golden answers.

        Raises:
            ServingError: It does not load, or answers wrongly.
            ServerUnavailable: The server does not answer.
        """
        control.load(name)
        control.wait_ready(name, version, self._config.timeout_seconds)
        found = control.golden_of(name, version, package, self._config.tolerance)
        if not found.passed:
            where = f"server at {self._target.url} under the name '{name}'"
            raise ServingError(
                differs(self._model, version, where, found.max_abs_diff, found.tolerance),
                hint="the champion keeps serving; see that server's log",
                version=version,
            )
        return found

    def _drop(self, control: RemoteControl, version: int) -> None:
        """Unload a version and remove its set from the repository; the store still has its package."""
        names = sets_in(self._place, self._model).get(version, [])
        if not names:
            return
        main = self._place.read(f"{set_name(self._model, version)}/{CONFIG}")
        if main is not None and not packaged(main):
            return  # a model of somebody else
        for name in sorted(names, key=len):  # the ensemble first, then its steps
            with contextlib.suppress(ServingError):  # it was not loaded
                control.unload(name)
        remove_set(self._place, names)
        self._place.remove(f"{self._model}/{version}")

    def _record(self, told: dict[str, Any]) -> dict[str, Any]:
        return {"target": self._target.model_dump(mode="json"), "policy": told}
