"""The pytest fixture; name this module in your ``conftest.py``: ``pytest_plugins = ["kfloop.testing.plugin"]``."""

from __future__ import annotations

from pathlib import Path

import pytest

from kfloop.core.workspace import Workspace
from kfloop.testing.harness import Harness


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    """A harness in an empty workspace: state, store and registry are real, and gone after the test."""
    root = tmp_path / "loop"
    root.mkdir()
    workspace = Workspace(
        loop="test",
        root=root,
        state=f"sqlite:///{root}/.kfloop/state.db",
        store=str(root / ".kfloop" / "store"),
        mlflow=f"sqlite:///{root}/.kfloop/mlflow.db",
    )
    return Harness(tmp_path / "executor", workspace)
