"""Runs a deployment in a process of its own and ends it, unannounced, at a stage: ``deploy_child.py WORKSPACE MODEL
DECISION STAGE``."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

from kfloop.components.deploy.deployment import run
from kfloop.core.sections import DeployConfig
from kfloop.core.workspace import Workspace

_, text, model, decision, wanted = sys.argv


def at(stage: str) -> None:
    """End like a killed process."""
    if stage == wanted:
        os.kill(os.getpid(), signal.SIGKILL)


with tempfile.TemporaryDirectory() as folder:
    run(
        DeployConfig(),
        model=Path(model),
        decision=Path(decision),
        out=Path(folder),
        workspace=Workspace.from_json(text),
        at=at,
    )
