"""Changes a champion in a process of its own and ends it, unannounced, at a stage: ``deploy_child.py WORKSPACE ACTION WHAT STAGE``.

ACTION is ``deploy`` or ``keep`` (WHAT is the decision's folder), ``approve`` or ``reject`` (WHAT is the evidence), or ``rollback``.
A stage that is never reached lets the action end; ``start:TIME`` begins at a unix time, so that two processes begin together.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from kfloop.components.deploy.approval import approve, reject
from kfloop.components.deploy.deployment import run
from kfloop.components.deploy.keeping import run as keep
from kfloop.components.deploy.rollback import rollback
from kfloop.core.sections import DeployConfig
from kfloop.core.workspace import Workspace
from kfloop.errors import KfloopError

_, text, action, what, wanted = sys.argv
workspace = Workspace.from_json(text)


def at(stage: str) -> None:
    """End like a killed process."""
    if stage == wanted:
        os.kill(os.getpid(), signal.SIGKILL)


def act(out: Path) -> str:
    """Do it; the sentence that tells how it ended."""
    if action in {"deploy", "keep"}:
        decision = Path(what)
        digest = json.loads((decision / "report.json").read_text())["challenger_digest"]
        step = run if action == "deploy" else keep
        model = Path(workspace.store) / "models" / digest
        return step(DeployConfig(), model=model, decision=decision, out=out, workspace=workspace, at=at).sentence
    if action == "rollback":
        return rollback(workspace, actor="ann", reason="why", at=at).sentence
    return {"approve": approve, "reject": reject}[action](workspace, what, actor="ann", reason="why", at=at).sentence


if wanted.startswith("start:"):
    time.sleep(max(0.0, float(wanted.removeprefix("start:")) - time.time()))
with tempfile.TemporaryDirectory() as folder:
    try:
        print(act(Path(folder)))  # noqa: T201 - the parent reads it
    except KfloopError as error:
        print(f"{error.code}: {error.message}")  # noqa: T201
        sys.exit(error.exit_code)
